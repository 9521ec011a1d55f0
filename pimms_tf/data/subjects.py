"""Subject, all scans of one patient on one grid, and the way back from it to the grid of the patient's file.

What makes it of files is in `pimms_tf.data.loading`.
"""

from dataclasses import dataclass

import numpy as np

from pimms_tf.data.grids import Grid
from pimms_tf.data.images import FarPlane, Image, restore_grid
from pimms_tf.data.intensity import unpad

Pairs = tuple[tuple[int, int], ...]

UNKNOWN = -1  # modality of a scan without a label
NULL_CLASS = 0  # modality of an empty slot, where empty slots are a class of their own


@dataclass(frozen=True, eq=False)
class Subject:
    """One patient's scans on one prepared grid.

    `scans` (x, y, z, scan) float32; `valid` (scan,) bool is False for an absent scan, whose channel is zero; `modality`
    (scan,) int32 is the class of each slot, -1 if unknown; `label` (x, y, z) int32; `affine` (4, 4) of the prepared
    grid in mm; `original` is the grid of the file to write back on; `weight` (x, y, z) float32 is a prior map for
    sampling; `padding` counts the voxels (before, after) added along each axis; `far_plane` is what resampling leaves
    there, also on the way back, see `images.zoom_to`; `coefficients` (x, y, z, scan) float32 are those of splines
    through the scans, see `images.spline_coefficients`; `scores` (scan, modality) float32 are those of each scan by
    itself, if a network was asked before the brain was known, also of scans that are absent since. Volumes of an
    augmented subject may be `moving.MovedVolume`.
    """

    subject_id: str
    scans: np.ndarray
    valid: np.ndarray
    modality: np.ndarray
    label: np.ndarray | None
    affine: np.ndarray
    original: Grid
    weight: np.ndarray | None = None
    padding: Pairs = ((0, 0), (0, 0), (0, 0))
    far_plane: FarPlane = "interpolated"
    coefficients: np.ndarray | None = None
    scores: np.ndarray | None = None


def restore(subject: Subject, volume: np.ndarray, order: int = 0) -> Image:
    """Returns a volume (x, y, z) or (x, y, z, channel) of the prepared grid on the subject's own grid, ready to write.

    Padding is cut off, then the shape restored by splines of `order` (0 for labels), then the orientation. Written with
    `write_image`, it overlays the file the grid came from.

    Raises:
        ValueError: the volume is not on the subject's prepared grid.
    """
    if volume.shape[:3] != subject.scans.shape[:3] or volume.ndim not in (3, 4):
        raise ValueError(f"volume {volume.shape} is not on the prepared grid {subject.scans.shape[:3]}")
    data = unpad(volume.reshape(*volume.shape[:3], -1), subject.padding)
    affine = subject.affine.copy()
    affine[:3, 3] += affine[:3, :3] @ [before for before, _ in subject.padding]
    return restore_grid(Image(data, affine), subject.original, order, subject.far_plane)
