"""What results say together: summaries per subset of scans, Table 1 of the paper, and the comparison of two models."""

import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

from pimms_tf.errors import InputError
from pimms_tf.evaluation.results import (
    METRICS,
    SubjectResult,
    read_results,
    subset_name,
    table_text,
    write_csv,
)
from pimms_tf.evaluation.statistics import Summary, WilcoxonResult, paired_wilcoxon, summarise
from pimms_tf.wording import counted, some_of

log = logging.getLogger(__name__)
_SIGNIFICANT = 0.01
_LOWER_IS_BETTER = ("asd_mm", "hd95_mm", "volume_difference_percent")
_NO_TEST = WilcoxonResult(math.nan, math.nan, math.nan, 0, 0)


class Comparison(NamedTuple):
    """Two models on the subjects both have; `test.p` is one-sided, in favour of model a."""

    subset: tuple[str, ...]
    metric: str
    a: Summary
    b: Summary
    test: WilcoxonResult


@dataclass(frozen=True)
class TableCell:
    """One variant on one subset; `test` asks whether its Dice exceeds the baseline's, None without a baseline."""

    subset: tuple[str, ...]
    variant: str
    dice: Summary
    asd_mm: Summary
    test: WilcoxonResult | None

    @property
    def beats_baseline(self) -> bool:
        """Whether p < 0.01 in favour of this variant."""
        return self.test is not None and self.test.p < _SIGNIFICANT


@dataclass(frozen=True)
class Table:
    """Table 1 of the paper for one data set: variants side by side, a row per subset of available scans."""

    baseline: str
    cells: tuple[TableCell, ...]

    def markdown(self) -> str:
        """The table as text: mean Dice (median) and median surface distance; bold where Dice beats the baseline."""
        subsets = list(dict.fromkeys(cell.subset for cell in self.cells))
        variants = list(dict.fromkeys(cell.variant for cell in self.cells))
        scans = list(dict.fromkeys(name for subset in subsets for name in subset)) or ["scans"]
        found = {(cell.subset, cell.variant): cell for cell in self.cells}
        numbers = [*(f"Dice {variant}" for variant in variants), *(f"ASD/mm {variant}" for variant in variants)]
        lines = [_line([*scans, *numbers]), _line([":-:"] * len(scans) + ["--:"] * len(numbers))]
        for subset in subsets:
            dots = ["●" if name in subset or not subset else "○" for name in scans]
            row = [found.get((subset, variant)) for variant in variants]
            lines.append(_line([*dots, *map(_dice_text, row), *map(_distance_text, row)]))
        sizes = [cell.dice.num + cell.dice.num_undefined for cell in self.cells]
        undefined = sum(cell.asd_mm.num_undefined for cell in self.cells)
        distances = "ASD: median of the average surface distance"
        if undefined:
            distances += f", undefined in {counted(undefined, 'result')} because one mask is empty"
        subjects = "subject" if max(sizes) == 1 else "subjects"
        notes = [f"Dice: mean (median) over {_range(sizes)} {subjects}; {distances}."]
        if len(variants) > 1:
            notes.append(
                f"Bold: Dice above {self.baseline}, Wilcoxon signed-rank test over subjects, one-sided "
                f"p < {_SIGNIFICANT}."
            )
        return "\n".join([*lines, "", *notes, ""])

    def csv(self) -> str:
        """One row per subset and variant, with every summary and the test against the baseline."""
        summaries = [f"{metric}_{field}" for metric in ("dice", "asd_mm") for field in Summary._fields]
        tests = [f"{field}_against_{self.baseline}" for field in WilcoxonResult._fields]
        rows = [
            ["+".join(cell.subset), cell.variant, *cell.dice, *cell.asd_mm, *(cell.test or _NO_TEST)]
            for cell in self.cells
        ]
        return table_text(["subset", "variant", *summaries, *tests], rows)


def modality_subsets(names: Sequence[str]) -> list[tuple[str, ...]]:
    """Every non-empty subset of the names, larger ones first, each in the order of `names`; 2^n - 1 of them.

    >>> modality_subsets(["T1", "FLAIR"])
    [('T1', 'FLAIR'), ('T1',), ('FLAIR',)]
    """
    return [subset for size in range(len(names), 0, -1) for subset in combinations(names, size)]


def write_summary(path: Path, results: Iterable[SubjectResult]) -> None:
    """Writes one row per subset and score: mean, median, 5th and 95th percentile, subjects with and without a value."""
    rows = [
        ["+".join(subset), metric, *summarise([getattr(result.scores, metric) for result in chosen])]
        for subset, chosen in _by_subset(results).items()
        for metric in METRICS
    ]
    write_csv(path, ["subset", "metric", *Summary._fields], rows)


def compare(file_a: Path, file_b: Path, metric: str = "dice") -> list[Comparison]:
    """Whether the model of `file_a` is better than that of `file_b`, once per subset that both files hold.

    Subjects are joined by id; those in one file only are left out with a warning. Better means a higher score, for
    distances and volume differences a lower one. Pairs with an undefined side are dropped and counted.

    Raises:
        InputError: a file cannot be read, the metric is unknown, or the files share no subject and subset.
    """
    if metric not in METRICS:
        raise InputError(f'there is no score "{metric}"; choose one of {", ".join(METRICS)}')
    a, b = (_by_subset(read_results(path)) for path in (file_a, file_b))
    comparisons = [_compare_subset(subset, metric, chosen, b[subset]) for subset, chosen in a.items() if subset in b]
    found = [comparison for comparison in comparisons if comparison is not None]
    if not found:
        raise InputError(
            f"{file_a} and {file_b} have no subject in common for any subset of scans: {_contents(a)} against "
            f"{_contents(b)}; evaluate both models on the same subjects"
        )
    return found


def side_by_side(files: Sequence[Path]) -> str:
    """Returns result files as one table, and for exactly two the paired test of the second against the first.

    Raises:
        InputError: a file is missing or holds no results.
    """
    names = [str(file) for file in files]
    text = table_1({name: read_results(Path(name)) for name in names}, baseline=names[0]).markdown()
    if len(files) == 2:
        for comparison in compare(files[1], files[0]):
            subset = "+".join(comparison.subset) or "all scans"
            text += (
                f"\n{subset}: Dice {comparison.b.mean:.3f} → {comparison.a.mean:.3f}, "
                f"{comparison.test.num_pairs} pairs, p = {comparison.test.p:.4g} one-sided, "
                f"{comparison.test.p_two_sided:.4g} two-sided"
            )
    return text


def table_1(results: Mapping[str, Sequence[SubjectResult]], baseline: str = "hemis") -> Table:
    """The table of variant → results, variants in the order given, subsets in order of appearance.

    Every variant is tested against the baseline on the subjects both have. A variant without a subset leaves a gap.

    Raises:
        InputError: there are no results, none of the baseline, or a variant shares no subject with it.
    Source: paper, Table 1.
    """
    if not any(results.values()):
        raise InputError("there are no results to make a table of; evaluate at least one variant")
    if baseline not in results:
        raise InputError(f'the baseline "{baseline}" has no results; there are results of {", ".join(results)}')
    grouped = {variant: _by_subset(chosen) for variant, chosen in results.items()}
    subsets = dict.fromkeys(subset for chosen in grouped.values() for subset in chosen)
    cells = []
    for subset in subsets:
        for variant, chosen in grouped.items():
            if subset in chosen:
                rival = grouped[baseline].get(subset) if variant != baseline else None
                cells.append(_cell(subset, variant, chosen[subset], baseline, rival))
    return Table(baseline, tuple(cells))


def _cell(
    subset: tuple[str, ...],
    variant: str,
    results: Sequence[SubjectResult],
    baseline: str,
    rival: Sequence[SubjectResult] | None,
) -> TableCell:
    test = None
    if rival is not None:
        comparison = _compare_subset(subset, "dice", results, rival)
        if comparison is None:
            raise InputError(
                f"{variant} and {baseline} have no subject in common for {subset_name(subset)}: "
                f"{some_of(r.subject_id for r in results)} against {some_of(r.subject_id for r in rival)}"
            )
        test = comparison.test
    dice, asd_mm = (summarise([getattr(r.scores, metric) for r in results]) for metric in ("dice", "asd_mm"))
    return TableCell(subset, variant, dice, asd_mm, test)


def _by_subset(results: Iterable[SubjectResult]) -> dict[tuple[str, ...], list[SubjectResult]]:
    grouped: dict[tuple[str, ...], list[SubjectResult]] = {}
    for result in results:
        grouped.setdefault(result.subset, []).append(result)
    return grouped


def _compare_subset(
    subset: tuple[str, ...], metric: str, a: Sequence[SubjectResult], b: Sequence[SubjectResult]
) -> Comparison | None:
    values_a, values_b = ({r.subject_id: getattr(r.scores, metric) for r in side} for side in (a, b))
    common = [subject_id for subject_id in values_a if subject_id in values_b]
    if not common:
        return None
    left_out = values_a.keys() ^ values_b.keys()
    if left_out:
        one, many = (f"{words} results of one model only and" for words in ("subject has", "subjects have"))
        number = counted(len(left_out), f"{one} is left out", f"{many} are left out")
        log.warning("%s: %s: %s", subset_name(subset), number, some_of(left_out))
    pair = [[values[subject_id] for subject_id in common] for values in (values_a, values_b)]
    alternative = "less" if metric in _LOWER_IS_BETTER else "greater"
    return Comparison(subset, metric, *map(summarise, pair), paired_wilcoxon(*pair, alternative))


def _contents(grouped: Mapping[tuple[str, ...], Sequence[SubjectResult]]) -> str:
    return some_of(f"{r.subject_id} ({subset_name(subset)})" for subset, chosen in grouped.items() for r in chosen)


def _dice_text(cell: TableCell | None) -> str:
    if cell is None or cell.dice.num == 0:
        return "–"
    text = f"{cell.dice.mean:.2f} ({cell.dice.median:.2f})"
    return f"**{text}**" if cell.beats_baseline else text


def _distance_text(cell: TableCell | None) -> str:
    return "–" if cell is None or cell.asd_mm.num == 0 else f"{cell.asd_mm.median:.2f}"


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _range(numbers: Sequence[int]) -> str:
    return str(min(numbers)) if min(numbers) == max(numbers) else f"{min(numbers)} to {max(numbers)}"
