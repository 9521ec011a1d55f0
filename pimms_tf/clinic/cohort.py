"""Patients in a row: found in a table, in folders or in a BIDS tree, each segmented into a folder of its own.

What is done is not done again, one patient's mistake stops no other, and any part of the patients can be done
elsewhere at the same time.
"""

import json
import math
import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pimms_tf.clinic.index import PatientRow, patient_row, write_index
from pimms_tf.clinic.intake import RESULT
from pimms_tf.clinic.lesions import Lesion
from pimms_tf.clinic.results import PatientResult
from pimms_tf.errors import InputError
from pimms_tf.files import write_text
from pimms_tf.wording import counted

ROW, MISTAKE = "row.json", "mistake.txt"  # of each patient's folder: what the page of the cohort says of it
_HEADS = ("patient", "path")


@dataclass(frozen=True)
class PatientFiles:
    """What a cohort knows of a patient. `subject_id` is also the name of the folder of results."""

    subject_id: str
    paths: tuple[Path, ...]


def find_patients(source: Path) -> list[PatientFiles]:
    """Returns the patients of a cohort, by name.

    `source` is a table with tabs between the columns `patient` and `path`, a row for each scan or folder, paths
    relative to the table; or a BIDS tree, in which each session is a patient of its own; or a folder with a folder
    for each patient.

    Raises:
        InputError: none of these, or no patient is there.
    """
    source = Path(source)
    if source.is_dir():
        patients = _bids_patients(source) or _folders(source)
        kind = "no folder is in it; give a folder with one folder for each patient"
    elif source.is_file():
        patients, kind = _listed(source), "it lists no patient"
    else:
        raise InputError(f"--patients {source} is not there; give a table, or a folder with a folder for each patient")
    if not patients:
        raise InputError(f"--patients {source}: {kind}")
    return sorted(patients, key=lambda patient: patient.subject_id)


def segment_patients(
    patients: Sequence[PatientFiles],
    folder: Path,
    segment: Callable[[PatientFiles, Path], tuple[PatientResult, Sequence[Lesion]]],
    *,
    resume: bool = False,
    report: Callable[[int, int, str, float], None] = lambda done, total, text, left_s: None,
) -> int:
    """Returns how many patients could not be segmented, after all others were.

    Args:
        segment: makes and writes the result of one patient into a folder.
        resume: passes over patients whose result is there; those with mistakes are tried again.
        report: is told after each patient how many of all are done, what became of it, and how many seconds are left.
    """
    failed, spent = 0, []
    for number, patient in enumerate(patients, start=1):
        own = Path(folder) / patient.subject_id
        if resume and _is_done(own):
            report(number, len(patients), f"{patient.subject_id}: done before", _left(spent, len(patients) - number))
            continue
        began = time.perf_counter()
        try:
            result, lesions = segment(patient, own)
        except (InputError, OSError) as error:
            failed += 1
            text = " ".join(str(error).split())
            write_text(own / MISTAKE, f"{text}\n")
        else:
            text = f"{result.volume_ml:.2f} ml in {counted(len(lesions), 'lesion')}"
            _write_row(patient_row(result, lesions, patient.subject_id), own / ROW)
            (own / MISTAKE).unlink(missing_ok=True)
        spent.append(time.perf_counter() - began)
        left_s = _left(spent, len(patients) - number)
        report(number, len(patients), f"{patient.subject_id}: {text}", left_s)
    return failed


def _is_done(own: Path) -> bool:
    # A folder may hold the result of one run and the mistake of a later one.
    return (own / RESULT).is_file() and (own / ROW).is_file() and not (own / MISTAKE).is_file()


def write_cohort_page(patients: Sequence[PatientFiles], folder: Path) -> Path:
    """Returns the page on all patients that are done, in this part of the cohort or another, failed ones included."""
    rows = []
    for patient in patients:
        own = Path(folder) / patient.subject_id
        if (own / MISTAKE).is_file():
            text = (own / MISTAKE).read_text(encoding="utf-8").strip()
            rows.append(PatientRow(patient.subject_id, patient.subject_id, error=text))
        elif (own / ROW).is_file():
            rows.append(_read_row(own / ROW))
    return write_index(rows, folder)


def _listed(source: Path) -> list[PatientFiles]:
    try:
        lines = source.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise InputError(f"--patients {source} is no text in UTF-8; give a table, or a folder of patients") from None
    rows = [line.split("\t") for line in lines if line.strip()]
    if not rows or tuple(cell.strip().lower() for cell in rows[0][:2]) != _HEADS:
        raise InputError(f"--patients {source}: its first line must be patient and path, with a tab between them")
    found: dict[str, list[Path]] = {}
    for number, row in enumerate(rows[1:], start=2):
        if len(row) < 2 or not row[0].strip() or not row[1].strip():
            raise InputError(f"--patients {source}, row {number}: a patient and a path are needed")
        name, path = row[0].strip(), Path(row[1].strip())
        if not re.fullmatch(r"\w[\w.+-]*", name):
            raise InputError(
                f"--patients {source}, row {number}: {name} cannot name a folder; use letters, digits, '.', '-', '_'"
            )
        found.setdefault(name, []).append(path if path.is_absolute() else source.parent / path)
    return [PatientFiles(name, tuple(paths)) for name, paths in found.items()]


def _bids_patients(source: Path) -> list[PatientFiles]:
    subjects = sorted(path for path in source.glob("sub-*") if path.is_dir())
    return [patient for subject in subjects for patient in _sessions(subject)]


def _sessions(subject: Path) -> Iterator[PatientFiles]:
    sessions = sorted(path for path in subject.glob("ses-*") if path.is_dir())
    for place in sessions or [subject]:
        name = subject.name if place == subject else f"{subject.name}_{place.name}"
        # Only anatomy is of use here; what else there is would only be set aside.
        yield PatientFiles(name, (place / "anat" if (place / "anat").is_dir() else place,))


def _folders(source: Path) -> list[PatientFiles]:
    folders = (path for path in source.iterdir() if path.is_dir() and not path.name.startswith("."))
    return [PatientFiles(path.name, (path,)) for path in folders]


def _left(spent: Sequence[float], remaining: int) -> float:
    return sum(spent) / len(spent) * remaining if spent else math.nan


def _write_row(row: PatientRow, path: Path) -> None:
    record = {name: value for name, value in vars(row).items() if value == value}  # without NaN
    write_text(path, json.dumps(record, ensure_ascii=False) + "\n")


def _read_row(path: Path) -> PatientRow:
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        lists = {name: tuple(value) for name, value in record.items() if isinstance(value, list)}
        return PatientRow(**(record | lists))
    except (ValueError, TypeError) as error:
        raise InputError(f"{path} is damaged; remove it and segment the patient again") from error
