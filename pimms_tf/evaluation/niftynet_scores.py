"""NiftyNet's own evaluation tables: its metric names, its units and its CSV files, with distances in voxels.

For reading new results beside old ones. What NiftyNet gets wrong is left out unless `as_recorded` asks for it:

- with one empty mask its distances lead to the point (-1, 0, 0); here they are NaN, an empty cell;
- unit `cc` exchanges reference and inferred components after pairing them, so a row can hold components that do not
  touch; here each reference component is paired with all inferred components that overlap it;
- one undefined value makes `mean_` and `stdev_` undefined; here they are taken over the defined values.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy import ndimage

from pimms_tf.errors import InputError
from pimms_tf.evaluation.metrics import BorderDistances, border_distances, confusion_matrix
from pimms_tf.evaluation.results import table_text, write_csv


class LabelPair(NamedTuple):
    """One subject to score: two label maps of one shape."""

    subject_id: str
    reference: np.ndarray
    inferred: np.ndarray


class Counts(NamedTuple):
    """Voxels of two masks by agreement; float64, so that 0/0 is NaN and 1/0 infinite."""

    tp: np.float64
    fp: np.float64
    fn: np.float64
    tn: np.float64


_OVERLAP: dict[str, Callable[[Counts], float]] = {
    "n_pos_ref": lambda c: c.tp + c.fn,
    "n_neg_ref": lambda c: c.tn + c.fp,
    "n_pos_seg": lambda c: c.tp + c.fp,
    "n_neg_seg": lambda c: c.tn + c.fn,
    "fp": lambda c: c.fp,
    "fn": lambda c: c.fn,
    "tp": lambda c: c.tp,
    "tn": lambda c: c.tn,
    "n_intersection": lambda c: c.tp,
    "n_union": lambda c: c.tp + c.fp + c.fn,
    "sensitivity": lambda c: c.tp / (c.tp + c.fn),
    "specificity": lambda c: c.tn / (c.tn + c.fp),
    "accuracy": lambda c: (c.tp + c.tn) / sum(c),
    "false_positive_rate": lambda c: c.fp / (c.tn + c.fp),
    "positive_predictive_values": lambda c: c.tp / (c.tp + c.fp),
    "negative_predictive_values": lambda c: c.tn / (c.tn + c.fn),
    "dice": lambda c: 2 * c.tp / (2 * c.tp + c.fp + c.fn),
    "jaccard": lambda c: c.tp / (c.tp + c.fp + c.fn),
    "informedness": lambda c: c.tp / (c.tp + c.fn) + c.tn / (c.tn + c.fp) - 1,
    "markedness": lambda c: c.tp / (c.tp + c.fp) + c.tn / (c.tn + c.fn) - 1,
    # A ratio of volumes, in spite of its name.
    "vol_diff": lambda c: (c.tp + c.fp) / (c.tp + c.fn),
}


def _average_distance(d: BorderDistances) -> float:
    return (d.from_reference.sum() + d.from_inferred.sum()) / np.float64(d.num_border_voxels)


def _hausdorff_distance(d: BorderDistances) -> float:
    return np.max([*d.from_reference, *d.from_inferred, 0.0])


def _hausdorff95_distance(d: BorderDistances) -> float:
    if len(d.from_reference) == 0 or len(d.from_inferred) == 0:
        return np.nan
    return max(np.percentile(d.from_reference, 95), np.percentile(d.from_inferred, 95))


_DISTANCE: dict[str, Callable[[BorderDistances], float]] = {
    "average_distance": _average_distance,
    "hausdorff_distance": _hausdorff_distance,
    "hausdorff95_distance": _hausdorff95_distance,
}
_ALIASES = {"Dice": "dice", "Jaccard": "jaccard", "intersection_over_union": "jaccard"}
_CENTRE = ("com_ref_X", "com_ref_Y", "com_ref_Z")

NIFTYNET_METRICS = (*_OVERLAP, *_DISTANCE, *_ALIASES, "com_ref")
NIFTYNET_UNITS = ("foreground", "label", "cc")
NIFTYNET_TABLES = (_BY_LABEL, _MEANS, _BY_COMPONENT) = (
    "eval_subject_id_label.csv",
    "eval_label.csv",
    "eval_subject_id_cc_id.csv",
)
DEFAULT_METRICS = ("dice", "jaccard", "average_distance")


@dataclass(frozen=True)
class ScoreTable:
    """One CSV file of NiftyNet: cells of the index columns, then one number per metric; NaN is an empty cell."""

    file_name: str
    index: tuple[str, ...]
    columns: tuple[str, ...]
    rows: tuple[tuple[tuple[str, ...], tuple[float, ...]], ...]

    def csv(self) -> str:
        """The text of the file, numbers written as NiftyNet writes them."""
        return table_text(self.index + self.columns, self._cells())

    def write(self, folder: Path) -> Path:
        """Writes the file into `folder`, whole or not at all, and returns its path."""
        path = Path(folder) / self.file_name
        write_csv(path, self.index + self.columns, self._cells())
        return path

    def _cells(self) -> list[tuple[str | float, ...]]:
        return [index + values for index, values in self.rows]


def niftynet_metrics(
    reference: np.ndarray, inferred: np.ndarray, metrics: Sequence[str], as_recorded: bool = False
) -> dict[str, float]:
    """Column → value for two masks (x, y, z), under NiftyNet's column names and in its arithmetic.

    `com_ref`, the centre of the reference in voxels, fills three columns. 0/0 is NaN, x/0 infinite.

    Raises:
        InputError: an unknown metric, or shapes that differ.
    Source: niftynet/evaluation/segmentation_evaluations.py.
    """
    names = _metric_names(metrics)
    reference, inferred = np.asarray(reference) != 0, np.asarray(inferred) != 0
    values: dict[str, float] = {}
    with np.errstate(divide="ignore", invalid="ignore"):
        (tn, fp), (fn, tp) = confusion_matrix(reference, inferred, 2).astype(float)
        counts = Counts(tp, fp, fn, tn)
        if any(name in _DISTANCE for name in names):
            distances = border_distances(reference, inferred, (1,) * reference.ndim, compat=as_recorded)
        for name in names:
            if name == "com_ref":
                values.update(zip(_CENTRE, _centre(reference), strict=False))
            else:
                values[name] = float(_OVERLAP[name](counts) if name in _OVERLAP else _DISTANCE[name](distances))
    return values


def niftynet_tables(
    subjects: Iterable[LabelPair],
    units: Sequence[str] = ("foreground",),
    metrics: Sequence[str] = DEFAULT_METRICS,
    num_classes: int = 2,
    as_recorded: bool = False,
) -> list[ScoreTable]:
    """The tables that NiftyNet's evaluation writes: a row per subject and label or component, and means over subjects.

    `foreground` scores the labels 1 … num_classes - 1 one by one, `label` scores 0 as well, `cc` connected components
    (by faces) of whatever is not 0, named `r<reference>_s<inferred>`. Subjects are taken one at a time.

    Raises:
        InputError: an unknown metric or unit, or label maps of different shapes.
    Source: niftynet/evaluation/segmentation_evaluations.py, base_evaluator.py.
    """
    _metric_names(metrics)
    for unit in units:
        if unit not in NIFTYNET_UNITS:
            raise InputError(f'evaluation_units = "{unit}" is none of {", ".join(NIFTYNET_UNITS)}')
    first = 0 if "label" in units else 1
    labels = range(first, num_classes) if {"label", "foreground"} & set(units) else ()
    by_label: list[tuple[tuple[str, ...], dict[str, float]]] = []
    by_component: list[tuple[tuple[str, ...], dict[str, float]]] = []
    for subject_id, reference, inferred in subjects:
        if np.shape(reference) != np.shape(inferred):
            raise InputError(
                f"subject {subject_id}: the inferred image has shape {np.shape(inferred)} and the reference "
                f"{np.shape(reference)}; bring both onto the grid of the original file before comparing them"
            )
        for label in labels:
            scores = niftynet_metrics(reference == label, inferred == label, metrics, as_recorded)
            by_label.append(((subject_id, str(label)), scores))
        for name, pair in _component_pairs(reference, inferred, as_recorded) if "cc" in units else ():
            by_component.append(((subject_id, name), niftynet_metrics(*pair, metrics, as_recorded)))
    tables = []
    if labels:
        tables.append(_table(_BY_LABEL, ("subject_id", "label"), by_label))
        tables.append(_means(tables[0], as_recorded))
    if "cc" in units:
        tables.append(_table(_BY_COMPONENT, ("subject_id", "cc_id"), by_component))
    return tables


def _metric_names(metrics: Sequence[str]) -> list[str]:
    names = []
    for metric in metrics:
        if metric not in NIFTYNET_METRICS:
            near = get_close_matches(metric, NIFTYNET_METRICS, 1)
            hint = f'did you mean "{near[0]}"?' if near else f"choose from {', '.join(NIFTYNET_METRICS)}"
            raise InputError(f'evaluations = "{metric}" is not a segmentation metric; {hint}')
        names.append(_ALIASES.get(metric, metric))
    return list(dict.fromkeys(names))


def _centre(mask: np.ndarray) -> np.ndarray:
    return np.argwhere(mask).mean(axis=0) if mask.any() else np.full(mask.ndim, np.nan)


def _component_pairs(
    reference: np.ndarray, inferred: np.ndarray, as_recorded: bool
) -> Iterator[tuple[str, tuple[np.ndarray, np.ndarray]]]:
    reference, _ = ndimage.label(np.asarray(reference) != 0)
    inferred, _ = ndimage.label(np.asarray(inferred) != 0)
    one, other = (inferred, reference) if as_recorded else (reference, inferred)
    for number in range(1, one.max() + 1):
        touched = np.setdiff1d(other[one == number], [0])
        joined = "&".join(map(str, touched))
        if as_recorded:
            # The numbers belong to (inferred, reference) but are looked up in (reference, inferred).
            yield f"r{joined}_s{number}", (np.isin(inferred, touched), reference == number)
        else:
            yield f"r{number}_s{joined}", (reference == number, np.isin(inferred, touched))


def _table(
    file_name: str, index: tuple[str, ...], scores: Sequence[tuple[tuple[str, ...], dict[str, float]]]
) -> ScoreTable:
    columns = tuple(sorted(scores[0][1])) if scores else ()
    rows = tuple((key, tuple(values[column] for column in columns)) for key, values in scores)
    return ScoreTable(file_name, index, columns, rows)


def _means(table: ScoreTable, as_recorded: bool) -> ScoreTable:
    labels = sorted({index[1] for index, _ in table.rows}, key=int)
    columns = tuple(f"{word}_{column}" for word in ("mean", "stdev") for column in table.columns)
    rows = []
    for label in labels:
        values = np.array([row for index, row in table.rows if index[1] == label]).T
        if not as_recorded:
            values = [column[~np.isnan(column)] if not np.isnan(column).all() else column for column in values]
        with np.errstate(invalid="ignore"):
            rows.append(((label,), tuple(f(column) for f in (np.mean, np.std) for column in values)))
    return ScoreTable(_MEANS, ("label",), columns, tuple(rows))
