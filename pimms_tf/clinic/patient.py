"""segment_patient: from a patient's nameless scans to a mask, and all that is to be said about how it came about.

result = segment_patient(["scan_a.nii.gz", "dicom_folder"])
result.mask, result.volume_ml, [(scan.name, scan.taken_for) for scan in result.scans]

take in → classify → (correct bias) → choose the reference → register → resample → prepare → judge → segment
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from pimms_tf.clinic.bias import without_bias
from pimms_tf.clinic.classifying import brain_on_own_grid, classify_scans
from pimms_tf.clinic.intake import NEGLIGIBLE_MM, Scan, is_called, take_in
from pimms_tf.clinic.judging import chosen_reference, flags_on, foreign, isotropic, warnings_about
from pimms_tf.clinic.registration import Registration, moved, register
from pimms_tf.clinic.results import PatientResult, ScanResult
from pimms_tf.data.brain import brain_mask
from pimms_tf.data.grids import Grid, corners
from pimms_tf.data.images import Image, reorient, resample_onto
from pimms_tf.data.intensity import is_centred
from pimms_tf.data.subjects import Subject, restore
from pimms_tf.errors import InputError
from pimms_tf.inference.plausibility import doubts
from pimms_tf.wording import counted

if TYPE_CHECKING:
    from pimms_tf.inference import Segmenter


POSSIBLE = 0.25  # probability from which on a voxel is shown as one that may be lesion
_TINY_MM = 0.5  # a scan on the very voxels of the reference is not interpolated for so little
_MOST_MISSING = 0.01  # of the brain, without a word
_MOST_SLICES = 9  # on which contributions are measured
_AXCODES = ("L", "P", "S")


def segment_patient(
    paths: Sequence[Path | str] | Path | str,
    segmenter: "Segmenter | None" = None,
    *,
    patient: str = "",
    reference: Path | str | None = None,
    space_mm: float | None = None,
    register: bool = True,
    bias_correction: bool = False,
    contributions: bool = True,
    doing: Callable[[str], None] = lambda what: None,
) -> PatientResult:
    """Returns what the scans in files and folders say of one patient, in any order and under any names.

    Args:
        segmenter: by default that of the bundled weights; it must have a classifier of modalities.
        patient: a name for messages and reports.
        reference: the file, or the name of a scan, whose grid the mask lies on; by default it is chosen.
        space_mm: edge of the mask's voxels instead; the field of view stays that of the reference.
        register: scans are registered to the reference; without it their headers alone say where they lie.
        bias_correction: the bias field of each scan is estimated and divided out after it was classified.
        contributions: what the mask loses without each scan is measured, which takes a part of the time again.
        doing: is told what comes next, such as "registering 3 scans", before each step that may take seconds.

    Raises:
        InputError: nothing can be segmented: no scan is there, or none is of a modality that the network knows; the
            reference is none of the scans; the network needs names; see `take_in`.
    """
    began = time.perf_counter()
    doing("reading the scans")
    intake = take_in([Path(paths)] if isinstance(paths, str | Path) else [Path(path) for path in paths])
    segmenter = segmenter or _bundled()
    check_network(segmenter)
    count = len(segmenter.preparation.modalities)
    doing(f"telling the modality of {counted(len(intake.scans), 'scan')}")
    seen = [
        _Seen(one.scan, np.array(one.scores or (0.0,) * count, np.float32), one.reason, one.brain)
        for one in classify_scans(segmenter, intake.scans)
    ]
    candidates = [one for one in seen if not one.reason]
    if not candidates:
        raise InputError("; ".join(f"{one.scan.name} {one.reason}" for one in seen))
    if bias_correction:
        doing("estimating bias fields")
        _correct_bias(candidates)
    doing(f"registering and preparing {counted(len(candidates), 'scan')}")
    together = _brought_together(segmenter, seen, patient, reference, space_mm, register)
    grid, subject, scores, brain = together.grid, together.subject, together.scores, together.brain
    doing(f"segmenting {counted(len(together.used), 'scan')}")
    prepared = segmenter(_on_its_own_grid(subject), probabilities=True, scores=scores).image
    if contributions and len(together.used) > 1 and segmenter.takes_slices:
        doing("measuring what each scan contributes")
        _measure_contributions(segmenter, subject, scores, _soft(prepared), together.used)
    doing("putting the mask onto its grid")
    probabilities = restore(subject, prepared.data, order=1)
    mask, soft = segmenter.mask_of(probabilities), _soft(probabilities)
    marked = mask.data[..., 0] > 0
    brain_ml = _volume_ml(brain, grid.affine)
    volume_ml, volume_range = _volume_ml(marked, mask.affine), segmenter.preparation.volume_range
    voxel_ml = _volume_ml(np.ones(1), mask.affine)
    modalities, fixed = segmenter.preparation.modalities, together.fixed
    scans = tuple(_result(one, modalities, one is fixed, brain, grid) for one in together.seen)
    return PatientResult(
        patient=patient,
        scans=scans,
        set_aside=intake.set_aside,
        modalities=segmenter.preparation.modalities,
        class_names=segmenter.preparation.class_names,
        mask=_fresh(mask.data.astype(np.int32), mask),
        probability=_fresh(soft[..., np.newaxis], mask),
        brain=brain,
        reference=fixed.scan.name,
        reference_reason=together.why,
        space_mm=space_mm,
        volume_ml=volume_ml,
        volume_range_ml=volume_range.of(soft, voxel_ml, volume_ml),
        flags=(
            *flags_on(intake.set_aside, scans, segmenter.preparation.modalities, brain_ml, marked.any()),
            *(f"{text[0].upper()}{text[1:]}." for text in doubts(mask, brain)),
        ),
        seconds=time.perf_counter() - began,
        bias_correction=bias_correction,
        volume_range_meaning=volume_range.meaning,
    )


@dataclass(eq=False)
class _Seen:
    """A scan on its way to a `ScanResult`."""

    scan: Scan
    scores: np.ndarray
    reason: str = ""
    brain: np.ndarray | None = None  # on the scan's own grid, where it is known
    registration: Registration | None = None
    image: Image | None = None
    contribution: float = float("nan")
    notes: tuple[str, ...] = ()

    @property
    def placed(self) -> Image:
        """The scan where it lies after registration."""
        found = self.registration
        return self.scan.image if found is None or not found.kept else moved(self.scan.image, found)

    def own_brain(self) -> np.ndarray:
        """The brain (x, y, z) bool on the scan's own grid."""
        if self.brain is None:
            self.brain = brain_mask(self.scan.image.data, self.scan.image.affine)
        return self.brain


def _bundled() -> "Segmenter":
    from pimms_tf.weights import bundled

    return bundled()


def check_network(segmenter: "Segmenter", segments: bool = True) -> None:
    """Refuses a network that cannot take nameless scans to a mask, or, unless it `segments`, to modalities.

    Raises:
        InputError: it must be told names, or it segments nothing.
    """
    preparation = segmenter.preparation
    if preparation.variant == "hemis":
        why = "a HeMIS network must be told which scan is which"
    elif preparation.variant == "classifier" and segments:
        why = "the network only tells modalities and segments nothing"
    elif preparation.standardises:
        why = "the network standardises the histogram of each scan by its name"
    else:
        return
    raise InputError(f"{why}; take the bundled weights, or a PIMMS network of variant soft, hard or online")


class _Together(NamedTuple):
    """Scans on the grid of the mask, and what is known of them there."""

    seen: list[_Seen]  # all
    used: list[_Seen]
    fixed: _Seen  # the reference
    why: str  # it is that
    grid: Grid
    subject: Subject  # of those that are used
    scores: np.ndarray
    brain: np.ndarray


def _brought_together(
    segmenter: "Segmenter",
    seen: Sequence[_Seen],
    patient: str,
    reference: Path | str | None,
    space_mm: float | None,
    register: bool,
) -> _Together:
    """The scans on the grid of a reference that is none of those that are set aside there, unless it was asked for.

    All that is found out depends on that grid, so with another reference everything begins anew, and a scan that was
    set aside as the reference leaves no trace.
    """
    seen, passed_over = list(seen), ""
    while True:
        places = [place for place, one in enumerate(seen) if not one.reason]
        tried = [replace(seen[place]) for place in places]
        chosen, why = _reference(tried, segmenter.preparation.modalities, reference)
        fixed = tried[chosen]
        grid = fixed.scan.image.grid if space_mm is None else isotropic(fixed.scan.image, space_mm)
        if register and len(tried) > 1:
            _register(tried, fixed)
        used, subject, scores, brain = _judged(segmenter, tried, grid, patient)
        if fixed.reason and reference is None:
            seen[places[chosen]] = fixed
            passed_over += f"; {fixed.scan.name}, chosen before, {fixed.reason}"
            continue
        if fixed.reason:
            why += ", and gives no more than its grid"
        for place, one in zip(places, tried, strict=True):
            seen[place] = one
        return _Together(seen, used, fixed, why + passed_over, grid, subject, scores, brain)


def _reference(seen: Sequence[_Seen], modalities: Sequence[str], wanted: Path | str | None) -> tuple[int, str]:
    if wanted is None:
        grids, scores = [one.scan.image.grid for one in seen], np.stack([one.scores for one in seen])
        return chosen_reference(grids, scores, modalities)
    for place, one in enumerate(seen):
        if is_called(wanted, one.scan.name, one.scan.files):
            return place, "it was asked for"
    names = ", ".join(one.scan.name for one in seen)
    raise InputError(f"reference {wanted} is none of the scans that can be used; give one of {names}")


def _correct_bias(seen: Sequence[_Seen]) -> None:
    for one in seen:
        if is_centred(one.scan.image.data[..., 0]):
            one.notes += ("it was standardised before, so its bias field was left as it is",)
        elif not one.own_brain().any():
            one.notes += ("no brain was found in it, so its bias field was left as it is",)
        else:
            one.scan = replace(one.scan, image=without_bias(one.scan.image, one.own_brain()))
            one.notes += ("its bias field was divided out",)


def _register(seen: Sequence[_Seen], fixed: _Seen) -> None:
    target, brain = _turned(fixed)
    for one in seen:
        if one is not fixed:
            source, own = _turned(one)
            found = register(source, target, brain if brain.any() else None, own)
            if found.shift_mm < _TINY_MM and one.scan.image.grid.matches(fixed.scan.image.grid):
                found = Registration(np.eye(4), found.before, found.before, kept=False)
            one.registration = found


def _turned(one: _Seen) -> tuple[Image, np.ndarray]:
    """The scan and its brain in one orientation, since samples are drawn in the order in which voxels are stored."""
    brain = replace(one.scan.image, data=one.own_brain()[..., np.newaxis])
    return reorient(one.scan.image, _AXCODES), reorient(brain, _AXCODES).data[..., 0]


def _judged(
    segmenter: "Segmenter", seen: Sequence[_Seen], grid: Grid, patient: str
) -> tuple[list[_Seen], Subject, np.ndarray, np.ndarray]:
    """The scans that are none too many, on the grid of the mask, as a subject, their scores, and the brain there.

    Each time one is set aside the others are prepared anew, since it may have had a say in where the brain is.
    """
    for one in seen:
        one.image = resample_onto(one.placed, grid, 3, keep_zeros=True)
        if not one.image.data.any():
            one.reason, one.image = "does not reach the reference where its header puts it", None
        if one.placed.grid.matches(grid):
            apart = float(np.abs(corners(grid.shape, one.placed.affine) - corners(grid.shape, grid.affine)).max())
            if apart > NEGLIGIBLE_MM:
                one.notes += (f"its voxels lie up to {apart:.2g} mm off the reference's and are taken for the same",)
    seen = [one for one in seen if not one.reason]
    while seen:
        subject, found = segmenter.prepare_with_brain([one.image for one in seen], patient)
        scores = segmenter.classify(subject)  # with a row for each empty slot, where a network counts these
        for one, row in zip(seen, scores[: len(seen)], strict=True):
            one.scores = row
        out = foreign(subject.scans, scores[: len(seen)], [one.scan.name for one in seen], segmenter.preparation)
        if not out:
            brain = brain_on_own_grid(segmenter, subject, found)
            if brain is None:
                brain = brain_mask(np.stack([one.image.data[..., 0] for one in seen], axis=-1), grid.affine)
            return seen, subject, scores, brain
        for place, reason in out.items():
            seen[place].reason, seen[place].image = reason, None
        seen, left_out = [one for one in seen if not one.reason], [one for one in seen if one.reason]
    raise InputError("; ".join(f"{one.scan.name} {one.reason}" for one in left_out))


def _on_its_own_grid(subject: Subject) -> Subject:
    """The subject as if its files had lain on the prepared grid, so that answers stay there."""
    grid = Grid(subject.scans.shape[:3], subject.affine)
    return replace(subject, original=grid, padding=((0, 0), (0, 0), (0, 0)))


def _soft(probabilities: Image) -> np.ndarray:
    """The probability (x, y, z) float32 of not being background."""
    data = probabilities.data
    return (data[..., 0] if data.shape[-1] == 1 else 1 - data[..., 0]).astype(np.float32)


def _measure_contributions(
    segmenter: "Segmenter", subject: Subject, scores: np.ndarray, soft: np.ndarray, seen: Sequence[_Seen]
) -> None:
    """Writes down for each scan which part of the mask is no longer marked without it.

    `soft` (x, y, z) is what all scans give. Only a few of the slices with lesions go to the network again, spread
    evenly; it sees slices one by one, so the others change nothing.
    """
    marked = soft >= (segmenter.preparation.threshold or 0.5)
    shown = np.flatnonzero(marked.any(axis=(0, 1)))
    if not len(shown):
        return
    shown = shown[np.unique(np.linspace(0, len(shown) - 1, _MOST_SLICES).round().astype(int))]
    scans = np.ascontiguousarray(subject.scans[:, :, shown])
    few = _on_its_own_grid(replace(subject, scans=scans))
    for number, one in enumerate(seen):
        valid = subject.valid & (np.arange(len(subject.valid)) != number)
        without = replace(few, scans=scans * valid, valid=valid)
        left = _soft(segmenter(without, probabilities=True, scores=scores * valid[:, np.newaxis]).image)
        there = marked[:, :, shown]
        lost = there & (left < (segmenter.preparation.threshold or 0.5))
        one.contribution = float(np.count_nonzero(lost) / np.count_nonzero(there))


def _result(one: _Seen, modalities: Sequence[str], is_reference: bool, brain: np.ndarray, grid: Grid) -> ScanResult:
    classified = one.scores.any()
    moving = np.eye(4) if one.registration is None else np.linalg.inv(one.registration.transform)
    return ScanResult(
        name=one.scan.name,
        files=one.scan.files,
        grid=one.scan.image.grid,
        taken_for=modalities[int(one.scores.argmax())] if classified else "",
        scores=tuple(float(score) for score in one.scores) if classified else (),
        used=not one.reason,
        reason=one.reason,
        notes=(*one.scan.notes, *one.notes),
        warnings=()
        if one.reason
        else (
            *warnings_about(one.scan.image.grid, one.scores, brain, moving @ grid.affine),
            *_warning_about_missing(one, brain, grid),
        ),
        is_reference=is_reference,
        registration=one.registration,
        contribution=one.contribution,
        image=one.image,
        series=one.scan.series,
    )


def _warning_about_missing(one: _Seen, brain: np.ndarray, grid: Grid) -> tuple[str, ...]:
    if one.scan.missing is None or not brain.any():
        return ()
    missing = replace(one.placed, data=one.scan.missing[..., np.newaxis].astype(np.float32))
    share = float(resample_onto(missing, grid, 0).data[..., 0][brain].mean())
    return (f"{100 * share:.0f} % of the brain is NaN or infinite in it",) if share > _MOST_MISSING else ()


def _fresh(data: np.ndarray, image: Image) -> Image:
    """Voxels with a header of their own, which says where they lie and nothing else."""
    return Image(data, image.affine, Grid(image.shape, image.affine))


def _volume_ml(marked: np.ndarray, affine: np.ndarray) -> float:
    return float(np.count_nonzero(marked) * abs(np.linalg.det(affine[:3, :3])) / 1000)
