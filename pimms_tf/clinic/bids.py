"""write_bids: a patient's result as a derivative of the Brain Imaging Data Structure, which `bids-validator` accepts.

    derivatives/
        dataset_description.json   README.md   .bidsignore
        sub-01/anat/sub-01[_ses-1]_space-orig_label-L_desc-pimms_mask.nii.gz     .json beside it
                    sub-01[_ses-1]_space-orig_label-L_desc-pimms_probseg.nii.gz  .json beside it
                    sub-01[_ses-1]_desc-pimms_lesions.tsv  _report.html  _mosaic.png

Source: BIDS 1.10, Derivatives → Imaging data types; label L is a lesion.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from pimms_tf import __version__
from pimms_tf.clinic.lesions import Lesion, write_lesions
from pimms_tf.clinic.provenance import Provenance
from pimms_tf.clinic.results import PatientResult
from pimms_tf.data.grids import Grid
from pimms_tf.data.images import Image, write_image
from pimms_tf.errors import InputError
from pimms_tf.files import write_text

VERSION = "1.10.0"
_README = """# White matter lesions

Masks and probabilities that pimms-tf made of the MR scans of the subjects, each on the grid of one of its scans, which
the JSON file beside it names. A mask holds 1 where a voxel was marked as lesion. A probability is that of a voxel to be
lesion, 0 to 1. For research; no medical device.

Tables `_lesions.tsv` list the lesions: centre in mm to the right, front and top, size, probability, and whether it lies
at the ventricles.
"""
_IGNORED = "*_lesions.tsv\n*_report.html\n*_mosaic.png\n"


def write_bids(
    result: PatientResult, folder: Path, lesions: Sequence[Lesion], made: Provenance, patient: str | None = None
) -> Path:
    """Returns the folder of a subject's images after they, and the files of a data set around them, were written.

    `folder` is the data set of derivatives, new or made here before; `patient` is the name that `bids_labels` reads, by
    default that of the result.

    Raises:
        InputError: a name that makes no labels; a data set in the folder that is another's.
        OSError: the folder cannot be written.
    """
    folder = Path(folder)
    subject, session = bids_labels(result.patient if patient is None else patient)
    check_data_set(folder)
    stem = f"sub-{subject}" + (f"_ses-{session}" if session else "")
    anat = folder / f"sub-{subject}" / (f"ses-{session}" if session else "") / "anat"
    write_text(folder / "README.md", _README)
    write_text(folder / ".bidsignore", _IGNORED)
    write_text(folder / "dataset_description.json", _json(_description(made)))
    mask, probability = result.mask, result.probability
    marked = replace(mask, data=(mask.data > 0).astype(np.int32))
    for suffix, image, about in (
        ("mask", marked, "1 where a voxel was marked as white matter lesion"),
        ("probseg", probability, "probability of a voxel to be white matter lesion"),
    ):
        path = anat / f"{stem}_space-orig_label-L_desc-pimms_{suffix}"
        write_image(Image(image.data, image.affine, Grid(image.shape, image.affine)), path.with_suffix(".nii.gz"))
        write_text(path.with_suffix(".json"), _json(_sidecar(result, made, about)))
    write_lesions(lesions, anat / f"{stem}_desc-pimms_lesions.tsv")
    return anat


def _description(made: Provenance) -> dict[str, object]:
    return {
        "Name": "White matter lesions by pimms-tf",
        "BIDSVersion": VERSION,
        "DatasetType": "derivative",
        "GeneratedBy": [
            {
                "Name": "pimms-tf",
                "Version": __version__,
                "Description": f"weights {made.weights or 'not recorded'}, SHA-256 {made.weights_sha256 or 'n/a'}",
            }
        ],
    }


def _sidecar(result: PatientResult, made: Provenance, about: str) -> dict[str, object]:
    reference = next(scan for scan in result.scans if scan.is_reference)
    return {
        "Type": "Lesion",
        "Description": about,
        "SpatialReference": str(reference.files[0].resolve()),
        "Sources": [str(scan.files[0].resolve()) for scan in result.used],
        "ScansTakenFor": {scan.name: scan.taken_for for scan in result.used},
        "VolumeInMillilitres": round(result.volume_ml, 4),
        "CommandLine": made.command,
    }


def check_data_set(folder: Path) -> None:
    """Refuses a folder that is a data set of other content.

    Raises:
        InputError: it is.
    """
    path = Path(folder) / "dataset_description.json"
    if not path.is_file():
        return
    try:
        generated = json.loads(path.read_text(encoding="utf-8"))["GeneratedBy"][0]["Name"]
    except (ValueError, LookupError, TypeError):
        generated = ""
    if generated != "pimms-tf":
        raise InputError(f"{folder} is a BIDS data set of other content; give a folder of its own, such as derivatives")


def bids_labels(patient: str) -> tuple[str, str]:
    """Returns the labels of subject and session in a name such as `01`, `sub-01` or `sub-01_ses-2`; "" for no session.

    Raises:
        InputError: it has no subject, or other characters than letters and digits.
    """
    found = re.fullmatch(r"(?:sub-)?([0-9a-zA-Z]+)(?:_ses-([0-9a-zA-Z]+))?", patient)
    if found is None:
        plain = re.sub(r"[^0-9a-zA-Z]", "", patient.removeprefix("sub-")) or "01"
        raise InputError(
            f"patient {patient!r} cannot be a subject of BIDS, whose labels have letters and digits alone; give one "
            f"such as {plain}"
        )
    return found[1], found[2] or ""


def _json(record: dict[str, object]) -> str:
    return json.dumps(record, indent=2, ensure_ascii=False) + "\n"
