"""Subjects: what goes in comes back on the same voxels; absent scans; one grid or a clear refusal; every bad input."""

import itertools
from dataclasses import dataclass, replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from scipy import ndimage

from pimms_tf.data.grids import Grid
from pimms_tf.data.images import read_image, write_image
from pimms_tf.data.intensity import LabelMapping, average_landmarks, foreground_masks, landmarks, standardise, whiten
from pimms_tf.data.learning import train_mapping
from pimms_tf.data.loading import SubjectLoader
from pimms_tf.data.subjects import restore
from pimms_tf.errors import InputError

GOLDENS = Path(__file__).parents[1] / "goldens" / "03_reading" / "nifti"
REAL_SCANS = Path(__file__).parents[2].parent / "shared" / "data" / "real"
AS_STORED = SubjectLoader(axcodes=None, pixdim_mm=None, whitening=False)
SHAPE = (9, 8, 7)


def an_affine(axcodes="RAS", spacing=(1.0, 1.0, 1.0), degrees=0, origin=(-30.0, 20.0, 10.0)):
    a = np.deg2rad(degrees)
    turn = np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]])
    tilt = np.array([[1, 0, 0], [0, np.cos(a / 2), -np.sin(a / 2)], [0, np.sin(a / 2), np.cos(a / 2)]])
    directions = np.zeros((3, 3))
    for axis, (target, sign) in enumerate(nib.orientations.axcodes2ornt(tuple(axcodes))):
        directions[int(target), axis] = sign
    return nib.affines.from_matvec(turn @ tilt @ directions * np.array(spacing), origin)


def save(path, data, affine=None):
    nib.save(nib.Nifti1Image(np.asarray(data), an_affine() if affine is None else affine), path)
    return path


def head(shape=SHAPE, seed=0):
    """Positive values in the middle, zero around."""
    volume = np.zeros(shape, np.float32)
    inner = tuple(slice(2, length - 2) for length in shape)
    volume[inner] = np.random.default_rng(seed).uniform(50, 150, volume[inner].shape)
    return volume


@pytest.fixture
def files(tmp_path):
    """T1 and FLAIR, a label and a prior, all on one grid."""
    label = np.zeros(SHAPE, np.uint8)
    label[3:5, 3:6, 2:5] = 1
    return {
        "T1": save(tmp_path / "T1.nii.gz", head(seed=1)),
        "FLAIR": save(tmp_path / "FLAIR.nii.gz", head(seed=2)),
        "label": save(tmp_path / "label.nii.gz", label),
        "sampler": save(tmp_path / "prior.nii.gz", head(seed=3)),
    }


def voxels(path):
    return np.asarray(nib.load(path).dataobj)


# Loading


def test_a_subject_is_what_its_files_hold(files):
    subject = AS_STORED.load(files, "s1")
    assert subject.subject_id == "s1"
    np.testing.assert_array_equal(subject.scans, np.stack([voxels(files["T1"]), voxels(files["FLAIR"])], axis=-1))
    np.testing.assert_array_equal(subject.label, voxels(files["label"]))
    np.testing.assert_array_equal(subject.weight, voxels(files["sampler"]))
    assert (subject.scans.dtype, subject.label.dtype, subject.weight.dtype) == (np.float32, np.int32, np.float32)
    assert (subject.valid.tolist(), subject.modality.tolist()) == ([True, True], [0, 1])
    assert (subject.valid.dtype, subject.modality.dtype) == (bool, np.int32)
    np.testing.assert_allclose(subject.affine, an_affine())


def test_slots_follow_the_given_order(files):
    loader = SubjectLoader(None, None, whitening=False, scans=("FLAIR", "T1"), modality=(2, 0))
    subject = loader.load(files)
    np.testing.assert_array_equal(subject.scans[..., 0], voxels(files["FLAIR"]))
    assert subject.modality.tolist() == [2, 0]


def test_scans_are_oriented_resampled_padded_then_normalised(files):
    loader = SubjectLoader(("L", "P", "S"), (0.5, 1.0, 1.0), (1, 2, 0), foreground="threshold_plus")
    subject = loader.load(files)
    assert subject.scans.shape == (20, 12, 7, 2)
    assert subject.label.shape == subject.weight.shape == (20, 12, 7)
    assert nib.aff2axcodes(subject.affine) == ("L", "P", "S")
    assert subject.padding == ((1, 1), (2, 2), (0, 0))
    corner = subject.affine @ [1, 2, 0, 1]  # the first voxel inside the padding is the file's last along x and y
    np.testing.assert_allclose(corner, an_affine() @ [8, 7, 0, 1], atol=1e-6)


def test_what_niftynet_zeroed_is_zero_on_the_way_there_and_back(tmp_path):
    # 26 → 23 voxels along x, and 23 → 26 on the way back, of which only the first loses its far plane.
    volume = np.random.default_rng(4).uniform(1, 2, (26, 8, 7)).astype(np.float32)
    paths = {"T1": save(tmp_path / "T1.nii.gz", volume, np.eye(4))}
    paths["label"] = save(tmp_path / "label.nii.gz", np.ones_like(volume), np.eye(4))
    options = {"axcodes": None, "pixdim_mm": (26 / 23, 1.0, 1.0), "whitening": False}
    mended, zeroed = (SubjectLoader(**options, **other).load(paths) for other in ({}, {"far_plane": "zeroed"}))
    expected = ndimage.zoom(volume, (23 / 26, 1, 1), order=3)
    assert not expected[-1].any()
    np.testing.assert_allclose(zeroed.scans[..., 0], expected, rtol=1e-5)
    np.testing.assert_array_equal(zeroed.scans[:-1], mended.scans[:-1])
    assert mended.scans[-1].min() > 0.5
    assert not zeroed.label[-1].any()
    assert mended.label[-1].all()
    back = replace(zeroed, scans=np.ones((26, 8, 7, 1)), original=Grid((23, 8, 7), np.diag([26 / 23, 1, 1, 1])))
    back = replace(back, affine=np.diag([26 / 23 * 22 / 25, 1, 1, 1]))
    assert not restore(back, np.ones((26, 8, 7), np.int32)).data[-1].any()
    assert restore(replace(back, far_plane="interpolated"), np.ones((26, 8, 7), np.int32)).data.all()


def test_normalisation_is_histogram_then_whitening_over_the_fused_foreground(files):
    mapping = {"T1": np.linspace(0, 100, 13), "FLAIR": np.linspace(0, 100, 13) ** 1.1}
    loader = SubjectLoader(None, None, mapping=mapping, foreground="threshold_plus", fusion="or")
    raw = AS_STORED.load(files).scans
    masks = foreground_masks(raw, "threshold_plus", "or")
    for slot, name in enumerate(("T1", "FLAIR")):
        expected = whiten(standardise(raw[..., slot], masks[..., slot], mapping[name]), masks[..., slot])
        np.testing.assert_array_equal(loader.load(files).scans[..., slot], expected)


def test_without_a_foreground_all_voxels_count_padding_included(files):
    subject = SubjectLoader(None, None, (3, 3, 3)).load(files)
    np.testing.assert_allclose(subject.scans.mean(axis=(0, 1, 2)), 0, atol=1e-6)
    np.testing.assert_allclose(subject.scans.std(axis=(0, 1, 2)), 1, atol=1e-5)


def test_each_scan_is_contiguous_in_memory(files):
    scans = AS_STORED.load(files).scans
    assert all(scans[..., slot].flags.c_contiguous for slot in (0, 1))


def test_padding_to_a_size_replaces_padding(files):
    subject = SubjectLoader(None, None, (9, 9, 9), padding_to=(12, 8, 4)).load(files)
    assert subject.scans.shape == (12, 8, 7, 2)
    assert subject.padding == ((1, 2), (0, 0), (0, 0))


def test_times_of_a_single_section_are_its_scans(tmp_path):
    times = np.stack([head(seed=1), np.zeros(SHAPE, np.float32), head(seed=2)], axis=-1)
    subject = AS_STORED.load({"scans": save(tmp_path / "times.nii.gz", times)})
    np.testing.assert_array_equal(subject.scans, times)
    assert subject.valid.tolist() == [True, False, True]


def test_a_slice_is_a_volume_of_one_voxel_in_z(tmp_path):
    path = save(tmp_path / "slice.nii.gz", head()[:, :, 3:4], an_affine("LPS", (1, 1, 5)))
    subject = SubjectLoader(whitening=False).load({"T1": path})
    assert subject.scans.shape == (9, 8, 1, 1)


def test_sections_may_have_settings_of_their_own(files, tmp_path):
    files["label"] = save(
        tmp_path / "turned.nii.gz", voxels(files["label"])[::-1], an_affine("LAS", origin=(-22, 20, 10))
    )
    loader = SubjectLoader(axcodes={"T1": None, "FLAIR": None, "label": ("R", "A", "S")}, pixdim_mm={}, weight=None)
    subject = loader.load(files)
    np.testing.assert_array_equal(subject.label[::-1], voxels(files["label"]))


# Absent scans


@pytest.mark.parametrize("how", ["missing", "zero"])
@pytest.mark.parametrize("foreground", [None, "threshold_plus", "otsu_plus"])
def test_an_absent_scan_stays_zero_through_all_normalisation(how, foreground, files):
    if how == "missing":
        del files["T1"]
    else:
        save(files["T1"], np.zeros(SHAPE, np.uint8))
    mapping = {"T1": np.linspace(0, 100, 13), "FLAIR": np.linspace(0, 100, 13)}
    subject = SubjectLoader(
        padding=(2, 2, 2),
        pixdim_mm=(0.7, 0.7, 0.7),
        mapping=mapping,
        foreground=foreground,
        scans=("T1", "FLAIR", "T2"),
    ).load(files)
    assert subject.valid.tolist() == [False, True, False]
    assert not subject.scans[..., [0, 2]].any()
    assert subject.scans[..., 1].any()
    assert subject.modality.tolist() == [0, 1, 2]


def test_a_blank_file_need_not_lie_on_the_grid(files):
    save(files["T1"], np.zeros((2, 2, 2), np.uint8))
    assert AS_STORED.load(files).valid.tolist() == [False, True]


def test_the_others_do_not_depend_on_an_absent_scan(files):
    both = SubjectLoader(scans=("T1", "FLAIR")).load(files).scans[..., 1]
    del files["T1"]
    np.testing.assert_array_equal(SubjectLoader(scans=("T1", "FLAIR")).load(files).scans[..., 1], both)


def test_empty_slots_can_be_a_class_of_their_own(files):
    loader = SubjectLoader(None, None, scans=("T1", "T2", "FLAIR"), null_class=True)
    assert loader.load(files).modality.tolist() == [1, 0, 3]


def test_a_tiny_image_can_say_what_each_slot_shows(files, tmp_path):
    files["modalities"] = save(tmp_path / "modalities.nii.gz", np.array([[[2, 0, 1]]], np.uint8), np.eye(4))
    loader = SubjectLoader(None, None, scans=("T1", "T2", "FLAIR"), modality_image="modalities")
    assert loader.load(files).modality.tolist() == [2, 0, 1]
    del files["modalities"]
    assert loader.load(files).modality.tolist() == [-1, -1, -1]


def test_the_foreground_of_a_resampled_stripped_scan_is_the_brain(tmp_path):
    scan = np.zeros((40, 40, 40), np.float32)
    scan[14:26, 14:26, 14:26] = np.random.default_rng(0).uniform(50, 150, (12, 12, 12))
    files = {"T1": save(tmp_path / "T1.nii.gz", scan, an_affine(spacing=(1.2, 1.2, 1.2)))}
    inside, everywhere = (
        SubjectLoader(foreground="threshold_plus", keep_zeros=kept).load(files).scans.max() for kept in (True, False)
    )
    native = whiten(scan, foreground_masks(scan[..., np.newaxis], "threshold_plus", "and")[..., 0]).max()
    assert abs(inside / native - 1) < 0.5  # random voxels overshoot
    assert everywhere > 2 * inside  # the ripple counts as brain, so that the deviation is that of the background


# The way back


@pytest.mark.parametrize("axcodes", ["RAS", "LPS", "PIR", "SLA"])
@pytest.mark.parametrize("degrees", [0, 25, 45])
@pytest.mark.parametrize("loader", [SubjectLoader(), SubjectLoader(("A", "S", "R"), (0.6, 0.9, 0.7), (3, 0, 2))])
def test_labels_come_back_to_the_voxels_they_came_from(axcodes, degrees, loader, tmp_path):
    affine = an_affine(axcodes, (1.0, 1.6, 2.5), degrees)
    label = np.random.default_rng(0).integers(0, 4, SHAPE).astype(np.uint8)
    files = {
        "T1": save(tmp_path / "T1.nii.gz", head() + 1, affine),
        "label": save(tmp_path / "label.nii.gz", label, affine),
    }
    subject = loader.load(files)
    assert subject.scans.shape[:3] == subject.label.shape
    path = tmp_path / "out.nii.gz"
    write_image(restore(subject, subject.label), path, like=subject.original)
    assert nib.load(path).get_data_dtype() == np.int32
    np.testing.assert_array_equal(voxels(path), label)
    np.testing.assert_allclose(nib.load(path).affine, nib.load(files["T1"]).affine, atol=1e-6)
    scan, mask = sitk.ReadImage(str(files["T1"])), sitk.ReadImage(str(path))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(mask), label.transpose(2, 1, 0))
    for corner in itertools.product(*((0, length - 1) for length in SHAPE)):
        np.testing.assert_allclose(
            mask.TransformIndexToPhysicalPoint(corner), scan.TransformIndexToPhysicalPoint(corner), atol=1e-4
        )


def test_probabilities_come_back_with_their_channels(files):
    subject = SubjectLoader(pixdim_mm=(0.5, 0.5, 0.5), padding=(1, 1, 1)).load(files)
    probability = np.zeros((*subject.label.shape, 3), np.float32)
    probability[..., 1] = 1
    image = restore(subject, probability, order=3)
    assert image.data.shape == (*SHAPE, 3)
    np.testing.assert_allclose(image.data[..., 1], 1, atol=1e-5)


def test_a_volume_of_another_shape_does_not_come_back(files):
    subject = AS_STORED.load(files)
    with pytest.raises(ValueError, match=r"volume \(9, 8, 8\) is not on the prepared grid \(9, 8, 7\)"):
        restore(subject, np.zeros((9, 8, 8)))


# Grids


@pytest.fixture
def moved(tmp_path):
    """A ball seen on two grids: isotropic, and thick tilted slices; and its label on the first."""

    def ball(affine, shape):
        place = np.einsum("ij,xyzj->xyzi", affine[:3, :3], np.moveaxis(np.indices(shape), 0, -1)) + affine[:3, 3]
        return np.clip(12 - np.linalg.norm(place, axis=-1), 0, 4).astype(np.float32)

    fine, thick = an_affine("LPS", (1, 1, 1), 0, (20, 20, -20)), an_affine("RAS", (1.5, 1.5, 3), 20, (-25, -22, -28))
    return {
        "T1": save(tmp_path / "T1.nii.gz", ball(fine, (40, 41, 42)), fine),
        "FLAIR": save(tmp_path / "FLAIR.nii.gz", ball(thick, (34, 33, 20)), thick),
        "label": save(tmp_path / "label.nii.gz", (ball(fine, (40, 41, 42)) > 0).astype(np.uint8), fine),
    }


def overlap(one, other):
    return 2 * np.count_nonzero(one & other) / (np.count_nonzero(one) + np.count_nonzero(other))


@pytest.mark.parametrize(
    ("reference", "shape"), [("T1", (40, 41, 42)), ("FLAIR", (34, 33, 20)), ("label", (40, 41, 42))]
)
def test_a_reference_brings_all_scans_onto_its_grid_and_results_back_to_it(reference, shape, moved, tmp_path):
    loader = SubjectLoader(whitening=False, reference=reference)
    subject = loader.load(moved)
    present = subject.scans > 2
    assert overlap(present[..., 0], present[..., 1]) > 0.9
    assert overlap(subject.scans[..., 0] > 0, subject.label > 0) > 0.8
    write_image(restore(subject, subject.label), tmp_path / "out.nii.gz")
    assert nib.load(tmp_path / "out.nii.gz").shape == shape
    np.testing.assert_allclose(nib.load(tmp_path / "out.nii.gz").affine, nib.load(moved[reference]).affine, atol=1e-6)


def test_one_grid_in_two_orientations_is_one_grid(files, tmp_path):
    turned = save(tmp_path / "turned.nii.gz", voxels(files["FLAIR"])[::-1], an_affine("LAS", origin=(-22, 20, 10)))
    expected = SubjectLoader().load(files)
    subject = SubjectLoader().load(files | {"FLAIR": turned})
    np.testing.assert_array_equal(subject.scans, expected.scans)


def test_scans_of_different_shapes_are_refused_with_the_remedy(files, tmp_path):
    files["FLAIR"] = save(tmp_path / "larger.nii.gz", head((9, 8, 8)))
    with pytest.raises(InputError, match=r"as in \[PIMMS\] reference = T1") as refusal:
        SubjectLoader().load(files, "s7")
    for part in (
        "subject s7",
        str(files["T1"]),
        str(files["FLAIR"]),
        "shape (9, 8, 7)",
        "shape (9, 8, 8)",
        "affine (1, 0",
    ):
        assert part in str(refusal.value)


@pytest.mark.parametrize("name", ["FLAIR", "label", "sampler"])
@pytest.mark.parametrize(
    "affine", [an_affine(origin=(-29.5, 20, 10)), an_affine(degrees=3), an_affine(spacing=(1, 1, 1.1)), np.eye(4)]
)
def test_files_in_different_places_are_refused_with_the_remedy(name, affine, files):
    save(files[name], voxels(files[name]), affine)
    with pytest.raises(InputError, match=rf"\[T1\] .* and \[{name}\] .* lie on different grids, .* reference = T1"):
        SubjectLoader().load(files, "s7")


def test_headers_that_differ_by_rounding_are_one_grid(files):
    save(files["FLAIR"], voxels(files["FLAIR"]), an_affine(origin=(-30.0004, 20, 10), spacing=(1, 1, 1.0004)))
    assert SubjectLoader().load(files).valid.all()


def test_the_two_files_niftynet_refused_together_are_refused():
    files = {"T1": GOLDENS / "img_las_aniso.nii.gz", "T2": GOLDENS / "img_ras_iso.nii.gz"}
    with pytest.raises(InputError, match="lie on different grids"):
        AS_STORED.load(files)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (
            {"axcodes": {"T1": ("R", "A", "S"), "FLAIR": ("L", "A", "S")}, "pixdim_mm": None},
            r"axcodes \('L', 'A', 'S'\) and pixdim unset make it LAS of .*, and there axcodes \('R', .* it RAS of ",
        ),
        (
            {"axcodes": None, "pixdim_mm": {"T1": (1, 1, 1), "FLAIR": (2, 2, 2)}},
            r"axcodes unset and pixdim \(2, 2, 2\) make it .* and there axcodes unset and pixdim \(1, 1, 1\)",
        ),
    ],
)
def test_sections_prepared_differently_are_refused(settings, says, files):
    with pytest.raises(InputError, match=rf"s7, section \[FLAIR\]: lies on one grid with \[T1\], but here {says}"):
        SubjectLoader(**settings).load(files, "s7")


def test_a_reference_without_a_file_is_refused(files):
    with pytest.raises(InputError, match=r"subject s7 has no file for section \[T2\], which \[PIMMS\] reference names"):
        SubjectLoader(reference="T2").load(files, "s7")


# Labels


def test_codes_are_mapped_and_unlisted_ones_reported(files, caplog):
    save(files["label"], voxels(files["label"]) * 7)
    mapped = SubjectLoader(label_mapping=LabelMapping((0, 7), (0, 1)), num_classes=2).load(files, "s7")
    assert np.count_nonzero(mapped.label) == 18
    assert not caplog.records
    SubjectLoader(label_mapping=LabelMapping((0, 3), (0, 1))).load(files, "s7")
    assert "subject s7, section [label]" in caplog.text
    assert "label values (7.0,) that the mapping does not list" in caplog.text


@pytest.mark.parametrize(("value", "message"), [(2, r"\[2\] outside 0 to 1"), (-1, r"\[-1\] outside 0 to 1")])
def test_label_values_that_are_no_classes_are_refused(value, message, files):
    save(files["label"], voxels(files["label"]).astype(np.int16) * value)
    with pytest.raises(InputError, match=r"subject s7, section \[label\] .*" + message):
        SubjectLoader(num_classes=2).load(files, "s7")


def test_a_label_of_fractions_is_refused(files):
    save(files["label"], voxels(files["label"]) * np.float32(0.25))
    with pytest.raises(InputError, match=r"\[label\] .* should hold whole numbers but has \(0.25\); give a label map"):
        SubjectLoader().load(files)


def test_a_label_that_is_interpolated_is_rounded(files):
    subject = SubjectLoader(pixdim_mm=(0.7, 0.7, 0.7), orders={"label": 1}).load(files)
    assert set(np.unique(subject.label)) == {0, 1}


def test_a_missing_label_is_none_unless_it_is_needed(files):
    del files["label"]
    assert SubjectLoader().load(files).label is None
    with pytest.raises(InputError, match=r"subject s7 has no label \(section \[label\]\), which training needs"):
        SubjectLoader(require_label=True).load(files, "s7")


def test_without_its_section_a_label_or_a_weight_is_not_read(files):
    subject = SubjectLoader(label=None, weight=None, scans=("T1",)).load(files)
    assert subject.label is None
    assert subject.weight is None


# What cannot be used


def test_a_subject_without_any_scan_is_refused(files):
    save(files["FLAIR"], np.zeros(SHAPE, np.uint8))
    del files["T1"]
    with pytest.raises(InputError, match=r"subject s7 has no scan with a voxel other than 0: \[FLAIR\] .*FLAIR.nii.gz"):
        SubjectLoader().load(files, "s7")
    with pytest.raises(InputError, match="the subject has no scan .* no files at all"):
        SubjectLoader().load({})


@pytest.mark.parametrize("name", ["T1", "label", "sampler"])
def test_a_file_that_cannot_be_read_is_named_with_its_subject(name, files):
    files[name].write_bytes(b"")
    with pytest.raises(InputError, match=rf"^subject s7, section \[{name}\], {files[name]}: is empty \(0 bytes\)"):
        SubjectLoader().load(files, "s7")


def test_a_scan_without_foreground_is_named_with_its_subject(files):
    save(files["FLAIR"], -voxels(files["FLAIR"]))
    with pytest.raises(InputError, match="^subject s7: scan 2 of 2: foreground_type threshold_plus leaves no voxel"):
        SubjectLoader(foreground="threshold_plus").load(files, "s7")


def test_a_number_of_modalities_other_than_that_of_the_scans_is_refused(files, tmp_path):
    with pytest.raises(InputError, match=r"modality gives 3 classes, \[0, 1, 2\], for 2 scans"):
        SubjectLoader(modality=(0, 1, 2)).load(files)
    files["modalities"] = save(tmp_path / "modalities.nii.gz", np.zeros((1, 1, 9), np.uint8), np.eye(4))
    with pytest.raises(InputError, match=r"section \[modalities\] .* gives 9 classes, .* for 2 scans"):
        SubjectLoader(modality_image="modalities").load(files)


@pytest.mark.parametrize(
    ("name", "message"), [("T1", "only if it is the one section"), ("label", "give a file of one")]
)
def test_times_are_refused_where_one_volume_is_meant(name, message, files):
    save(files[name], np.stack([head(), head()], axis=-1))
    with pytest.raises(InputError, match=rf"section \[{name}\] .* has 2 times or components.*{message}"):
        SubjectLoader().load(files)


def test_landmarks_for_other_sections_only_are_refused(files):
    with pytest.raises(InputError, match=r"landmarks for T2, but none for section \[T1\]"):
        SubjectLoader(mapping={"T2": np.linspace(0, 100, 13)}).load(files)


def test_an_order_that_forbids_interpolation_is_named_with_its_file(files):
    with pytest.raises(InputError, match=r"section \[label\], .*: interp_order is -1, never interpolate"):
        SubjectLoader(pixdim_mm=(2, 2, 2), orders={"label": -1}).load(files)


# Training of landmarks


@dataclass
class Files:
    subject_id: str
    images: dict[str, Path]


def test_a_mapping_is_the_average_over_present_scans_within_their_own_foreground(tmp_path):
    scans = [head(seed=seed) * (seed + 1) for seed in range(3)]
    subjects = [
        Files(f"s{number}", {"T1": save(tmp_path / f"{number}.nii.gz", scan)}) for number, scan in enumerate(scans)
    ]
    subjects[1].images["T2"] = save(tmp_path / "blank.nii.gz", np.zeros(SHAPE, np.uint8))
    loader = SubjectLoader(None, None, (4, 4, 4), foreground="threshold_plus", scans=("T1", "T2"))
    mapping = train_mapping(loader, subjects)
    masks = [foreground_masks(scan[..., np.newaxis], "threshold_plus", "and")[..., 0] for scan in scans]
    expected = average_landmarks(
        [landmarks(scan, mask, loader.cutoff) for scan, mask in zip(scans, masks, strict=True)]
    )
    assert list(mapping) == ["T1"]
    np.testing.assert_allclose(mapping["T1"], expected)


# Real scans


def real(folder, *names):
    paths = {name: REAL_SCANS / folder / f"{name}.nii.gz" for name in names}
    missing = [str(path) for path in paths.values() if not path.exists()]
    if missing:
        pytest.skip(f"real scans are not here: {', '.join(missing)}")
    return paths


@pytest.mark.parametrize(
    "reference", ["T1", pytest.param("T2", marks=pytest.mark.slow), pytest.param("FLAIR", marks=pytest.mark.slow)]
)
def test_a_pattern_drawn_on_any_of_three_native_grids_survives_the_round_trip(reference, tmp_path):
    files = real("ms_native_p04", "T1", "T2", "FLAIR")
    native = read_image(files[reference])
    pattern = np.zeros(native.shape, np.int16)
    pattern[40:200:9, 60:180, 10:30] = 1
    pattern[100:140, 100:140, 20:24] = 2
    files["label"] = save(tmp_path / "label.nii.gz", pattern, native.affine)
    finer = tuple(0.9 * step for step in native.spacing_mm)
    orders = {"T1": 1, "T2": 1, "FLAIR": 1}
    subject = SubjectLoader(pixdim_mm=finer, reference=reference, orders=orders).load(files)
    assert subject.valid.all()
    path = tmp_path / "out.nii.gz"
    write_image(restore(subject, subject.label), path)
    np.testing.assert_array_equal(voxels(path), pattern)
    np.testing.assert_allclose(nib.load(path).affine, nib.load(files[reference]).affine, atol=1e-6)
    scan, mask = sitk.ReadImage(str(files[reference])), sitk.ReadImage(str(path))
    last = [length - 1 for length in native.shape]
    np.testing.assert_allclose(
        mask.TransformIndexToPhysicalPoint(last), scan.TransformIndexToPhysicalPoint(last), atol=1e-3
    )


def test_scans_on_three_native_grids_are_refused_without_a_reference():
    files = real("ms_native_p04", "T1", "T2", "FLAIR")
    with pytest.raises(InputError, match=r"\[T1\] .* and \[T2\] .* lie on different grids"):
        SubjectLoader(pixdim_mm=None).load(files, "p04")


def test_lesions_of_a_real_patient_come_back_voxel_by_voxel():
    files = real("ms_cs_p07", "T1", "T2", "FLAIR", "lesion")
    loader = SubjectLoader(padding=(8, 8, 0), label="lesion", foreground="threshold_plus", num_classes=2)
    subject = loader.load(files, "p07")
    np.testing.assert_array_equal(restore(subject, subject.label).data[..., 0], voxels(files["lesion"]))
    inside = foreground_masks(
        np.stack([voxels(files[name]) for name in ("T1", "T2", "FLAIR")], -1), "threshold_plus", "and"
    )
    whitened = restore(subject, subject.scans, order=3).data[inside[..., 0]].astype(np.float64)
    np.testing.assert_allclose(whitened.mean(axis=0), 0, atol=1e-4)
    np.testing.assert_allclose(whitened.std(axis=0), 1, atol=1e-4)


@pytest.mark.parametrize("foreground", [None, "threshold_plus"])
def test_a_scan_without_contrast_is_refused_where_whitening_would_make_it_zero(files, foreground):
    save(files["T1"], np.full(SHAPE, 7, np.int16))
    with pytest.raises(
        InputError, match=r"section \[T1\].* is 7 in every voxel of the foreground, so it shows nothing"
    ):
        SubjectLoader(axcodes=None, pixdim_mm=None, foreground=foreground, fusion="multi").load(files)
    assert AS_STORED.load(files).valid.all()


def test_several_times_in_one_of_several_files_are_found_from_headers(files):
    save(files["FLAIR"], np.stack([head(), head()], axis=-1))
    with pytest.raises(InputError, match=r"section \[FLAIR\].* has 2 times or components"):
        AS_STORED.prepared_shape(files)


def test_scans_standardised_before_are_remarked_on_or_shifted(tmp_path, caplog):
    raw = np.zeros((10, 11, 12), np.float32)
    raw[2:8, 2:8, 2:8] = np.random.default_rng(0).uniform(100, 300, (6, 6, 6))
    save(tmp_path / "raw.nii.gz", raw)
    save(tmp_path / "z.nii.gz", (raw - raw.mean()) / raw.std())
    files = {name: {"T1": tmp_path / f"{name}.nii.gz"} for name in ("raw", "z")}
    as_niftynet = SubjectLoader(foreground="threshold_plus")
    expected = as_niftynet.load(files["raw"])
    assert caplog.text == ""
    as_niftynet.load(files["z"], "s1")
    assert "subject s1: much of [T1] lies below 0, as after a standardisation" in caplog.text
    caplog.clear()
    shifting = SubjectLoader(foreground="threshold_plus", zero_background=True)
    np.testing.assert_array_equal(shifting.load(files["raw"]).scans, expected.scans)
    np.testing.assert_allclose(shifting.load(files["z"]).scans, expected.scans, atol=1e-5)
    assert caplog.text == ""
