"""What came out of a comparison: results as far as they are there, tables, and which of the paper's trends hold."""

import csv
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib import resources
from itertools import permutations
from pathlib import Path
from typing import NamedTuple

import numpy as np

from pimms_tf.comparison.scales import HOLDOUT_SUBSETS, MODALITIES, NETWORKS, REPEATED, UNLABELLED, VOLUMES, of_seed
from pimms_tf.comparison.stages import read_done, read_record
from pimms_tf.errors import InputError
from pimms_tf.evaluation import SubjectResult, Table, read_results, table_1

_DRAWS = 2000  # of scans put into classes at random


class Sorted(NamedTuple):
    """Scans put into classes: `counts` (3, 3) int by their true (row) and their best one (column).

    `confidence` is the mean probability of the best class, NaN without a scan.
    """

    counts: np.ndarray
    confidence: float

    @property
    def accuracy(self) -> float:
        """Share of scans in the class of their own; NaN without a scan."""
        return _share(np.trace(self.counts), self.counts)

    def best_order(self) -> tuple[int, ...]:
        """The class of each true contrast, if classes have no names: the order that most scans agree with."""
        rows = np.arange(len(self.counts))
        return max(permutations(rows.tolist()), key=lambda order: self.counts[rows, list(order)].sum())

    def best_accuracy(self) -> float:
        """Share of scans that agree with the best order of the classes."""
        return _share(self.counts[np.arange(len(self.counts)), list(self.best_order())].sum(), self.counts)

    def accuracy_by_chance(self) -> float:
        """The best accuracy that as many scans of each contrast have on average, put into classes at random.

        It lies above a third, since the best of six orders is taken. Of 2000 draws from one seed.
        """
        rng = np.random.default_rng(0)
        found = []
        for _ in range(_DRAWS):
            drawn = rng.multinomial(self.counts.sum(axis=1), [1 / len(self.counts)] * len(self.counts))
            found.append(Sorted(drawn, 0.0).best_accuracy())
        return float(np.mean(found))


@dataclass(frozen=True)
class Comparison:
    """The results of a comparison, as far as its stages are done.

    Args:
        scale, seed, version: what was asked for, and of which release.
        results: {holdout: {network: one result per subject and subset}}.
        modalities: {holdout: {network: its classifier's answers, all scans given}}, HeMIS left out.
        done: {stage: its record, see `stages.run_stages`}.
        missing: stages that are not done.
    """

    scale: str
    seed: int
    version: str
    results: Mapping[str, Mapping[str, Sequence[SubjectResult]]]
    modalities: Mapping[str, Mapping[str, Sorted]]
    done: Mapping[str, Mapping]
    missing: tuple[str, ...]

    @cached_property
    def tables(self) -> Mapping[str, Table]:
        """The paper's table of each holdout: its rows, a column per 2-D network, each tested against HeMIS."""
        columns = (*NETWORKS, UNLABELLED)
        return {
            holdout: _table(HOLDOUT_SUBSETS[holdout], {name: networks[name] for name in columns if name in networks})
            for holdout, networks in self.results.items()
        }

    @cached_property
    def repeats(self) -> Mapping[str, Mapping[int, Table]]:
        """{holdout: {seed: HeMIS and Online, trained from it}} of seeds that both have, the study's own too."""
        found: dict[str, dict[int, Table]] = {}
        for holdout, networks in self.results.items():
            for number in range(len(networks)):
                names = [of_seed(name, number) for name in REPEATED]
                if all(name in networks for name in names):
                    chosen = {name: networks[again] for name, again in zip(REPEATED, names, strict=True)}
                    table = _table(HOLDOUT_SUBSETS[holdout], chosen)
                    found.setdefault(holdout, {})[self.seed + number] = table
        return {holdout: tables for holdout, tables in found.items() if len(tables) > 1}

    @cached_property
    def volumes(self) -> Table | None:
        """The 3-D HeMIS beside the 2-D one, on the subjects of mixed that both have; None where there is no 3-D one."""
        networks = self.results.get("mixed", {})
        if VOLUMES not in networks:
            return None
        subjects = {result.subject_id for result in networks[VOLUMES]}
        flat = [result for result in networks["hemis"] if result.subject_id in subjects]
        return _table(HOLDOUT_SUBSETS["mixed"], {"hemis": flat, VOLUMES: networks[VOLUMES]})


class Trend(NamedTuple):
    """A statement of the paper's table, and in how many rows of it ours agrees."""

    text: str
    num_agreeing: int
    num_rows: int

    @property
    def holds(self) -> bool:
        return self.num_agreeing == self.num_rows


def read_comparison(folder: Path) -> Comparison:
    """Reads what the stages of a comparison left in `folder`; what is not done yet is left out and named.

    Raises:
        InputError: there is no comparison, a result of a stage that is done is missing or cannot be read, or HeMIS is
            not scored on any holdout yet.
    """
    folder = Path(folder)
    record = read_record(folder)
    done = {name: found for name in record["stages"] if (found := read_done(folder, name))}
    places = {
        holdout: {
            network: folder / "results" / holdout / network
            for network in networks
            if f"evaluation_{holdout}_{network}" in done
        }
        for holdout, networks in record["networks"].items()
    }
    # Others are held against HeMIS.
    places = {holdout: networks for holdout, networks in places.items() if "hemis" in networks}
    if not places:
        raise InputError(f"{folder}: HeMIS is scored on no holdout yet; go on with pimms-tf study {folder}")
    results = {
        holdout: {network: read_results(place / "evaluation.csv") for network, place in networks.items()}
        for holdout, networks in places.items()
    }
    modalities = {
        holdout: {network: _sorted(place) for network, place in networks.items() if not network.startswith("hemis")}
        for holdout, networks in places.items()
    }
    missing = tuple(name for name in record["stages"] if name not in done)
    return Comparison(record["scale"], record["seed"], record["version"], results, modalities, done, missing)


def published() -> dict[tuple[str, tuple[str, ...], str], dict[str, float]]:
    """The paper's table: {(holdout, subset, metric): {network: value}}; Dice is a mean, distances are medians in mm.

    Source: paper, Table 1.
    """
    text = resources.files("pimms_tf.comparison").joinpath("published.csv").read_text(encoding="utf-8")
    return {
        (row["holdout"], tuple(row["subset"].split("+")), row["metric"]): {name: float(row[name]) for name in NETWORKS}
        for row in csv.DictReader(text.splitlines())
    }


# Source: paper, section on results; T1, T2 and FLAIR together.
PUBLISHED_ACCURACY = {"mixed": 0.99, "silver": 0.88, "gold": 0.87}


def trends(comparison: Comparison) -> list[Trend]:
    """What the paper's table says of the networks, row by row, held against ours; rows that lack one are left out.

    Source: paper, Table 1.
    """
    means: dict[tuple[str, tuple[str, ...], str], dict[str, float]] = {}
    for holdout, table in comparison.tables.items():
        for cell in table.cells:
            means.setdefault((holdout, cell.subset, "dice"), {})[cell.variant] = cell.dice.mean
            means.setdefault((holdout, cell.subset, "asd_mm"), {})[cell.variant] = cell.asd_mm.median
    means = {key: row for key, row in means.items() if all(name in row for name in NETWORKS)}
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


def _table(rows: Sequence[tuple[str, ...]], networks: Mapping[str, Sequence[SubjectResult]]) -> Table:
    chosen = {
        network: sorted((r for r in results if r.subset in rows), key=lambda result: rows.index(result.subset))
        for network, results in networks.items()
    }
    return table_1(chosen, baseline="hemis")


def _sorted(place: Path) -> Sorted:
    """Of the scores of all subjects, given all their scans."""
    counts, best = np.zeros((len(MODALITIES), len(MODALITIES)), int), []
    tables = sorted(place.glob("subset_*/modality_scores.csv"), key=lambda table: table.parent.name.count("_"))
    if not tables:
        raise InputError(f"{place} holds no modality_scores.csv; run the inference of that folder again")
    with tables[-1].open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            true = row["scan"].split(".")[0].split("_")[-1]
            if true in MODALITIES and row["best"] in MODALITIES:
                counts[MODALITIES.index(true), MODALITIES.index(row["best"])] += 1
                best.append(float(row[row["best"]]))
    return Sorted(counts, float(np.mean(best)) if best else float("nan"))


def _share(num: int, counts: np.ndarray) -> float:
    return float(num / counts.sum()) if counts.sum() else float("nan")
