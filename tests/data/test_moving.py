from dataclasses import replace

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from pimms_tf.data import augmentation, slots
from pimms_tf.data.augmentation import Augmentation, Drawn, Elastic
from pimms_tf.data.images import spline_coefficients
from pimms_tf.data.moving import Geometry, MovedVolume, bend_coefficients, composed
from pimms_tf.data.subjects import Subject
from pimms_tf.data.windows import balanced_locations, crop, foreground_locations, uniform_locations, weighted_locations

SHAPE = (22, 19, 17)
EVERYTHING = Augmentation(
    flipping_axes=(0, 1, 2),
    scaling_percentage=(-15, 15),
    rotation_degrees=(-10, 10),
    elastic=Elastic(2, 0.5, 1.0),
    bias_field_range=(-0.2, 0.2),
)


def rng(seed=0):
    return np.random.default_rng(seed)


def make_subject(shape=SHAPE, seed=0, coefficients=True):
    generator = rng(seed)
    scans = generator.normal(1, 1, (*shape, 3)).astype(np.float32)
    scans[..., 1] = 0
    picture = (ndimage.gaussian_filter(generator.normal(size=shape), 2) > 0.05).astype(np.int32) * 7
    return Subject(
        subject_id="s012",
        scans=scans,
        valid=np.array([True, False, True]),
        modality=np.arange(3, dtype=np.int32),
        label=picture,
        affine=np.eye(4),
        original=None,
        weight=generator.random(shape).astype(np.float32),
        coefficients=spline_coefficients(scans) if coefficients else None,
    )


def whole(augmentation_, subject, drawn):
    """The scans of the composed reading, by SciPy and SimpleITK from the places of all voxels."""
    shape = subject.scans.shape[:3]
    if drawn.factors is not None:
        shape = augmentation.scaled_shape(shape, drawn.factors)
    places = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij")).astype(float)
    if drawn.deformation is not None:
        bent = augmentation.displacement(shape, drawn.deformation, augmentation_.elastic.num_ctrl_points)
        field = sitk.GetArrayFromImage(bent.GetDisplacementField())
        places += np.moveaxis(field, -1, 0)[::-1]
    if drawn.rotation is not None:
        centre = np.array(shape).reshape(3, 1, 1, 1) / 2
        places = np.einsum("ba,bxyz->axyz", drawn.rotation, places - centre) + centre
    for axis, (n, m) in enumerate(zip(subject.scans.shape, shape, strict=False)):
        places[axis] *= (n - 1) / (m - 1)
        if drawn.flips is not None and drawn.flips[axis]:
            places[axis] = n - 1 - places[axis]
    bias = 1 if drawn.polynomial is None else augmentation.bias_field(shape, drawn.polynomial)
    scans = []
    for scan in np.moveaxis(subject.scans, -1, 0):
        smooth = scan.astype(float)
        if drawn.factors is not None and (drawn.factors < 1).all() and augmentation_.antialiasing:
            sigma = augmentation.smoothing_before(drawn.factors)
            smooth = ndimage.gaussian_filter(smooth, sigma, mode="mirror")
        scans.append(ndimage.map_coordinates(smooth, places, order=3, prefilter=True, mode="constant") * bias)
    label = ndimage.map_coordinates(subject.label, places, order=0, mode="constant")
    return np.stack(scans, axis=-1), label


# Equal to the whole volume


@pytest.mark.parametrize("change", ["flips", "factors", "shrinking", "rotation", "deformation", "polynomial", "all"])
@pytest.mark.parametrize("window", [(12, 11, 1), (1, 9, 12), (9, 10, 8)])
def test_a_window_is_the_one_cut_from_the_whole_transformed_volume(change, window):
    subject = make_subject()
    for seed in range(3):
        drawn = EVERYTHING.draw(SHAPE, rng(seed))
        if change == "shrinking":
            drawn = drawn._replace(factors=np.array([0.9, 0.8, 0.7]))
        elif change != "all":
            drawn = Drawn(**{change: getattr(drawn, change)})
        moved = EVERYTHING.apply(subject, drawn)
        scans, label = whole(EVERYTHING, subject, drawn)
        assert moved.scans.shape == scans.shape
        for location in uniform_locations(scans.shape[:3], window, 3, rng(seed)):
            np.testing.assert_allclose(crop(moved.scans, location), crop(scans, location), atol=1e-5)
            # A place halfway between two voxels may round either way.
            assert (crop(moved.label, location) != crop(label, location)).mean() < 0.01
            np.testing.assert_array_equal(crop(moved.label, location), crop(np.asarray(moved.label), location))


@pytest.mark.parametrize("shape", [(22, 19, 1), (1, 19, 17)])
def test_a_single_slice_is_bent_and_scaled_within_its_plane(shape):
    subject = make_subject(shape)
    for seed in range(3):
        drawn = EVERYTHING.draw(shape, rng(seed))
        moved = np.asarray(EVERYTHING.apply(subject, drawn).scans)
        flat = [axis for axis in range(3) if shape[axis] == 1][0]
        assert moved.shape[flat] == 1
        assert np.isfinite(moved).all()
        assert moved[..., 0].std() > 0.5
        assert not moved[..., 1].any()


@given(st.integers(0, 10**6), st.sampled_from([0, 1, 3]), st.booleans())
@settings(max_examples=30, deadline=None)
def test_any_part_is_that_part_of_all(seed, order, given_coefficients):
    generator = rng(seed)
    shape = tuple(generator.integers(1, 9, 3))
    subject = make_subject(shape, seed, given_coefficients)
    moved = replace(EVERYTHING, scan_order=order)(subject, generator).scans
    everything = np.asarray(moved)
    assert everything.shape == moved.shape
    key = []
    for length in moved.shape[:3]:
        start, stop = sorted(generator.integers(0, length + 1, 2).tolist())
        key.append([slice(start, stop), slice(None, None, 2), int(generator.integers(length))][generator.integers(3)])
    key.append([slice(None), 2, [2, 0]][generator.integers(3)])
    part = moved[tuple(key)]
    np.testing.assert_allclose(part, everything[tuple(key[:3])][..., key[3]], atol=1e-6)
    assert part.dtype == everything.dtype


def test_flips_alone_copy_voxels_exactly():
    subject = make_subject()
    drawn = Drawn(flips=np.array([True, False, True]))
    moved = EVERYTHING.apply(subject, drawn)
    for name in ("scans", "label", "weight"):
        np.testing.assert_array_equal(np.asarray(getattr(moved, name)), np.flip(getattr(subject, name), (0, 2)))


def test_a_deformation_is_that_of_simpleitk_for_any_number_of_control_points():
    for num, shape in ((2, (9, 13, 21)), (4, (31, 8, 5)), (7, (6, 40, 1))):
        elastic = Elastic(num, 3.0, 1.0)
        drawn = augmentation.draw_deformation(sum(n > 1 for n in shape), elastic, rng(num))
        field = augmentation.displacement(shape, drawn, num).GetDisplacementField()
        expected = np.moveaxis(sitk.GetArrayFromImage(field), -1, 0)[::-1]
        geometry = composed(shape, shape, bend=bend_coefficients(shape, drawn, num))
        found = np.stack(geometry.places(*map(np.arange, shape))) - np.indices(shape)
        np.testing.assert_allclose(found[: len(expected)].reshape(expected.shape), expected, atol=1e-9)


def test_the_composed_reading_is_the_chain_where_only_one_step_interpolates():
    subject = make_subject()
    chain = replace(EVERYTHING, reading="chained")
    for seed in range(3):
        drawn = EVERYTHING.draw(SHAPE, rng(seed))
        for names in (("flips", "rotation", "polynomial"), ("flips", "factors")):
            one = Drawn(**{name: getattr(drawn, name) for name in names})._replace(
                **({"factors": np.array([1.1, 0.95, 1.2])} if "factors" in names else {})
            )
            composed_, chained = EVERYTHING.apply(subject, one), chain.apply(subject, one)
            np.testing.assert_allclose(np.asarray(composed_.scans), chained.scans, atol=1e-5)
            assert (np.asarray(composed_.label) != chained.label).mean() < 0.005


def test_what_lies_outside_is_zero():
    volume = np.ones((4, 4, 4), np.float32)
    geometry = Geometry((4, 4, 4), (6, 4, 4), np.eye(3), np.array([-1.0, 0, 0]))
    for order in (0, 1, 3):
        moved = np.asarray(MovedVolume(volume, geometry, order))
        np.testing.assert_allclose(moved[:, 2, 2], [0, 1, 1, 1, 1, 0], atol=1e-6)


def test_scans_that_were_permuted_are_not_interpolated_by_the_coefficients_of_others():
    subject = make_subject()
    turning = Augmentation(rotation_degrees=(5, 5))
    for change in (slots.permute_scans, slots.drop_scans):
        for seed in range(3):
            changed = change(subject, rng(seed))
            expected = np.asarray(turning(replace(changed, coefficients=None), rng()).scans)
            np.testing.assert_array_equal(np.asarray(turning(changed, rng()).scans), expected)


def test_indexing_by_ellipsis_is_refused():
    with pytest.raises(TypeError, match="is indexed along x, y, z and scan"):
        EVERYTHING(make_subject(), rng()).scans[..., 0]


# Where windows are cut


@pytest.mark.parametrize("locate", [weighted_locations, balanced_locations])
@pytest.mark.parametrize("window", [(9, 8, 1), (5, 5, 5)])
def test_windows_are_drawn_as_from_the_whole_transformed_prior(locate, window):
    subject = make_subject()
    subject = replace(subject, weight=subject.label.astype(np.float32)) if locate is balanced_locations else subject
    for seed in range(5):
        moved = EVERYTHING(subject, rng(seed)).weight
        expected = locate(moved.shape, window, 6, np.asarray(moved), rng(seed))
        np.testing.assert_array_equal(locate(moved.shape, window, 6, moved, rng(seed)), expected)


def test_weighted_windows_follow_the_prior_of_the_subject_as_it_was_prepared():
    # Two halves of weights 1 and 3, wherever augmentation takes them.
    subject = make_subject()
    prior = np.ones(SHAPE, np.float32)
    prior[11:] = 3
    subject = replace(subject, weight=prior)
    turning = Augmentation(flipping_axes=(0,), rotation_degrees=(-20, 20), scaling_percentage=(5, 20))
    heavy, share = 0, 0.0
    for seed in range(150):
        moved = turning(subject, rng(seed))
        at = weighted_locations(moved.weight.shape, (1, 1, 1), 20, moved.weight, rng(seed))
        drawn = np.array([crop(moved.weight, location).item() for location in at])
        heavy += (drawn == 3).sum()
        values = np.asarray(moved.weight)
        share += values[values == 3].sum() / values.sum()
    np.testing.assert_allclose(heavy / 3000, share / 150, atol=0.02)


def test_windows_are_centred_in_slices_that_show_brain_after_the_change():
    subject = make_subject((40, 36, 30))
    brain = np.zeros(subject.scans.shape, np.float32)
    brain[10:30, 10:28, 12:20] = 1
    subject = replace(subject, scans=brain, coefficients=spline_coefficients(brain))
    seen = set()
    for seed in range(20):
        moved = EVERYTHING(subject, rng(seed)).scans
        shows = (np.asarray(moved.nearest).max(axis=(0, 1, 3)) > 0).nonzero()[0]
        at = foreground_locations(moved.shape[:3], (16, 16, 1), 10, moved, rng(seed))
        assert set(at[:, 2]) <= set(shows)
        seen |= set((at[:, 2] - shows.min()).tolist())
    assert len(seen) >= 8
