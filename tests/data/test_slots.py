"""Slots: hiding never hides all, what is hidden is zero, permuting moves everything together; bad input."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pimms_tf.data import slots
from pimms_tf.data.subjects import Subject
from pimms_tf.errors import InputError

KINDS = ("intended", "uniform", "student_t", "none")


def rng(seed=0):
    return np.random.default_rng(seed)


def make_subject(num_scans=3, absent=()):
    valid = ~np.isin(range(num_scans), absent)
    scans = rng().normal(1, 1, (9, 8, 7, num_scans)).astype(np.float32) * valid
    modality = np.arange(num_scans, dtype=np.int32)
    return Subject("s012", scans, valid, modality, label=None, affine=np.eye(4), original=None)


@given(st.integers(1, 12), st.sampled_from(KINDS))
@settings(max_examples=50, deadline=None)
def test_probabilities_sum_to_one_and_hiding_none_is_never_less_likely_than_hiding_more(num_scans, kind):
    probabilities = slots.curriculum_probabilities(num_scans, kind)
    assert probabilities.shape == (num_scans,)
    assert (probabilities >= 0).all()
    np.testing.assert_allclose(probabilities.sum(), 1)
    assert (np.diff(probabilities) <= 1e-12).all()


@pytest.mark.parametrize(
    ("num_scans", "kind", "expected"),
    [
        (1, "intended", [1]),
        (2, "intended", [0.5, 0.5]),
        (3, "intended", [0.5, 0.3, 0.2]),
        (4, "intended", [0.5, 0.3, 0.15, 0.05]),
        (5, "intended", [0.5, 0.3, 0.15, 0.025, 0.025]),
        (3, "uniform", [1 / 3] * 3),
        (3, "student_t", [0.5078, 0.3014, 0.1908]),
        (4, "student_t", [0.4026, 0.2755, 0.1861, 0.1358]),
        (3, "none", [1, 0, 0]),
    ],
)
def test_probability_tables(num_scans, kind, expected):
    np.testing.assert_allclose(slots.curriculum_probabilities(num_scans, kind), expected, atol=5e-5)


@given(st.lists(st.lists(st.booleans(), min_size=5, max_size=5), min_size=1, max_size=6), st.integers(0, 99))
@settings(max_examples=100, deadline=None)
def test_hiding_never_hides_all_nor_what_is_absent(valid, seed):
    valid = np.array(valid)
    for kind in KINDS:
        hidden = slots.draw_hidden(valid, rng(seed), kind)
        assert not (hidden & ~valid).any()
        assert ((valid & ~hidden).any(axis=1) == valid.any(axis=1)).all()


def test_hiding_follows_the_table_and_treats_scans_alike():
    valid = np.tile([True, True, False, True], (20000, 1))
    hidden = slots.draw_hidden(valid, rng(), "intended")
    np.testing.assert_allclose(np.bincount(hidden.sum(axis=1)) / 20000, [0.5, 0.3, 0.2], atol=0.015)
    np.testing.assert_allclose(hidden.mean(axis=0), [0.7 / 3, 0.7 / 3, 0, 0.7 / 3], atol=0.015)


def test_a_curriculum_may_be_a_function_of_the_number_of_scans():
    hidden = slots.draw_hidden(np.ones((50, 3), bool), rng(), lambda num_scans: np.eye(num_scans)[num_scans - 1])
    assert (hidden.sum(axis=1) == 2).all()


def test_dropping_zeroes_exactly_the_scans_it_declares_absent():
    subject = make_subject(num_scans=4)
    numbers = set()
    for seed in range(30):
        dropped = slots.drop_scans(subject, rng(seed))
        np.testing.assert_array_equal(dropped.scans.any(axis=(0, 1, 2)), dropped.valid)
        np.testing.assert_array_equal(dropped.scans[..., dropped.valid], subject.scans[..., dropped.valid])
        np.testing.assert_array_equal(dropped.modality, subject.modality)
        numbers.add(int(dropped.valid.sum()))
    assert numbers == {1, 2, 3, 4}
    assert slots.drop_scans(make_subject(num_scans=1), rng()).valid.all()


def test_permuting_moves_scans_valid_and_modality_together():
    subject = make_subject(num_scans=4, absent=(2,))
    orders = set()
    for seed in range(20):
        permuted = slots.permute_scans(subject, rng(seed))
        orders.add(tuple(permuted.modality))
        np.testing.assert_array_equal(permuted.scans, subject.scans[..., permuted.modality])
        np.testing.assert_array_equal(permuted.valid, subject.valid[permuted.modality])
    assert len(orders) > 10


def test_padding_slots_appends_absent_scans():
    padded = slots.pad_slots(make_subject(num_scans=2), 5)
    assert padded.scans.shape == (9, 8, 7, 5)
    assert not padded.scans[..., 2:].any()
    assert padded.valid.tolist() == [True, True, False, False, False]
    assert padded.modality.tolist() == [0, 1, -1, -1, -1]
    assert slots.pad_slots(make_subject(num_scans=1), 2, modality=0).modality.tolist() == [0, 0]
    assert slots.pad_slots(padded, 5) is padded


def test_more_scans_than_slots_are_refused_with_the_subject():
    with pytest.raises(InputError, match="subject s012: there are 3 scans but max_slots is 2: raise max_slots"):
        slots.pad_slots(make_subject(), 2)


def test_an_unknown_curriculum_and_no_scans_are_refused():
    with pytest.raises(InputError, match="curriculum = 'linear' is not one of intended, uniform, student_t, none"):
        slots.drop_scans(make_subject(), rng(), "linear")
    for table in (slots.scan_dropout_probabilities, lambda n: slots.curriculum_probabilities(n, "none")):
        with pytest.raises(ValueError, match="num_scans must be at least 1, received 0"):
            table(0)
