"""Intensities: what masks, landmarks and whitening mean, typed pictures, and every case recorded from NiftyNet."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy import ndimage

from pimms_tf.data.intensity import (
    FOREGROUND_METHODS,
    FUSIONS,
    LabelMapping,
    average_landmarks,
    borders_to,
    foreground_mask,
    foreground_masks,
    is_centred,
    label_mapping,
    landmarks,
    map_labels,
    otsu_threshold,
    pad,
    pad_to,
    standardise,
    unlisted_labels,
    unmap_labels,
    unpad,
    whiten,
    with_zero_background,
)
from pimms_tf.errors import InputError

GOLDENS = Path(__file__).parents[1] / "goldens" / "04_preprocessing"
CASES = json.loads((GOLDENS / "cases.json").read_text())
NAMES = [case["case"] for case in CASES["cases"]]
MODALITIES = ("T1", "T2", "Flair")
CUTOFF = (0.01, 0.99)

volumes = arrays.arrays(np.float32, (3, 4, 5), elements=st.floats(-1e4, 1e4, width=32))


@pytest.fixture(scope="module")
def recorded():
    with np.load(GOLDENS / "preprocessing.npz") as file:
        return {name: file[name] for name in file.files if not name.startswith("aug_")}


def keys(pattern):
    with np.load(GOLDENS / "preprocessing.npz") as file:
        return [name for name in file.files if re.fullmatch(pattern, name)]


def read_table(name):
    lines = (GOLDENS / "histogram" / name).read_text().splitlines()
    return {line.split()[0]: np.array(line.split()[1:], float) for line in lines if line.strip()}


def picture(*rows):
    """A volume (x, y, 1) from rows of characters, where a space is 0 and # is 1."""
    return np.array([[character == "#" for character in row] for row in rows], np.float32)[..., np.newaxis]


# Foreground


def test_a_voxel_grows_by_two_neighbours_in_each_direction():
    volume = picture("       ", "       ", "       ", "   #   ", "       ", "       ", "       ")
    expected = picture("       ", "   #   ", "  ###  ", " ##### ", "  ###  ", "   #   ", "       ")
    np.testing.assert_array_equal(foreground_mask(volume, "threshold_plus"), expected > 0)


def test_a_hollow_ball_is_filled_but_a_ring_in_one_slice_is_not():
    distance = np.linalg.norm(np.indices((21, 21, 21)) - 10, axis=0)
    shell = ((distance > 7) & (distance < 9)).astype(np.float32)
    assert foreground_mask(shell, "threshold_plus")[10, 10, 10]
    assert not foreground_mask(shell[:, :, 10:11], "threshold_plus")[10, 10, 0]


@settings(deadline=None)
@given(arrays.arrays(bool, st.tuples(*[st.integers(1, 7)] * 3)))
def test_holes_are_those_scipy_fills(seeds):
    if seeds.any():
        expected = ndimage.binary_fill_holes(ndimage.binary_dilation(seeds, iterations=2))
        np.testing.assert_array_equal(foreground_mask(seeds.astype(np.float32), "threshold_plus"), expected)


@pytest.mark.parametrize(("method", "expected"), [("threshold_plus", 4), ("mean_plus", 3), ("otsu_plus", 2)])
def test_methods_differ_in_their_threshold(method, expected):
    volume = np.zeros((99, 1, 1), np.float32)
    volume[[10, 30, 50, 70], 0, 0] = 1, 20, 95, 100  # their mean is 2.2
    assert np.count_nonzero(foreground_mask(volume, method)) == 5 * expected


def test_otsu_separates_two_heaps():
    rng = np.random.default_rng(0)
    volume = np.concatenate([rng.normal(10, 2, 900), rng.normal(60, 5, 100)])
    assert abs(np.count_nonzero(volume > otsu_threshold(volume)) - 100) < 5


@pytest.mark.parametrize("method", FOREGROUND_METHODS)
def test_a_volume_without_foreground_is_refused(method):
    with pytest.raises(
        InputError, match=f"foreground_type {method} leaves no voxel: values are 0 to 0, the threshold is 0"
    ):
        foreground_mask(np.zeros((3, 4, 5), np.float32), method)


@pytest.mark.parametrize(
    ("method", "hint"),
    [
        ("thresh_plus", "did you mean threshold_plus"),
        ("otsu", "did you mean otsu_plus"),
        ("x", "use one of otsu_plus, "),
    ],
)
def test_an_unknown_method_is_refused_with_the_nearest_one(method, hint):
    with pytest.raises(InputError, match=f"foreground_type '{method}' is unknown; {hint}"):
        foreground_mask(np.ones((3, 4, 5), np.float32), method)


@pytest.fixture
def two_scans():
    scans = np.zeros((9, 9, 9, 3), np.float32)
    scans[2:5, 2:5, 2:5, 0] = 1
    scans[4:7, 4:7, 4:7, 1] = 1
    return scans


def test_and_intersects_or_unites_multi_leaves_and_absent_scans_have_none(two_scans):
    own = [foreground_mask(two_scans[..., slot], "threshold_plus") for slot in (0, 1)]
    for fusion, expected in (("and", (own[0] & own[1],) * 2), ("or", (own[0] | own[1],) * 2), ("multi", own)):
        masks = foreground_masks(two_scans, "threshold_plus", fusion)
        for slot in (0, 1):
            np.testing.assert_array_equal(masks[..., slot], expected[slot])
        assert not masks[..., 2].any()


def test_niftynets_empty_masks_are_there_for_those_who_ask(two_scans):
    assert foreground_masks(two_scans, "threshold_plus", "multi").any()
    assert not foreground_masks(two_scans, "threshold_plus", "multi", multi_is_empty=True).any()


@pytest.mark.parametrize("fusion", FUSIONS)
def test_scans_that_are_all_absent_have_empty_masks(fusion):
    assert not foreground_masks(np.zeros((3, 4, 5, 2), np.float32), "otsu_plus", fusion).any()


def test_masks_that_do_not_meet_are_refused():
    scans = np.zeros((20, 3, 3, 2), np.float32)
    scans[0, ..., 0] = scans[19, ..., 1] = 1
    with pytest.raises(InputError, match=r"share no voxel \(multimod_foreground_type and\); use multi"):
        foreground_masks(scans, "threshold_plus", "and")


def test_the_scan_without_foreground_is_named(two_scans):
    two_scans[..., 1] *= -1
    with pytest.raises(InputError, match="scan 2 of 3: foreground_type threshold_plus leaves no voxel"):
        foreground_masks(two_scans, "threshold_plus", "and")


def test_an_unknown_fusion_is_refused_with_the_nearest_one():
    with pytest.raises(InputError, match="multimod_foreground_type 'all' is unknown"):
        foreground_masks(np.ones((3, 4, 5, 2), np.float32), "otsu_plus", "all")


# Histogram


def test_landmarks_are_percentiles_with_the_cutoffs_at_the_ends():
    ramp = np.linspace(0, 100, 101).reshape(101, 1, 1)
    expected = [1, 10, 20, 25, 30, 40, 50, 60, 70, 75, 80, 90, 99]
    np.testing.assert_allclose(landmarks(ramp, np.ones(ramp.shape, bool), CUTOFF), expected)


def test_voxels_outside_the_mask_do_not_count():
    ramp = np.linspace(0, 100, 101).reshape(101, 1, 1)
    disturbed = np.concatenate([ramp, np.full((50, 1, 1), 1e6)])
    mask = disturbed <= 100
    np.testing.assert_allclose(landmarks(disturbed, mask, CUTOFF), landmarks(ramp, np.ones(ramp.shape, bool), CUTOFF))


def test_the_worked_example_of_two_images():
    first, second = np.linspace(0, 100, 101), np.linspace(10, 60, 101) ** 1.2
    everywhere = np.ones(101, bool)
    mapping = average_landmarks([landmarks(volume, everywhere, CUTOFF) for volume in (first, second)])
    expected = [0, 8.398503, 18.008025, 22.903089, 27.850925, 37.888505, 48.094091, 58.448059, 68.935297, 74.225039]
    np.testing.assert_allclose(mapping, [*expected, 79.543774, 90.263657, 100], atol=1e-6)
    mapped = standardise(second, everywhere, mapping)
    np.testing.assert_allclose(mapped[[0, 1, 50, 99, 100]], [-0.894044, 0, 48.094091, 100, 101.091148], atol=2e-5)


def test_an_image_mapped_by_its_own_landmarks_only_stretches():
    volume = np.random.default_rng(0).gamma(2, 50, (9, 9, 9)).astype(np.float32)
    everywhere = np.ones(volume.shape, bool)
    own = landmarks(volume, everywhere, CUTOFF)
    mapped = standardise(volume, everywhere, average_landmarks([own]))
    np.testing.assert_allclose(mapped, 100 * (volume - own[0]) / (own[-1] - own[0]), atol=1e-4)


@settings(deadline=None)
@given(volumes, st.sampled_from(["percentile", "quartile", "median"]))
def test_the_order_of_intensities_survives(volume, norm_type):
    mapping = np.linspace(0, 100, 13)
    mapped = standardise(volume, np.ones(volume.shape, bool), mapping, norm_type)
    assert np.isfinite(mapped).all()
    inside = landmarks(volume, np.ones(volume.shape, bool), CUTOFF)
    if (np.diff(inside) > 1e-2).all():  # where landmarks coincide the mapping is flat and jumps
        ranks = np.argsort(volume.ravel(), kind="stable")
        assert (np.diff(mapped.ravel()[ranks]) >= -1e-3).all()


def test_a_plane_at_a_time_is_as_good_as_all_at_once():
    volume = np.random.default_rng(0).gamma(2, 50, (7, 6, 5)).astype(np.float32)
    mask, mapping = volume > 20, np.linspace(0, 100, 13)
    flat = standardise(volume.ravel(), mask.ravel(), mapping)
    np.testing.assert_array_equal(standardise(volume, mask, mapping).ravel(), flat)


@pytest.mark.parametrize(
    ("norm_type", "cutoff", "used"),
    [
        ("percentile", (0.2, 0.8), (0.09, 0.91)),
        ("quartile", (0.05, 0.95), (0.05, 0.95)),
        ("quartile", (0.3, 0.7), (0.24, 0.76)),
        ("median", (0.3, 0.7), (0.09, 0.91)),
    ],
)
def test_cutoffs_never_cross_an_inner_landmark(norm_type, cutoff, used):
    volume = np.linspace(0, 1, 1001)
    mapping = np.linspace(0, 100, 13)
    mapped = standardise(volume, np.ones(1001, bool), mapping, norm_type, cutoff)
    np.testing.assert_allclose(np.interp(used, volume, mapped), (0, 100), atol=1e-3)


def test_an_image_without_contrast_is_left_out_of_the_average():
    good = np.arange(13.0)
    np.testing.assert_allclose(average_landmarks([good, np.full(13, 7.0)]), average_landmarks([good]))
    with pytest.raises(InputError, match="no training image has more than one intensity"):
        average_landmarks([np.full(13, 7.0)])
    with pytest.raises(InputError, match="no training image has more than one intensity"):
        average_landmarks([])


def test_an_absent_scan_stays_zero():
    absent = np.zeros((3, 4, 5), np.float32)
    assert not standardise(absent, absent > 0, np.linspace(0, 100, 13)).any()
    assert not whiten(absent, absent > 0).any()
    assert not whiten(absent).any()


def test_landmarks_of_nothing_are_refused():
    with pytest.raises(InputError, match="need foreground voxels, and the mask is empty"):
        landmarks(np.ones((3, 4, 5)), np.zeros((3, 4, 5), bool), CUTOFF)


@pytest.mark.parametrize("cutoff", [(0.9, 0.1), (-0.1, 0.9), (0.1, 1.1), (0.5, 0.5)])
def test_impossible_cutoffs_are_refused(cutoff):
    with pytest.raises(InputError, match="two fractions with 0 <= lower < upper <= 1"):
        landmarks(np.arange(9.0), np.ones(9, bool), cutoff)


def test_an_unknown_norm_type_or_a_short_mapping_is_refused():
    with pytest.raises(InputError, match="norm_type 'quartiles' is unknown; did you mean quartile"):
        standardise(np.arange(9.0), np.ones(9, bool), np.linspace(0, 100, 13), "quartiles")
    with pytest.raises(InputError, match="has 13 values, received 5"):
        standardise(np.arange(9.0), np.ones(9, bool), np.arange(5.0))


# Whitening


def test_the_worked_example_of_whitening():
    volume = np.array([0, 0, 10, 12, 14], np.float32)
    np.testing.assert_allclose(whiten(volume, volume > 0), [-7.348469, -7.348469, -1.224745, 0, 1.224745], atol=1e-6)


@settings(deadline=None)
@given(volumes)
def test_the_foreground_ends_with_mean_0_and_deviation_1(volume):
    mask = volume > np.median(volume)
    if volume[mask].size and volume[mask].std() > 1e-2:
        inside = whiten(volume, mask)[mask].astype(np.float64)
        assert abs(inside.mean()) < 1e-3
        assert abs(inside.std() - 1) < 1e-3


@pytest.mark.parametrize("value", [0.0, 3.0, 0.1, 1e7, -1e7])
def test_a_constant_image_stays_finite_and_becomes_zero(value):
    whitened = whiten(np.full((5, 5, 5), value, np.float32))
    assert np.abs(whitened).max() == 0


@pytest.mark.parametrize("factor", [1e-2, 1e18, 1e30])
def test_the_unit_of_a_scan_does_not_matter(factor):
    scan = np.random.default_rng(0).uniform(1, 2, (6, 6, 6)).astype(np.float32)
    np.testing.assert_allclose(whiten(scan * np.float32(factor)), whiten(scan), atol=1e-4)


def test_a_large_offset_costs_no_digits():
    noise = np.random.default_rng(0).normal(0, 1, (20, 20, 20))
    shifted = (noise + 1e4).astype(np.float32)
    exact = (shifted.astype(np.float64) - shifted.mean(dtype=np.float64)) / shifted.std(dtype=np.float64)
    np.testing.assert_allclose(whiten(shifted), exact, atol=1e-5)


def test_whitening_gives_float32_and_leaves_its_input():
    volume = np.arange(60.0).reshape(3, 4, 5)
    before = volume.copy()
    assert whiten(volume).dtype == np.float32
    np.testing.assert_array_equal(volume, before)


# Labels


def test_the_last_of_several_codes_comes_back_and_unlisted_ones_become_0():
    mapping = LabelMapping((0, 1, 2), (0, 1, 1))
    np.testing.assert_array_equal(map_labels(np.array([0, 1, 2, 7]), mapping), [0, 1, 1, 0])
    np.testing.assert_array_equal(unmap_labels(np.array([0, 1, 5]), mapping), [0, 2, 0])
    assert unlisted_labels(np.array([7, 1, 9, 7]), mapping) == (7.0, 9.0)


@settings(deadline=None)
@given(arrays.arrays(np.int32, (3, 4, 5), elements=st.integers(-50, 50)))
def test_a_found_mapping_counts_from_0_and_comes_back(label):
    mapping = label_mapping([label])
    classes = map_labels(label, mapping)
    assert set(np.unique(classes)) == set(range(len(mapping.source)))
    np.testing.assert_array_equal(unmap_labels(classes, mapping), label)


def test_codes_that_are_no_whole_numbers_come_back_as_floats():
    mapping = label_mapping([np.array([0.5, 2.0]), np.array([7.0])])
    assert mapping == LabelMapping((0.5, 2.0, 7.0), (0, 1, 2))
    assert unmap_labels(np.array([0, 1]), mapping).tolist() == [0.5, 2.0]


def test_a_mapping_of_unequal_sides_or_of_nothing_is_refused():
    with pytest.raises(InputError, match="as many sources as targets"):
        map_labels(np.zeros(3), LabelMapping((0, 1), (0,)))
    with pytest.raises(InputError, match="needs at least one label map"):
        label_mapping([])


# Padding


def test_minimum_padding_takes_the_least_of_each_line():
    volume = np.arange(12).reshape(3, 4, 1)
    expected = [[0, 0, 1, 2, 3, 0], [0, 0, 1, 2, 3, 0], [4, 4, 5, 6, 7, 4], [8, 8, 9, 10, 11, 8], [0, 0, 1, 2, 3, 0]]
    np.testing.assert_array_equal(pad(volume, (1, 1, 0))[..., 0], expected)


@settings(deadline=None)
@given(
    st.tuples(*[st.integers(1, 5)] * 3),
    st.one_of(
        st.integers(0, 4),
        st.lists(st.integers(0, 4), max_size=3),
        st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=3, max_size=3),
    ),
    st.sampled_from(["minimum", "constant", "edge"]),
)
def test_unpadding_undoes_padding(shape, border, mode):
    volume = np.random.default_rng(0).random((*shape, 2), np.float32)
    np.testing.assert_array_equal(unpad(pad(volume, border, mode), border), volume)


def test_padding_to_a_size_puts_the_odd_voxel_behind_and_leaves_longer_axes():
    assert borders_to((5, 8, 4), (8, 6, 6)) == ((1, 2), (0, 0), (1, 1))
    assert pad_to(np.zeros((5, 8, 4, 2)), (8, 6, 6)).shape == (8, 8, 6, 2)


def test_no_border_is_no_copy():
    volume = np.ones((3, 4, 5))
    assert pad(volume, 0) is volume


def test_an_axis_no_longer_than_its_borders_is_left_whole():
    assert unpad(np.zeros((4, 9, 5)), (2, 2, 2)).shape == (4, 5, 1)


@pytest.mark.parametrize("border", [-1, (1, -2, 0), (1, 1, 1, 1)])
def test_impossible_borders_are_refused(border):
    with pytest.raises(InputError, match="must be one to three numbers from 0 upwards"):
        pad(np.ones((3, 4, 5)), border)


def test_an_unknown_padding_mode_is_refused():
    with pytest.raises(InputError, match="volume_padding_mode 'least' cannot pad"):
        pad(np.ones((3, 4, 5)), 1, "least")


# Recorded from NiftyNet


@pytest.mark.parametrize("name", CASES["otsu_threshold"])
def test_otsu_thresholds_are_niftynets(name, recorded):
    assert otsu_threshold(recorded[name][..., 0, 0]) == CASES["otsu_threshold"][name]


@pytest.mark.parametrize("case", [case for case in CASES["cases"] if case["case"].startswith("mask__")], ids=str)
def test_masks_are_niftynets(case, recorded):
    _, name, method, fusion, threshold = case["case"].split("__")
    scans, threshold = recorded[name][..., 0, :], float(threshold.removeprefix("thr"))
    if "error" in case:
        with pytest.raises(InputError, match=r"is unknown|leaves no voxel"):
            foreground_masks(scans, method, fusion, threshold)
    else:
        masks = foreground_masks(scans, method, fusion, threshold, multi_is_empty=True)
        np.testing.assert_array_equal(masks, recorded[case["case"]][..., 0, :])
        assert masks.sum(axis=(0, 1, 2)).tolist() == case["n_true"]


@pytest.mark.parametrize("method", ["otsu_plus", "otsu_minus", "threshold_plus", "mean_plus"])
def test_masks_of_one_volume_are_niftynets(method, recorded):
    mask = foreground_mask(recorded["mask_input"][..., 0, 0], method)
    np.testing.assert_array_equal(mask, recorded[f"mask3d__{method}"])


WHITENED = {
    "no_mask": ("volume_1", None),
    "otsu_plus_or": ("volume_1", ("otsu_plus", "or")),
    "otsu_plus_and": ("volume_1", ("otsu_plus", "and")),
    "mean_plus_or": ("volume_1", ("mean_plus", "or")),
    "threshold_plus_and": ("volume_1", ("threshold_plus", "and")),
    "constant_image": (None, None),
    "second_modality_zero_no_mask": ("mask_input_second_modality_zero", None),
    "second_modality_zero_otsu_plus_or": ("mask_input_second_modality_zero", ("otsu_plus", "or")),
}


@pytest.mark.parametrize("name", [name.removeprefix("whiten__") for name in NAMES if name.startswith("whiten__")])
def test_whitened_scans_are_niftynets(name, recorded):
    source, mask = WHITENED[name]
    expected = recorded[f"whiten__{name}"][..., 0, :]
    scans = np.full(expected.shape, 3, np.float32) if source is None else recorded[source][..., 0, :]
    masks = None if mask is None else foreground_masks(scans, *mask)
    for slot in range(scans.shape[-1]):
        whitened = whiten(scans[..., slot], None if masks is None else masks[..., slot])
        np.testing.assert_allclose(whitened, expected[..., slot], rtol=1e-5, atol=1e-6)


def trained_mapping(recorded, mask, cutoff, slot):
    scans = [recorded[f"volume_{image}"][..., 0, slot] for image in range(6)]
    masks = [np.ones(scan.shape, bool) if mask is None else foreground_mask(scan, mask) for scan in scans]
    return average_landmarks([landmarks(scan, mask, cutoff) for scan, mask in zip(scans, masks, strict=True)])


@pytest.mark.parametrize("slot", range(3), ids=MODALITIES)
@pytest.mark.parametrize(
    "case", [case for case in CASES["cases"] if "trained_on" in case], ids=lambda case: case["file"]
)
def test_trained_mappings_are_niftynets(case, slot, recorded):
    mapping = trained_mapping(recorded, case["mask"], case["cutoff"], slot)
    expected = read_table(Path(case["file"]).name)[MODALITIES[slot]]
    np.testing.assert_allclose(mapping, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", keys(r"hist__(nomask|otsu_plus|mean_plus)__.*"))
def test_standardised_scans_are_niftynets(name, recorded):
    _, mask, norm_type, cut, volume = name.split("__")
    lower, upper = cut.removeprefix("cut").split("_")
    cutoff, image = (float(lower), float(upper)), int(volume.removeprefix("vol"))
    scans = recorded[f"volume_{image}"][..., 0, :]
    masks = np.ones(scans.shape, bool) if mask == "nomask" else foreground_masks(scans, mask, "or")
    file = read_table(f"map_{mask}_cutoff_{lower}_{upper}.txt")
    for slot, modality in enumerate(MODALITIES):
        # The percentile run was the one that trained, with the mapping at hand; the others read it, in float32.
        mapping = file[modality].astype(np.float32)
        if norm_type == "percentile":
            mapping = trained_mapping(recorded, None if mask == "nomask" else mask, cutoff, slot)
        mapped = standardise(scans[..., slot], masks[..., slot], mapping, norm_type, cutoff)
        np.testing.assert_allclose(mapped, recorded[name][..., 0, slot], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("hist__incremental__percentile__cut0.05_0.95__vol2", "volume_2"),
        ("hist__incremental__second_modality_zero", "hist__incremental__input_second_modality_zero"),
    ],
)
def test_scans_standardised_by_a_file_completed_later_are_niftynets(name, source, recorded):
    mappings = read_table("map_incremental.txt")
    for slot, modality in enumerate(MODALITIES):
        scan = recorded[source][..., 0, slot]
        mapped = standardise(scan, np.ones(scan.shape, bool), mappings[modality], "percentile", (0.05, 0.95))
        np.testing.assert_allclose(mapped, recorded[name][..., 0, slot], rtol=1e-5, atol=1e-6)


def test_a_modality_added_to_a_file_is_trained_alike(recorded):
    before, after = read_table("map_incremental_before.txt"), read_table("map_incremental.txt")
    np.testing.assert_allclose(after["T1"], before["T1"], rtol=1e-7)  # once through float32
    for slot in (1, 2):
        trained = trained_mapping(recorded, None, (0.05, 0.95), slot)
        np.testing.assert_allclose(trained, after[MODALITIES[slot]], rtol=1e-6, atol=1e-6)


def test_whitening_after_standardising_with_the_same_masks_is_niftynets(recorded):
    scans = recorded["volume_3"][..., 0, :]
    masks, cutoff = foreground_masks(scans, "otsu_plus", "or"), (0.05, 0.95)
    for slot, modality in enumerate(MODALITIES):
        mapping = read_table("map_otsu_plus_cutoff_0.05_0.95.txt")[modality]
        mapped = standardise(scans[..., slot], masks[..., slot], mapping, "percentile", cutoff)
        whitened = whiten(mapped, masks[..., slot])
        expected = recorded["hist_then_whiten__otsu_plus_or__percentile__vol3"][..., 0, slot]
        np.testing.assert_allclose(whitened, expected, rtol=1e-5, atol=1e-6)


def test_label_codes_are_niftynets_there_and_back(recorded):
    file = read_table("labels.txt")
    mapping = label_mapping([recorded["labelnorm_input"]])
    assert mapping.source == tuple(file["label_Label-from"])
    assert mapping.target == tuple(file["label_Label-to"])
    np.testing.assert_array_equal(map_labels(recorded["labelnorm_input"], mapping), recorded["labelnorm_output"])
    np.testing.assert_array_equal(unmap_labels(recorded["labelnorm_output"], mapping), recorded["labelnorm_inverse"])


@pytest.mark.parametrize("name", [name for name in NAMES if name.startswith("pad__")])
def test_padded_volumes_are_niftynets(name, recorded):
    _, border, mode = name.split("__")
    border = [int(number) for number in border.split("_")]
    np.testing.assert_array_equal(pad(recorded["pad_input"], border, mode), recorded[name])
    np.testing.assert_array_equal(unpad(recorded[name], border), recorded["pad_input"])


def test_a_volume_padded_to_a_size_is_niftynets(recorded):
    padded = pad_to(recorded["pad_input"], (20, 9, 8), "constant")
    np.testing.assert_array_equal(padded, recorded["pad_to__20_9_8__constant"])


# Scans that were standardised before


def head(background=0.0):
    """A scan (12, 12, 12) of positive values within a box, and a flat background."""
    scan = np.full((12, 12, 12), background, np.float32)
    scan[3:9, 3:9, 3:9] = np.random.default_rng(0).uniform(100, 300, (6, 6, 6))
    return scan


def test_raw_scans_and_their_splines_are_not_centred_and_stay_as_they_are():
    ringing = ndimage.zoom(head(), 1.5, order=3)
    assert ringing.min() < 0
    for scan in (head(), ringing, np.zeros((4, 4, 4), np.float32), head() + 5):
        assert not is_centred(scan)
        assert with_zero_background(scan) is scan


@pytest.mark.parametrize("over", ["all", "foreground", "range"])
def test_the_background_of_a_scan_standardised_before_becomes_0_and_the_head_lies_above(over):
    raw = head()
    inside = raw > 0
    voxels = raw if over == "all" else raw[inside]
    if over == "range":
        standardised = 2 * raw / raw.max() - 1
    else:
        standardised = np.where(inside | (over == "all"), (raw - voxels.mean()) / voxels.std(), 0).astype(np.float32)
    assert is_centred(standardised)
    shifted = with_zero_background(standardised)
    assert not shifted[~inside].any()
    assert shifted[inside].min() > 0
    np.testing.assert_array_equal(foreground_mask(shifted, "threshold_plus"), foreground_mask(raw, "threshold_plus"))
    np.testing.assert_allclose(whiten(shifted, inside)[inside], whiten(raw, inside)[inside], atol=1e-5)


def test_without_a_flat_background_the_lowest_value_becomes_0():
    noise = np.random.default_rng(0).normal(size=(8, 8, 8)).astype(np.float32)
    np.testing.assert_array_equal(with_zero_background(noise), noise - noise.min())
