"""Weights that depend on the iteration."""

import pytest

from pimms_tf.training import constant, exponential_decay


@pytest.mark.parametrize(
    ("iteration", "expected"), [(0, 1), (1_000, 0.905), (6_931, 0.5), (10_000, 0.368), (26_000, 0.0743)]
)
def test_the_published_decay_has_the_tabulated_values(iteration, expected):
    assert exponential_decay(1e-4)(iteration) == pytest.approx(expected, abs=5e-4)


def test_a_decay_starts_from_its_initial_value_and_falls():
    schedule = exponential_decay(0.01, initial=3.0)
    values = [schedule(iteration) for iteration in range(5)]
    assert values[0] == 3.0
    assert values == sorted(values, reverse=True)
    assert len(set(values)) == 5


def test_no_decay_is_constant():
    assert {exponential_decay(0.0, 0.7)(i) for i in (0, 1, 10**6)} == {constant(0.7)(i) for i in (0, 1, 10**6)} == {0.7}
