"""The verbs for a patient's scans as they come, without any INI file: `segment` and `classify`."""

import argparse
import re
from pathlib import Path
from typing import TYPE_CHECKING

from pimms_tf.commands.parser import AddVerb
from pimms_tf.commands.running import import_tensorflow
from pimms_tf.errors import InputError

if TYPE_CHECKING:
    from pimms_tf.clinic.patient import PatientResult
    from pimms_tf.inference import Segmenter

_SPACES_MM = (0.5, 5.0)


def add_verbs(verb: AddVerb) -> None:
    """Adds the verbs; `verb` makes the parser of each from its name, function and help."""
    text = "segment a patient: any scans, in any order, without names; a mask, tables and a report come out"
    sub = verb("segment", _segment, text, overrides=False)
    text = "image files, DICOM folders, or folders that mix both"
    sub.add_argument("scans", nargs="+", type=Path, metavar="SCAN", help=text)
    sub.add_argument("--output", type=Path, required=True, metavar="DIR", help="folder of the results")
    _add_model(sub)
    sub.add_argument("--patient", default="", metavar="NAME", help="how the report calls the patient")
    text = "file or name of the scan on whose grid the mask lies; default: chosen, and said"
    sub.add_argument("--reference", metavar="SCAN", help=text)
    sub.add_argument("--space", metavar="MM", help="edge of the mask's voxels, such as 1mm; default: the reference's")
    text = "the scans are aligned already: only their headers say where they lie"
    sub.add_argument("--no-register", action="store_true", help=text)
    text = "file or name of a scan on whose own grid the mask is written, too; may be given several times"
    sub.add_argument("--grid-of", action="append", default=[], metavar="SCAN", help=text)


def _add_model(sub: argparse.ArgumentParser) -> None:
    text = "model folder or export; default: the weights that come with the package"
    sub.add_argument("--model", type=Path, metavar="DIR", help=text)


def _segment(arguments: argparse.Namespace, words: list[str]) -> int:
    from pimms_tf.clinic.folder import write_result
    from pimms_tf.clinic.intake import check_paths
    from pimms_tf.clinic.patient import segment_patient

    space_mm = None if arguments.space is None else _space_mm(arguments.space)
    check_paths(arguments.scans)
    if arguments.output.exists() and not arguments.output.is_dir():
        raise InputError(f"--output {arguments.output} is a file; give a folder")
    segmenter = _segmenter(arguments.model)
    result = segment_patient(
        arguments.scans,
        segmenter,
        patient=arguments.patient,
        reference=arguments.reference,
        space_mm=space_mm,
        register=not arguments.no_register,
    )
    lesions = write_result(result, arguments.output, also_on=arguments.grid_of, weights=arguments.model or "bundled")
    print("\n".join(_said(result, len(lesions))))
    print(f"Saved {arguments.output}")
    return 0


def _segmenter(folder: Path | None) -> "Segmenter":
    import_tensorflow()
    from pimms_tf.clinic.patient import check_network

    if folder is None:
        from pimms_tf.weights import bundled

        return bundled()
    from pimms_tf.inference import load_segmenter

    segmenter = load_segmenter(folder)
    check_network(segmenter)
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
    lines.append(f"{result.volume_ml:.2f} ml in {lesions}; between {low:.2f} and {high:.2f} ml are likely")
    return lines
