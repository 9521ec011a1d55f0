import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from scipy import ndimage

from pimms_tf.data import augmentation, slots
from pimms_tf.data.augmentation import Augmentation, Drawn, Elastic
from pimms_tf.data.subjects import Subject
from pimms_tf.errors import InputError

RECORDED = np.load(Path(__file__).parents[1] / "goldens" / "04_augmentation" / "augmentation.npz")
INPUT = RECORDED["aug_input"][..., 0, 0]
EVERYTHING = Augmentation(
    flipping_axes=(0, 1, 2),
    scaling_percentage=(-20, 20),
    rotation_degrees=(-10, 10),
    elastic=Elastic(2, 1.0, 1.0),
    bias_field_range=(-0.2, 0.2),
)


class RecordedDraws:
    """The draws of NumPy's global generator, on which the recordings rest, under the names of np.random.Generator."""

    def __init__(self, seed):
        state = np.random.RandomState(seed)
        self.random, self.uniform = state.random_sample, state.uniform


def rng(seed=0):
    return np.random.default_rng(seed)


def make_subject(num_scans=3, absent=(), shape=(9, 8, 7), seed=0, label=True):
    generator = rng(seed)
    scans = generator.normal(1, 1, (*shape, num_scans)).astype(np.float32)
    valid = np.ones(num_scans, bool)
    valid[list(absent)] = False
    scans[..., ~valid] = 0
    picture = generator.integers(0, 3, shape).astype(np.int32)
    return Subject(
        subject_id="s012",
        scans=scans,
        valid=valid,
        modality=np.arange(num_scans, dtype=np.int32),
        label=picture if label else None,
        affine=np.eye(4),
        original=None,
        weight=picture.astype(np.float32) if label else None,
    )


def computed(subject):
    """The subject with all of its volumes as arrays."""
    volumes = {name: getattr(subject, name) for name in ("scans", "label", "weight")}
    return replace(subject, **{name: None if each is None else np.asarray(each) for name, each in volumes.items()})


def test_nothing_is_done_unless_it_is_asked_for():
    subject = make_subject()
    assert Augmentation()(subject, rng()) is subject


def test_the_same_draw_makes_the_same_subject_and_another_draw_another():
    subject = make_subject()
    first, second, third = (EVERYTHING(subject, rng(seed)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first.scans, second.scans)
    assert first.scans.shape != third.scans.shape or not np.array_equal(first.scans, third.scans)


def test_what_was_drawn_can_be_applied_again():
    subject = make_subject()
    drawn = EVERYTHING.draw(subject.scans.shape[:3], rng(3))
    np.testing.assert_array_equal(EVERYTHING.apply(subject, drawn).scans, EVERYTHING(subject, rng(3)).scans)


@pytest.mark.parametrize("reading", ["composed", "chained"])
@pytest.mark.parametrize("seed", range(4))
def test_scans_label_and_prior_share_one_geometry(seed, reading):
    subject = make_subject()
    # The label doubles as a scan: interpolated alike, by nearest voxels, all three must stay one picture.
    picture = replace(subject, scans=subject.label[..., np.newaxis].astype(np.float32), valid=np.array([True]))
    augment = replace(EVERYTHING, scan_order=0, bias_field_range=None, reading=reading)
    moved = computed(augment(picture, rng(seed)))
    assert moved.label.dtype == np.int32
    np.testing.assert_array_equal(moved.scans[..., 0], moved.label)
    assert moved.weight.shape == moved.label.shape
    assert set(np.unique(moved.label)) <= {0, 1, 2}


@pytest.mark.parametrize("reading", ["composed", "chained"])
@pytest.mark.parametrize("seed", range(4))
def test_absent_scans_stay_exactly_zero_and_valid_does_not_change(seed, reading):
    subject, augment = make_subject(absent=(1,)), replace(EVERYTHING, reading=reading)
    changed = computed(augment(subject, rng(seed)))
    assert not changed.scans[..., 1].any()
    assert changed.scans[..., [0, 2]].any(axis=(0, 1, 2)).all()
    assert changed.valid.tolist() == [True, False, True]
    assert changed.scans.dtype == np.float32
    assert not computed(augment(make_subject(num_scans=2, absent=(0, 1)), rng(seed))).scans.any()


def test_the_given_subject_is_never_changed():
    subject = make_subject()
    copy = subject.scans.copy()
    for change in (EVERYTHING, slots.drop_scans, slots.permute_scans):
        for seed in range(5):
            change(subject, rng(seed))
    np.testing.assert_array_equal(subject.scans, copy)


def test_a_subject_without_label_or_prior_stays_without():
    changed = EVERYTHING(make_subject(label=False), rng())
    assert changed.label is None
    assert changed.weight is None


def test_a_single_slice_is_flipped_scaled_and_bent_within_its_plane_but_not_rotated():
    subject = make_subject(shape=(12, 11, 1))
    assert EVERYTHING(subject, rng(1)).scans.shape[2:] == (1, 3)
    turned = Augmentation(rotation_degrees=(-10, 10))(subject, rng(1))
    np.testing.assert_array_equal(turned.scans, subject.scans)
    bent = Augmentation(elastic=Elastic(4, 2.0, 1.0))(subject, rng(1))
    assert not np.array_equal(bent.scans, subject.scans)


# Flip


def test_flips_mirror_the_flagged_axes():
    picture = np.array([[1, 2, 3], [4, 5, 6]])[..., np.newaxis]
    assert augmentation.flip(picture, [True, False, False])[..., 0].tolist() == [[4, 5, 6], [1, 2, 3]]
    assert augmentation.flip(picture, [True, True, False])[..., 0].tolist() == [[6, 5, 4], [3, 2, 1]]


def test_only_the_listed_axes_are_flipped_and_each_half_of_the_time():
    flips = np.array([augmentation.draw_flips((0, 2, -1), rng(seed)) for seed in range(1000)])
    np.testing.assert_allclose(flips.mean(axis=0), [0.5, 0, 0.5], atol=0.05)


def test_the_recorded_flip_is_repeated():
    drawn = augmentation.draw_flips((0, 1, 2), RecordedDraws(5))
    np.testing.assert_array_equal(drawn, RECORDED["aug_flip_seed5_flags"])
    # Flags are drawn for all axes; the recording was told to flip 0 and 1 only.
    flipped = augmentation.flip(INPUT, augmentation.draw_flips((0, 1), RecordedDraws(5)))
    np.testing.assert_array_equal(flipped, RECORDED["aug_flip_seed5"][..., 0, 0])


# Scaling


@pytest.mark.parametrize("order", [0, 1, 3])
def test_the_recorded_scaling_is_repeated(order):
    factors = augmentation.draw_scaling((-10, 10), False, RecordedDraws(4))
    np.testing.assert_allclose(factors, RECORDED["aug_scaling_seed4_zoom"], rtol=1e-14)
    scaled = augmentation.scale(INPUT, factors, order)
    np.testing.assert_allclose(scaled, RECORDED[f"aug_scaling_seed4_order{order}"][..., 0, 0], rtol=1e-5, atol=1e-5)


def test_isotropic_scaling_has_one_factor_and_others_three_in_range():
    assert np.unique(augmentation.draw_scaling((-10, 10), True, rng())).size == 1
    factors = np.array([augmentation.draw_scaling((-10, 20), False, rng(seed)) for seed in range(200)])
    assert np.unique(factors[0]).size == 3
    assert 0.9 <= factors.min() < 0.92
    assert 1.18 < factors.max() <= 1.2


@pytest.mark.parametrize(("factor", "sigma"), [(0.9, 0.2057), (0.5, 0.7355)])
def test_shrinking_along_all_axes_smooths_by_niftynets_sigma(factor, sigma):
    volume = rng().normal(size=(21, 20, 19))
    smoothed = ndimage.gaussian_filter(volume, sigma)
    expected = augmentation.scale(smoothed, (factor,) * 3, order=1, antialiasing=False)
    # The sigma is tabulated with four digits.
    np.testing.assert_allclose(augmentation.scale(volume, (factor,) * 3, order=1), expected, atol=1e-3)


@pytest.mark.parametrize("factors", [(0.8, 0.8, 1.0), (0.8, 1.1, 0.8)])
def test_a_volume_that_does_not_shrink_along_every_axis_is_not_smoothed(factors):
    volume = rng().normal(size=(10, 10, 10))
    np.testing.assert_array_equal(
        augmentation.scale(volume, factors, 1), augmentation.scale(volume, factors, 1, antialiasing=False)
    )
    assert not np.array_equal(
        augmentation.scale(volume, (0.8,) * 3, 1), augmentation.scale(volume, (0.8,) * 3, 1, antialiasing=False)
    )


def test_labels_are_never_smoothed_when_they_shrink():
    subject = make_subject(shape=(20, 20, 20))
    subject = replace(subject, label=subject.label * 50)
    shrunk = Augmentation(scaling_percentage=(-50, -50))(subject, rng())
    assert shrunk.label.shape == (10, 10, 10)
    assert set(np.unique(shrunk.label)) == {0, 50, 100}


# Rotation


@pytest.mark.parametrize("order", [0, 1, 3])
def test_the_recorded_rotation_is_repeated(order):
    matrix = augmentation.draw_rotation((-10, 10), RecordedDraws(3))
    np.testing.assert_allclose(matrix, RECORDED["aug_rotation_uniform_seed3_matrix"], atol=1e-14)
    turned = augmentation.rotate(INPUT, matrix, order)
    recorded = RECORDED[f"aug_rotation_uniform_seed3_order{order}"][..., 0, 0]
    np.testing.assert_allclose(turned, recorded, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("degrees", "fixed"), [((90, 0, 0), 2), ((0, 90, 0), 1), ((0, 0, 90), 0)])
def test_each_angle_turns_its_pair_of_axes(degrees, fixed):
    matrix = augmentation.rotation_matrix(degrees)
    np.testing.assert_allclose(matrix @ matrix.T, np.eye(3), atol=1e-12)
    np.testing.assert_allclose(matrix[fixed], np.eye(3)[fixed], atol=1e-12)
    assert np.allclose(np.diag(matrix), np.eye(3)[fixed], atol=1e-12)


def test_a_quarter_turn_is_about_half_the_shape_so_that_zeros_flow_in_on_one_side():
    picture = np.array([[1, 2, 3], [4, 5, 6], [7, 8, 9]], float)
    volume = np.repeat(picture[..., np.newaxis], 3, axis=2)
    turned = augmentation.rotate(volume, augmentation.rotation_matrix((90, 0, 0)).round(), 0)
    assert turned[..., 0].tolist() == [[0, 0, 0], [3, 6, 9], [2, 5, 8]]


def test_angles_may_have_a_range_each():
    matrix = augmentation.draw_rotation(((30, 30), (0, 0), (0, 0)), rng())
    np.testing.assert_allclose(matrix, augmentation.rotation_matrix((30, 0, 0)), atol=1e-12)


# Elastic deformation and bias field


def test_equal_coefficients_shift_a_volume():
    volume = rng().normal(size=(8, 9, 10)).astype(np.float32)
    coefficients = np.zeros((3, 5**3))
    # SimpleITK counts axes backwards: its first direction is our z.
    coefficients[2] = 2
    moved = augmentation.deform(volume, augmentation.displacement(volume.shape, coefficients.ravel(), 2), order=1)
    np.testing.assert_allclose(moved[:-2], volume[2:], atol=1e-5)
    assert not moved[-2:].any()


@pytest.mark.parametrize("order", [0, 1, 3])
def test_a_displacement_evaluated_once_deforms_like_the_splines_themselves(order):
    volume = rng().normal(size=(12, 13, 14)).astype(np.float32)
    coefficients = augmentation.draw_deformation(3, Elastic(4, 2.0, 1.0), rng())
    image = sitk.GetImageFromArray(volume)
    splines = sitk.BSplineTransformInitializer(image, [4, 4, 4])
    splines.SetParameters(coefficients.tolist())
    interpolator = {0: sitk.sitkNearestNeighbor, 1: sitk.sitkLinear, 3: sitk.sitkBSpline}[order]
    expected = sitk.GetArrayFromImage(sitk.Resample(image, image, splines, interpolator, 0.0))
    deformed = augmentation.deform(volume, augmentation.displacement(volume.shape, coefficients, 4), order)
    np.testing.assert_allclose(deformed, expected, atol=1e-5)


@pytest.mark.parametrize("order", [0, 1, 3])
def test_no_deformation_returns_the_volume(order):
    volume = rng().normal(size=(8, 9, 10)).astype(np.float32)
    still = augmentation.displacement(volume.shape, np.zeros(3 * 7**3), 4)
    np.testing.assert_allclose(augmentation.deform(volume, still, order), volume, atol=1e-5)


def test_the_asked_proportion_is_deformed_with_the_asked_spread():
    drawn = [augmentation.draw_deformation(3, Elastic(4, 15.0, 0.3), rng(seed)) for seed in range(400)]
    deformed = [coefficients for coefficients in drawn if coefficients is not None]
    assert abs(len(deformed) / 400 - 0.3) < 0.07
    assert {coefficients.shape for coefficients in deformed} == {(3 * 7**3,)}
    np.testing.assert_allclose(np.std(deformed), 15, rtol=0.02)
    assert augmentation.draw_deformation(2, Elastic(4, 15.0, 1.0), rng()).shape == (2 * 7**2,)


def test_a_bias_field_of_order_three_has_twenty_terms_and_is_the_same_for_all_scans():
    polynomial = augmentation.draw_bias_field((-0.5, 0.5), 3, rng())
    assert np.count_nonzero(polynomial) == 20
    assert np.count_nonzero(polynomial[..., 0]) == 10
    subject = make_subject()
    changed = Augmentation(bias_field_range=(-0.5, 0.5)).apply(subject, Drawn(polynomial=polynomial))
    field = augmentation.bias_field((9, 8, 7), polynomial)
    np.testing.assert_array_equal(changed.scans, subject.scans * field[..., np.newaxis])
    np.testing.assert_array_equal(changed.label, subject.label)


def test_bias_field_coordinates_end_at_one_and_begin_just_below_minus_one():
    polynomial = np.zeros((4, 4, 4))
    polynomial[1, 0, 0] = 1
    field = np.log(augmentation.bias_field((10, 5, 1), polynomial))
    np.testing.assert_allclose(field[:, 2, 0], np.arange(-5, 5) / 4, atol=1e-6)
    polynomial[0, 2, 0] = 1
    field = np.log(augmentation.bias_field((10, 5, 1), polynomial))
    np.testing.assert_allclose(field[-1, :, 0], 1 + (np.arange(-2.5, 2.5) / 1.5) ** 2, rtol=1e-5)


def test_a_slice_has_no_bias_across_its_plane():
    polynomial = np.zeros((2, 2, 2))
    polynomial[0, 0, 1] = 5
    assert (augmentation.bias_field((4, 2, 1), polynomial) == 1).all()


# Bad input


@pytest.mark.parametrize(
    ("settings_", "sentence"),
    [
        ({"flipping_axes": (0, 3)}, "random_flipping_axes = (0, 3) names an axis beyond 0, 1 and 2"),
        ({"scaling_percentage": (10, -10)}, "scaling_percentage = (10, -10) is not a pair (min, max) with min <= max"),
        ({"scaling_percentage": (-100, 0)}, "scaling_percentage = (-100, 0) shrinks a volume to nothing"),
        ({"rotation_degrees": (10.0,)}, "rotation_angle = (10.0,) is not a pair"),
        ({"rotation_degrees": ((0, 1), (0, 1))}, "rotation_angle = ((0, 1), (0, 1)) needs one (min, max) or three"),
        ({"rotation_degrees": ((0, 1), (0, 1), (5, 1))}, "rotation_angle = (5, 1) is not a pair"),
        ({"elastic": Elastic(1)}, "num_ctrl_points = 1 is too few"),
        ({"elastic": Elastic(proportion=1.5)}, "proportion_to_deform = 1.5 is not between 0 and 1"),
        ({"bias_field_range": (1, 0)}, "bias_field_range = (1, 0) is not a pair"),
        ({"bias_field_order": -1}, "bf_order = -1 is negative"),
    ],
)
def test_settings_out_of_range_are_refused(settings_, sentence):
    with pytest.raises(InputError, match=re.escape(sentence)):
        Augmentation(**settings_)
