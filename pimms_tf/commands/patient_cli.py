"""The verbs for a patient's scans as they come, without any INI file: `segment` and `classify`."""

import argparse
import json
import logging
import os
import re
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from pimms_tf.actions.sharding import read_shard
from pimms_tf.actions.waiting import Waits
from pimms_tf.commands.parser import AddVerb
from pimms_tf.commands.progress import progress_of_patients
from pimms_tf.commands.running import import_tensorflow
from pimms_tf.errors import InputError
from pimms_tf.files import tsv_text

if TYPE_CHECKING:
    from pimms_tf.actions.sharding import Shard
    from pimms_tf.clinic.cohort import PatientFiles
    from pimms_tf.clinic.lesions import Lesion
    from pimms_tf.clinic.results import PatientResult
    from pimms_tf.inference import Segmenter

log = logging.getLogger(__name__)

FORMATS = ("table", "tsv", "json")
PRECISIONS = ("float32", "mixed_bfloat16")
_SPACES_MM = (0.5, 5.0)


def add_verbs(verb: AddVerb) -> None:
    """Adds the verbs; `verb` makes the parser of each from its name, function and help."""
    text = "segment a patient: any scans, in any order, without names; a mask, tables and a report come out"
    sub = verb("segment", _segment, text, overrides=False)
    text = "image files, DICOM folders, or folders that mix both"
    sub.add_argument("scans", nargs="*", type=Path, metavar="SCAN", help=text)
    text = "many patients: a table (patient, path), a folder with a folder for each, or a BIDS tree"
    sub.add_argument("--patients", type=Path, metavar="TSV|DIR", help=text)
    sub.add_argument("--resume", action="store_true", help="pass over patients that are done already")
    sub.add_argument("--shard", metavar="I/N", help="one of N parts of the patients; slurm: by array task")
    sub.add_argument("--output", type=Path, required=True, metavar="DIR", help="folder of the results")
    _add_model(sub)
    sub.add_argument("--patient", default="", metavar="NAME", help="how the report calls the patient")
    text = "file or name of the scan on whose grid the mask lies; default: chosen, and said"
    sub.add_argument("--reference", metavar="SCAN", help=text)
    sub.add_argument("--space", metavar="MM", help="edge of the mask's voxels, such as 1mm; default: the reference's")
    text = "the scans are aligned already: only their headers say where they lie"
    sub.add_argument("--no-register", action="store_true", help=text)
    text = "divide out slow changes of brightness (N4 within the brain); for scans of uneven coils"
    sub.add_argument("--bias-correction", action="store_true", help=text)
    text = "file or name of a scan on whose own grid the mask is written, too; may be given several times"
    sub.add_argument("--grid-of", action="append", default=[], metavar="SCAN", help=text)
    text = "add the results, under the name of the patient, to a BIDS data set of derivatives, too"
    sub.add_argument("--bids", type=Path, metavar="DIR", help=text)
    text = "write mask.dcm, too, which refers to the series that the mask lies on; for scans in DICOM"
    sub.add_argument("--dicom-seg", action="store_true", help=text)
    text = "say which modality each scan has; nothing is written or renamed"
    sub = verb("classify", _classify, text, overrides=False)
    text = "image files, DICOM folders, or folders that mix both"
    sub.add_argument("scans", nargs="+", type=Path, metavar="SCAN", help=text)
    _add_model(sub)
    sub.add_argument("--format", choices=FORMATS, default="table", help=f"{', '.join(FORMATS)}; default: table")
    sub.add_argument("--bids-plan", metavar="LABEL", help="propose names for subject LABEL, as BIDS has them")


def _add_model(sub: argparse.ArgumentParser) -> None:
    text = "model folder or export; default: the weights that come with the package"
    sub.add_argument("--model", type=Path, metavar="DIR", help=text)
    text = "of the network's convolutions; mixed_bfloat16 is faster where the processor has it; default: float32"
    sub.add_argument("--precision", choices=PRECISIONS, default=PRECISIONS[0], help=text)


def _segment(arguments: argparse.Namespace, words: list[str]) -> int:
    from pimms_tf.clinic.cohort import PatientFiles, find_patients
    from pimms_tf.clinic.folder import write_result
    from pimms_tf.clinic.intake import check_paths
    from pimms_tf.clinic.patient import segment_patient
    from pimms_tf.clinic.viewers import view_lines

    a = arguments
    space_mm = None if a.space is None else _space_mm(a.space)
    shard = None if a.shard is None else read_shard(a.shard)
    if (a.patients is None) == (not a.scans):
        raise InputError("give the scans of one patient, or many patients by --patients TSV|DIR")
    for option, value in (("--resume", a.resume), ("--shard", a.shard)):
        if value and a.patients is None:
            raise InputError(f"{option} is for many patients; give them by --patients TSV|DIR")
    for option, value in (("--patient", a.patient), ("--reference", a.reference), ("--grid-of", a.grid_of)):
        if value and a.patients is not None:
            raise InputError(f"{option} is for one patient; it cannot be given with --patients")
    check_paths(a.scans)
    patients = [] if a.patients is None else find_patients(a.patients)
    if a.bids is not None:
        _check_bids(a.bids, [patient.subject_id for patient in patients] or [a.patient])
    _check_output(a.output)
    output = Path(os.path.realpath(a.output))
    if output in [Path(os.path.realpath(path if path.is_dir() else path.parent)) for path in a.scans]:
        raise InputError(f"--output {a.output} holds the scans; give a folder of its own, such as {a.output / 'out'}")
    if a.patients is not None and output.is_relative_to(os.path.realpath(a.patients)):
        raise InputError(f"--output {a.output} lies among the patients and would be taken for one; give another folder")
    # On a terminal, a cohort has a bar that tells how long it takes already.
    with _telling(a.patients is None or not sys.stdout.isatty()) as doing:
        doing("reading the network")
        segmenter = _segmenter(a.model, a.precision)

        def segment(patient: PatientFiles, folder: Path) -> "tuple[PatientResult, Sequence[Lesion]]":
            named = "" if a.patients is None else f"{patient.subject_id}: "
            result = segment_patient(
                patient.paths,
                segmenter,
                patient=patient.subject_id,
                reference=a.reference,
                space_mm=space_mm,
                register=not a.no_register,
                bias_correction=a.bias_correction,
                doing=lambda what: doing(f"{named}{what}"),
            )
            doing(f"{named}writing the results")
            return result, write_result(
                result,
                folder,
                also_on=a.grid_of,
                weights=a.model or "bundled",
                dicom_seg=a.dicom_seg,
                bids=a.bids,
            )

        if a.patients is not None:
            return _cohort(patients, a.output, segment, shard, a.resume)
        result, lesions = segment(PatientFiles(a.patient, tuple(a.scans)), a.output)
    print("\n".join(_said(result, len(lesions))))
    print(f"Saved {a.output}", *view_lines(result, a.output), sep="\n")
    return 0


def _check_output(folder: Path) -> None:
    """Refuses a folder that cannot be written, before anything that takes time."""
    if os.path.lexists(folder) and not folder.is_dir():
        what = "a link to nothing" if folder.is_symlink() and not folder.exists() else "a file"
        raise InputError(f"--output {folder} is {what}; give a folder")
    place = next(place for place in (folder, *folder.parents) if place.exists())
    if not place.is_dir():
        raise InputError(f"--output {folder} cannot be made, since {place} is a file; give another folder")
    if not os.access(place, os.W_OK | os.X_OK):
        raise InputError(f"--output {folder}: {place} may not be written by this user; give another folder")


@contextmanager
def _telling(says: bool) -> Iterator[Callable[[str], None]]:
    """What is to be told each step of the work, and says it, should the step take seconds."""
    step = ["", time.monotonic()]

    def say(what: str, seconds: float) -> None:
        if says:
            took = time.monotonic() - step[1]
            log.info("%s%s", step[0], f", for {took:.0f} s so far" if took > 1 else "")

    def doing(what: str) -> None:
        step[:] = what, time.monotonic()

    # One wait from the first step to the last: short steps that follow each other must not add up to silence.
    with Waits(say) as waits, waits.on(""):
        yield doing


def _check_bids(folder: Path, patients: Sequence[str]) -> None:
    """Refuses names that are no labels of BIDS, and folders of other data, before anything that takes time."""
    from pimms_tf.clinic.bids import bids_labels, check_data_set

    if patients == [""]:
        raise InputError(f"--bids {folder} needs a label for the subject; give one, such as --patient 01")
    for patient in patients:
        bids_labels(patient)
    check_data_set(folder)


def _cohort(patients: "Sequence[PatientFiles]", folder: Path, segment, shard: "Shard | None", resume: bool) -> int:
    """Segments patients and returns 0, or 1 if some could not be."""
    from pimms_tf.clinic.cohort import segment_patients, write_cohort_page

    part = patients if shard is None else shard.part_of(patients)

    with progress_of_patients(len(part)) as report:
        failed = segment_patients(part, folder, segment, resume=resume, report=report)
    print(f"Saved {write_cohort_page(patients, folder)}")
    if failed:
        print(f"{failed} of {len(part)} patients could not be segmented; their folders say why", file=sys.stderr)
    return int(failed > 0)


def _classify(arguments: argparse.Namespace, words: list[str]) -> int:
    from pimms_tf.clinic.classifying import bids_plan, classify_files
    from pimms_tf.clinic.intake import check_paths

    check_paths(arguments.scans)
    label = arguments.bids_plan
    if label is not None and not (label.isalnum() and label.isascii()):
        raise InputError(f"--bids-plan {label}: labels of BIDS hold letters and digits only")
    with _telling(arguments.format == "table") as doing:
        doing("reading the network")
        segmenter = _segmenter(arguments.model, arguments.precision, segments=False)
        doing("reading the scans and telling their modality")
        found, intake = classify_files(arguments.scans, segmenter)
    modalities = segmenter.preparation.modalities
    plan = dict(bids_plan(found, label)) if label else {}
    rows = [["scan", "modality", *(f"score_{name}" for name in modalities), *(["bids"] if label else []), "remark"]]
    for one in found:
        scores = [f"{score:.4f}" for score in one.scores] or ["n/a"] * len(modalities)
        names = [plan[one.scan.name] or "n/a"] if label else []
        rows.append([one.scan.name, one.modality or "n/a", *scores, *names, one.reason])
    for aside in intake.set_aside:
        rows.append([aside.name, "n/a", *["n/a"] * (len(modalities) + bool(label)), aside.reason])
    if arguments.format == "json":
        print(json.dumps([dict(zip(rows[0], map(_value, row), strict=True)) for row in rows[1:]], indent=2))
    else:
        print(tsv_text(rows) if arguments.format == "tsv" else _aligned(rows), end="")
    return 0


def _value(cell: str) -> str | float | None:
    """A cell of a table as JSON has it."""
    if cell == "n/a":
        return None
    return float(cell) if re.fullmatch(r"\d\.\d{4}", cell) else cell


def _aligned(rows: list[list[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows)
    return "".join(f"{line}\n" for line in lines)


def _segmenter(folder: Path | None, precision: str, segments: bool = True) -> "Segmenter":
    import_tensorflow()
    from pimms_tf.clinic.patient import check_network
    from pimms_tf.inference import load_segmenter
    from pimms_tf.training import check_precision, set_precision
    from pimms_tf.weights import bundled

    check_precision(precision)
    segmenter = bundled() if folder is None else load_segmenter(folder)
    check_network(segmenter, segments)
    set_precision(segmenter.model, precision)
    return segmenter


def _space_mm(text: str) -> float:
    match = re.fullmatch(r"(\d+(?:\.\d*)?)\s*(?:mm)?", text.strip())
    low, high = _SPACES_MM
    if match is None or not low <= float(match[1]) <= high:
        raise InputError(f"--space {text} is no edge of voxels between {low:g} and {high:g} mm, such as 1mm")
    return float(match[1])


def _said(result: "PatientResult", num_lesions: int) -> list[str]:
    """What the console says of a patient: each scan, what to look at, and the volume."""
    lines = []
    for scan in result.scans:
        if not scan.used:
            lines.append(f"{scan.name}: set aside, it {scan.reason}")
            continue
        word = f"{scan.name}: {scan.taken_for}, score {max(scan.scores):.2f}"
        if scan.is_reference:
            word += "; the mask lies on its grid" if result.space_mm is None else "; the others lie on its place"
        elif scan.registration is not None:
            kept = scan.registration.kept
            word += f"; moved by {scan.registration.shift_mm:.1f} mm" if kept else "; left where its header says"
        lines.append("; ".join((word, *scan.warnings, *scan.notes)))
    lines += [f"{one.name}: set aside, it {one.reason}" for one in result.set_aside]
    lines += result.flags
    low, high = result.volume_range_ml
    lesions = f"{num_lesions} lesion{'s' * (num_lesions != 1)}"
    meaning = f"the true volume may lie between {low:.2f} and {high:.2f} ml. {result.volume_range_meaning}"
    lines.append(f"{result.volume_ml:.2f} ml in {lesions}; {meaning}")
    return lines
