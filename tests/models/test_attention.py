"""Scans and scores become one channel per modality."""

import itertools

import numpy as np
import pytest

from pimms_tf.models import Attention

KINDS = [("soft", "none"), ("soft", "sum"), ("hard", "none"), ("hard", "count"), ("label", "none")]
# Scores of three scans (rows) for three modalities; the reference values of the specification.
SCORES = np.array([[[0.7, 0.2, 0.1], [0.2, 0.5, 0.3], [0.05, 0.15, 0.8]]], np.float32)
SCANS = np.array([[[1.0, 2.0, 4.0]]], np.float32)  # one voxel
ALL = np.ones((1, 3), bool)


def one_hot(*modalities, num=3):
    return np.eye(num, dtype=np.float32)[None, list(modalities)]


@pytest.mark.parametrize(
    ("kind", "normalise", "expected"),
    [
        ("soft", "none", (1.30, 1.80, 3.90)),
        ("soft", "sum", (1.368421, 2.117647, 3.25)),
        ("hard", "none", (1, 2, 4)),
        ("hard", "count", (1, 2, 4)),
    ],
)
def test_the_worked_example(kind, normalise, expected):
    np.testing.assert_allclose(Attention(kind, normalise)(SCANS, SCORES, ALL)[0, 0], expected, rtol=1e-6)


@pytest.mark.parametrize(("kind", "normalise"), KINDS)
@pytest.mark.parametrize("num_scans", [1, 3, 4])
def test_the_order_of_scans_does_not_matter(kind, normalise, num_scans):
    rng = np.random.default_rng(num_scans)
    scans = rng.normal(size=(2, 5, 4, num_scans)).astype(np.float32)
    scores = rng.dirichlet(np.ones(3), (2, num_scans)).astype(np.float32)
    valid = np.arange(num_scans) != 3
    valid = np.stack([valid, np.ones_like(valid)])
    mix = Attention(kind, normalise)
    expected = mix(scans, scores, valid)
    for order in map(list, itertools.permutations(range(num_scans))):
        permuted = scans[..., order], scores[:, order], valid[:, order]
        np.testing.assert_array_equal(mix(*permuted), expected)
        np.testing.assert_allclose(mix(*permuted, training=True), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("num", [3, 4])
def test_with_perfect_scores_every_order_sends_every_scan_to_its_own_modality(num):
    # The 3-D release summed over classes instead of scans, which is right in 4 of 6 orders, and in 10 of 24.
    scans = np.random.default_rng(0).normal(size=(1, 3, 3, num)).astype(np.float32)
    for order in map(list, itertools.permutations(range(num))):
        for kind, normalise in KINDS:
            mixed = Attention(kind, normalise)(scans[..., order], one_hot(*order, num=num), np.ones((1, num), bool))
            np.testing.assert_array_equal(mixed, scans)


@pytest.mark.parametrize(("kind", "normalise"), KINDS)
def test_empty_slots_change_nothing(kind, normalise):
    rng = np.random.default_rng(1)
    scans = rng.normal(size=(1, 4, 4, 3)).astype(np.float32)
    mix = Attention(kind, normalise)
    appended = np.concatenate([scans, rng.normal(size=scans.shape).astype(np.float32)], -1)
    scores = np.concatenate([SCORES, SCORES[:, ::-1]], 1)
    got = mix(appended, scores, np.repeat([[True, False]], 3, 1))
    np.testing.assert_array_equal(got, mix(scans, SCORES, ALL))


def test_an_empty_slot_that_counts_shrinks_the_normalised_mixture():
    # The released Online code: zeros in the numerator, their scores in the denominator.
    scans = np.concatenate([SCANS, np.zeros((1, 1, 1), np.float32)], -1)
    scores = np.concatenate([SCORES, [[[0.5, 0.25, 0.25]]]], 1).astype(np.float32)
    mixed = Attention("soft", "sum")(scans, scores, np.ones((1, 4), bool))[0, 0]
    np.testing.assert_allclose(mixed, [1.30 / 1.45, 1.80 / 1.10, 3.90 / 1.45], rtol=1e-6)


def test_the_plain_mixture_keeps_the_sum_of_the_scans():
    scans = np.random.default_rng(2).normal(size=(1, 6, 6, 3)).astype(np.float32)
    np.testing.assert_allclose(np.sum(Attention("soft")(scans, SCORES, ALL), -1), scans.sum(-1), rtol=0, atol=1e-6)


def test_two_scans_of_one_modality_add_up_or_average():
    scans, scores = np.array([[[2.0, 6.0]]], np.float32), one_hot(1, 1)
    both = np.ones((1, 2), bool)
    for kind, normalise, expected in [
        ("hard", "none", 8),
        ("hard", "count", 4),
        ("soft", "sum", 4),
        ("soft", "none", 8),
    ]:
        np.testing.assert_allclose(Attention(kind, normalise)(scans, scores, both)[0, 0], [0, expected, 0])


def test_equal_scores_go_to_the_first_modality():
    scores = np.array([[[0.4, 0.4, 0.2]]], np.float32)
    mixed = Attention("hard")(np.full((1, 1, 1), 7, np.float32), scores, np.ones((1, 1), bool))
    np.testing.assert_array_equal(mixed[0, 0], [7, 0, 0])


def test_an_unclaimed_modality_is_zero_or_with_the_sum_a_full_scale_mixture():
    scores = np.array([[[1 - 3e-5, 1e-5, 2e-5], [1 - 7e-5, 3e-5, 4e-5]]], np.float32)
    scans, both = np.array([[[1.0, 5.0]]], np.float32), np.ones((1, 2), bool)
    assert np.abs(Attention("soft")(scans, scores, both)[0, 0, 1:]).max() < 1e-3
    np.testing.assert_allclose(Attention("soft", "sum")(scans, scores, both)[0, 0, 1], (1 + 15) / 4, rtol=1e-4)


@pytest.mark.parametrize(("kind", "normalise"), KINDS)
def test_nothing_valid_gives_zeros(kind, normalise):
    mixed = Attention(kind, normalise)(SCANS, SCORES, np.zeros((1, 3), bool))
    np.testing.assert_array_equal(mixed, np.zeros((1, 1, 3)))


def test_space_may_have_any_number_of_axes():
    rng = np.random.default_rng(3)
    volume = rng.normal(size=(1, 2, 3, 4, 3)).astype(np.float32)
    for normalise in ("none", "sum"):
        mixed = Attention("soft", normalise)(volume, SCORES, ALL)
        flat = Attention("soft", normalise)(volume.reshape(1, 24, 3), SCORES, ALL)
        np.testing.assert_array_equal(np.reshape(mixed, (1, 24, 3)), flat)
