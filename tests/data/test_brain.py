"""The brain as a foreground: found with and without skull, in any orientation, whatever the unit; blank outside."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from nibabel import orientations

from pimms_tf.data.brain import Brains, averaging, brain_mask, separable
from pimms_tf.data.images import Image, resampled_shape
from pimms_tf.data.loading import SubjectLoader
from pimms_tf.simulation.phantom import draw_phantom

REAL_SCANS = Path(__file__).parents[2].parent / "shared" / "data" / "real"


@pytest.fixture(scope="module")
def stripped():
    """A simulated brain of 4 mm voxels: scan (x, y, z, 1), true mask, affine."""
    found = draw_phantom(np.random.default_rng(3), (4.0, 4.0, 4.0))
    return found.t1[..., np.newaxis], found.fractions.sum(axis=-1) > 0, found.affine


def overlap(a, b):
    return 2 * (a & b).sum() / (a.sum() + b.sum())


def test_the_brain_of_a_stripped_scan_is_what_it_shows(stripped):
    scan, brain, affine = stripped
    assert overlap(brain_mask(scan, affine), brain) > 0.95


def test_a_scan_that_was_standardised_before_has_the_same_brain(stripped):
    scan, brain, affine = stripped
    assert overlap(brain_mask((scan - scan.mean()) / scan.std(), affine), brain) > 0.95


@pytest.mark.parametrize("axcodes", ["LPS", "PIR", "SLA"])
def test_the_orientation_of_the_file_does_not_matter(stripped, axcodes):
    scan, _, affine = stripped
    change = orientations.ornt_transform(nib.io_orientation(affine), orientations.axcodes2ornt(axcodes))
    turned = orientations.apply_orientation(scan, change)
    there = affine @ orientations.inv_ornt_aff(change, scan.shape[:3])
    expected = orientations.apply_orientation(brain_mask(scan, affine), change)
    np.testing.assert_array_equal(brain_mask(turned, there), expected)


def test_a_scan_given_twice_has_one_say(stripped):
    scan, _, affine = stripped
    other = np.flip(scan, axis=1) ** 2
    once, twice = (np.concatenate(scans, axis=-1) for scans in ((scan, other), (other, scan, other)))
    assert (brain_mask(other, affine) != brain_mask(scan, affine)).any()
    np.testing.assert_array_equal(brain_mask(twice, affine), brain_mask(once, affine))


def test_a_scan_that_is_not_asked_has_no_say(stripped):
    scan, _, affine = stripped
    other, third = np.flip(scan, axis=1) ** 2, np.flip(scan, axis=0) ** 0.5
    brains = Brains(np.concatenate([other, scan, third, other], axis=-1), affine)
    for places, scans in (((1,), [scan]), ((3, 2), [other, third]), ((0, 3), [other])):
        np.testing.assert_array_equal(brains.by(places), brain_mask(np.concatenate(scans, axis=-1), affine))
    assert not brains.by([]).any()


def test_a_copy_in_other_units_rounded_has_no_say_of_its_own(stripped):
    scan, _, affine = stripped
    other, third = np.flip(scan, axis=1) ** 2, np.flip(scan, axis=0) ** 0.5
    copy = np.rint(scan * (700 / scan.max())) + 3 * (scan > 0)
    once, twice = (np.concatenate(scans, axis=-1) for scans in ((scan, other, third), (copy, other, scan, third)))
    assert not np.array_equal(copy, scan)
    assert (brain_mask(twice, affine) != brain_mask(once, affine)).mean() < 1e-3


def test_scans_of_zeros_have_no_brain():
    assert not brain_mask(np.zeros((8, 8, 8, 2)), np.eye(4)).any()


def test_reading_a_line_every_4_mm_keeps_a_constant_and_averages_what_is_near():
    (matrix,) = averaging((8,), (2.0,))
    np.testing.assert_allclose(matrix.sum(axis=1), 1)
    np.testing.assert_allclose(matrix @ np.arange(8) * 2 + 1, [3.0, 6, 10, 13], atol=1.1)
    assert separable(np.ones((8, 8, 8)), averaging((8, 8, 8), (2.0, 1.0, 6.0))).shape == (4, 2, 12)


def test_scans_are_whitened_inside_the_brain_and_blank_outside(stripped):
    scan, _, affine = stripped
    loader = SubjectLoader(axcodes=None, pixdim_mm=None, foreground="brain", blank_outside=True)
    subject = loader.load({"T1": Image(scan.astype(np.float32) + 7, affine)})
    inside = subject.scans[..., 0] != 0
    values = subject.scans[..., 0][inside]
    assert abs(values.mean()) < 1e-3
    assert abs(values.std() - 1) < 1e-3
    assert not subject.scans[[0, -1]].any()


def test_where_no_brain_is_found_all_that_is_not_background_counts(caplog):
    volume = np.zeros((6, 6, 6, 1), np.float32)
    volume[2:4, 2:4, 2:4] = [[[[1], [2]], [[3], [4]]], [[[5], [6]], [[7], [8]]]]
    subject = SubjectLoader(axcodes=None, pixdim_mm=None, foreground="brain").load({"T1": Image(volume, np.eye(4))})
    assert subject.valid.all()
    assert np.isfinite(subject.scans).all()
    assert "no brain is found" in caplog.text


def test_a_pixdim_of_0_keeps_the_spacing_of_its_axis():
    image = Image(np.zeros((10, 10, 5, 1), np.float32), np.diag([0.5, 0.5, 6, 1]))
    assert resampled_shape(image.grid, (1.0, 1.0, 0.0)) == (5, 5, 5)


@pytest.mark.slow
@pytest.mark.skipif(not REAL_SCANS.is_dir(), reason="the real scans of ../shared are not here")
@pytest.mark.parametrize("name", ["ms_cs_p19", "ms3_106639", "tumour_tcga_du7294"])
def test_the_brain_of_real_scans_is_found_with_and_without_skull(name):
    folder = REAL_SCANS / name
    image = nib.load(folder / "FLAIR.nii.gz")
    brain = np.asarray(nib.load(folder / "brainmask.nii.gz").dataobj) > 0
    found = brain_mask(np.asarray(image.dataobj, np.float32)[..., np.newaxis], image.affine)
    assert overlap(found, brain) > 0.9
