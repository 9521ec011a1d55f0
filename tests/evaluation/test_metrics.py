"""Metrics: symmetries, masks small enough to type, the WMH challenge rules, PairwiseMeasures of NiftyNet."""

import json
import math
import subprocess
import sys
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage

from pimms_tf.errors import InputError
from pimms_tf.evaluation import (
    average_surface_distance_mm,
    border_distances,
    class_accuracies,
    confusion_matrix,
    dice,
    hausdorff_mm,
    lesion_f1,
    lesion_masks,
    lesion_recall,
    volume_difference_percent,
    volume_ml,
    wmh_h95_mm,
)

GOLDENS = Path(__file__).parents[1] / "goldens" / "08_evaluation"
SPACING = (0.9, 1.1, 3.0)
UNIT = (1.0, 1.0, 1.0)
KINDS = ("standard", "niftynet", "pairwise")

masks = arrays(bool, (5, 6, 4))
filled_masks = masks.filter(np.any)


def cubes():
    reference, inferred = np.zeros((2, 12, 12, 12), bool)
    reference[3:8, 3:8, 3:8] = True
    inferred[4:9, 3:8, 3:8] = True
    return reference, inferred


def blobs(seed, shape=(14, 15, 6), threshold=0.6):
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=(2, *shape)), (0, 1.2, 1.2, 0.8))
    return noise > threshold * noise.std()


def picture(*rows):
    """A mask (x, y, 1) from rows of text; '#' is foreground."""
    return np.array([[character == "#" for character in row] for row in rows])[:, :, np.newaxis]


# Properties


@settings(max_examples=40, deadline=None)
@given(masks, masks)
def test_overlap_and_distances_do_not_depend_on_which_mask_is_the_reference(a, b):
    assert dice(a, b) == dice(b, a)
    for kind in KINDS:
        one, other = (average_surface_distance_mm(*pair, SPACING, kind) for pair in ((a, b), (b, a)))
        np.testing.assert_allclose(one, other, rtol=1e-12)
    np.testing.assert_equal(hausdorff_mm(a, b, SPACING), hausdorff_mm(b, a, SPACING))
    np.testing.assert_equal(wmh_h95_mm(a, b, SPACING), wmh_h95_mm(b, a, SPACING))
    assert lesion_f1(a, b) == lesion_f1(b, a)


@settings(max_examples=40, deadline=None)
@given(filled_masks)
def test_a_mask_agrees_with_itself(mask):
    assert dice(mask, mask) == lesion_recall(mask, mask) == lesion_f1(mask, mask) == 1
    assert volume_difference_percent(mask, mask) == 0
    assert [average_surface_distance_mm(mask, mask, SPACING, kind) for kind in KINDS] == [0, 0, 0]
    assert hausdorff_mm(mask, mask, SPACING) == hausdorff_mm(mask, mask, SPACING, 95) == 0


@settings(max_examples=30, deadline=None)
@given(filled_masks, filled_masks, st.permutations(range(3)))
def test_turning_masks_and_spacing_together_changes_no_distance(a, b, axes):
    turned = [SPACING[axis] for axis in axes]
    for measure in (average_surface_distance_mm, hausdorff_mm):
        expected = measure(a, b, SPACING)
        assert measure(a.transpose(axes), b.transpose(axes), turned) == pytest.approx(expected, rel=1e-12)


@settings(max_examples=30, deadline=None)
@given(filled_masks, filled_masks, st.floats(0.1, 10))
def test_distances_grow_with_the_voxels(a, b, factor):
    scaled = [factor * length for length in SPACING]
    for measure in (average_surface_distance_mm, hausdorff_mm, wmh_h95_mm):
        np.testing.assert_allclose(measure(a, b, scaled), factor * measure(a, b, SPACING), rtol=1e-9)


@settings(max_examples=30, deadline=None)
@given(filled_masks, filled_masks)
def test_background_around_the_masks_changes_nothing(a, b):
    padded_a, padded_b = np.pad(a, 3), np.pad(b, 3)
    for kind in KINDS:
        expected = average_surface_distance_mm(a, b, SPACING, kind)
        assert average_surface_distance_mm(padded_a, padded_b, SPACING, kind) == pytest.approx(expected, rel=1e-12)
    assert hausdorff_mm(padded_a, padded_b, SPACING) == pytest.approx(hausdorff_mm(a, b, SPACING), rel=1e-12)
    assert lesion_f1(padded_a, padded_b) == lesion_f1(a, b)


@pytest.mark.parametrize("seed", range(4))
def test_distances_equal_those_of_whole_distance_maps(seed):
    a, b = blobs(seed)
    borders = [mask & ~ndimage.binary_erosion(mask) for mask in (a, b)]
    maps = [ndimage.distance_transform_edt(~border, sampling=SPACING) for border in borders]
    directed = maps[1][borders[0]], maps[0][borders[1]]
    expected = np.concatenate(directed).mean()
    assert average_surface_distance_mm(a, b, SPACING) == pytest.approx(expected, rel=1e-12)
    for percent in (50, 95, 100):
        expected = max(np.percentile(values, percent) for values in directed)
        assert hausdorff_mm(a, b, SPACING, percent) == pytest.approx(expected, rel=1e-12)
    distances = border_distances(a, b, SPACING)
    assert distances.num_border_voxels == np.count_nonzero(borders[0] | borders[1])


# Pictures


def test_two_shifted_cubes_give_the_numbers_of_the_specification():
    reference, inferred = cubes()
    assert dice(reference, inferred) == 0.8
    expected = {"niftynet": 0.515152, "standard": 0.346939, "pairwise": 0.2}
    for kind, value in expected.items():
        assert average_surface_distance_mm(reference, inferred, UNIT, kind) == pytest.approx(value, abs=5e-7)
    assert hausdorff_mm(reference, inferred, UNIT) == 1


def test_a_shift_along_one_axis_is_measured_in_its_spacing():
    reference, inferred = cubes()
    assert hausdorff_mm(reference, inferred, (2.5, 7.0, 9.0)) == 2.5
    turned = [mask.transpose(2, 0, 1) for mask in (reference, inferred)]
    assert hausdorff_mm(*turned, (7.0, 2.5, 9.0)) == 2.5


def test_every_voxel_of_a_single_slice_is_on_the_border():
    reference, inferred = (mask[:, :, 5:6] for mask in cubes())
    assert average_surface_distance_mm(reference, inferred, UNIT, "niftynet") == pytest.approx(10 / 30)
    assert len(border_distances(reference, inferred, UNIT).from_reference) == 25


def test_distances_of_two_voxels_are_pythagorean():
    a, b = np.zeros((2, 6, 6, 6), bool)
    a[1, 1, 1] = b[4, 5, 3] = True
    assert hausdorff_mm(a, b, UNIT) == pytest.approx(math.sqrt(9 + 16 + 4))
    assert hausdorff_mm(a, b, SPACING) == pytest.approx(math.sqrt(2.7**2 + 4.4**2 + 6**2))
    assert wmh_h95_mm(a, b, SPACING) == pytest.approx(math.sqrt(2.7**2 + 4.4**2 + 6**2))


def test_volume_is_in_millilitres():
    mask = np.zeros((10, 10, 10), bool)
    mask[:5, :4, :3] = True
    assert volume_ml(mask, (0.5, 2.0, 3.0)) == pytest.approx(60 * 3 / 1000)
    assert volume_ml(mask & False, UNIT) == 0


def test_volume_difference_is_relative_to_the_reference():
    ten, six = np.arange(20) < 10, np.arange(20) < 6
    assert volume_difference_percent(ten, six) == 40
    assert volume_difference_percent(six, ten) == pytest.approx(100 * 4 / 6)


def test_lesions_touching_at_a_corner_are_one():
    reference = np.zeros((5, 5, 5), bool)
    reference[1, 1, 1] = reference[2, 2, 2] = True
    inferred = np.zeros_like(reference)
    inferred[2, 2, 2] = True
    assert lesion_recall(reference, inferred) == 1
    reference[2, 2, 2] = inferred[2, 2, 2] = False
    reference[1, 1, 3] = inferred[1, 1, 3] = True  # two apart: another lesion
    assert lesion_recall(reference, inferred) == 0.5


def test_lesion_f1_weighs_recall_against_precision():
    reference = picture("##..##..#..#")
    inferred = picture("#....#..#.#.")
    assert lesion_recall(reference, inferred) == 3 / 4
    assert lesion_f1(reference, inferred) == 3 / 4
    missed = picture("#....#......")
    assert lesion_f1(reference, missed) == pytest.approx(2 * 1 * 0.5 / 1.5)
    assert lesion_f1(reference, ~reference & missed) == 0  # no prediction: precision 1, recall 0


def test_confusion_matrix_counts_reference_in_rows():
    reference, inferred = np.array([0, 0, 1, 2, 2, -1]), np.array([0, 1, 1, 2, 0, 2])
    matrix = confusion_matrix(reference, inferred, 4)
    np.testing.assert_array_equal(matrix, [[1, 1, 0, 0], [0, 1, 0, 0], [1, 0, 1, 0], [0, 0, 0, 0]])
    np.testing.assert_array_equal(class_accuracies(matrix), [0.5, 1, 0.5, np.nan])


# Empty masks


def test_two_empty_masks_agree():
    empty = np.zeros((4, 4, 4), bool)
    assert dice(empty, empty) == 1
    assert math.isnan(dice(empty, empty, both_empty=math.nan))
    assert [average_surface_distance_mm(empty, empty, UNIT, kind) for kind in KINDS] == [0, 0, 0]
    assert hausdorff_mm(empty, empty, UNIT) == 0
    assert math.isnan(wmh_h95_mm(empty, empty, UNIT))
    assert math.isnan(volume_difference_percent(empty, empty))
    assert lesion_recall(empty, empty) == lesion_f1(empty, empty) == 1


@pytest.mark.parametrize("swap", [False, True])
def test_one_empty_mask_has_no_distance_and_no_overlap(swap):
    full, empty = cubes()[0], np.zeros((12, 12, 12), bool)
    reference, inferred = (empty, full) if swap else (full, empty)
    assert dice(reference, inferred) == 0
    assert all(math.isnan(average_surface_distance_mm(reference, inferred, UNIT, kind)) for kind in KINDS)
    assert math.isnan(hausdorff_mm(reference, inferred, UNIT))
    assert math.isnan(wmh_h95_mm(reference, inferred, UNIT))
    assert lesion_f1(reference, inferred) == 0
    if swap:
        assert math.isnan(volume_difference_percent(reference, inferred))
        assert lesion_recall(reference, inferred) == 1
    else:
        assert volume_difference_percent(reference, inferred) == 100
        assert lesion_recall(reference, inferred) == 0


def test_compat_measures_to_the_point_outside_the_array_that_distance_maps_use():
    full, empty = cubes()[0], np.zeros((12, 12, 12), bool)
    assert average_surface_distance_mm(full, empty, UNIT, "niftynet", compat=True) == pytest.approx(9.5276, abs=5e-5)
    border = full & ~ndimage.binary_erosion(full)
    to_nowhere = ndimage.distance_transform_edt(np.ones_like(full), sampling=SPACING)[border].mean()
    assert average_surface_distance_mm(full, empty, SPACING, compat=True) == pytest.approx(to_nowhere, rel=1e-12)
    assert math.isnan(average_surface_distance_mm(empty, empty, UNIT, "niftynet", compat=True))


# WMH challenge


def test_predicted_voxels_of_other_pathology_change_no_score():
    label = np.zeros((12, 12, 6), np.uint8)
    label[2:5, 2:5, 1:3] = 1
    label[7:10, 7:10, 2:5] = 2
    inferred = np.zeros_like(label)
    inferred[3:6, 2:5, 1:3] = 1
    everywhere = np.where(label == 2, 1, inferred)
    for one, other in zip(lesion_masks(label, inferred), lesion_masks(label, everywhere), strict=True):
        np.testing.assert_array_equal(one, other)
    kept = lesion_masks(label, everywhere, ignored_label=None).inferred
    assert kept.sum() == inferred.sum() + 27


def test_masks_are_drawn_at_a_half_and_integers_at_one():
    label = np.array([0, 0.49, 0.5, 1, 1.5, 1.51, 2])
    np.testing.assert_array_equal(lesion_masks(label, np.zeros(7)).reference, [0, 0, 1, 1, 1, 0, 0])
    zeros = np.zeros(5)
    probability = np.array([0, 0.49, 0.5, 1, 1001])
    np.testing.assert_array_equal(lesion_masks(zeros, probability).inferred, [0, 0, 1, 1, 0])
    np.testing.assert_array_equal(lesion_masks(zeros, np.array([0, 1, 2, 3, 1])).inferred, [0, 1, 1, 1, 1])
    np.testing.assert_array_equal(lesion_masks(zeros, np.array([False, True] * 2 + [True])).inferred, [0, 1, 0, 1, 1])


def challenge_h95(reference, inferred, spacing):
    """The challenge's own recipe: SimpleITK erosion, physical points, every distance between them."""
    borders = []
    for mask in (reference, inferred):
        image = sitk.GetImageFromArray(mask.transpose(2, 1, 0).astype(np.uint8))
        eroded = sitk.BinaryErode(image, (1, 1, 0), sitk.sitkBox)
        borders.append(np.argwhere(sitk.GetArrayFromImage(image - eroded).transpose(2, 1, 0)) * spacing)
    apart = np.linalg.norm(borders[0][:, None] - borders[1][None], axis=-1)
    return max(np.percentile(apart.min(axis=axis), 95) for axis in (0, 1))


@pytest.mark.parametrize("seed", range(4))
def test_h95_follows_the_recipe_of_the_challenge(seed):
    a, b = blobs(seed)
    a[:3, :3] = True  # reaches the end of the slice, which counts as foreground there
    assert wmh_h95_mm(a, b, SPACING) == pytest.approx(challenge_h95(a, b, SPACING), rel=1e-9)


@pytest.mark.parametrize("seed", range(4))
def test_lesion_recall_counts_the_components_of_simpleitk(seed):
    reference, inferred = blobs(seed, threshold=1.2)
    components = sitk.ConnectedComponent(sitk.GetImageFromArray(reference.astype(np.uint8)), True)
    numbered = sitk.GetArrayFromImage(components)
    found = np.setdiff1d(numbered[inferred], [0])
    assert numbered.max() > 3
    assert lesion_recall(reference, inferred) == len(found) / numbered.max()


def test_a_hole_takes_its_eight_neighbours_from_a_slice_and_a_full_slice_has_no_border():
    full = np.ones((7, 7, 1), bool)
    holed = full.copy()
    holed[3, 3] = False
    assert math.isnan(wmh_h95_mm(full, holed, UNIT))
    ring = picture(".......", ".......", "..###..", "..#.#..", "..###..", ".......", ".......")
    inner = ring.copy()
    inner[3, 3] = True
    # The border of the holed slice is the ring; the solid 3 x 3 square has the same one.
    assert wmh_h95_mm(holed, inner, UNIT) == 0


# Bad input


@pytest.mark.parametrize("measure", [dice, lesion_recall, lesion_f1, volume_difference_percent, lesion_masks])
def test_masks_of_different_shape_are_refused_with_both_shapes(measure):
    with pytest.raises(InputError, match=r"\(3, 4, 5\) and the reference \(3, 4, 6\)"):
        measure(np.zeros((3, 4, 6)), np.zeros((3, 4, 5)))


@pytest.mark.parametrize("measure", [average_surface_distance_mm, hausdorff_mm, wmh_h95_mm])
def test_distances_refuse_masks_of_different_shape(measure):
    with pytest.raises(InputError, match=r"\(3, 4, 5\) and the reference \(3, 4, 6\)"):
        measure(np.zeros((3, 4, 6)), np.zeros((3, 4, 5)), UNIT)


@pytest.mark.parametrize("spacing", [(1, 1), (1, 1, 0), (1, 1, -1), (1, 1, np.nan)])
def test_spacing_must_be_positive_and_fit_the_array(spacing):
    with pytest.raises(InputError, match=r"spacing .* does not fit an image of shape \(3, 4, 5\)"):
        volume_ml(np.zeros((3, 4, 5)), spacing)


def test_an_unknown_kind_of_distance_is_refused():
    with pytest.raises(ValueError, match='standard, niftynet or pairwise, not "mean"'):
        average_surface_distance_mm(*cubes(), UNIT, "mean")


@pytest.mark.parametrize(("reference", "inferred"), [([0, 3], [0, 1]), ([0, 1], [0, 3]), ([0, 1], [0, -1])])
def test_class_numbers_must_fit_the_matrix(reference, inferred):
    with pytest.raises(ValueError, match="do not fit 3 classes"):
        confusion_matrix(np.array(reference), np.array(inferred), 3)


# Recorded from NiftyNet

RECORDED = json.loads((GOLDENS / "pairwise_measures.json").read_text())


def recorded_pair(name):
    return [np.asarray(nib.load(GOLDENS / "data" / f"{name}_{role}.nii.gz").dataobj) != 0 for role in ("ref", "seg")]


@pytest.mark.parametrize("name", RECORDED)
def test_pairwise_measures_equal_the_recorded_ones(name):
    (reference, inferred), recorded = recorded_pair(name), RECORDED[name]
    distance = average_surface_distance_mm(reference, inferred, UNIT, "pairwise", compat=True)
    np.testing.assert_allclose(distance, recorded["ave_dist"], rtol=1e-12)
    np.testing.assert_allclose(dice(reference, inferred, both_empty=np.nan), recorded["dice"], rtol=1e-12)
    matrix = confusion_matrix(reference, inferred, 2)
    np.testing.assert_array_equal(matrix, [[recorded["tn"], recorded["fp"]], [recorded["fn"], recorded["tp"]]])
    # The recorded ratio is a float32, infinite for an empty reference.
    if np.isfinite(recorded["vol_diff"]):
        difference = volume_difference_percent(reference, inferred) / 100
        assert difference == pytest.approx(recorded["vol_diff"], rel=1e-6, abs=1e-7)


# Speed and weight


def test_a_whole_head_is_scored_within_seconds():
    a, b = blobs(0, (182, 218, 182), 2.5)
    start = time.perf_counter()
    assert average_surface_distance_mm(a, b, UNIT) > 0
    assert hausdorff_mm(a, b, UNIT, 95) > 0
    assert lesion_f1(a, b) > 0
    assert time.perf_counter() - start < 20  # about 1 s; the margin is for busy machines


def test_evaluation_does_not_import_tensorflow():
    code = "import sys, pimms_tf.evaluation; sys.exit(bool({'tensorflow', 'keras'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2], check=False).returncode == 0
