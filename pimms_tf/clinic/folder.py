"""The folder of a patient's result: mask, probability, tables, and one JSON file that says everything but the voxels.

Each file appears whole or not at all, and `result.json` last, so that its presence says that all others are there.
"""

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np

from pimms_tf.clinic.bids import write_bids
from pimms_tf.clinic.intake import MASK, PROBABILITY, RESULT, is_called
from pimms_tf.clinic.lesions import Lesion, lesions_of, write_lesions
from pimms_tf.clinic.provenance import Provenance, provenance
from pimms_tf.clinic.report import write_report
from pimms_tf.clinic.results import PatientResult, ScanResult
from pimms_tf.clinic.viewers import write_viewer_files
from pimms_tf.data.grids import Grid
from pimms_tf.data.images import Image, resample_onto, write_image
from pimms_tf.errors import InputError
from pimms_tf.files import sweep, tsv_text, write_text

SCANS, LESIONS = "scans.tsv", "lesions.tsv"
VERSION = 1  # of result.json; raised when a field changes its meaning
_NOT_KNOWN = "n/a"
_FIRST_COLUMNS = ("scan", "taken_for", "used", "reason")
_LAST_COLUMNS = ("reference", "moved_mm", "similarity_before", "similarity_after", "contribution", "remarks", "files")


def write_result(
    result: PatientResult,
    folder: Path,
    *,
    also_on: Sequence[str] = (),
    weights: Path | str = "bundled",
    command: Sequence[str] | None = None,
    dicom_seg: bool = False,
    bids: Path | None = None,
) -> tuple[Lesion, ...]:
    """Returns the lesions of the mask after all files of a patient's result were written to a folder, new or not.

    Args:
        also_on: scans on whose own grids the mask is wanted, too.
        weights, command: how the result came about; see `provenance`.
        dicom_seg: `mask.dcm`, too; see `write_dicom_seg`, which is tried when all else is written.
        bids: the data set of derivatives to which the patient is added under its name, too; see `write_bids`.

    Raises:
        InputError: see `write_images`, `write_dicom_seg` and `write_bids`.
        OSError: the folder cannot be written.
    """
    folder = Path(folder)
    write_images(result, folder, also_on)
    lesions = lesions_of(result)
    write_text(folder / SCANS, tsv_text(scans_table(result)))
    write_lesions(lesions, folder / LESIONS)
    made = provenance(weights, command)
    write_report(result, folder, made, lesions, write_viewer_files(result, folder))
    write_text(folder / RESULT, json.dumps(result_record(result, made, lesions), indent=2, ensure_ascii=False) + "\n")
    if bids is not None:
        write_bids(result, bids, lesions, made)
    if dicom_seg:
        # It takes a second to import highdicom, which those without DICOM need not wait.
        from pimms_tf.clinic.dicom_seg import NAME, write_dicom_seg

        write_dicom_seg(result, folder / NAME)
    return lesions


def write_images(result: PatientResult, folder: Path, also_on: Sequence[str] = ()) -> list[Path]:
    """Returns the paths of mask and probability after they were written, and of masks on the grids of named scans.

    Raises:
        InputError: a name in `also_on` is that of no scan that was used; a file would be one of the patient's own.
        OSError: the folder cannot be written.
    """
    folder = Path(folder)
    scans = list(dict.fromkeys(named(result, name) for name in also_on))
    stems = [_stem(scan) for scan in scans]
    stems = [f"{stem}-{n}" if (n := stems[:at].count(stem) + 1) > 1 else stem for at, stem in enumerate(stems)]
    paths = [folder / MASK, folder / PROBABILITY, *(folder / f"mask_on_{stem}.nii.gz" for stem in stems)]
    images = [result.mask, result.probability, *(mask_on(result, scan) for scan in scans)]
    refuse_own_files(result, paths)
    (folder / RESULT).unlink(missing_ok=True)  # an earlier one, which no longer goes with what is written now
    sweep(folder)
    for path, image in zip(paths, images, strict=True):
        write_image(image, path)
    return paths


def mask_on(result: PatientResult, scan: ScanResult) -> Image:
    """Returns the mask on a scan's own voxels, wherever registration moved it: the label nearest to each."""
    moved = scan.grid.affine if scan.registration is None else scan.registration.transform @ scan.grid.affine
    image = resample_onto(result.mask, Grid(scan.grid.shape, moved), 0)
    return Image(image.data.astype(np.int32), scan.grid.affine, Grid(scan.grid.shape, scan.grid.affine))


def named(result: PatientResult, name: str) -> ScanResult:
    """Returns the scan of a name, or of the path of its file, out of those that were used and the reference.

    Raises:
        InputError: there is none.
    """
    placed = [scan for scan in result.scans if scan.used or scan.is_reference]
    for scan in placed:
        if is_called(name, scan.name, scan.files):
            return scan
    names = ", ".join(scan.name for scan in placed)
    raise InputError(f"{name} is no scan of this patient that was used; give one of {names}")


def refuse_own_files(result: PatientResult, paths: Iterable[Path]) -> None:
    """Refuses to write where one of the patient's own files lies.

    Raises:
        InputError: one would be written over.
    """
    own = {path.resolve() for scan in result.scans for path in scan.files}
    for path in paths:
        if path.resolve() in own:
            raise InputError(f"{path} is one of the scans and would be written over; give another folder for results")


def scans_table(result: PatientResult) -> list[tuple[str, ...]]:
    """Returns the rows of `scans.tsv`, headings first: each scan, then what was set aside."""
    count = len(result.modalities)
    rows = [(*_FIRST_COLUMNS, *(f"score_{name}" for name in result.modalities), *_LAST_COLUMNS)]
    for scan in result.scans:
        found = scan.registration
        scores = scan.scores or (math.nan,) * count
        rows.append(
            (
                scan.name,
                scan.taken_for or _NOT_KNOWN,
                "yes" if scan.used else "no",
                scan.reason,
                *(_number(score, 4) for score in scores),
                "yes" if scan.is_reference else "no",
                _number(found.shift_mm if found and found.kept else 0.0 if scan.used else math.nan, 2),
                _number(found.before if found else math.nan, 4),
                _number(found.after if found else math.nan, 4),
                _number(scan.contribution, 3),
                "; ".join((*scan.warnings, *scan.notes)),
                _files(scan.files),
            )
        )
    rows += [
        (one.name, _NOT_KNOWN, "no", one.reason, *(_NOT_KNOWN,) * (count + 5), "", _NOT_KNOWN)
        for one in result.set_aside
    ]
    return rows


def result_record(result: PatientResult, made: Provenance, lesions: Sequence[Lesion]) -> dict[str, object]:
    """Returns what `result.json` holds."""
    return {
        "version": VERSION,
        "patient": result.patient,
        "volume_ml": _rounded(result.volume_ml),
        "volume_range_ml": [_rounded(value) for value in result.volume_range_ml],
        "volume_range_meaning": result.volume_range_meaning,
        "lesions": len(lesions),
        "flags": list(result.flags),
        "reference": result.reference,
        "reference_reason": result.reference_reason,
        "grid": {
            "shape": list(result.mask.shape),
            "spacing_mm": [_rounded(step) for step in result.mask.spacing_mm],
            "affine": [[float(value) for value in row] for row in result.mask.affine],
        },
        "bias_correction": result.bias_correction,
        "classes": list(result.class_names),
        "modalities": list(result.modalities),
        "scans": [_scan_record(scan) for scan in result.scans],
        "set_aside": [{"name": one.name, "reason": one.reason} for one in result.set_aside],
        "seconds": _rounded(result.seconds),
        "made": asdict(made) | {"versions": dict(made.versions)},
    }


def _scan_record(scan: ScanResult) -> dict[str, object]:
    found = scan.registration
    return {
        "name": scan.name,
        "files": len(scan.files) if scan.series else [str(path) for path in scan.files],
        "taken_for": scan.taken_for,
        "scores": [_rounded(score) for score in scan.scores],
        "used": scan.used,
        "reason": scan.reason,
        "notes": list(scan.notes),
        "warnings": list(scan.warnings),
        "is_reference": scan.is_reference,
        "contribution": None if math.isnan(scan.contribution) else _rounded(scan.contribution),
        "registration": None
        if found is None
        else {
            "kept": found.kept,
            "transform": [[float(value) for value in row] for row in found.transform],
            "moved_mm": _rounded(found.shift_mm),
            "similarity_before": _rounded(found.before),
            "similarity_after": _rounded(found.after),
        },
    }


def _stem(scan: ScanResult) -> str:
    """The name of a scan as a part of a file's name."""
    name = scan.name if scan.series else scan.name.removesuffix(".gz").rpartition(".")[0]
    return "".join(char if char.isalnum() or char in "-_" else "-" for char in name)[:80]


def _files(paths: Sequence[Path]) -> str:
    return str(paths[0]) if len(paths) == 1 else f"{len(paths)} files in {paths[0].parent}"


def _number(value: float, digits: int) -> str:
    return f"{value:.{digits}f}" if math.isfinite(value) else _NOT_KNOWN


def _rounded(value: float) -> float | None:
    return float(f"{value:.6g}") if math.isfinite(value) else None
