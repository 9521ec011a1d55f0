"""Which modality each of a pile of scans has, and the names that BIDS would give them; no file is renamed."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pimms_tf.clinic.intake import Intake, Scan, take_in
from pimms_tf.clinic.judging import why_none
from pimms_tf.data.subjects import Subject, restore
from pimms_tf.errors import InputError

if TYPE_CHECKING:
    from pimms_tf.inference import Segmenter

# Suffixes of BIDS, https://bids-specification.readthedocs.io/en/stable/modality-specific-files/magnetic-resonance-imaging-data.html
_SUFFIXES = {"t1": "T1w", "t1ce": "T1w", "t2": "T2w", "flair": "FLAIR", "pd": "PDw"}


@dataclass(frozen=True, eq=False)
class Classified:
    """A scan and what it is taken for.

    `scores` (modality,) are probabilities. `modality` is the name of the best, "" where no score is as high as the
    network's record asks for, or where the scan cannot be prepared; `reason` then says why. `brain` (x, y, z) bool is
    what its preparation took for the brain, on its own grid; None where it looks for none.
    """

    scan: Scan
    scores: tuple[float, ...]
    modality: str
    reason: str = ""
    brain: np.ndarray | None = None


def classify_scans(segmenter: "Segmenter", scans: Sequence[Scan]) -> list[Classified]:
    """Returns what each scan is taken for, looked at by itself on its own grid."""
    found = []
    for scan in scans:
        try:
            subject, brain = segmenter.prepare_with_brain([scan.image])
            scores = segmenter.classify(subject)[0]
        except InputError as error:
            found.append(Classified(scan, (), "", f"cannot be prepared: {error}"))
            continue
        reason = why_none(scores, segmenter.preparation)
        modality = "" if reason else segmenter.preparation.modalities[int(np.argmax(scores))]
        scores = tuple(float(score) for score in scores)
        found.append(Classified(scan, scores, modality, reason, brain_on_own_grid(segmenter, subject, brain)))
    return found


def brain_on_own_grid(segmenter: "Segmenter", subject: Subject, brain: np.ndarray) -> np.ndarray | None:
    """Returns the brain that `Segmenter.prepare_with_brain` found where the subject's files lie; None if it has no need
    of one."""
    preparation = segmenter.preparation
    if preparation.foreground != "brain" or not preparation.whitening:
        return None
    return restore(subject, brain.astype(np.float32)).data[..., 0] > 0.5


def classify_files(paths: Sequence[Path], segmenter: "Segmenter") -> tuple[list[Classified], Intake]:
    """Returns what the scans in files and folders are taken for, by name, and all that was found there.

    Raises:
        InputError: see `take_in`.
    """
    intake = take_in(paths)
    found = classify_scans(segmenter, intake.scans)
    return sorted(found, key=lambda one: (one.scan.name, one.scan.files[0])), intake


def bids_plan(found: Sequence[Classified], subject: str = "01") -> list[tuple[str, str]]:
    """Returns the name that BIDS would give each scan, beside its own; "" for one of no modality.

    Several of one modality are numbered as runs, in the order given.
    """
    suffixes = [_SUFFIXES.get(one.modality.lower(), "") for one in found]
    plan, runs = [], dict.fromkeys(suffixes, 0)
    for one, suffix in zip(found, suffixes, strict=True):
        runs[suffix] += 1
        run = f"_run-{runs[suffix]:02d}" if suffixes.count(suffix) > 1 else ""
        plan.append((one.scan.name, f"sub-{subject}/anat/sub-{subject}{run}_{suffix}.nii.gz" if suffix else ""))
    return plan
