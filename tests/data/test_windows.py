import itertools
import json
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pimms_tf.data import windows
from pimms_tf.errors import InputError

GOLDEN = Path(__file__).parents[1] / "goldens" / "05_sampling"
RECORDED = np.load(GOLDEN / "sampling.npz")
CASES = json.loads((GOLDEN / "cases.json").read_text())
GRIDS = [case for case in CASES["cases"] if case["case"].startswith("grid_")]
AGGREGATED = [case for case in CASES["cases"] if case["case"].startswith("agg_")]
UNIFORM = [case for case in CASES["cases"] if case["case"] in ("uniform_0", "uniform_1", "uniform_2")]
CENTRE_WINDOWS = {"4x4x2": (4, 4, 2), "5x3x1": (5, 3, 1)}


class RecordedDraws:
    """The draws of NumPy's global generator, on which the recordings rest, under the names of np.random.Generator."""

    def __init__(self, seed):
        state = np.random.RandomState(seed)
        self.integers, self.random, self.multinomial = state.randint, state.random_sample, state.multinomial


def centres(locations):
    return locations[:, :3] + (locations[:, 3:] - locations[:, :3]) // 2


def histogram(points, shape):
    counts = np.zeros(shape, int)
    np.add.at(counts, tuple(points.T), 1)
    return counts


@st.composite
def shapes_and_windows(draw, smallest=1):
    shape = tuple(draw(st.integers(smallest, 14)) for _ in range(3))
    return shape, tuple(draw(st.integers(smallest, length)) for length in shape)


def rng(seed=0):
    return np.random.default_rng(seed)


def all_samplers(shape, window, num):
    ramp = np.arange(np.prod(shape)).reshape(shape)
    yield windows.uniform_locations(shape, window, num, rng())
    yield windows.weighted_locations(shape, window, num, ramp, rng())
    yield windows.balanced_locations(shape, window, num, ramp % 3, rng())
    yield windows.foreground_locations(shape, window, num, ramp >= 0, rng())


# Properties


@given(shapes_and_windows(), st.integers(0, 9))
@settings(max_examples=60, deadline=None)
def test_every_sampler_draws_windows_of_the_asked_size_inside_the_volume(sizes, num):
    shape, window = sizes
    for locations in all_samplers(shape, window, num):
        assert locations.shape == (num, 6)
        assert locations.dtype == np.int32
        assert (locations[:, 3:] - locations[:, :3] == window).all()
        assert (locations[:, :3] >= 0).all()
        assert (locations[:, 3:] <= shape).all()


@given(shapes_and_windows())
@settings(max_examples=60, deadline=None)
def test_cutting_on_a_grid_and_pasting_back_is_the_identity(sizes):
    shape, window = sizes
    volume = rng().normal(size=shape)
    pasted = windows.GridAggregator(shape, (0, 0, 0), fill=np.nan)
    for location in windows.grid_locations(shape, window, (0, 0, 0)):
        pasted.add(windows.crop(volume, location), location)
    np.testing.assert_array_equal(pasted.result(), volume)


@given(shapes_and_windows(smallest=3), st.data())
@settings(max_examples=60, deadline=None)
def test_a_grid_with_border_writes_every_voxel_but_the_rim(sizes, data):
    shape, window = sizes
    border = tuple(data.draw(st.integers(0, (size - 1) // 2)) for size in window)
    volume = rng().normal(size=(*shape, 2))
    pasted = windows.GridAggregator(shape, border, fill=-9)
    for location in windows.grid_locations(shape, window, border):
        pasted.add(windows.crop(volume, location), location)
    core = tuple(slice(b, length - b) for b, length in zip(border, shape, strict=True))
    expected = np.full_like(volume, -9)
    expected[core] = volume[core]
    np.testing.assert_array_equal(pasted.result(), expected)


def test_uniform_windows_reach_both_ends_equally_often():
    start = windows.uniform_locations((7, 5, 3), (3, 5, 1), 6000, rng())[:, 0]
    counts = np.bincount(start, minlength=5)
    assert counts.size == 5
    np.testing.assert_allclose(counts / 6000, 0.2, atol=0.02)


def test_the_same_generator_state_draws_the_same_windows():
    for first, second in zip(all_samplers((9, 8, 7), (4, 3, 2), 8), all_samplers((9, 8, 7), (4, 3, 2), 8), strict=True):
        np.testing.assert_array_equal(first, second)


def test_weighted_windows_are_drawn_in_proportion_to_the_map_and_never_where_it_is_zero():
    prior = np.zeros((6, 5, 4))
    prior[1, 2, 3], prior[4, 4, 0] = 3, 1
    counts = histogram(centres(windows.weighted_locations(prior.shape, (1, 1, 1), 4000, prior, rng())), prior.shape)
    assert counts.sum() == counts[1, 2, 3] + counts[4, 4, 0]
    # Strata leave at most one window to chance.
    assert abs(counts[1, 2, 3] - 3000) <= 1


def test_single_weighted_windows_follow_the_map_too():
    prior, generator = np.array([1.0, 0.0, 3.0]).reshape(3, 1, 1), rng()
    draws = [windows.weighted_locations((3, 1, 1), (1, 1, 1), 1, prior, generator)[0, 0] for _ in range(4000)]
    np.testing.assert_allclose(np.bincount(draws) / 4000, [0.25, 0, 0.75], atol=0.025)


def test_balanced_windows_visit_rare_labels_as_often_as_common_ones():
    label = np.zeros((10, 10, 10), int)
    label[2, 3, 4], label[5:7, 5, 5] = 7, 9
    counts = histogram(centres(windows.balanced_locations(label.shape, (3, 3, 3), 3000, label, rng())), label.shape)
    np.testing.assert_allclose([counts[label == value].sum() / 3000 for value in (0, 7, 9)], 1 / 3, atol=0.04)


def test_flat_windows_over_foreground_are_cut_only_from_slices_that_hold_some():
    foreground = np.zeros((9, 8, 7), bool)
    foreground[4, 4, [2, 3, 6]] = True
    locations = windows.foreground_locations(foreground.shape, (4, 4, 1), 300, foreground, rng())
    assert set(locations[:, 2]) == {2, 3, 6}
    assert set(locations[:, 0]) == set(range(6))


def test_slices_follow_the_axis_along_which_the_window_is_flat():
    foreground = np.zeros((9, 8, 7), bool)
    foreground[:, 5] = True
    locations = windows.foreground_locations(foreground.shape, (4, 1, 4), 50, foreground, rng())
    assert set(locations[:, 1]) == {5}


def test_thick_windows_are_centred_in_foreground_or_as_near_as_they_fit():
    foreground = np.zeros((4, 4, 10), bool)
    foreground[..., 6] = True
    assert set(centres(windows.foreground_locations((4, 4, 10), (2, 2, 4), 50, foreground, rng()))[:, 2]) == {6}
    foreground = np.roll(foreground, 3, axis=2)
    assert set(centres(windows.foreground_locations((4, 4, 10), (2, 2, 4), 50, foreground, rng()))[:, 2]) == {8}


@pytest.mark.parametrize("background", [0.0, -3.0])
def test_scans_may_stand_for_the_foreground_raw_or_whitened_and_absent_ones_do_not_count(background):
    scans = np.full((6, 5, 8, 2), background, np.float32)
    scans[2:4, 2:4, 3:5, 0] = 1
    scans[..., 1] = 0
    locations = windows.foreground_locations((6, 5, 8), (4, 4, 1), 60, scans, rng())
    assert set(locations[:, 2]) == {3, 4}
    with refusal("nothing is foreground"):
        windows.foreground_locations((6, 5, 8), (4, 4, 1), 60, scans[..., 1:], rng())


def test_resizing_and_back_returns_a_ramp():
    x, y, z = np.meshgrid(np.arange(5.0), np.arange(7.0), np.arange(3.0), indexing="ij")
    ramp = x + 2 * y - z
    resized = windows.resize_window(ramp, (9, 13, 3), order=1)
    assert resized.shape == (9, 13, 3)
    np.testing.assert_allclose(windows.resize_window(resized, (5, 7, 3), order=1), ramp, atol=1e-12)


# Pictures


@pytest.mark.parametrize(
    ("length", "window", "border", "starts"),
    [
        (181, 100, 0, [0, 81, 40]),
        (217, 100, 0, [0, 100, 117]),
        (181, 100, 5, [0, 81, 40]),
        (217, 100, 5, [0, 90, 117]),
        (256, 100, 17, [0, 66, 132, 156]),
        (240, 100, 16, [0, 68, 136, 140]),
        (100, 100, 20, [0]),
        (5, 2, 0, [0, 2, 3]),
        (3, 2, 0, [0, 1]),  # nothing lies between two neighbours
        (8, 7, 0, [0, 1]),
        (101, 100, 17, [0, 1]),
        (9, 7, 0, [0, 2, 1]),
        (5, 2, 5, [0, 1, 2, 3]),
    ],
)
def test_tiles_along_an_axis_start_where_niftynet_starts_them(length, window, border, starts):
    locations = windows.grid_locations((length, 1, 1), (window, 1, 1), (border, 0, 0))
    assert locations[:, 0].tolist() == starts


@pytest.mark.parametrize("border", [0, 1, 3])
def test_no_tile_is_cut_twice_whatever_the_sizes(border):
    for length, window in itertools.product(range(1, 30), repeat=2):
        if window <= length:
            starts = windows.grid_locations((length, 1, 1), (window, 1, 1), (border, 0, 0))[:, 0]
            assert len(set(starts.tolist())) == len(starts), (length, window)
            assert {0, length - window} <= set(starts.tolist())


def test_tiles_loop_over_y_then_x_then_z():
    locations = windows.grid_locations((3, 3, 3), (1, 1, 1), (0, 0, 0))
    assert locations[:4, :3].tolist() == [[0, 0, 0], [0, 0, 1], [0, 0, 2], [1, 0, 0]]
    assert locations[9, :3].tolist() == [0, 1, 0]


def test_later_windows_overwrite_earlier_ones_and_unwritten_voxels_keep_the_fill():
    pasted = windows.GridAggregator((4, 4, 1), (0, 0, 0), fill=9)
    for number, location in enumerate([(0, 0, 0, 3, 3, 1), (1, 1, 0, 3, 4, 1), (0, 1, 0, 2, 2, 1)], start=1):
        size = np.subtract(location[3:], location[:3])
        pasted.add(np.full(size, number), location)
    assert pasted.result()[..., 0].tolist() == [[1, 3, 1, 9], [1, 3, 2, 2], [1, 2, 2, 2], [9, 9, 9, 9]]


def test_a_border_is_cropped_from_both_sides_of_a_window():
    picture = np.arange(16).reshape(4, 4, 1)
    pasted = windows.GridAggregator((4, 4, 1), (1, 1, 0)).add(picture, (0, 0, 0, 4, 4, 1))
    assert pasted.result()[..., 0].tolist() == [[0, 0, 0, 0], [0, 5, 6, 0], [0, 9, 10, 0], [0, 0, 0, 0]]


def test_a_network_that_already_lost_the_border_writes_the_same_voxels():
    picture = np.arange(16).reshape(4, 4, 1)
    whole = windows.GridAggregator((5, 5, 1), (1, 1, 0)).add(picture, (1, 0, 0, 5, 4, 1)).result()
    core = windows.GridAggregator((5, 5, 1), (1, 1, 0)).add(picture[1:3, 1:3], (1, 0, 0, 5, 4, 1)).result()
    np.testing.assert_array_equal(whole, core)


@pytest.mark.parametrize(
    ("window", "length", "first", "last"),
    [(100, 181, 50, 130), (100, 217, 50, 166), (1, 181, 0, 180), (101, 181, 50, 130), (100, 100, 50, 50)],
)
def test_weighted_centres_span_niftynets_crop_of_the_map(window, length, first, last):
    prior = np.ones((length, 1, 1))
    drawn = centres(windows.weighted_locations(prior.shape, (window, 1, 1), 2000, prior, rng()))[:, 0]
    assert (drawn.min(), drawn.max()) == (first, last)


def test_a_window_entry_of_zero_or_below_is_the_full_length_of_its_axis():
    assert windows.resolve_window((9, 8, 7), (0, 4, -1)) == (9, 4, 7)
    assert windows.resolve_window((9, 8, 7), (4,)) == (4, 1, 1)
    assert windows.grid_locations((9, 8, 7), (0, 8, -1), (0, 0, 0)).tolist() == [[0, 0, 0, 9, 8, 7]]


def test_crop_keeps_trailing_axes_and_copies_nothing():
    volume = np.arange(48).reshape(4, 3, 2, 2)
    window = windows.crop(volume, (1, 0, 1, 3, 2, 2))
    assert window.shape == (2, 2, 1, 2)
    assert window[0, 0, 0].tolist() == [14, 15]
    assert np.shares_memory(window, volume)


def test_resizing_keeps_an_absent_scan_at_exactly_zero_and_a_volume_of_the_right_shape_untouched():
    volume = rng().normal(size=(5, 6, 1, 2)).astype(np.float32)
    volume[..., 1] = 0
    resized = windows.resize_window(volume, (10, 4, 0), order=3)
    assert resized.shape == (10, 4, 1, 2)
    assert resized[..., 0].any()
    assert not resized[..., 1].any()
    assert windows.resize_window(volume, (5, 6, 1), order=3) is volume
    assert windows.resize_window(volume, (10, 4, 1), order=-1) is volume


# Goldens


@pytest.mark.parametrize("case", GRIDS, ids=lambda case: case["case"])
def test_grid_locations_equal_the_recorded_coordinates_in_order(case):
    locations = windows.grid_locations(case["image_size"], case["window"], case["border"])
    np.testing.assert_array_equal(locations, RECORDED[f"{case['case']}/coordinates"][:, 1:])


@pytest.mark.parametrize("case", CASES["enumerate_step_points"], ids=str)
def test_step_points_equal_the_recorded_ones(case):
    start, end = sorted((case["start"], case["end"]))
    length, size = end - start, min(case["window"], end - start)
    points = windows.grid_locations((length, 1, 1), (size, 1, 1), (0, 0, 0))[:, 0]
    if case["step"] != size:
        border = (size - case["step"]) / 2
        if case["step"] and border != int(border):
            points = windows._steps(length, size, case["step"])  # an odd overlap has no border
        else:
            points = windows.grid_locations((length, 1, 1), (size, 1, 1), (int(np.ceil(border)), 0, 0))[:, 0]
    assert (points + start).tolist() == case["points"]


@pytest.mark.parametrize("case", AGGREGATED, ids=lambda case: case["case"])
def test_aggregated_windows_equal_the_saved_volumes(case):
    yielded = RECORDED[f"{case['case']}/yielded_locations"]
    pad = case["pad"] or (0, 0, 0)
    for subject, size in enumerate(case["image_sizes"]):
        saved = RECORDED[f"{case['case']}/saved/window_out_subj{subject}_niftynet_out.nii.gz"][..., 0, :]
        # Channel 0 is x + 0.5 y + 0.25 z + subject; its padding repeats the minimum of each line, the first voxel.
        x, y, z = np.meshgrid(*(np.arange(n, dtype=np.float32) for n in size), indexing="ij")
        image = np.pad(x + 0.5 * y + 0.25 * z + subject, [(p, p) for p in pad], mode="minimum")
        locations = windows.grid_locations(image.shape, case["window"], case["border"])
        recorded = yielded[yielded[:, 0] == subject, 1:]
        np.testing.assert_array_equal(locations, recorded[: len(locations)])
        pasted = windows.GridAggregator(image.shape, case["border"])
        # The recording fills the last batch of an image with windows it has pasted before, and pastes those again.
        for location in recorded:
            window = windows.crop(image, location)
            code = np.full_like(window, location[:3] @ [1, 100, 10000])
            pasted.add(np.stack([window, code], axis=-1), location)
        result = pasted.result()[tuple(slice(p, p + n) for p, n in zip(pad, size, strict=True))]
        np.testing.assert_array_equal(result, saved)


@pytest.mark.parametrize("border", [(1, 1, 1), (2, 1, 0), (0, 0, 0)], ids=str)
def test_cropping_windows_by_a_border_equals_the_recorded_crop(border):
    name = "crop_" + "_".join(str(b) for b in border) if any(border) else "crop_"
    cropped = RECORDED[f"{name}/window"], RECORDED[f"{name}/location"]
    for window, location, core, target in zip(
        RECORDED["crop_input/window"], RECORDED["crop_input/location"], *cropped, strict=True
    ):
        result = windows.GridAggregator((12, 12, 12), border, fill=np.nan).add(window, location[1:]).result()
        np.testing.assert_array_equal(windows.crop(result, target[1:]), core)
        assert np.isfinite(result).sum() == core.size


@pytest.mark.parametrize("case", UNIFORM, ids=lambda case: case["case"])
def test_uniform_locations_repeat_the_recorded_draws(case):
    drawn = windows.uniform_locations(case["image_size"], case["window"], case["n"], RecordedDraws(case["numpy_seed"]))
    recorded = RECORDED[f"{case['case']}/centres_seed{case['numpy_seed']}"]
    np.testing.assert_array_equal(centres(drawn)[: len(recorded)], recorded)
    assert centres(drawn).min(axis=0).tolist() == case["min"]
    assert centres(drawn).max(axis=0).tolist() == case["max"]


def test_uniform_sampler_repeats_the_recorded_windows():
    x, y, z = np.meshgrid(*(np.arange(n, dtype=np.float32) for n in (12, 11, 10)), indexing="ij")
    locations = windows.uniform_locations((12, 11, 10), (5, 4, 3), 6, RecordedDraws(9))
    np.testing.assert_array_equal(locations, RECORDED["uniform_sampler/location_seed9"][:, 1:])
    cut = np.stack([windows.crop(x + 0.5 * y + 0.25 * z, location) for location in locations])
    np.testing.assert_array_equal(cut, RECORDED["uniform_sampler/windows"][..., 0, 0])


@pytest.mark.parametrize("window", CENTRE_WINDOWS)
@pytest.mark.parametrize("kind", ["map", "map_negative"])
def test_weighted_locations_repeat_the_recorded_draws(window, kind):
    prior = RECORDED["weighted_map"][..., 0, 0]
    if kind == "map_negative":
        prior = prior - 1  # the recording's negative map differs by a constant, which the sampler takes off again
    drawn = centres(windows.weighted_locations(prior.shape, CENTRE_WINDOWS[window], 1000, prior, RecordedDraws(21)))
    np.testing.assert_array_equal(drawn[:50], RECORDED[f"weighted_{window}/{kind}_first50_seed21"])
    counts = histogram(drawn, prior.shape)
    recorded = RECORDED[f"weighted_{window}/{kind}_histogram_of_1000_centres"]
    # Which voxel of several of one weight is hit depends on how NumPy's sort orders ties; how often the weight is hit
    # does not.
    for weight in np.unique(prior):
        assert counts[prior == weight].sum() == recorded[prior == weight].sum()


@pytest.mark.parametrize("window", CENTRE_WINDOWS)
def test_a_constant_map_gives_uniform_draws_over_the_recorded_centres(window):
    prior = np.zeros(RECORDED["weighted_map"].shape[:3])
    # Its recording draws one unused number per window; so the range is compared, not the sequence.
    drawn = centres(windows.weighted_locations(prior.shape, CENTRE_WINDOWS[window], 20000, prior, rng()))
    recorded = np.argwhere(RECORDED[f"weighted_{window}/map_constant_zero_histogram_of_1000_centres"])
    np.testing.assert_array_equal(drawn.min(axis=0), recorded.min(axis=0))
    np.testing.assert_array_equal(drawn.max(axis=0), recorded.max(axis=0))
    num_centres = RECORDED[f"weighted_{window}/cropped_map"].size
    counts = histogram(drawn, prior.shape)
    assert (counts > 0).sum() == num_centres
    assert np.abs(counts[counts > 0] - 20000 / num_centres).max() < 6 * np.sqrt(20000 / num_centres)


@pytest.mark.parametrize("window", CENTRE_WINDOWS)
def test_balanced_locations_repeat_the_recorded_draws(window):
    label = RECORDED["balanced_label"][..., 0, 0]
    drawn = centres(windows.balanced_locations(label.shape, CENTRE_WINDOWS[window], 3000, label, RecordedDraws(22)))
    np.testing.assert_array_equal(drawn[:50], RECORDED[f"balanced_{window}/first50_seed22"])
    recorded = RECORDED[f"balanced_{window}/histogram_of_3000_centres"]
    np.testing.assert_array_equal(histogram(drawn, label.shape), recorded)


@pytest.mark.parametrize("order", [0, 1, 3])
def test_resizing_a_window_back_equals_the_recorded_volume(order):
    window = RECORDED[f"resize_order{order}/window"][0, ..., 0, 0]
    saved = RECORDED[f"resize_order{order}/saved"]
    # Equal to the last bit with the recording's SciPy; float32 rounding is allowed for others.
    np.testing.assert_allclose(windows.resize_window(window, saved.shape, order), saved, rtol=1e-5, atol=1e-5)


# Bad input


def refusal(text):
    return pytest.raises(InputError, match=re.escape(text))


def test_a_window_larger_than_the_volume_is_refused_with_both_sizes_and_the_remedy():
    text = "window (96, 96, 1) is larger than volume (80, 90, 80): choose a smaller spatial_window_size"
    prior = np.ones((80, 90, 80))
    with refusal(text):
        windows.uniform_locations((80, 90, 80), (96, 96, 1), 1, rng())
    with refusal(text):
        windows.grid_locations((80, 90, 80), (96, 96, 1), (0, 0, 0))
    for sampler in (windows.weighted_locations, windows.balanced_locations, windows.foreground_locations):
        args = (prior, rng()) if sampler is not windows.foreground_locations else (prior > 0, rng())
        with refusal(text):
            sampler((80, 90, 80), (96, 96, 1), 1, *args)


def test_a_window_of_four_axes_is_refused():
    with refusal("a window has at most three entries and a volume three axes, not (4, 4, 4, 4) and (5, 5, 5)"):
        windows.resolve_window((5, 5, 5), (4, 4, 4, 4))


@pytest.mark.parametrize(("border", "legal"), [((5, 0, 5), (5, 0, 0)), ((50, 2, 0), (0, 2, 0))])
def test_a_border_that_leaves_nothing_is_refused_with_a_legal_one(border, legal):
    sentence = f"border {border} leaves nothing of window (100, 100, 1): it must be smaller than half the window"
    with refusal(sentence):
        windows.check_border((100, 100, 1), border)
    with pytest.raises(InputError, match=re.escape(f"for example border = {legal}")):
        windows.GridAggregator((120, 120, 5), border).add(np.zeros((100, 100, 1)), (0, 0, 0, 100, 100, 1))


def test_a_border_that_leaves_a_core_is_accepted():
    assert windows.check_border((100, 100, 1), (49, 17, 0)) is None


def test_a_location_outside_the_volume_is_refused():
    with refusal("location (0, 0, 2, 4, 4, 4) is not inside the volume (5, 5, 3)"):
        windows.crop(np.zeros((5, 5, 3)), (0, 0, 2, 4, 4, 4))
    with refusal("location (-1, 0, 0, 4, 4, 4) is not inside the volume (5, 5, 5)"):
        windows.crop(np.zeros((5, 5, 5)), (-1, 0, 0, 4, 4, 4))


def test_maps_on_another_grid_are_refused_with_both_shapes():
    other = np.ones((5, 5, 4))
    with refusal("the sampling prior has shape (5, 5, 4), the scans (5, 5, 5)"):
        windows.weighted_locations((5, 5, 5), (2, 2, 2), 1, other, rng())
    with refusal("the label map has shape (5, 5, 4), the scans (5, 5, 5)"):
        windows.balanced_locations((5, 5, 5), (2, 2, 2), 1, other, rng())
    with refusal("the foreground mask has shape (5, 5, 4), the scans (5, 5, 5)"):
        windows.foreground_locations((5, 5, 5), (2, 2, 2), 1, other > 0, rng())


def test_a_prior_with_values_that_are_not_finite_and_an_empty_mask_are_refused():
    with refusal("the sampling prior holds values that are not finite"):
        windows.weighted_locations((3, 3, 3), (1, 1, 1), 1, np.full((3, 3, 3), np.nan), rng())
    with refusal("nothing is foreground: check the scans"):
        windows.foreground_locations((3, 3, 3), (1, 1, 1), 1, np.zeros((3, 3, 3), bool), rng())


def test_an_aggregator_refuses_windows_that_are_too_small_or_change_their_channels():
    pasted = windows.GridAggregator((6, 6, 6), (1, 1, 1))
    with refusal("window (1, 4, 4) is smaller than the core (2, 2, 2) of location (0, 0, 0, 4, 4, 4)"):
        pasted.add(np.zeros((1, 4, 4)), (0, 0, 0, 4, 4, 4))
    pasted.add(np.zeros((4, 4, 4, 2)), (0, 0, 0, 4, 4, 4))
    with refusal("window has channels (3,), those before it (2,)"):
        pasted.add(np.zeros((4, 4, 4, 3)), (0, 0, 0, 4, 4, 4))


def test_borders_and_shapes_need_three_entries_that_are_not_negative():
    with refusal("border needs three entries, not (5, 5)"):
        windows.grid_locations((9, 9, 9), (3, 3, 3), (5, 5))
    with refusal("border (0, -1, 0) has a negative entry"):
        windows.GridAggregator((9, 9, 9), (0, -1, 0))


def test_an_aggregator_without_windows_is_all_fill():
    assert windows.GridAggregator((2, 1, 1), (0, 0, 0), fill=3).result().tolist() == [[[3.0]], [[3.0]]]
