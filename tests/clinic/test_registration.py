"""Registration: known misalignments are found again, and nothing is made worse."""

from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from pimms_tf.clinic.registration import moved, register
from pimms_tf.data.brain import brain_mask
from pimms_tf.data.images import Image, read_image

REAL = Path(__file__).parents[3] / "shared" / "data" / "real" / "ms_long_p01"
CENTRE = np.array([5.0, -10.0, 8.0])


def rigid(angles_deg, shift_mm, centre=CENTRE):
    """A transform (4, 4): a rotation around a centre, then a shift."""
    rotation = Rotation.from_euler("xyz", angles_deg, degrees=True).as_matrix()
    transform = np.eye(4)
    transform[:3, :3], transform[:3, 3] = rotation, centre + shift_mm - rotation @ centre
    return transform


def drawn(rng, most_mm=15.0, most_deg=15.0):
    return rigid(rng.uniform(-most_deg, most_deg, 3), rng.uniform(-1, 1, 3) * most_mm / np.sqrt(3))


def mean_error_mm(found, true, mask, affine):
    """How far, over a mask, voxels still lie from where they belong."""
    places = np.argwhere(mask)[::17] @ affine[:3, :3].T + affine[:3, 3]
    both = found @ true
    return float(np.linalg.norm(places @ both[:3, :3].T + both[:3, 3] - places, axis=1).mean())


def head(contrast):
    """A blurred body with bright and dark spots, 4 mm; `contrast` maps its tissue to brightness."""
    shape, affine = (44, 48, 40), np.diag((4.0, 4.0, 4.0, 1.0))
    affine[:3, 3] = -2.0 * np.array(shape)
    places = np.moveaxis(np.indices(shape), 0, -1) * 4.0 + affine[:3, 3]
    away = np.linalg.norm(places / (70, 85, 65), axis=-1)
    tissue = 1 / (1 + np.exp(12 * (away - 1)))
    rng = np.random.default_rng(4)
    for _ in range(40):
        spot = rng.uniform(-45, 45, 3)
        tissue = tissue + rng.uniform(-0.6, 0.6) * np.exp(-((places - spot) ** 2).sum(-1) / (2 * 9.0**2)) * (away < 1)
    return Image(contrast(tissue).astype(np.float32)[..., np.newaxis], affine), away < 1


@pytest.fixture(scope="module")
def two_contrasts():
    fixed, mask = head(lambda tissue: 100 * tissue)
    other, _ = head(lambda tissue: 80 * np.exp(-((tissue - 0.6) ** 2) / 0.1))
    return fixed, other, mask


def misplaced(image, transform):
    return Image(image.data, transform @ image.affine)


@pytest.mark.parametrize("seed", range(3))
def test_a_scan_of_another_contrast_is_put_back(two_contrasts, seed):
    fixed, other, mask = two_contrasts
    true = drawn(np.random.default_rng(seed), 10.0, 8.0)
    found = register(misplaced(other, true), fixed, mask)
    assert found.kept
    assert found.after > found.before
    assert mean_error_mm(found.transform, true, mask, fixed.affine) < 0.5
    np.testing.assert_allclose(moved(misplaced(other, true), found).affine, found.transform @ true @ other.affine)


def test_what_lies_right_is_hardly_moved_and_the_same_each_time(two_contrasts):
    fixed, other, mask = two_contrasts
    first, second = (register(other, fixed, mask) for _ in range(2))
    assert mean_error_mm(first.transform, np.eye(4), mask, fixed.affine) < 0.3
    np.testing.assert_array_equal(first.transform, second.transform)


def test_a_scan_that_shows_nothing_of_the_other_stays_where_it_is(two_contrasts):
    fixed, other, mask = two_contrasts
    far = rigid((0, 0, 0), (900.0, 0, 0))
    found = register(misplaced(other, far), fixed, mask)
    assert not found.kept
    np.testing.assert_array_equal(found.transform, np.eye(4))


@pytest.mark.slow
@pytest.mark.skipif(not REAL.is_dir(), reason="the real scans are not part of the repository")
def test_real_scans_misaligned_by_15_mm_and_15_degrees_are_put_back():
    fixed = read_image(REAL / "tp1_FLAIR.nii.gz")
    mask, rng, errors = brain_mask(fixed.data, fixed.affine), np.random.default_rng(0), []
    for number in range(30):
        other = read_image(REAL / f"tp1_{('T1', 'T2')[number % 2]}.nii.gz")
        true = drawn(rng)
        found = register(misplaced(other, true), fixed, mask, brain_mask(other.data, other.affine))
        errors.append(mean_error_mm(found.transform, true, mask, fixed.affine))
    assert sum(error < 1 for error in errors) >= 29, np.round(errors, 2)
