"""Grid: where the voxels of a file lie in the patient, and when two files lie on the same one."""

import itertools
import math
from dataclasses import dataclass

import nibabel as nib
import numpy as np

MATCH_TOLERANCE_VOXELS = 0.1
MOST_VOXELS = 2**30  # of one volume, times and components counted: 4 GiB as they are computed with
LONGEST_AXIS = 2**15  # voxels; NIfTI-1 has fewer

_MM_PER_UNIT = {1: 1000.0, 2: 1.0, 3: 0.001}  # by NIfTI's codes of metres, millimetres and micrometres


@dataclass(frozen=True, eq=False)
class Grid:
    """Where the voxels of a file lie: all that is needed to write another array over them.

    `shape` is (x, y, z), `affine` (4, 4) maps voxel indices to mm (right, anterior, superior) whatever the units of the
    file. Codes, units (2 is mm) and a `qform` that differs from `affine`, also in mm, are those of a NIfTI header;
    `num_axes` is 2 for a file without a z axis.
    """

    shape: tuple[int, int, int]
    affine: np.ndarray
    sform_code: int = 1
    qform_code: int = 1
    qform: np.ndarray | None = None
    xyzt_units: int = 2
    num_axes: int = 3

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Distance between neighbouring voxels along x, y and z."""
        return tuple(float(step) for step in np.linalg.norm(self.affine[:3, :3], axis=0))

    @property
    def axcodes(self) -> tuple[str, str, str]:
        """The anatomical direction in which each axis grows, such as ("L", "P", "S")."""
        return nib.aff2axcodes(self.affine)

    @property
    def mm_per_unit(self) -> float:
        """The length in mm of the unit in which the file gives lengths."""
        return mm_per_unit(self.xyzt_units)

    @property
    def is_flat(self) -> bool:
        """True for a slice, a line or a single voxel, which NiftyNet neither reorients nor resamples."""
        return sum(length > 1 for length in self.shape) < 3

    def matches(self, other: "Grid") -> bool:
        """True if both have the same voxels: equal shapes, and corners within a tenth of the smallest voxel edge.

        NiftyNet compares shapes only. A bound on the elements of the affine would either refuse headers that another
        program has rounded, or let the far end of a tilted volume drift by voxels.
        """
        if self.shape != other.shape:
            return False
        distance_mm = np.abs(corners(self.shape, self.affine) - corners(other.shape, other.affine)).max()
        return bool(distance_mm <= MATCH_TOLERANCE_VOXELS * min(*self.spacing_mm, *other.spacing_mm))

    def __str__(self) -> str:
        return f"shape {self.shape}, affine {print_affine(self.affine)}"


def mm_per_unit(xyzt_units: int) -> float:
    """The length in mm of the unit of space that a NIfTI header names; 1 if it names none."""
    return _MM_PER_UNIT.get(xyzt_units & 0x07, 1.0)


def is_too_large(*shape: int) -> bool:
    """Whether an array would be larger than that of any scan, so that the shape must be wrong."""
    return max(shape, default=0) > LONGEST_AXIS or math.prod(shape) > MOST_VOXELS


def corners(shape: tuple[int, int, int], affine: np.ndarray | None = None) -> np.ndarray:
    """The centres of the eight corner voxels, (8, 3), in voxels or where `affine` sends them."""
    indices = np.array(list(itertools.product(*((0, length - 1) for length in shape))), float)
    return indices if affine is None else indices @ affine[:3, :3].T + affine[:3, 3]


def print_numbers(values: tuple[float, ...] | np.ndarray) -> str:
    """The numbers with four digits, as in (0.9, 0.9, 3)."""
    return "(" + ", ".join(f"{value:.4g}" for value in values) + ")"


def print_affine(affine: np.ndarray) -> str:
    """The upper three rows of an affine on one line."""
    return " ".join(print_numbers(row) for row in affine[:3])
