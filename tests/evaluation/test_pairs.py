"""Reference and segmentation on disk: what can be compared."""

import nibabel as nib
import numpy as np
import pytest

from pimms_tf.data.intensity import LabelMapping
from pimms_tf.data.labels import LabelRules
from pimms_tf.errors import InputError
from pimms_tf.evaluation import FilePair, check_pair, read_pair

AFFINE = np.diag([-2.0, 2, 3, 1])
DATA = np.zeros((6, 5, 4), np.uint8)
DATA[1:4, 2:4, 1:3] = 1
RULES = LabelRules(2)


def write(path, data=DATA, affine=AFFINE):
    nib.save(nib.Nifti1Image(data, affine), path)
    return path


@pytest.fixture
def pair(tmp_path):
    return FilePair("s1", write(tmp_path / "reference.nii.gz"), write(tmp_path / "inferred.nii.gz", 1 - DATA))


def refused(pair, message, by_headers=True):
    for check in [lambda: read_pair(pair, RULES), *([lambda: check_pair(pair)] if by_headers else [])]:
        with pytest.raises(InputError, match=message) as caught:
            check()
        assert str(caught.value).startswith("subject s1")


def test_both_are_turned_to_slices_that_are_axial(pair):
    turned = nib.as_closest_canonical(nib.load(pair.inferred))
    write(pair.inferred, np.asarray(turned.dataobj), turned.affine)
    check_pair(pair)
    found = read_pair(pair, RULES)
    np.testing.assert_array_equal(found.reference, DATA[::-1])
    np.testing.assert_array_equal(found.inferred, 1 - DATA[::-1])
    assert found.spacing_mm == (2, 2, 3)


def test_other_grids_are_refused_by_headers_alone_and_roundings_of_headers_are_not(pair):
    moved = AFFINE.copy()
    moved[1, 3] = 0.1
    write(pair.inferred, DATA, moved)
    check_pair(pair)
    moved[1, 3] = 10
    write(pair.inferred, DATA, moved)
    refused(pair, "are not on one grid")
    write(pair.inferred, DATA[:-1])
    refused(pair, "are not on one grid")


def test_one_file_by_any_name_is_refused(pair, tmp_path):
    refused(pair._replace(inferred=tmp_path / "x" / ".." / pair.reference.name), "are the same file")
    linked = tmp_path / "linked.nii.gz"
    linked.hardlink_to(pair.reference)
    refused(pair._replace(inferred=linked), "are the same file")
    (tmp_path / "soft.nii.gz").symlink_to(pair.reference)
    refused(pair._replace(inferred=tmp_path / "soft.nii.gz"), "are the same file")


def test_files_that_are_not_there_are_named(pair, tmp_path):
    refused(pair._replace(inferred=tmp_path / "gone.nii.gz"), "gone.nii.gz: does not exist")
    (tmp_path / "loop.nii.gz").symlink_to("loop.nii.gz")
    refused(pair._replace(reference=tmp_path / "loop.nii.gz"), "is a link to loop.nii.gz, where no file is")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (DATA * 255, r"label values \[255\] outside 0 to 1; set num_classes"),
        (DATA * 0.5, r"should hold whole numbers but has \(0.5\)"),
        (np.stack([DATA, DATA], axis=-1), "has 2 times or components"),
    ],
)
def test_references_with_values_that_training_refuses_are_refused(pair, data, message):
    write(pair.reference, data)
    refused(pair, f"reference.nii.gz.* {message}", by_headers=False)


def test_codes_become_classes_and_what_counts_neither_way_is_kept(pair):
    write(pair.reference, DATA * 255)
    codes = LabelRules(2, LabelMapping((0.0, 255.0), (0, 1)))
    np.testing.assert_array_equal(read_pair(pair, codes).reference, read_pair(pair, codes).inferred == 0)
    write(pair.inferred, DATA * 255)
    np.testing.assert_array_equal(read_pair(pair, codes).inferred, DATA[::-1])
    write(pair.reference, DATA * 2)
    assert read_pair(pair, LabelRules(2, ignored=(2,))).reference.max() == 2


def test_probabilities_of_every_class_are_read(pair):
    write(pair.inferred, np.stack([1 - 0.7 * DATA, 0.7 * DATA], axis=-1)[:, :, :, None].astype(np.float32))
    found = read_pair(pair, RULES)
    np.testing.assert_array_equal(found.inferred, DATA[::-1])
    np.testing.assert_allclose(found.foreground, 0.7 * DATA[::-1], atol=1e-6)
