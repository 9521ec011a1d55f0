"""From one number per subject to what a table prints: summaries, and the paired test of two models."""

import warnings
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np

Alternative = Literal["greater", "less", "two-sided"]


class Summary(NamedTuple):
    """Numbers over the `num` subjects that have a value; NaN if none has. `num_undefined` more had NaN."""

    mean: float
    median: float
    p5: float
    p95: float
    num: int
    num_undefined: int


class WilcoxonResult(NamedTuple):
    """Signed-rank test of `num_pairs` differences; `num_dropped` further pairs had an undefined side."""

    statistic: float
    p: float
    p_two_sided: float
    num_pairs: int
    num_dropped: int


def summarise(values: Sequence[float]) -> Summary:
    """Mean, median, 5th and 95th percentile (linear interpolation) of the values that are not NaN, and both counts."""
    values = np.asarray(values, float).ravel()
    defined = values[~np.isnan(values)]
    num_undefined = len(values) - len(defined)
    if len(defined) == 0:
        return Summary(*[float("nan")] * 4, 0, num_undefined)
    p5, median, p95 = np.percentile(defined, (5, 50, 95))
    return Summary(float(defined.mean()), float(median), float(p5), float(p95), len(defined), num_undefined)


def paired_wilcoxon(a: Sequence[float], b: Sequence[float], alternative: Alternative = "greater") -> WilcoxonResult:
    """Whether `a` exceeds `b` over the same subjects, by the Wilcoxon signed-rank test of a - b.

    `p` answers `alternative` ("greater": a lies above b). Pairs with a NaN or an infinity are dropped, differences of
    zero carry no rank. If all differences are zero p is 1, and without any pair everything is NaN.

    Raises:
        ValueError: a and b differ in length.
    Source: paper, section on statistics; evaluation as `scipy.stats.wilcoxon(..., zero_method="wilcox")`.

    >>> paired_wilcoxon([0.5, 0.6, 0.7, 0.8], [0.4, 0.4, 0.4, 0.4]).p
    0.0625
    """
    from scipy import stats  # half a second that who segments need not wait

    a, b = np.asarray(a, float), np.asarray(b, float)
    if a.shape != b.shape or a.ndim != 1:
        raise ValueError(f"a paired test needs as many values on both sides, one per subject: {a.shape} and {b.shape}")
    kept = np.isfinite(a) & np.isfinite(b)
    num_pairs, num_dropped = int(kept.sum()), int((~kept).sum())
    if num_pairs == 0:
        return WilcoxonResult(float("nan"), float("nan"), float("nan"), 0, num_dropped)
    difference = a[kept] - b[kept]
    if not difference.any():
        return WilcoxonResult(0.0, 1.0, 1.0, num_pairs, num_dropped)
    with warnings.catch_warnings():
        # SciPy remarks on few or tied differences, for which it falls back to the normal approximation.
        warnings.simplefilter("ignore", UserWarning)
        asked = stats.wilcoxon(difference, alternative=alternative, zero_method="wilcox")
        two_sided = stats.wilcoxon(difference, alternative="two-sided", zero_method="wilcox")
    return WilcoxonResult(float(asked.statistic), float(asked.pvalue), float(two_sided.pvalue), num_pairs, num_dropped)
