"""Images: orientations and shapes undone, headers of every kind, every recorded case, and what cannot be read."""

import gzip
import itertools
import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from scipy.io import netcdf_file

from pimms_tf.data.formats import repaired_affine
from pimms_tf.data.images import (
    Grid,
    Image,
    read_image,
    reorient,
    resample,
    resample_onto,
    resample_to_shape,
    resampled_shape,
    restore_grid,
    write_image,
    zoom_to,
)
from pimms_tf.errors import InputError

GOLDENS = Path(__file__).parents[1] / "goldens" / "03_reading"
# The one recorded refusal is of two files together; test_subjects.py has it.
READER_CASES = [case for case in json.loads((GOLDENS / "reader_cases.json").read_text()) if "error" not in case]
WRITTEN_CASES = json.loads((GOLDENS / "written_cases.json").read_text())

ALL_AXCODES = [
    tuple(pair[end] for pair, end in zip(pairs, ends, strict=True))
    for pairs in itertools.permutations(("LR", "PA", "IS"))
    for ends in itertools.product((0, 1), repeat=3)
]


def a_rotation(degrees=(10, -20, 15)):
    a, b, c = np.deg2rad(degrees)
    x = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    y = np.array([[np.cos(b), 0, np.sin(b)], [0, 1, 0], [-np.sin(b), 0, np.cos(b)]])
    z = np.array([[np.cos(c), -np.sin(c), 0], [np.sin(c), np.cos(c), 0], [0, 0, 1]])
    return z @ y @ x


def an_affine(axcodes=("R", "A", "S"), spacing=(1.0, 2.0, 3.0), degrees=(10, -20, 15), origin=(-7.0, 11.0, 5.0)):
    orientation = nib.orientations.axcodes2ornt(axcodes)
    directions = np.zeros((3, 3))
    for axis, (target, sign) in enumerate(orientation):
        directions[int(target), axis] = sign
    return nib.affines.from_matvec(a_rotation(degrees) @ directions * np.array(spacing), origin)


def an_image(shape=(5, 6, 7), affine=None, channels=1, seed=0):
    data = np.random.default_rng(seed).random((*shape, channels), np.float32)
    return Image(data, an_affine() if affine is None else affine)


def write_nifti(path, data, affine=None, sform_code=2, qform_code=0, **header):
    nifti = nib.Nifti1Image(data, None)
    affine = np.eye(4) if affine is None else affine
    nifti.set_qform(affine, qform_code)
    nifti.set_sform(affine, sform_code)
    for name, value in header.items():
        nifti.header[name] = value
    nib.save(nifti, path)
    return path


def where_itk_sees(path, index):
    """Place in mm (right, anterior, superior) of a voxel according to SimpleITK."""
    left_posterior_superior = sitk.ReadImage(str(path)).TransformContinuousIndexToPhysicalPoint(
        [float(i) for i in index]
    )
    return np.array(left_posterior_superior)[:3] * (-1, -1, 1)


# Orientation


@pytest.mark.parametrize("axcodes", ALL_AXCODES, ids="".join)
@pytest.mark.parametrize("stored", [("R", "A", "S"), ("A", "I", "R")], ids="".join)
def test_reorienting_there_and_back_cancels(stored, axcodes):
    image = an_image(affine=an_affine(stored))
    there = reorient(image, axcodes)
    back = reorient(there, stored)
    assert there.axcodes == axcodes
    np.testing.assert_array_equal(back.data, image.data)
    np.testing.assert_allclose(back.affine, image.affine, atol=1e-12)


@pytest.mark.parametrize("axcodes", ALL_AXCODES[::5], ids="".join)
def test_every_voxel_keeps_its_place_when_reoriented(axcodes):
    image = an_image(affine=an_affine(("L", "P", "S")))
    turned = reorient(image, axcodes)
    index = np.argwhere(turned.data[..., 0] == image.data[1, 2, 3, 0])[0]
    np.testing.assert_allclose(turned.affine @ [*index, 1], image.affine @ [1, 2, 3, 1], atol=1e-12)


def test_left_to_right_rows_are_mirrored_towards_the_left():
    image = Image(np.arange(8, dtype=np.float32).reshape(2, 2, 2, 1), np.eye(4))
    np.testing.assert_array_equal(reorient(image, ("L", "A", "S")).data[..., 0], [[[4, 5], [6, 7]], [[0, 1], [2, 3]]])


def test_axcodes_may_be_written_in_small_letters():
    assert reorient(an_image(), ("l", "p", "s")).axcodes == ("L", "P", "S")


@pytest.mark.parametrize("shape", [(4, 5, 1), (4, 1, 1), (1, 1, 1)])
def test_slices_are_neither_reoriented_nor_resampled(shape):
    image = an_image(shape)
    assert reorient(image, ("P", "L", "I")) is image
    assert resample(image, (0.5, 0.5, 0.5), 1) is image


@pytest.mark.parametrize(
    "axcodes", [("L", "R", "S"), ("L", "P"), ("L", "P", "X"), ("LR", "P", "S"), ("L", "P", "S", "S")]
)
def test_impossible_axcodes_are_refused(axcodes):
    with pytest.raises(InputError, match="must be one of L, R, one of P, A and one of I, S"):
        reorient(an_image(), axcodes)


# Resampling


def test_corners_stay_where_they_are_and_the_affine_says_so():
    image = an_image((9, 8, 7), an_affine(spacing=(0.7, 1.3, 2.0)))
    small = resample(image, (1.0, 1.0, 1.0), 1)
    assert small.shape == (6, 10, 14)
    for ends in itertools.product((0, -1), repeat=3):
        np.testing.assert_allclose(small.data[ends], image.data[ends], atol=1e-6)
    last, small_last = np.array(image.shape) - 1, np.array(small.shape) - 1
    np.testing.assert_allclose(small.affine @ [*small_last, 1], image.affine @ [*last, 1], atol=1e-9)


def test_zooming_a_ramp_by_nine_fifths_gives_halves():
    ramp = np.arange(5, dtype=np.float32).reshape(5, 1, 1, 1)
    np.testing.assert_allclose(zoom_to(ramp, (9, 1, 1), 1)[:, 0, 0, 0], np.arange(9) / 2, atol=1e-6)


@pytest.mark.parametrize("order", [0, 1, 2, 3])
@pytest.mark.parametrize("shape", [(5, 13, 9), (9, 6, 4), (7, 7, 20)])
def test_one_matrix_per_axis_is_scipys_zoom(shape, order):
    volume = np.random.default_rng(0).normal(size=(7, 8, 9)).astype(np.float32)
    factors = [after / before for after, before in zip(shape, volume.shape, strict=True)]
    expected = ndimage.zoom(volume, factors, order=order)
    np.testing.assert_allclose(zoom_to(volume[..., np.newaxis], shape, order)[..., 0], expected, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("order", [0, 1, 3])
@pytest.mark.parametrize(("before", "after"), [(8, 26), (7, 188), (8, 42), (182, 100)])
def test_the_last_plane_is_never_lost_to_rounding(before, after, order):
    ones = np.ones((before, 2, 2, 1), np.float32)
    np.testing.assert_allclose(zoom_to(ones, (after, 2, 2), order), 1, atol=1e-5)


@pytest.mark.parametrize("order", [0, 1, 3])
def test_a_zeroed_far_plane_is_lost_for_the_lengths_for_which_scipy_loses_it(order):
    for before, after in itertools.product((8, 22, 26, 80), range(1, 90)):
        line = np.linspace(1, 2, before, dtype=np.float32)
        zeroed, mended = (
            zoom_to(line.reshape(-1, 1, 1, 1), (after, 1, 1), order, far_plane)[:, 0, 0, 0]
            for far_plane in ("zeroed", "interpolated")
        )
        expected = ndimage.zoom(line, after / before, order=order)
        np.testing.assert_allclose(zeroed, expected, rtol=1e-6, err_msg=f"{before} → {after}")
        np.testing.assert_array_equal(np.where(expected == 0, 0, mended), zeroed)
        assert mended.min() > 0.9


def test_a_zeroed_far_plane_is_that_of_each_axis():
    volume = np.ones((26, 22, 4, 2), np.float32)
    expected = ndimage.zoom(volume[..., 0], (23 / 26, 20 / 22, 2), order=3)
    assert not expected[-1].any()
    assert not expected[:, -1].any()
    found = zoom_to(volume, (23, 20, 8), 3, "zeroed")
    for channel in range(2):
        np.testing.assert_allclose(found[..., channel], expected, atol=1e-6)


def test_voxel_counts_round_halves_to_even():
    grid = Grid((5, 7, 10), np.diag([0.5, 0.5, 0.95, 1]).astype(np.float32))
    assert resampled_shape(grid, (1.0, 1.0, 1.0)) == (
        2,
        4,
        9,
    )  # 2.5, 3.5, and 9.49999988 as the header's float32 has it


def test_an_axis_never_vanishes():
    thin = resample(an_image((4, 4, 2), np.diag([1, 1, 0.1, 1.0])), (1.0, 1.0, 1.0), 1)
    assert thin.shape == (4, 4, 1)
    np.testing.assert_allclose(thin.spacing_mm, (1, 1, 0.2))


def test_labels_stay_whole_numbers_with_order_0():
    labels = Image(np.random.default_rng(0).integers(0, 9, (5, 6, 7, 1)), an_affine())
    assert resample(labels, (1.0, 1.0, 1.0), 0).data.dtype.kind == "i"
    assert resample(labels, (1.0, 1.0, 1.0), 1).data.dtype == np.float32


def test_a_background_of_zeros_rings_unless_it_is_kept():
    data = np.zeros((30, 30, 30, 1), np.float32)
    data[8:20, 8:20, 8:20] = np.random.default_rng(0).uniform(50, 150, (12, 12, 12, 1))
    image = Image(data, np.eye(4))
    ringing = resample(image, (1.3, 0.8, 1.0), 3)
    kept = resample(image, (1.3, 0.8, 1.0), 3, keep_zeros=True)
    linear = resample(image, (1.3, 0.8, 1.0), 1)
    assert np.count_nonzero(ringing.data > 0) > 3 * np.count_nonzero(linear.data > 0)
    np.testing.assert_array_equal(kept.data != 0, linear.data != 0)
    np.testing.assert_array_equal(kept.data[linear.data != 0], ringing.data[linear.data != 0])
    onto = Grid((20, 20, 20), an_affine(origin=(9, 9, 9)))
    kept, linear = resample_onto(image, onto, 3, keep_zeros=True), resample_onto(image, onto, 1)
    np.testing.assert_array_equal(kept.data != 0, linear.data != 0)


def test_an_order_of_minus_1_never_interpolates():
    image = an_image((5, 6, 7), np.eye(4))
    assert resample(image, (1.0, 1.0, 1.0), -1) is image
    with pytest.raises(InputError, match=r"interp_order is -1, never interpolate, but an image of shape \(5, 6, 7\)"):
        resample(image, (2.0, 2.0, 2.0), -1)


@pytest.mark.parametrize("pixdim", [(1.0, 1.0), (1.0, -1.0, 1.0), (1.0, float("nan"), 1.0)])  # 0 keeps an axis as it is
def test_impossible_spacings_are_refused(pixdim):
    with pytest.raises(InputError, match="must be three positive numbers"):
        resample(an_image(), pixdim, 1)


# Resampling onto another grid


def test_an_image_on_the_grid_keeps_its_voxels():
    image = an_image()
    grid = Grid(image.shape, image.affine + 1e-5)
    onto = resample_onto(image, grid, 3)
    assert onto.data is image.data
    assert onto.grid.matches(grid)


@pytest.mark.parametrize("order", [0, 1])
def test_a_linear_image_reads_the_same_on_any_grid_inside_it(order):
    image = Image(np.zeros((20, 20, 20, 1), np.float32), an_affine(spacing=(2.0, 2.0, 2.0), origin=(-20, -20, -20)))
    place = np.einsum("ij,xyzj->xyzi", image.affine[:3, :3], np.moveaxis(np.indices(image.shape), 0, -1))
    image.data[..., 0] = (place + image.affine[:3, 3]) @ (1.0, 2.0, 3.0)
    grid = Grid((4, 5, 6), an_affine(("P", "S", "L"), (1.0, 1.5, 2.0), degrees=(-5, 5, 20), origin=(0, 0, 10)))
    expected = np.einsum("ij,xyzj->xyzi", grid.affine[:3, :3], np.moveaxis(np.indices(grid.shape), 0, -1))
    expected = (expected + grid.affine[:3, 3]) @ (1.0, 2.0, 3.0)
    half_a_voxel = 0.0 if order else 2 / 2 * 6
    np.testing.assert_allclose(resample_onto(image, grid, order).data[..., 0], expected, atol=1e-3 + half_a_voxel)


def test_a_flip_onto_a_grid_loses_no_rim():
    image = an_image()
    turned = reorient(image, ("L", "P", "I"))
    shifted = Grid(turned.shape, turned.affine)
    np.testing.assert_array_equal(resample_onto(image, shifted, 0).data, turned.data)
    np.testing.assert_allclose(resample_onto(image, shifted, 3).data, turned.data, atol=1e-5)


def test_outside_the_image_is_zero():
    far = Grid((3, 3, 3), nib.affines.from_matvec(np.eye(3), (500, 0, 0)))
    assert not resample_onto(an_image(), far, 1).data.any()


def test_labels_that_must_not_be_interpolated_do_not_move_to_another_grid():
    with pytest.raises(InputError, match="interp_order is -1, never interpolate"):
        resample_onto(an_image(), Grid((3, 3, 3), np.eye(4)), -1)


def test_grids_match_up_to_a_tenth_of_a_voxel():
    grid = Grid((100, 100, 50), an_affine())
    moved = an_affine(origin=(-6.95, 11.0, 5.0))
    assert grid.matches(Grid((100, 100, 50), moved))
    assert not grid.matches(Grid((100, 100, 50), an_affine(origin=(-6.8, 11.0, 5.0))))
    assert not grid.matches(Grid((100, 100, 51), an_affine()))
    assert not grid.matches(Grid((100, 100, 50), an_affine(degrees=(10, -20, 15.5))))


# Back to the file's grid


@settings(deadline=None)
@given(
    axcodes=st.sampled_from(ALL_AXCODES),
    stored=st.sampled_from(ALL_AXCODES),
    spacing=st.tuples(*[st.floats(0.4, 4)] * 3),
    degrees=st.tuples(*[st.floats(-60, 60)] * 3),
    shape=st.tuples(*[st.integers(2, 6)] * 3),
)
def test_shape_and_place_always_come_back(axcodes, stored, spacing, degrees, shape):
    image = an_image(shape, an_affine(stored, spacing, degrees))
    prepared = resample(reorient(image, axcodes), (1.0, 1.0, 1.0), 0)
    back = restore_grid(prepared, image.grid, 0)
    assert back.shape == image.shape
    np.testing.assert_array_equal(back.affine, image.affine)
    for ends in itertools.product((0, -1), repeat=3):
        if all(length > 1 for length in prepared.shape):
            assert back.data[ends] == image.data[ends]


def test_a_tilt_of_45_degrees_leaves_no_doubt_about_the_axes():
    image = an_image((4, 5, 6), an_affine(spacing=(1.0, 1.0, 1.0), degrees=(0, 0, 45)))
    for axcodes in ALL_AXCODES:
        prepared = reorient(image, axcodes)
        np.testing.assert_array_equal(restore_grid(prepared, image.grid).data, image.data)


@pytest.mark.parametrize("change", ["cropped", "shifted", "turned"])
def test_an_image_from_elsewhere_does_not_go_back(change):
    image = an_image((6, 7, 8))
    other = {
        "cropped": Image(image.data[:4], image.affine),
        "shifted": Image(image.data, an_affine(origin=(-4.0, 11.0, 5.0))),
        "turned": Image(image.data, an_affine(degrees=(10, 10, 15))),
    }[change]
    with pytest.raises(
        InputError, match="whose corners are elsewhere; remove its padding, or resample it onto that grid"
    ):
        restore_grid(other, image.grid)


# Writing


@pytest.mark.parametrize("axcodes", [("R", "A", "S"), ("L", "P", "S"), ("A", "I", "R"), ("I", "L", "P")], ids="".join)
@pytest.mark.parametrize("codes", [(1, 1), (2, 0), (0, 1), (4, 1), (0, 0)])
def test_a_written_mask_overlays_the_scan_in_nibabel_and_in_simpleitk(axcodes, codes, tmp_path):
    data = np.random.default_rng(0).integers(0, 3, (7, 6, 5)).astype(np.float32)
    affine = an_affine(axcodes, (0.8, 1.2, 3.0))
    scan = write_nifti(tmp_path / "scan.nii.gz", data, affine, *codes)
    image = read_image(scan)
    write_image(reorient(image, ("L", "P", "S")), tmp_path / "mask.nii.gz", like=image)
    before, after = nib.load(scan), nib.load(tmp_path / "mask.nii.gz")
    np.testing.assert_array_equal(np.asarray(after.dataobj), data)
    np.testing.assert_allclose(after.affine, before.affine, atol=1e-6)
    assert (int(after.header["sform_code"]), int(after.header["qform_code"])) == codes
    for index in [(0, 0, 0), (6, 5, 4)]:
        np.testing.assert_allclose(
            where_itk_sees(tmp_path / "mask.nii.gz", index), where_itk_sees(scan, index), atol=1e-4
        )


def test_a_qform_that_differs_from_the_sform_is_kept(tmp_path):
    scan = tmp_path / "scan.nii.gz"
    nifti = nib.Nifti1Image(np.ones((4, 5, 6), np.float32), None)
    nifti.set_qform(an_affine(), 1)
    nifti.set_sform(an_affine(degrees=(0, 0, 0)), 4)
    nib.save(nifti, scan)
    image = read_image(scan)
    write_image(image, tmp_path / "out.nii", like=image.original)
    write_image(restore_grid(reorient(image, ("L", "P", "S")), image.original), tmp_path / "restored.nii")
    for name in ("out.nii", "restored.nii"):
        after = nib.load(tmp_path / name).header
        np.testing.assert_allclose(after.get_qform(), nifti.header.get_qform(), atol=1e-6)
        np.testing.assert_allclose(after.get_sform(), nifti.header.get_sform(), atol=1e-6)


def test_a_reoriented_image_keeps_its_place_although_its_file_declared_none(tmp_path):
    scan = write_nifti(tmp_path / "scan.nii", np.ones((4, 5, 6), np.float32), an_affine(degrees=(0, 0, 0)), 0, 0)
    image = reorient(read_image(scan), ("P", "L", "S"))
    write_image(image, tmp_path / "out.nii")
    np.testing.assert_allclose(read_image(tmp_path / "out.nii").affine, image.affine, atol=1e-6)


@pytest.mark.parametrize("order", [0, 1, 3])
def test_a_single_voxel_spreads_over_the_axis_it_came_from(order):
    np.testing.assert_allclose(zoom_to(np.ones((1, 4, 5, 1), np.float32), (3, 4, 5), order), 1, atol=1e-6)


def test_units_are_those_of_the_file(tmp_path):
    scan = write_nifti(tmp_path / "scan.nii", np.ones((4, 5, 6), np.float32), xyzt_units=10)
    write_image(read_image(scan), tmp_path / "out.nii", like=read_image(scan))
    assert nib.load(tmp_path / "out.nii").header.get_xyzt_units() == ("mm", "sec")


@pytest.mark.parametrize("shape", [(4, 5), (4, 5, 1), (1, 5, 6), (4, 1, 6), (4, 1, 1)])
def test_flat_files_come_back_in_their_own_shape(shape, tmp_path):
    data = np.random.default_rng(0).random(shape, np.float32)
    scan = write_nifti(tmp_path / "scan.nii", data, an_affine())
    image = read_image(scan)
    assert image.shape[2] == 1
    write_image(reorient(image, ("L", "P", "S")), tmp_path / "out.nii", like=image)
    after = nib.load(tmp_path / "out.nii")
    np.testing.assert_array_equal(np.asarray(after.dataobj), data)
    np.testing.assert_allclose(after.affine, nib.load(scan).affine, atol=1e-6)


@pytest.mark.parametrize(
    ("dtype", "stored"), [(np.float32, "float32"), (np.float64, "float32"), (np.int64, "int32"), (bool, "int32")]
)
def test_labels_are_stored_as_integers_and_probabilities_as_floats(dtype, stored, tmp_path):
    write_image(Image(np.ones((2, 3, 4, 1), dtype), np.eye(4)), tmp_path / "out.nii.gz")
    assert nib.load(tmp_path / "out.nii.gz").get_data_dtype() == stored


def test_a_boolean_mask_can_be_resampled_on_its_way_back(tmp_path):
    image = an_image(affine=np.diag([1, 1, 2, 1.0]))
    prepared = resample(image, (1.0, 1.0, 1.0), 0)
    write_image(Image(prepared.data > 0.5, prepared.affine), tmp_path / "out.nii.gz", like=image)
    np.testing.assert_array_equal(nib.load(tmp_path / "out.nii.gz").dataobj, image.data[..., 0] > 0.5)


def test_an_image_without_a_file_is_written_where_its_affine_says(tmp_path):
    image = an_image(channels=3)
    write_image(image, tmp_path / "out.nii.gz")
    again = read_image(tmp_path / "out.nii.gz")
    assert nib.load(tmp_path / "out.nii.gz").shape == (5, 6, 7, 1, 3)
    np.testing.assert_array_equal(again.data, image.data)
    np.testing.assert_allclose(again.affine, image.affine, atol=1e-6)


def test_a_suffix_that_is_not_nifti_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"out.mha: images are written as NIfTI; end the name in .nii.gz"):
        write_image(an_image(), tmp_path / "out.mha")


def test_nothing_is_left_where_writing_failed(tmp_path):
    with pytest.raises(InputError):
        write_image(an_image((4, 4, 4)), tmp_path / "out.nii.gz", like=an_image((5, 6, 7), np.eye(4)))
    assert list(tmp_path.iterdir()) == []


def test_an_image_without_a_channel_axis_is_refused():
    with pytest.raises(ValueError, match=r"must be \(x, y, z, channel\), received shape \(2, 3, 4\)"):
        Image(np.zeros((2, 3, 4), np.float32), np.eye(4))


# Formats


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".mha", ".mhd", ".nrrd", ".mgz", ".img"])
def test_every_format_gives_the_same_voxels_and_places(suffix, tmp_path):
    data = np.random.default_rng(0).integers(0, 200, (4, 5, 6)).astype(np.int16)
    affine = an_affine()
    path = tmp_path / f"scan{suffix}"
    if suffix in (".mha", ".mhd", ".nrrd"):
        image = sitk.GetImageFromArray(data.transpose(2, 1, 0))
        spacing = np.linalg.norm(affine[:3, :3], axis=0)
        image.SetSpacing(spacing.tolist())
        image.SetDirection((np.diag([-1, -1, 1]) @ affine[:3, :3] / spacing).ravel().tolist())
        image.SetOrigin((affine[:3, 3] * (-1, -1, 1)).tolist())
        sitk.WriteImage(image, str(path))
    else:
        kind = {".mgz": nib.MGHImage, ".img": nib.Spm99AnalyzeImage}.get(suffix, nib.Nifti1Image)
        affine = np.diag([-2.0, 2.0, 3.0, 1.0]) if suffix == ".img" else affine  # Analyze knows no tilt
        nib.save(kind(data, affine), path)
    image = read_image(path)
    assert image.data.dtype == np.float32
    np.testing.assert_array_equal(image.data[..., 0], data)
    np.testing.assert_allclose(image.affine, affine, atol=1e-5)


def write_minc(path, stored, axes, start_mm, step_mm, cosines):
    """Writes whole numbers as MINC-1; axes, and what lies along each of them, are in the order of the array."""
    with netcdf_file(path, "w") as file:
        for each in zip(axes, stored.shape, start_mm, step_mm, cosines, strict=True):
            name, length, start, step, direction = each
            file.createDimension(name, length)
            axis = file.createVariable(name, "i4", ())
            axis.spacing, axis.start, axis.step = b"regular__", start, step
            axis.direction_cosines = np.array(direction)
        voxels = file.createVariable("image", "i2", axes)
        voxels.signtype, voxels.valid_range = b"signed__", np.array([0.0, 1000.0])
        voxels[:] = stored
        for name, value in (("image-min", 0.0), ("image-max", 500.0)):
            file.createVariable(name, "f8", axes[:1])[:] = value


def test_a_minc_file_lies_where_its_starts_steps_and_cosines_say(tmp_path):
    stored = np.zeros((4, 5, 6), np.int16)  # z, y, x, as MINC files mostly are
    stored[1, 2, 3] = 1000
    z, y, x = (0.0, 0.0, 1.0), (-0.6, 0.8, 0.0), (0.8, 0.6, 0.0)
    write_minc(tmp_path / "a.mnc", stored, ("zspace", "yspace", "xspace"), (7.0, 30, -20), (3.0, -2, 1), (z, y, x))
    image = read_image(tmp_path / "a.mnc")
    assert image.data.max() == image.data[1, 2, 3, 0] == 500  # stored numbers stand for 0 to 500
    # 7 + 1 * 3 up, 30 - 2 * 2 along y and -20 + 3 * 1 along x.
    expected = 10.0 * np.array(z) + 26.0 * np.array(y) - 17.0 * np.array(x)
    np.testing.assert_allclose((image.affine @ [1, 2, 3, 1])[:3], expected, rtol=0, atol=1e-5)
    turned = reorient(image, ("L", "P", "S"))
    assert turned.shape == (6, 5, 4)
    (place,) = np.argwhere(turned.data[..., 0] == 500)
    np.testing.assert_allclose((turned.affine @ [*place, 1])[:3], expected, rtol=0, atol=1e-5)


def test_simpleitk_reads_a_nifti_file_where_nibabel_does(tmp_path):
    path = write_nifti(tmp_path / "scan.nii.gz", np.random.default_rng(0).random((4, 5, 6), np.float32), an_affine())
    one, other = read_image(path, loader="nibabel"), read_image(path, loader="SimpleITK")
    np.testing.assert_array_equal(one.data, other.data)
    np.testing.assert_allclose(one.affine, other.affine, atol=1e-5)


@pytest.mark.parametrize(("colours", "channels"), [(None, 1), (3, 3)])
def test_pictures_have_rows_first_and_no_place(colours, channels, tmp_path):
    shape = (4, 7) if colours is None else (4, 7, colours)
    pixels = np.random.default_rng(0).integers(0, 255, shape).astype(np.uint8)
    sitk.WriteImage(sitk.GetImageFromArray(pixels, isVector=colours is not None), str(tmp_path / "slice.png"))
    image = read_image(tmp_path / "slice.png")
    np.testing.assert_array_equal(image.data, pixels.reshape(4, 7, 1, channels))
    np.testing.assert_array_equal(image.affine, np.eye(4))


def test_times_and_components_become_channels(tmp_path):
    data = np.random.default_rng(0).random((3, 4, 5, 2), np.float32)
    times = read_image(write_nifti(tmp_path / "times.nii", data))
    components = read_image(write_nifti(tmp_path / "components.nii", data[:, :, :, np.newaxis]))
    np.testing.assert_array_equal(times.data, data)
    np.testing.assert_array_equal(components.data, data)


def test_colours_become_channels(tmp_path):
    colours = np.zeros((3, 4, 5), [("R", "u1"), ("G", "u1"), ("B", "u1")])
    colours["G"] = 7
    image = read_image(write_nifti(tmp_path / "colours.nii", colours))
    np.testing.assert_array_equal(image.data, np.broadcast_to([0, 7, 0], (3, 4, 5, 3)))


def test_a_volume_across_the_body_becomes_a_slice(tmp_path):
    data = np.random.default_rng(0).random((1, 5, 6), np.float32)
    image = read_image(write_nifti(tmp_path / "scan.nii", data, np.diag([2.0, 3.0, 4.0, 1.0])))
    np.testing.assert_array_equal(image.data[..., 0, 0], data[0])
    assert image.spacing_mm == (3, 4, 2)


def test_an_image_does_not_hold_on_to_its_file(tmp_path):
    path = write_nifti(tmp_path / "scan.nii", np.ones((3, 4, 5), np.float32))
    image = read_image(path)
    path.write_bytes(b"")
    np.testing.assert_array_equal(image.data, 1)


# Header repair


def test_an_sform_that_contradicts_the_voxel_sizes_gives_way_to_a_qform_in_use():
    affine, qform = np.eye(4), np.diag([1.5, 1.5, 2.0, 1.0])
    assert repaired_affine(affine, qform, np.array([1.5, 1.5, 2.0]), 3) is qform


def test_without_a_qform_the_affine_is_rescaled_and_keeps_direction_and_origin():
    affine = an_affine(spacing=(1.0, 1.0, 1.0))
    repaired = repaired_affine(affine, None, np.array([1.5, 1.5, 2.0]), 3)
    np.testing.assert_allclose(repaired, an_affine(spacing=(1.5, 1.5, 2.0)))


@pytest.mark.parametrize("zooms", [(1.0004, 1.0, 1.0), (0.0, 1.0, 1.0), (np.nan, 1.0, 1.0)])
def test_rounding_and_senseless_voxel_sizes_change_nothing(zooms):
    affine = np.eye(4)
    assert repaired_affine(affine, None, np.array(zooms), 3) is affine


def test_an_affine_of_infinity_is_not_rescaled_but_gives_way_to_a_qform():
    affine, qform, zooms = np.diag([np.inf, 1, 1, 1]), np.eye(4), np.ones(3)
    assert repaired_affine(affine, None, zooms, 3) is affine
    assert repaired_affine(affine, qform, zooms, 3) is qform


def test_a_repair_is_reported(tmp_path, caplog):
    path = write_nifti(tmp_path / "scan.nii", np.ones((4, 5, 6), np.float32), pixdim=[1, 1.5, 1.5, 2, 1, 1, 1, 1])
    assert read_image(path).spacing_mm == (1.5, 1.5, 2)
    assert "its sform and its voxel sizes contradict each other; using the voxel sizes (1.5, 1.5, 2) mm" in caplog.text


# Files that cannot be used


def damaged_gzip(folder):
    path = write_nifti(folder / "scan.nii.gz", np.random.default_rng(0).random((9, 9, 9), np.float32))
    path.write_bytes(path.read_bytes()[:-500])
    return path


def damaged_nifti(folder):
    path = write_nifti(folder / "scan.nii", np.ones((9, 9, 9), np.float32))
    path.write_bytes(path.read_bytes()[:-500])
    return path


def garbage(folder, name="scan.nii.gz"):
    (folder / name).write_bytes(b"This is no image. " * 40)
    return folder / name


def compressed_garbage(folder):
    (folder / "scan.nii.gz").write_bytes(gzip.compress(b"This is no image. " * 40))
    return folder / "scan.nii.gz"


def flipped_bits(folder):
    path = write_nifti(folder / "scan.nii.gz", np.random.default_rng(0).random((9, 9, 9), np.float32))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)
    return path


def lonely_header(folder):
    nib.save(nib.Nifti1Pair(np.ones((3, 3, 3), np.float32), np.eye(4)), folder / "scan.img")
    (folder / "scan.img").unlink()
    return folder / "scan.hdr"


def empty_file(folder):
    (folder / "scan.nii.gz").touch()
    return folder / "scan.nii.gz"


def no_voxels(folder):
    return write_nifti(folder / "scan.nii", np.zeros((0, 4, 4), np.float32))


def with_bytes(position, replacement):
    def write(folder):
        path = write_nifti(folder / "scan.nii", np.ones((3, 4, 5), np.float32))
        content = bytearray(path.read_bytes())
        content[position : position + len(replacement)] = replacement
        path.write_bytes(content)
        return path

    return write


huge = with_bytes(40, np.array([3, 30000, 30000, 30000], "<i2").tobytes())
singular = with_bytes(280, bytes(16))


def with_value(value):
    def write(folder):
        data = np.ones((3, 4, 5))
        data[1, :2, 3] = value
        return write_nifti(folder / "scan.nii.gz", data)

    return write


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (damaged_gzip, "scan.nii.gz: is no image or is damaged"),
        (damaged_nifti, "scan.nii: is no image or is damaged"),
        (flipped_bits, "scan.nii.gz: is no image or is damaged"),
        (garbage, "scan.nii.gz: is no image or is damaged"),
        (compressed_garbage, "scan.nii.gz: is no image or is damaged"),
        (lambda folder: garbage(folder, "scan.nrrd"), "scan.nrrd: is no image or is damaged"),
        (lambda folder: garbage(folder, "scan.png"), "scan.png: is no image or is damaged"),
        (lambda folder: garbage(folder, "scan.txt"), "scan.txt: is no image or is damaged"),
        (lambda folder: garbage(folder, "scan"), "scan: is no image or is damaged"),
        (lonely_header, "scan.hdr: is no image or is damaged"),
        (huge, "scan.nii: its header tells of 30000 x 30000 x 30000 voxels, more than any scan has"),
        (empty_file, r"scan.nii.gz: is empty \(0 bytes\); copy or export it again"),
        (lambda folder: folder / "gone.nii.gz", "gone.nii.gz: does not exist; check the path"),
        (lambda folder: folder, "is a folder, not an image"),
        (no_voxels, "has no voxels"),
        (with_value(np.nan), "scan.nii.gz: has 2 voxels that are NaN or infinite; replace them"),
        (with_value(np.inf), "has 2 voxels that are NaN or infinite"),
        (with_value(-np.inf), "has 2 voxels that are NaN or infinite"),
        (with_value(1e300), "has 2 voxels that are NaN or infinite"),
        (singular, "cannot be inverted; repair its sform or its voxel sizes"),
        (lambda folder: write_nifti(folder / "scan.nii", np.ones((3, 3, 3), np.complex64)), "has complex voxels"),
        (
            lambda folder: write_nifti(folder / "scan.nii", np.ones((3, 3, 3, 2, 2), np.float32)),
            "more than one axis beyond",
        ),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_in_one_sentence(write, message, tmp_path):
    path = write(tmp_path)
    with pytest.raises(InputError, match=message) as refusal:
        read_image(path)
    assert str(path) in str(refusal.value)
    assert "\n" not in str(refusal.value)


@settings(deadline=None)
@given(st.data())
def test_a_damaged_header_is_refused_or_read_but_never_crashes(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("damaged") / "scan.nii"
    content = bytearray(write_nifti(path, np.ones((3, 4, 5), np.float32)).read_bytes())
    for position in data.draw(st.lists(st.integers(0, 347), min_size=1, max_size=4)):
        content[position] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    try:
        assert np.isfinite(read_image(path).data).all()
    except InputError as error:
        assert str(path) in str(error)  # noqa: PT017


def test_an_unknown_loader_is_refused_with_the_legal_ones(tmp_path):
    path = write_nifti(tmp_path / "scan.nii", np.ones((3, 3, 3), np.float32))
    with pytest.raises(InputError, match="loader is 'itk'; use one of nibabel, simpleitk, opencv, skimage, pillow"):
        read_image(path, loader="itk")


# Recorded from NiftyNet


@pytest.mark.parametrize("case", READER_CASES, ids=lambda case: case["case"])
def test_reading_gives_what_niftynet_read(case):
    channels = []
    for file in case["files"]:
        image = read_image(GOLDENS / "nifti" / file)
        if case["axcodes"]:
            image = reorient(image, case["axcodes"])
        if case["pixdim"]:
            image = resample(image, case["pixdim"], case["interp_order"])
        channels.append(image.data)
    recorded = np.load(GOLDENS / "reader_outputs.npz")[case["case"]]
    recorded = recorded.reshape(*recorded.shape[:3], -1)  # (x, y, z, time · modality)
    np.testing.assert_allclose(np.concatenate(channels, axis=-1), recorded, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("case", READER_CASES, ids=lambda case: case["case"])
def test_headers_say_what_niftynet_found_in_them(case):
    for file, axcodes, pixdim in zip(case["files"], case["original_axcodes"], case["original_pixdim"], strict=True):
        image = read_image(GOLDENS / "nifti" / file)
        assert image.axcodes == tuple(axcodes)
        np.testing.assert_allclose(image.spacing_mm, pixdim, atol=1e-6)


@pytest.mark.parametrize("case", WRITTEN_CASES, ids=lambda case: Path(case["file"]).name)
def test_writing_back_gives_the_file_niftynet_wrote(case, tmp_path):
    probabilities = case["source"].startswith("prob")
    source = read_image(GOLDENS / "nifti" / ("lab_las_aniso.nii.gz" if probabilities else case["source"]))
    image = reorient(source, case["axcodes"])
    if case["pixdim"]:
        image = resample(image, case["pixdim"], 0)
    if probabilities:
        image = Image(np.load(GOLDENS / "prob_written_input.npz")["prob"].reshape(*image.shape, 3), image.affine)
    write_image(image, tmp_path / "out.nii.gz", like=source, order=case["write_order"])
    written, recorded = nib.load(tmp_path / "out.nii.gz"), nib.load(GOLDENS / case["file"])
    assert written.shape == recorded.shape == tuple(case["saved_shape"])
    assert written.get_data_dtype() == case["saved_dtype"]
    for code in ("sform_code", "qform_code", "xyzt_units"):
        assert written.header[code] == recorded.header[code]
    # NiftyNet rescales the oblique affine by float32 column norms, which moves its elements by 3e-8.
    np.testing.assert_allclose(written.affine, case["affine"], atol=1e-6)
    np.testing.assert_allclose(written.get_fdata(), recorded.get_fdata(), rtol=1e-5, atol=1e-5)
    if "voxels_different_from_source" in case:
        rounded = np.rint(written.get_fdata()) != source.data[..., 0]
        assert np.count_nonzero(rounded) == case["voxels_different_from_source"]


def test_zooming_to_a_shape_keeps_the_original_grid():
    image = read_image(GOLDENS / "nifti" / "img_rpi.nii.gz")
    assert resample_to_shape(image, (3, 4, 5), 1).original is image.original
