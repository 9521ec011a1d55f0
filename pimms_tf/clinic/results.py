"""What is known of a patient and of each scan once the patient has been segmented."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pimms_tf.clinic.intake import SetAside
from pimms_tf.clinic.registration import Registration
from pimms_tf.data.grids import Grid
from pimms_tf.data.images import Image

if TYPE_CHECKING:
    from pimms_tf.clinic.dicom import Series


@dataclass(frozen=True, eq=False)
class ScanResult:
    """What became of one scan.

    `scores` are probabilities in the order of `PatientResult.modalities`, and `taken_for` the name of the best.
    `reason` says why a scan is not used and continues a sentence that begins with its name, "" for one that is used.
    `warnings` say in which ways it is unlike what the network learnt from. `registration` is None for the reference
    itself and where none was tried. `contribution` is the part of the mask, 0 to 1, that is no longer marked without
    this scan, as measured on at most 9 slices through it; NaN where the mask is empty, or there is no other scan.
    `image` is the scan on the grid of the mask, with one channel; None unless it is used.
    """

    name: str
    files: tuple[Path, ...]
    grid: Grid  # its own
    taken_for: str
    scores: tuple[float, ...]
    used: bool
    reason: str = ""
    notes: tuple[str, ...] = ()  # what was done to read it
    warnings: tuple[str, ...] = ()
    is_reference: bool = False
    registration: Registration | None = None
    contribution: float = float("nan")
    image: Image | None = None
    series: "Series | None" = None  # of scans that came as DICOM


@dataclass(frozen=True, eq=False)
class PatientResult:
    """What is known of a patient: a mask, how much of the brain it marks, and the scans behind it.

    `scans` are all that were looked at, in the order of their content, used or not; `set_aside` is what could not be
    one. `mask` (x, y, z, 1) int32 holds classes, 0 background; `probability` (x, y, z, 1) float32, 0 to 1, is that of
    not being background; `brain` (x, y, z) bool is empty where none was found. All lie on the grid of the scan that
    `reference` names, or on one of equal voxels over it if a `space_mm` was asked for. `volume_ml` is that of the mask,
    and `volume_range_ml` where the true one is thought to lie; what that means says the sentence
    `volume_range_meaning`. `flags` are whole sentences about what a reader should look at. `bias_correction` says
    whether it was asked for; each scan's notes say what came of it.
    """

    patient: str
    scans: tuple[ScanResult, ...]
    set_aside: tuple[SetAside, ...]
    modalities: tuple[str, ...]
    class_names: tuple[str, ...]
    mask: Image
    probability: Image
    brain: np.ndarray
    reference: str
    reference_reason: str
    space_mm: float | None
    volume_ml: float
    volume_range_ml: tuple[float, float]
    flags: tuple[str, ...]
    seconds: float
    bias_correction: bool = False
    volume_range_meaning: str = ""

    @property
    def used(self) -> tuple[ScanResult, ...]:
        """The scans that the mask was made from."""
        return tuple(scan for scan in self.scans if scan.used)

    @property
    def grid(self) -> Grid:
        """The grid of mask and probability."""
        return self.mask.grid
