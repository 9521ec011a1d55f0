"""Scans sorted by what they hold."""

import itertools

import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from pimms_tf.models.order import by_content


def columns(*scans):
    """One subject's scans (1, 2, voxel, scan), each given as a flat list."""
    return np.stack([np.reshape(scan, (2, -1)) for scan in scans], axis=-1)[np.newaxis].astype(np.float32)


def sorted_columns(scans, valid=None, scores=None):
    valid = np.ones((len(scans), scans.shape[-1]), bool) if valid is None else np.array(valid)
    slots = by_content(scans, valid, scores)
    return np.reshape(slots.scans, (*slots.scans.shape[:2], -1)).tolist()[0], slots


def test_the_first_voxel_that_differs_decides():
    scans = columns([1, 0, 5, 0], [1, 0, 4, 9], [0, 9, 9, 9], [1, 0, 4, 8])
    found, slots = sorted_columns(scans)
    assert found == [[0, 9, 9, 9], [1, 0, 4, 8], [1, 0, 4, 9], [1, 0, 5, 0]]
    assert np.asarray(slots.place).tolist() == [[3, 2, 0, 1]]


def test_scores_decide_between_equal_scans():
    scans = columns([1, 2], [1, 2], [1, 2])
    scores = np.array([[[0.5, 0.5], [0.5, 0.25], [0.25, 1]]], np.float32)
    _, slots = sorted_columns(scans, scores=scores)
    assert np.asarray(slots.scores).tolist() == [[[0.25, 1], [0.5, 0.25], [0.5, 0.5]]]


def test_equal_scans_share_the_place_of_the_first():
    _, slots = sorted_columns(columns([3, 3], [1, 1], [3, 3], [1, 1], [2, 2]))
    assert np.asarray(slots.place).tolist() == [[3, 0, 3, 0, 2]]


def test_invalid_slots_are_left_out_or_come_last_as_zeros():
    scans = np.concatenate([columns([5, 5], [np.nan, 1], [2, 2]), columns([1, 1], [7, 7], [0, 3])])
    _, slots = sorted_columns(scans, [[True, False, False], [False, True, True]])
    assert np.asarray(slots.valid).tolist() == [[True, False], [True, True]]
    assert np.reshape(slots.scans, (2, 2, 2)).tolist() == [[[5, 5], [0, 0]], [[0, 3], [7, 7]]]
    _, slots = sorted_columns(scans, [[False] * 3] * 2)  # a network wants one row at least
    assert slots.scans.shape == (2, 1, 2, 1)


def test_zeros_are_equal_whatever_their_sign_and_nan_counts_as_infinity():
    found, slots = sorted_columns(columns([0.0, 2], [-0.0, 1], [np.nan, 0], [np.inf, 1]))
    assert np.asarray(slots.place).tolist() == [[1, 0, 2, 3]]
    assert not np.signbit(found[:2]).any()


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("space", [(4, 5), (3, 2, 4)])
def test_all_orders_sort_alike_and_places_lead_back(space, dtype):
    # A few intensities and mostly background, so that much is equal.
    rng = np.random.default_rng(3)
    scans = ops.cast(rng.integers(0, 2, (3, *space, 4)) * (rng.uniform(size=(3, *space, 4)) < 0.1), dtype)
    valid = rng.uniform(size=(3, 4)) < 0.8
    scores = rng.integers(0, 2, (3, 4, 2)).astype(np.float32)
    sort = tf.function(by_content)
    expected = sort(scans, valid, scores)
    for order in map(list, itertools.permutations(range(4))):
        permuted = ops.take(scans, order, axis=-1)
        slots = sort(permuted, valid[:, order], scores[:, order])
        for ours, theirs in zip(slots[:3], expected[:3], strict=True):
            np.testing.assert_array_equal(ours, theirs)
        rows = ops.moveaxis(permuted, -1, 1)
        for subject, scan in zip(*np.nonzero(valid[:, order]), strict=True):
            place = int(slots.place[subject, scan])
            np.testing.assert_array_equal(slots.scans[subject, place], rows[subject, scan])


def test_sizes_may_be_open():
    sort = tf.function(by_content, input_signature=[tf.TensorSpec((None,) * 4), tf.TensorSpec((None, None), tf.bool)])
    for shape in ((1, 3, 4, 1), (2, 5, 3, 6)):
        scans = np.random.default_rng(0).normal(size=shape).astype(np.float32)
        valid = np.ones((shape[0], shape[-1]), bool)
        np.testing.assert_array_equal(sort(scans, valid).scans, by_content(scans, valid).scans)
