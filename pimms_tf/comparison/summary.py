"""What came out of a comparison: the paper's table beside the published one, and which of its trends hold."""

import csv
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import NamedTuple

import numpy as np

from pimms_tf.comparison.figures import write_boxes, write_contours
from pimms_tf.comparison.plan import HOLDOUT_SUBSETS, MODALITIES, NETWORKS
from pimms_tf.comparison.stages import read_done, read_record
from pimms_tf.errors import InputError
from pimms_tf.evaluation import SubjectResult, Table, read_results, table_1
from pimms_tf.files import write_text


@dataclass(frozen=True)
class Comparison:
    """The results of a comparison.

    Args:
        scale, seed: what was asked for.
        results: {holdout: {network: one result per subject and subset}}.
        confusion: {holdout: {network: scans by their true (row) and their best modality (column), (3, 3) int}}.
        seconds: {stage: how long it took}.
    """

    scale: str
    seed: int
    results: Mapping[str, Mapping[str, Sequence[SubjectResult]]]
    confusion: Mapping[str, Mapping[str, np.ndarray]]
    seconds: Mapping[str, float]

    @cached_property
    def tables(self) -> Mapping[str, Table]:
        """The paper's table of each holdout: its rows, a column per network, each tested against HeMIS."""
        return {holdout: _table(HOLDOUT_SUBSETS[holdout], networks) for holdout, networks in self.results.items()}


class Trend(NamedTuple):
    """A statement of the paper's table, and in how many rows of it ours agrees."""

    text: str
    num_agreeing: int
    num_rows: int

    @property
    def holds(self) -> bool:
        return self.num_agreeing == self.num_rows


def _table(rows: Sequence[tuple[str, ...]], networks: Mapping[str, Sequence[SubjectResult]]) -> Table:
    chosen = {
        network: sorted((r for r in results if r.subset in rows), key=lambda result: rows.index(result.subset))
        for network, results in networks.items()
    }
    return table_1(chosen, baseline="hemis")


def read_comparison(folder: Path) -> Comparison:
    """Reads what the stages of a comparison left in `folder`.

    Raises:
        InputError: there is no comparison, or a result is missing or cannot be read.
    """
    folder = Path(folder)
    record = read_record(folder)
    places = {
        holdout: {network: folder / "results" / holdout / network for network in record["networks"]}
        for holdout in record["holdouts"]
    }
    results = {
        holdout: {network: read_results(place / "evaluation.csv") for network, place in networks.items()}
        for holdout, networks in places.items()
    }
    confusion = {
        holdout: {network: _confusion(place) for network, place in networks.items() if network != "hemis"}
        for holdout, networks in places.items()
    }
    seconds = {name: done["seconds"] for name in record["stages"] if (done := read_done(folder, name))}
    return Comparison(record["scale"], record["seed"], results, confusion, seconds)


def write_comparison(comparison: Comparison, folder: Path) -> Path:
    """Writes `report.md`, a table per holdout (`table_NAME.csv`), `boxes.png` and `contours.png`; returns the first.

    The second picture shows simulated subjects alone.
    """
    folder = Path(folder)
    for holdout, table in comparison.tables.items():
        write_text(folder / f"table_{holdout}.csv", table.csv())
    write_boxes(comparison.tables, comparison.results, folder / "boxes.png")
    if "mixed" in comparison.results:
        write_contours(folder, comparison.results["mixed"]["online"], folder / "contours.png")
    return write_text(folder / "report.md", report_text(comparison))


def published() -> dict[tuple[str, tuple[str, ...], str], dict[str, float]]:
    """The paper's table: {(holdout, subset, metric): {network: value}}; Dice is a mean, distances are medians in mm.

    Source: paper, Table 1.
    """
    text = resources.files("pimms_tf.comparison").joinpath("published.csv").read_text(encoding="utf-8")
    return {
        (row["holdout"], tuple(row["subset"].split("+")), row["metric"]): {name: float(row[name]) for name in NETWORKS}
        for row in csv.DictReader(text.splitlines())
    }


def trends(comparison: Comparison) -> list[Trend]:
    """What the paper's table says of the networks, row by row, held against ours.

    Source: paper, Table 1.
    """
    means: dict[tuple[str, tuple[str, ...], str], dict[str, float]] = {}
    for holdout, table in comparison.tables.items():
        for cell in table.cells:
            means.setdefault((holdout, cell.subset, "dice"), {})[cell.variant] = cell.dice.mean
            means.setdefault((holdout, cell.subset, "asd_mm"), {})[cell.variant] = cell.asd_mm.median
    mixed = [key for key in means if key[0] == "mixed" and key[2] == "dice"]
    single = [key for key in means if len(key[1]) == 1 and key[2] == "dice"]
    both = [key for key in means if key[0] != "mixed" and key[1] == ("T1", "FLAIR") and key[2] == "dice"]
    distances = [key for key in means if key[2] == "asd_mm"]

    def counted(text: str, keys: Sequence[tuple], agrees: Callable[[Mapping[str, float]], bool]) -> Trend:
        return Trend(text, sum(bool(agrees(means[key])) for key in keys), len(keys))

    def is_best(row: Mapping[str, float]) -> bool:
        return row["online"] >= max(row[name] for name in NETWORKS)

    return [
        counted("Mixed: Dice of Hard within 0.02 of HeMIS", mixed, lambda row: abs(row["hard"] - row["hemis"]) <= 0.02),
        counted("Mixed: Dice of Soft not below HeMIS", mixed, lambda row: row["soft"] >= row["hemis"]),
        counted("Mixed: Dice of Online the highest (paper: 6 of 7 rows)", mixed, is_best),
        counted("One scan alone: Dice of Online the highest, in all holdouts", single, is_best),
        counted("Silver and gold, T1+FLAIR: Dice of Online not the highest", both, lambda row: not is_best(row)),
        counted("Surface distance of Online above that of HeMIS", distances, lambda row: row["online"] > row["hemis"]),
    ]


def report_text(comparison: Comparison) -> str:
    """The comparison as Markdown: tables, trends, modalities, costs."""
    lines = [f"# The paper's comparison, scale {comparison.scale}, seed {comparison.seed}", ""]
    known = published()
    for holdout, table in comparison.tables.items():
        lines += [f"## {holdout.capitalize()}", "", table.markdown()]
        lines += ["Beside the paper, Dice (mean), ours / published:", "", *_beside(table, holdout, known), ""]
    lines += ["## What the paper found", "", "| trend | rows that agree | holds |", "| --- | --: | :-: |"]
    for trend in trends(comparison):
        lines.append(f"| {trend.text} | {trend.num_agreeing} of {trend.num_rows} | {'yes' if trend.holds else 'no'} |")
    lines += ["", "## Which scan is which", ""]
    for holdout, networks in comparison.confusion.items():
        for network, counts in networks.items():
            lines += [f"{holdout}, {network}: {_accuracy_text(counts)}", "", *_confusion_lines(counts), ""]
    lines += ["## Cost", "", "| stage | seconds |", "| --- | --: |"]
    lines += [f"| {name} | {seconds:.0f} |" for name, seconds in comparison.seconds.items()]
    return "\n".join([*lines, ""])


def _beside(table: Table, holdout: str, known: Mapping) -> list[str]:
    found = {(cell.subset, cell.variant): cell.dice.mean for cell in table.cells}
    lines = [f"| scans | {' | '.join(NETWORKS)} |", f"| --- |{' --: |' * len(NETWORKS)}"]
    for subset in dict.fromkeys(subset for subset, _ in found):
        theirs = known[holdout, subset, "dice"]
        cells = [f"{found[subset, network]:.2f} / {theirs[network]:.2f}" for network in NETWORKS]
        lines.append(f"| {'+'.join(subset)} | {' | '.join(cells)} |")
    return lines


def _confusion(place: Path) -> np.ndarray:
    """Of the scores of all subjects, given all their scans."""
    counts = np.zeros((len(MODALITIES), len(MODALITIES)), int)
    tables = sorted(place.glob("subset_*/modality_scores.csv"), key=lambda table: table.parent.name.count("_"))
    if not tables:
        raise InputError(f"{place} holds no modality_scores.csv; run the inference of that folder again")
    with tables[-1].open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            true = row["scan"].split(".")[0].split("_")[-1]
            if true in MODALITIES and row["best"] in MODALITIES:
                counts[MODALITIES.index(true), MODALITIES.index(row["best"])] += 1
    return counts


def _accuracy_text(counts: np.ndarray) -> str:
    if counts.sum() == 0:
        return "no scan was scored"
    return f"{np.trace(counts)} of {counts.sum()} scans right ({100 * np.trace(counts) / counts.sum():.1f} %)"


def _confusion_lines(counts: np.ndarray) -> list[str]:
    lines = [f"| is \\ taken for | {' | '.join(MODALITIES)} |", f"| --- |{' --: |' * len(MODALITIES)}"]
    lines += [f"| {m} | {' | '.join(map(str, row))} |" for m, row in zip(MODALITIES, counts, strict=True)]
    return lines
