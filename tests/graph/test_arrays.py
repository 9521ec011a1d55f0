"""Each step inside the graph gives what the same step gives on arrays."""

import nibabel as nib
import numpy as np
import pytest
import tensorflow as tf
from scipy import ndimage

from pimms_tf.data import brain as brain_on_arrays
from pimms_tf.data import images, intensity
from pimms_tf.data.grids import Grid
from pimms_tf.graph import brain, grids, regions
from pimms_tf.graph import intensity as in_graph

RNG = np.random.default_rng(4)
TILTED = nib.affines.from_matvec(
    nib.eulerangles.euler2mat(0.3, -0.2, 0.4) @ np.diag([-1.2, 0.9, 4.0]), (12.0, -7.0, 30.0)
)


def blobs(*shape):
    return ndimage.gaussian_filter(RNG.normal(size=shape), 1.0) > 0.02


@pytest.mark.parametrize("codes", [("L", "P", "S"), ("R", "A", "S"), ("S", "L", "A"), ("A", "I", "R")])
@pytest.mark.parametrize("start", [("R", "A", "S"), ("P", "I", "L")])
@pytest.mark.parametrize("base", [TILTED, np.diag([2.0, 2.0, 2.0, 1.0])], ids=["tilted", "straight"])
def test_volumes_turn_as_images_do_and_back(codes, start, base):
    image = images.reorient(images.Image(RNG.normal(size=(4, 5, 6, 1)).astype(np.float32), base), start)
    affine, shape = tf.constant(image.affine), tf.constant(image.shape)
    turn = grids.turn_to(codes, affine, shape)
    found = grids.turned(tf.constant(np.ascontiguousarray(image.data[None, ..., 0])), turn)
    expected = images.reorient(image, codes)
    np.testing.assert_array_equal(found[0], expected.data[..., 0])
    np.testing.assert_allclose(grids.turned_affine(affine, turn, shape), expected.affine[:4], rtol=0, atol=1e-12)
    np.testing.assert_array_equal(grids.turned_back(found, turn)[0], image.data[..., 0])


def test_an_axis_of_one_voxel_goes_last_and_a_slice_is_not_turned():
    turn = grids.turn_to(("L", "P", "S"), tf.constant(TILTED), tf.constant((5, 1, 6)))
    assert turn.source.numpy().tolist() == [0, 2, 1]
    assert not turn.flip.numpy().any()


@pytest.mark.parametrize("order", [0, 1, 2, 3])
@pytest.mark.parametrize("far_plane", ["interpolated", "zeroed"])
def test_volumes_are_resampled_as_images_are(order, far_plane):
    data = RNG.normal(size=(8, 13, 5)).astype(np.float32)
    data[:5] = 0
    shape = (26, 9, 5)  # the first pair of lengths is one of those whose last plane rounding puts outside
    image = images.Image(data[..., None], np.eye(4))
    expected = images.resample_to_shape(image, shape, order, True, far_plane).data[..., 0]
    found = grids.resampled(tf.constant(data[None]), tf.constant(shape), order, True, far_plane)[0]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)
    np.testing.assert_array_equal(found == 0, expected == 0)


def test_the_nearest_voxel_is_that_of_order_0():
    data = RNG.integers(0, 9, (8, 13, 5)).astype(np.uint8)
    for shape in ((26, 9, 5), (3, 13, 1), (8, 40, 2)):
        expected = images.zoom_to(data[..., None], shape, 0, "zeroed")[..., 0]
        np.testing.assert_array_equal(grids.nearest(tf.constant(data), tf.constant(shape), "zeroed"), expected)


@pytest.mark.parametrize("pixdim", [(1.0, 1.0, 1.0), (1.0, 1.0, 0.0), (0.8, 2.5, 1.3)])
def test_the_resampled_shape_is_that_of_images(pixdim):
    affine = np.diag([0.9375, 1.5, 3.3, 1.0])
    for shape in ((256, 255, 20), (7, 3, 2), (9, 1, 4), (9, 1, 1)):
        found = grids.resampled_shape(tf.constant(shape), tf.constant(affine), pixdim)
        assert tuple(found.numpy()) == images.resampled_shape(Grid(shape, affine), pixdim)


def test_masks_grow_shrink_and_are_filled_as_scipy_does():
    mask = blobs(9, 11, 7)
    np.testing.assert_array_equal(regions.dilated(tf.constant(mask), 2), ndimage.binary_dilation(mask, iterations=2))
    np.testing.assert_array_equal(regions.eroded(tf.constant(mask), 1), ndimage.binary_erosion(mask))
    np.testing.assert_array_equal(regions.filled(tf.constant(mask)), ndimage.binary_fill_holes(mask))
    planes = np.stack([ndimage.binary_fill_holes(plane) for plane in np.moveaxis(mask, 2, 0)], axis=2)
    np.testing.assert_array_equal(regions.filled(tf.constant(mask), axes=(0, 1)), planes)
    wide = ndimage.maximum_filter1d(mask, 5, axis=1)
    np.testing.assert_array_equal(regions.widened(tf.constant(mask), 1, tf.constant(2)), wide)


def test_the_largest_part_is_the_first_of_equal_ones():
    mask = np.zeros((6, 6, 3), bool)
    mask[0, 0, 0] = mask[4, 4, :2] = mask[2, 2, 1:] = True
    found = regions.largest_part(tf.constant(mask)).numpy()
    assert found.sum() == 2
    assert found[2, 2, 1]
    labels, _ = ndimage.label(mask := blobs(12, 10, 8))
    largest = labels == 1 + np.argmax(np.bincount(labels.ravel())[1:])
    np.testing.assert_array_equal(regions.largest_part(tf.constant(mask)), largest)


def test_small_parts_that_touch_at_corners_count_together():
    mask = blobs(12, 10, 8)
    labels, count = ndimage.label(mask, structure=np.ones((3, 3, 3)))
    stays = np.bincount(labels.ravel(), minlength=count + 1) >= 20
    found = regions.without_small_parts(tf.constant(mask), tf.constant(20))
    np.testing.assert_array_equal(found, mask & stays[labels])


def head(shape=(24, 26, 10)):
    place = np.stack(np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij"))
    distance = np.sqrt(np.square(place).sum(axis=0))
    scan = np.where(distance < 0.8, 100 + 50 * (distance < 0.5), 0) + RNG.gamma(2.0, 4.0, shape)
    return scan.astype(np.float32)


@pytest.mark.parametrize("method", intensity.FOREGROUND_METHODS)
def test_the_foreground_is_that_of_arrays(method):
    scan = head() if method != "threshold_minus" else head() - 60
    expected = intensity.foreground_mask(scan, method)
    np.testing.assert_array_equal(in_graph.foreground(tf.constant(scan), method), expected)
    assert in_graph.otsu_threshold(tf.constant(scan)).numpy() == intensity.otsu_threshold(scan)


@pytest.mark.parametrize("fusion", intensity.FUSIONS)
def test_foregrounds_are_joined_as_those_of_arrays(fusion):
    scans = np.stack([head(), np.zeros((24, 26, 10), np.float32), np.roll(head(), 4, axis=0)])
    valid = np.array([True, False, True])
    expected = np.moveaxis(intensity.foreground_masks(np.moveaxis(scans, 0, -1), "otsu_plus", fusion), -1, 0)
    masks = tf.stack([in_graph.foreground(scan, "otsu_plus") if scan.any() else scan > 0 for scan in scans])
    np.testing.assert_array_equal(in_graph.fused(masks, tf.constant(valid), fusion, False), expected)


@pytest.mark.parametrize("norm_type", list(intensity.NORM_TYPES))
def test_scans_are_standardised_and_whitened_as_arrays_are(norm_type):
    scan, mask = head(), head() > 50
    mapping = np.sort(RNG.uniform(0, 100, 13))
    expected = intensity.standardise(scan, mask, mapping, norm_type, (0.01, 0.95))
    given = tf.constant(scan), tf.constant(mask)
    found = in_graph.standardised(*given, tf.constant(mapping), norm_type, (0.01, 0.95))
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-5)
    np.testing.assert_allclose(in_graph.whitened(*given), intensity.whiten(scan, mask), rtol=0, atol=1e-6)


def test_a_scan_that_was_standardised_before_is_shifted_as_an_array_is():
    whitened = intensity.whiten(head())
    blanked = np.where(head() > 50, whitened, 0).astype(np.float32)
    for scan in (whitened, blanked, head()):
        found = in_graph.with_zero_background(tf.constant(scan))
        np.testing.assert_allclose(found, intensity.with_zero_background(scan), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("stripped", [False, True], ids=["head", "stripped"])
def test_the_brain_is_where_it_is_in_arrays(stripped):
    scans = np.stack([head((30, 36, 28)), head((30, 36, 28)), np.zeros((30, 36, 28), np.float32)])
    scans = scans[[0, 1, 2, 0, 0]]  # one is there twice, which counts once, and once more in other units
    scans[1] = np.where(scans[1] > 50, 260 - scans[1], scans[1])
    scans[4] = np.rint(1.7 * scans[4] + 5)
    affine = np.diag([-6.0, 6.0, 6.0, 1.0])
    if stripped:
        inside = brain_on_arrays.brain_mask(np.moveaxis(scans, 0, -1), affine)
        scans *= ndimage.binary_erosion(inside)
    expected = brain_on_arrays.brain_mask(np.moveaxis(scans, 0, -1), affine)
    found = brain.brain_mask(tf.constant(scans), tf.constant([True, True, False, True, True]), tf.constant(affine))
    assert expected.any()
    # A voxel whose logit is the threshold to the last digits may fall on either side.
    assert (found.numpy() != expected).sum() <= 2
