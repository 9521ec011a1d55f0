"""Scores of subjects: computing them, and the CSV file that holds those of one model.

A result belongs to a subject and to the subset of its scans that the model was given. In files a subset is the names of
its scans joined by "+", empty where the model was given all of them.
"""

import csv
import filecmp
import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import NamedTuple

import numpy as np

from pimms_tf.errors import InputError
from pimms_tf.evaluation.metrics import (
    OTHER_PATHOLOGY,
    SurfaceDistance,
    average_surface_distance_mm,
    dice,
    lesion_f1,
    lesion_masks,
    lesion_recall,
    volume_difference_percent,
    volume_ml,
    wmh_h95_mm,
)
from pimms_tf.files import csv_text, is_formula, write_text
from pimms_tf.wording import counted, some_of

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SubjectScores:
    """How one segmentation agrees with its reference; NaN where a measure is undefined."""

    dice: float
    asd_mm: float
    hd95_mm: float
    volume_difference_percent: float
    lesion_recall: float
    lesion_f1: float
    reference_ml: float
    inferred_ml: float


METRICS = tuple(field.name for field in fields(SubjectScores))


@dataclass(frozen=True)
class SubjectResult:
    """Scores of one subject, segmented from the scans named in `subset`; () for all it has."""

    subject_id: str
    subset: tuple[str, ...]
    scores: SubjectScores


class FilePair(NamedTuple):
    """A segmentation and what it is compared with."""

    subject_id: str
    reference: Path
    inferred: Path


def join_by_subject(references: Mapping[str, Path], inferred: Mapping[str, Path]) -> list[FilePair]:
    """Pairs of files of the subjects that have both, sorted by subject; the others are named in a warning.

    Raises:
        InputError: no subject has both. A copy of the reference, byte for byte, is named in a warning.
    """
    common = sorted(references.keys() & inferred.keys())
    if not common:
        raise InputError(
            f"no subject has both a reference and a segmentation (references: {some_of(references)}; "
            f"segmentations: {some_of(inferred)}); compare the file names of both"
        )
    for missing, what in ((references.keys() - common, "segmentation"), (inferred.keys() - common, "reference")):
        if missing:
            one, many = f"subject has no {what} and is", f"subjects have no {what} and are"
            log.warning("%s not evaluated: %s", counted(len(missing), one, many), some_of(missing))
    pairs = [FilePair(subject_id, Path(references[subject_id]), Path(inferred[subject_id])) for subject_id in common]
    copies = [pair.subject_id for pair in pairs if _are_copies(pair)]
    if copies:
        log.warning(
            "%s of the reference, byte for byte, and will score 1: %s; check what the section of the inferred "
            "images finds",
            counted(len(copies), "segmentation is a copy", "segmentations are copies"),
            some_of(copies),
        )
    return pairs


def _are_copies(pair: FilePair) -> bool:
    _, reference, segmentation = pair
    if not (reference.is_file() and segmentation.is_file()) or reference.samefile(segmentation):
        return False
    return filecmp.cmp(reference, segmentation, shallow=False)


def evaluate_subject(
    reference: np.ndarray,
    inferred: np.ndarray,
    spacing_mm: Sequence[float],
    mask: np.ndarray | None = None,
    label: int = 1,
    ignored_label: int | None = OTHER_PATHOLOGY,
    surface_distance: SurfaceDistance = "standard",
) -> SubjectScores:
    """All scores of one segmentation (x, y, z) against a label map of the same shape; axial slices lie in (x, y).

    `lesion_masks` prepares both: `label` is the lesion, `ignored_label` counts neither way, numbers other than integers
    are probabilities. Voxels outside `mask`, if given, do not count. Undefined distances and ratios are NaN.

    Raises:
        InputError: the shapes differ, or the spacing does not fit them.
    """
    truth, found = lesion_masks(reference, inferred, label, ignored_label)
    if mask is not None:
        inside = np.asarray(mask) != 0
        if inside.shape != truth.shape:
            raise InputError(f"the evaluation mask has shape {inside.shape} and the reference {truth.shape}")
        truth, found = truth & inside, found & inside
    return SubjectScores(
        dice=dice(truth, found),
        asd_mm=average_surface_distance_mm(truth, found, spacing_mm, surface_distance),
        hd95_mm=wmh_h95_mm(truth, found, spacing_mm),
        volume_difference_percent=volume_difference_percent(truth, found),
        lesion_recall=lesion_recall(truth, found),
        lesion_f1=lesion_f1(truth, found),
        reference_ml=volume_ml(truth, spacing_mm),
        inferred_ml=volume_ml(found, spacing_mm),
    )


def write_results(path: Path, results: Iterable[SubjectResult]) -> None:
    """Writes one row per result: subject_id, subset and every score, an empty cell where it is undefined.

    Raises:
        InputError: a subject has two results for one subset.
    """
    results = list(results)
    _refuse_repeats(results, Path(path))
    rows = [[result.subject_id, "+".join(result.subset), *astuple(result.scores)] for result in results]
    write_csv(path, ["subject_id", "subset", *METRICS], rows)


def read_results(path: Path) -> list[SubjectResult]:
    """The results in a file of `write_results`, in its order; ids stay text, further columns are ignored.

    A file without a `subset` column holds results of whole subjects.

    Raises:
        InputError: the file is missing or empty, lacks a column, repeats a subject, or a score is not a number.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: there is no such file of results; the evaluation command writes one")
    results = []
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        present = reader.fieldnames or ()
        missing = [name for name in ("subject_id", *METRICS) if name not in present]
        if missing:
            raise InputError(f"{path}: missing columns {', '.join(missing)}; found {', '.join(present) or 'none'}")
        for row in reader:
            where = f"{path}, line {reader.line_num}"
            scores = SubjectScores(*(_number(row[name], f"{where}, column {name}") for name in METRICS))
            subset = tuple(filter(None, (row.get("subset") or "").split("+")))
            results.append(SubjectResult(_unquoted(row["subject_id"]), subset, scores))
    if not results:
        raise InputError(f"{path}: no subject below the header; evaluate at least one")
    _refuse_repeats(results, path)
    return results


def subset_name(subset: tuple[str, ...]) -> str:
    """How messages and tables call a subset of scans."""
    return "+".join(subset) or "all scans"


def table_text(header: Sequence[str], rows: Iterable[Sequence[str | float]]) -> str:
    """CSV text; numbers as Python writes them, NaN as an empty cell."""
    cells = ([cell if isinstance(cell, str) else _number_text(cell) for cell in row] for row in rows)
    return csv_text([header, *cells])


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[str | float]]) -> None:
    """Writes `table_text` to a file, whole or not at all."""
    write_text(path, table_text(header, rows))


def _refuse_repeats(results: Sequence[SubjectResult], path: Path) -> None:
    seen = set()
    for result in results:
        key = (result.subject_id, result.subset)
        if key in seen:
            name = subset_name(result.subset)
            raise InputError(f"{path}: subject {result.subject_id} has two results for {name}; keep one of them")
        seen.add(key)


def _unquoted(cell: str) -> str:
    """The text of a cell that `csv_text` wrote."""
    return cell[1:] if cell[:1] == "'" and is_formula(cell[1:]) else cell


def _number(text: str | None, where: str) -> float:
    if text is None:
        raise InputError(f"{where}: the line ends before this column; the file is damaged, write it again")
    try:
        return float(text) if text else math.nan
    except ValueError:
        raise InputError(f'{where}: "{text}" is not a number; leave the cell empty if it is undefined') from None


def _number_text(value: float) -> str:
    if math.isnan(value):
        return ""
    return str(value) if isinstance(value, int) else repr(float(value))
