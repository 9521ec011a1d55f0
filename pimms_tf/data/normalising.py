"""Scans on the prepared grid → standardised, whitened, blank outside, within the foreground that a loader asks for."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from pimms_tf.data.brain import Brains, brain_or_foreground
from pimms_tf.data.intensity import foreground_masks, is_centred, standardise, whiten
from pimms_tf.data.patient import Patient
from pimms_tf.data.subjects import Subject
from pimms_tf.errors import InputError

if TYPE_CHECKING:
    from pimms_tf.data.loading import SubjectLoader

Belonging = Callable[[Subject], np.ndarray]


def normalised(
    loader: "SubjectLoader",
    subject: Subject,
    sections: Mapping[int, str],
    patient: Patient,
    belonging: Belonging | None = None,
) -> tuple[Subject, np.ndarray]:
    """Returns the subject, whose scans are changed where they lie in memory, and its brain (x, y, z) bool.

    `sections` names the scans that are there, by slot. The brain is empty unless the loader looks for one. `belonging`
    as in `SubjectLoader.load_with_brain`.

    Raises:
        InputError: a scan shows nothing within its foreground, or there are no landmarks for its section.
    """
    scans, masks, brain = subject.scans, None, np.zeros(subject.scans.shape[:3], bool)
    if loader.foreground is not None and (loader.whitening or loader.mapping is not None):
        if loader.takes_what_lies_above_0:
            patient.remark_on_centred([name for slot, name in sections.items() if is_centred(scans[..., slot])])
        with patient.named():
            if loader.foreground == "brain":
                brains = Brains(scans, subject.affine)
                if belonging is not None and len(sections) > 1:
                    belongs = belonging(_each_by_itself(loader, subject, brains, sections, patient))
                    subject = replace(subject, valid=subject.valid & belongs)
                    scans[..., ~subject.valid] = 0
                brain = brains.by(np.flatnonzero(subject.valid))
                masks = brain_or_foreground(brain, scans)
            else:
                masks = loader.foreground_of(scans, subject.affine)
    for slot in np.flatnonzero(subject.valid):
        mask = None if masks is None else masks[..., slot]
        scans[..., slot] = _changed(loader, scans[..., slot], mask, sections[slot], patient)
    return subject, brain


def _each_by_itself(
    loader: "SubjectLoader", subject: Subject, brains: Brains, sections: Mapping[int, str], patient: Patient
) -> Subject:
    """The subject whose scans know nothing of one another; one without a brain shows its foreground."""
    scans = np.zeros_like(subject.scans)
    for slot, name in sections.items():
        scan, mask = subject.scans[..., slot], brains.by([slot])
        if not mask.any():
            mask = foreground_masks(scan[..., np.newaxis], "otsu_plus", "and")[..., 0]
        scans[..., slot] = _changed(loader, scan, mask, name, patient)
    return replace(subject, scans=scans)


def _changed(
    loader: "SubjectLoader", scan: np.ndarray, mask: np.ndarray | None, name: str, patient: Patient
) -> np.ndarray:
    if loader.mapping is not None:
        if name not in loader.mapping:
            raise InputError(
                f"there are histogram landmarks for {', '.join(loader.mapping)}, but none for section [{name}];"
                " train them anew, or switch normalisation off"
            )
        inside = np.ones(scan.shape, bool) if mask is None else mask
        with patient.named(name):
            scan = standardise(scan, inside, loader.mapping[name], loader.norm_type, loader.cutoff)
    if loader.whitening:
        patient.check_contrast(scan, mask, name)
        scan = whiten(scan, mask)
    return np.where(mask, scan, 0) if loader.blank_outside and mask is not None else scan
