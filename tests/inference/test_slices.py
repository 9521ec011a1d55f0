"""Whole slices give what windows with a wide border give: at edges, seams, in air, and whatever the slices hold."""

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf

from pimms_tf.data.grids import Grid
from pimms_tf.data.subjects import Subject
from pimms_tf.errors import InputError
from pimms_tf.inference import label_scores, segment
from pimms_tf.inference.slices import Reach, logits_beyond, reach_of, segment_slices
from pimms_tf.models import build_model

# Slices and windows reach the network in batches of other sizes and so are rounded otherwise. Moving each voxel by a
# rounding moves these probabilities by up to 1.2e-6.
ROUNDING = 1e-5
AIR = np.array([-0.7, -0.4, 1.1], np.float32)  # what whitening makes of a background of zeros


def subject_of(scans, valid=(True, True, True), padding=((0, 0),) * 3):
    shape = tuple(n - sum(sides) for n, sides in zip(scans.shape[:3], padding, strict=True))
    affine = np.eye(4)
    affine[:3, 3] = [-before for before, _ in padding]
    modality = np.arange(scans.shape[3], dtype=np.int32)
    valid = np.array(valid)
    scans = np.where(valid, scans, 0).astype(np.float32)
    return Subject("s012", scans, valid, modality, None, affine, Grid(shape, np.eye(4)), padding=padding)


def head(shape=(61, 58, 6), seed=0):
    """Air around something that is in the middle of some slices, at an edge, in a corner, one voxel, or missing."""
    rng = np.random.default_rng(seed)
    scans = np.broadcast_to(AIR, (*shape, 3)).copy()
    places = (
        np.s_[20:34, 15:40, 1],
        np.s_[25:30, 18:30, 2],
        np.s_[:9, 30:50, 3],
        np.s_[-4:, -5:, 4],
        np.s_[30:31, 30:31, 5],
    )
    for place in places:
        scans[place] = rng.normal(size=scans[place].shape)
    return scans


def randomised(model, seed=5):
    """The model with moving statistics, scales and shifts such as training leaves behind."""
    rng = np.random.default_rng(seed)
    for variable in model.variables:
        if variable.path.split("/")[-1] in ("gamma", "moving_variance"):
            variable.assign(rng.uniform(0.6, 1.4, variable.shape))
        elif variable.path.split("/")[-1] in ("beta", "moving_mean"):
            variable.assign(rng.normal(0, 0.3, variable.shape))
    return model


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(3)
    return randomised(build_model("hemis", 3, 2))


def compiled(model):
    shapes = [tf.TensorSpec((None,) * 4), tf.TensorSpec((None, None, model.num_modalities))]
    function = tf.function(lambda *given: logits_beyond(model, *given), [*shapes, tf.TensorSpec((None, None), tf.bool)])
    return lambda *given: function(*map(tf.constant, given)).numpy()


def by_slices(model, subject, max_voxels=20000, **others):
    scores = label_scores(subject, 3)
    return segment_slices(compiled(model), reach_of(model), subject, scores, max_voxels, **others).data


def by_windows(model, subject, window=(54, 60, 1), border=(17, 17, 0), **others):
    function = tf.function(model.segment)
    scores = label_scores(subject, 3)
    return segment(lambda *given: function(*given).numpy(), subject, scores, window, border, 3, **others).data


def test_air_edges_and_seams_are_those_of_windows_with_a_border_of_17(model):
    subject = subject_of(head())
    expected = by_windows(model, subject, probabilities=True)
    assert expected.std() > 0.01
    np.testing.assert_allclose(by_slices(model, subject, probabilities=True), expected, atol=ROUNDING)
    decided = np.abs(expected[..., 1] - expected[..., 0]) > ROUNDING
    np.testing.assert_array_equal(by_slices(model, subject)[decided, 0], np.argmax(expected, axis=-1)[decided])


@pytest.mark.parametrize("frontend", ["paper", "paper_5x5", "highres_1x1"])
@pytest.mark.parametrize("missing", ["exclude", "zeros"])
def test_every_network_looks_as_far_as_is_taken_for_granted(frontend, missing):
    keras.utils.set_random_seed(4)
    choices = {"frontend": frontend, "abstraction_missing": missing}
    model = randomised(build_model("hemis", 3, 2, **choices))
    subject = subject_of(head((48, 50, 6), seed=1), valid=(True, False, True))
    expected = by_windows(model, subject, (50, 48, 1), probabilities=True)
    np.testing.assert_allclose(by_slices(model, subject, probabilities=True), expected, atol=ROUNDING)


def test_a_network_reaches_17_voxels_back_and_16_ahead_and_no_further(model):
    crop = np.random.default_rng(0).normal(size=(1, 16, 16, 3)).astype(np.float32)
    scores, valid = np.eye(3, dtype=np.float32)[np.newaxis], np.ones((1, 3), bool)
    assert reach_of(model) == Reach(17, 16)
    predict = compiled(model)
    near = predict(crop, scores, valid)
    assert near.shape == (1, 49, 49, 2)
    wider = np.pad(crop, ((0, 0), (5, 7), (3, 4), (0, 0)), mode="edge")
    far = predict(wider, scores, valid)
    np.testing.assert_allclose(far, np.pad(near, ((0, 0), (5, 7), (3, 4), (0, 0)), mode="edge"), atol=ROUNDING)
    assert np.abs(near[:, 0] - near[:, 1]).max() > 1e-6
    assert np.abs(near[:, -1] - near[:, -2]).max() > 1e-6


def test_what_is_padded_by_the_loader_is_seen_and_cut_off(model):
    padding = ((6, 4), (20, 3), (1, 0))
    subject = subject_of(head(), padding=padding)
    expected = by_windows(model, subject, probabilities=True)
    np.testing.assert_allclose(by_slices(model, subject, probabilities=True), expected, atol=ROUNDING)
    assert expected.shape == (51, 35, 5, 2)


@pytest.mark.parametrize("axis", [0, 1])
def test_slices_may_lie_across_any_axis(model, axis):
    subject = subject_of(np.moveaxis(head((30, 33, 6)), 2, axis))
    window = (1 if axis == 0 else 50, 1 if axis == 1 else 50, 50)
    border = tuple(0 if size == 1 else 17 for size in window)
    expected = by_windows(model, subject, window, border, probabilities=True)
    np.testing.assert_allclose(by_slices(model, subject, axis=axis, probabilities=True), expected, atol=ROUNDING)


@pytest.mark.parametrize("order", [0, 1])
def test_results_go_back_to_the_grid_of_the_files(model, order):
    subject = subject_of(head((40, 40, 6)))
    grid = Grid((20, 27, 11), np.diag([39 / 19, 39 / 26, 5 / 10, 1]))
    subject = dataclasses.replace(subject, original=grid)
    expected = by_windows(model, subject, (50, 50, 1), order=order)
    found = by_slices(model, subject, order=order)
    assert found.shape == (20, 27, 11, 1)
    np.testing.assert_array_equal(found, expected)


def corners_of_crops(windows, scores, valid):
    """A network that reaches nowhere; its logits are the scans."""
    return windows[..., :2]


def test_nothing_is_computed_for_air_or_for_slices_that_repeat_themselves():
    scans = head((61, 58, 6))
    scans = np.concatenate([scans[:, :, [0, 0, 0]], scans, scans[:, :, [5, 5]]], axis=2)
    shapes = []

    def predict(crops, scores, valid):
        shapes.append(crops.shape)
        return corners_of_crops(crops, scores, valid)

    subject = subject_of(scans)
    found = segment_slices(predict, Reach(0, 0), subject, label_scores(subject, 3), 1, probabilities=True).data
    # 14×25 voxels and the air around them, then smaller ones; slices without anything are one voxel.
    assert shapes == [(1, 16, 16, 3), (1, 16, 32, 3), (1, 16, 16, 3), (1, 16, 32, 3), (1, 16, 16, 3), (1, 16, 16, 3)]
    logits = scans[..., :2].astype(np.float64)
    expected = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.parametrize("max_voxels", [1, 1000, 2000, 10**9])
def test_so_many_voxels_go_to_a_call_as_are_allowed_and_no_group_changes_the_answer(max_voxels):
    subject, sizes = subject_of(head()), []

    def predict(crops, scores, valid):
        assert len(scores) == len(valid) == len(crops)
        sizes.append(crops.shape[:3])
        return corners_of_crops(crops, scores, valid)

    found = segment_slices(predict, Reach(0, 0), subject, label_scores(subject, 3), max_voxels).data
    np.testing.assert_array_equal(found[..., 0], np.argmax(subject.scans[..., :2], axis=-1))
    assert all(np.prod(size) <= max_voxels or size[0] == 1 for size in sizes)
    assert sum(size[0] for size in sizes) == 6
    assert max_voxels > 1 or len(sizes) == 6
    assert max_voxels < 10**9 or len(sizes) == 1


def test_a_single_voxel_and_a_single_row_are_slices_too():
    for shape in ((1, 1, 1), (1, 7, 2), (5, 1, 3)):
        scans = np.random.default_rng(0).normal(size=(*shape, 2))
        subject = subject_of(scans, valid=(True, True))
        found = segment_slices(corners_of_crops, Reach(0, 0), subject, np.eye(2), 100).data
        np.testing.assert_array_equal(found[..., 0], np.argmax(subject.scans, axis=-1))


def test_a_scan_that_a_slice_lacks_counts_as_missing_there(model):
    scans = head((40, 40, 6))
    scans[:, :, 1, 2] = 0
    subject = subject_of(scans)
    without = subject_of(scans, valid=(True, True, False))
    found = [by_slices(model, each, probabilities=True) for each in (subject, without)]
    np.testing.assert_allclose(found[0][:, :, 1], found[1][:, :, 1], atol=1e-6)
    assert np.abs(found[0][:, :, 2] - found[1][:, :, 2]).max() > 1e-4


def test_what_cannot_be_segmented_is_refused(model):
    subject = subject_of(head((20, 20, 6)))
    with pytest.raises(InputError, match="s012 with NaN or infinity"):
        segment_slices(lambda *given: np.full((1, 4, 4, 2), np.nan), Reach(0, 0), subject, np.eye(3), 1)
    with pytest.raises(InputError, match="3 scans and scores for 2"):
        segment_slices(corners_of_crops, Reach(0, 0), subject, np.eye(2), 1)
    blank = subject_of(head((20, 20, 6)), valid=(False, False, False))
    with pytest.raises(InputError, match="no scan that is not blank"):
        segment_slices(corners_of_crops, Reach(0, 0), blank, np.eye(3), 1)
