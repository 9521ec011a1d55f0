"""A patient's scans in, a mask out: what of it depends on what."""

import shutil

import nibabel as nib
import numpy as np
import pytest

import pimms_tf
import pimms_tf.clinic.patient as of_a_patient
from pimms_tf.clinic.folder import named
from pimms_tf.data.images import read_image
from pimms_tf.errors import InputError


@pytest.fixture(scope="module")
def patient(scans, tmp_path_factory):
    """A folder with the three scans of one simulated patient, nameless."""
    folder = tmp_path_factory.mktemp("patient")
    for number, name in enumerate(("T2", "FLAIR", "T1")):
        shutil.copy(scans / f"sub04_{name}.nii.gz", folder / f"{number}.nii.gz")
    return folder


@pytest.fixture(scope="module")
def result(patient, segmenter):
    return pimms_tf.segment_patient(patient, segmenter, patient="sub04", register=False)


def test_the_mask_lies_on_the_grid_of_the_reference(patient, result):
    reference = read_image(patient / result.reference)
    assert result.mask.shape == reference.shape
    assert result.mask.data.dtype == np.int32
    np.testing.assert_allclose(result.mask.affine, reference.affine, rtol=0, atol=1e-6)
    assert result.probability.data.min() >= 0
    assert result.probability.data.max() <= 1
    low, high = result.volume_range_ml
    assert low <= result.volume_ml <= high


def test_names_and_order_change_no_voxel(patient, result, segmenter, tmp_path):
    renamed = [tmp_path / f"{name}.nii.gz" for name in "cab"]
    for number, path in enumerate(renamed):
        shutil.copy(patient / f"{number}.nii.gz", path)
    steps = []
    again = pimms_tf.segment_patient(renamed[::-1], segmenter, register=False, doing=steps.append)
    assert "segmenting 3 scans" in steps  # and what else takes time
    np.testing.assert_array_equal(again.probability.data, result.probability.data)
    assert [scan.scores for scan in again.scans] == [scan.scores for scan in result.scans]
    assert [scan.contribution for scan in again.scans] == [scan.contribution for scan in result.scans]


def test_the_result_is_what_the_segmenter_says_of_the_same_files(patient, result, segmenter):
    subject = segmenter.prepare(sorted(patient.iterdir()))
    probabilities = segmenter(subject, probabilities=True).image
    np.testing.assert_allclose(result.probability.data[..., 0], probabilities.data[..., 1], rtol=0, atol=1e-6)


def test_a_reference_that_is_none_of_the_scans_is_refused_with_their_names(patient, segmenter):
    with pytest.raises(InputError, match="reference 7.nii.gz is none of the scans .* 0.nii.gz"):
        pimms_tf.segment_patient(patient, segmenter, reference="7.nii.gz")


def test_a_scan_that_does_not_reach_the_reference_is_set_aside(patient, result, segmenter, tmp_path):
    image = nib.load(patient / "0.nii.gz")
    affine = nib.affines.from_matvec(np.eye(3), (1000, 0, 0)) @ image.affine
    nib.save(nib.Nifti1Image(np.asanyarray(image.dataobj), affine), tmp_path / "far.nii.gz")
    paths = [patient, tmp_path / "far.nii.gz"]
    found = pimms_tf.segment_patient(paths, segmenter, register=False, reference=result.reference)
    assert [scan.reason for scan in found.scans if scan.name == "far.nii.gz"] == [
        "does not reach the reference where its header puts it"
    ]
    np.testing.assert_array_equal(found.probability.data, result.probability.data)


def test_a_reference_that_is_set_aside_leaves_no_trace_unless_it_was_asked_for(
    patient, result, segmenter, tmp_path, monkeypatch
):
    shutil.copytree(patient, tmp_path / "p")
    image = nib.load(patient / result.reference)
    small = nib.Nifti1Image(np.asanyarray(image.dataobj)[:-1], image.affine)
    nib.save(small, tmp_path / "p" / "odd.nii.gz")  # fewer voxels, of the same size
    monkeypatch.setattr(of_a_patient, "foreign", lambda scans, scores, names, record: odd_among(names))
    monkeypatch.setattr(of_a_patient, "chosen_reference", lambda grids, *others: (smallest(grids), "it is small"))
    found = pimms_tf.segment_patient(tmp_path / "p", segmenter, register=False)
    monkeypatch.undo()
    without = pimms_tf.segment_patient(patient, segmenter, register=False, reference=found.reference)
    np.testing.assert_array_equal(found.probability.data, without.probability.data)
    assert found.reference_reason == "it is small; odd.nii.gz, chosen before, is odd"
    assert [(scan.name, scan.used) for scan in found.scans if not scan.used] == [("odd.nii.gz", False)]
    monkeypatch.setattr(of_a_patient, "foreign", lambda scans, scores, names, record: odd_among(names))
    asked = pimms_tf.segment_patient(tmp_path / "p", segmenter, register=False, reference="odd.nii.gz")
    assert asked.mask.shape == small.shape
    assert asked.reference_reason == "it was asked for, and gives no more than its grid"


def odd_among(names):
    return {place: "is odd" for place, name in enumerate(names) if name == "odd.nii.gz"}


def smallest(grids):
    return min(range(len(grids)), key=lambda place: grids[place].shape)


def test_headers_that_differ_are_used_and_the_difference_is_said(patient, segmenter, tmp_path):
    for number, path in enumerate(sorted(patient.iterdir())):
        image = nib.load(path)
        affine = image.affine.copy()
        affine[0, 3] += 0.01 * number
        near = nib.Nifti1Image(np.asanyarray(image.dataobj), affine)
        near.set_sform(affine, 1)
        near.set_qform(affine + np.outer([0, 0, 1, 0], [0, 0, 0, 2.0 * (number == 2)]), 1)
        nib.save(near, tmp_path / path.name)
    found = pimms_tf.segment_patient(tmp_path, segmenter, register=False, contributions=False)
    notes = {scan.name: " ".join(scan.notes) for scan in found.scans}
    assert "its sform and its qform lie up to 2 mm apart" in notes["2.nii.gz"]
    assert sum("mm off the reference's" in note for note in notes.values()) == 2


def test_a_copy_of_a_scan_is_taken_once_and_changes_nothing(patient, result, segmenter, tmp_path):
    shutil.copytree(patient, tmp_path / "p")
    copied = nib.load(patient / "1.nii.gz")
    turned = copied.as_reoriented(nib.io_orientation(np.diag((-1.0, 1, -1, 1))))  # as another program may store it
    assert turned.affine[0, 0] * copied.affine[0, 0] < 0
    nib.save(turned, tmp_path / "p" / "copy.nii")
    again = pimms_tf.segment_patient(tmp_path / "p", segmenter, register=False)
    assert [(one.name, one.reason) for one in again.set_aside] == [("copy.nii", "is a copy of 1.nii.gz")]
    assert named(again, str(tmp_path / "p" / "copy.nii")).name == "1.nii.gz"
    np.testing.assert_array_equal(again.probability.data, result.probability.data)


def test_the_mask_can_lie_on_voxels_of_any_size(patient, result, segmenter):
    found = pimms_tf.segment_patient(patient, segmenter, space_mm=4.0, register=False, contributions=False)
    assert found.mask.spacing_mm == pytest.approx((4, 4, 4))
    covered = np.array(found.mask.shape) * 4.0
    np.testing.assert_allclose(covered, np.array(result.mask.shape) * 6.0, rtol=0, atol=2.0)


def with_nan(path, is_nan):
    """Writes NaN into the file of a scan where `is_nan` says so of its voxels; returns how many per cent these are."""
    image = nib.load(path)
    data = image.get_fdata(dtype=np.float32)
    where = is_nan(data)
    data[where] = np.nan
    nib.save(nib.Nifti1Image(data, image.affine), path)
    return 100 * where.mean()


def test_background_of_nan_is_background_and_its_share_is_said(patient, result, segmenter, tmp_path):
    shutil.copytree(patient, tmp_path / "p")
    share = with_nan(tmp_path / "p" / "1.nii.gz", lambda data: data == 0)
    assert share > 10
    found = pimms_tf.segment_patient(tmp_path / "p", segmenter, register=False, contributions=False)
    np.testing.assert_array_equal(found.probability.data, result.probability.data)
    notes = {scan.name: scan.notes for scan in found.scans}
    assert notes["1.nii.gz"] == (f"{share:.2g} % of its voxels are NaN or infinite and count as background",)
    assert notes["0.nii.gz"] == ()


def test_what_is_lost_of_the_brain_is_said_and_a_scan_without_most_of_it_is_set_aside(patient, segmenter, tmp_path):
    shutil.copytree(patient, tmp_path / "p")
    with_nan(tmp_path / "p" / "2.nii.gz", lambda data: np.indices(data.shape)[1] > data.shape[1] * 0.7)
    with_nan(tmp_path / "p" / "1.nii.gz", lambda data: np.indices(data.shape)[0] > 4)
    found = pimms_tf.segment_patient(tmp_path / "p", segmenter, register=False, contributions=False)
    (part,) = [scan for scan in found.scans if scan.name == "2.nii.gz"]
    assert "% of the brain is NaN or infinite in it" in part.warnings[-1]
    (without,) = found.set_aside
    assert without.name == "1.nii.gz"
    assert without.reason.startswith("lacks the brain: ")
