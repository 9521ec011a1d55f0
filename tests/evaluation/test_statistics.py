"""Summaries with undefined values, and the signed-rank test by hand and against SciPy."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from pimms_tf.evaluation import Summary, paired_wilcoxon, summarise

scores = st.floats(0, 1).map(lambda value: round(value, 3))


def test_a_summary_leaves_undefined_values_out_and_counts_them():
    summary = summarise([0.0, 10.0, math.nan, 20.0, 30.0, 40.0])
    assert summary == Summary(mean=20, median=20, p5=2, p95=38, num=5, num_undefined=1)


@pytest.mark.parametrize("values", [[], [math.nan, math.nan]])
def test_a_summary_of_nothing_is_undefined(values):
    summary = summarise(values)
    assert all(math.isnan(number) for number in summary[:4])
    assert summary[4:] == (0, len(values))


def test_all_ranks_on_one_side_give_the_smallest_p():
    result = paired_wilcoxon([2, 4, 6, 8, 11], [1, 2, 3, 4, 5])
    assert result.statistic == 15
    assert result.p == pytest.approx(1 / 32)
    assert result.p_two_sided == pytest.approx(2 / 32)
    assert result[3:] == (5, 0)


def test_the_direction_is_the_first_argument_above_the_second():
    a, b = [2, 4, 6, 8, 11], [1, 2, 3, 4, 5]
    assert paired_wilcoxon(b, a).p == 1
    assert paired_wilcoxon(b, a, "less").p == pytest.approx(1 / 32)
    assert paired_wilcoxon(a, b, "two-sided").p == paired_wilcoxon(a, b).p_two_sided


def test_pairs_with_an_undefined_side_are_dropped():
    a, b = [2, math.nan, 4, 6, 8, 11, 3], [1, 5, 2, 3, 4, 5, math.inf]
    assert paired_wilcoxon(a, b) == (*paired_wilcoxon([2, 4, 6, 8, 11], [1, 2, 3, 4, 5])[:4], 2)


def test_equal_models_are_not_different():
    assert paired_wilcoxon([0.5, 0.7, math.nan], [0.5, 0.7, 0.1]) == (0.0, 1.0, 1.0, 2, 1)


def test_without_any_pair_nothing_is_known():
    result = paired_wilcoxon([math.nan], [0.5])
    assert math.isnan(result.p)
    assert result[3:] == (0, 1)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(scores, scores), min_size=1, max_size=70))
def test_the_sides_mirror_each_other_and_p_is_a_probability(pairs):
    a, b = np.array(pairs).T
    forward, backward = paired_wilcoxon(a, b), paired_wilcoxon(b, a, "less")
    assert 0 <= forward.p <= 1
    assert forward.p == pytest.approx(backward.p)
    assert forward.p_two_sided == pytest.approx(backward.p_two_sided)


def test_p_equals_that_of_scipy_on_many_subjects():
    rng = np.random.default_rng(3)
    b = rng.uniform(size=60)
    a = np.clip(b + rng.normal(0.02, 0.1, size=60), 0, 1)
    result = paired_wilcoxon(a, b)
    assert result.p == stats.wilcoxon(a - b, alternative="greater", zero_method="wilcox").pvalue
    assert result.p_two_sided == stats.wilcoxon(a - b, zero_method="wilcox").pvalue


@pytest.mark.parametrize(("a", "b"), [([1, 2], [1, 2, 3]), ([[1, 2]], [[1, 2]])])
def test_unpaired_values_are_refused(a, b):
    with pytest.raises(ValueError, match="as many values on both sides"):
        paired_wilcoxon(a, b)
