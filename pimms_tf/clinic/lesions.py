"""The lesions in a mask: where each lies, how large and how certain it is, and whether it lies at the ventricles.

Arrays in, rows out. Places are in mm to the right, front and top (RAS), as the affine says, so they do not depend on
how the voxels are stored.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from scipy import ndimage

from pimms_tf.clinic.results import PatientResult
from pimms_tf.clinic.ventricles import find_ventricles
from pimms_tf.files import tsv_text, write_text

Site = Literal["periventricular", "deep"]

# Lesions this near the ventricles count as continuous with them. Source: the juxtaventricular band of Kim, MacFall and
# Payne, Biol Psychiatry 2008;64:273.
PERIVENTRICULAR_MM = 3.0
COLUMNS = (
    "lesion",
    "x_mm",
    "y_mm",
    "z_mm",
    "voxels",
    "volume_ml",
    "mean_probability",
    "peak_probability",
    "site",
    "ventricle_mm",
)
_TOUCHING = np.ones((3, 3, 3), bool)  # voxels that share a face, an edge or a corner are of one lesion


@dataclass(frozen=True)
class Lesion:
    """One connected piece of the mask.

    `centre_mm` is the mean place of its voxels (RAS); probabilities are those of its voxels. `ventricle_mm` is the
    distance from its nearest voxel to the nearest one of the ventricles, centre to centre; it and `site` are None where
    the ventricles are not known.
    """

    number: int  # from 1, the largest first
    centre_mm: tuple[float, float, float]
    voxels: int
    volume_ml: float
    mean_probability: float
    peak_probability: float
    site: Site | None = None
    ventricle_mm: float | None = None


def number_lesions(mask: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """Returns the number of its lesion for each voxel of a mask (x, y, z), 0 outside, int32.

    Lesions are numbered from 1, from the largest to the smallest; equally large ones from the patient's left to the
    right, then from back to front, then from bottom to top.
    """
    pieces, count = ndimage.label(mask, structure=_TOUCHING)
    if count == 0:
        return np.zeros(mask.shape, np.int32)
    sizes = np.bincount(pieces.ravel())[1:]
    centres = np.round(_centres_mm(pieces, count, affine), 3)
    order = np.lexsort((centres[:, 2], centres[:, 1], centres[:, 0], -sizes))
    numbers = np.zeros(count + 1, np.int32)
    numbers[1 + order] = np.arange(1, count + 1)
    return numbers[pieces]


def measure_lesions(
    mask: np.ndarray, probability: np.ndarray, affine: np.ndarray, ventricles: np.ndarray | None = None
) -> tuple[Lesion, ...]:
    """Returns the lesions of a mask (x, y, z), with what the network's probabilities (x, y, z) say of each.

    `affine` (4, 4) maps voxels to mm, RAS. `ventricles` (x, y, z) bool, if they are known, tell periventricular lesions
    (within 3 mm, see `PERIVENTRICULAR_MM`) from deep ones. An empty mask has none.

    Raises:
        ValueError: the arrays are of different shapes.
    """
    mask = np.asarray(mask) > 0
    for name, other in (("probability", probability), ("ventricles", ventricles)):
        if other is not None and other.shape != mask.shape:
            raise ValueError(f"mask {mask.shape} and {name} {other.shape} have different shapes")
    voxel_ml = abs(float(np.linalg.det(affine[:3, :3]))) / 1000
    numbers = number_lesions(mask, affine)
    count = int(numbers.max(initial=0))
    if count == 0:
        return ()
    index = np.arange(1, count + 1)
    sizes = np.bincount(numbers.ravel(), minlength=count + 1)[1:]
    centres = _centres_mm(numbers, count, affine)
    means, peaks = (call(probability, numbers, index) for call in (ndimage.mean, ndimage.maximum))
    distances = _distances_mm(numbers, index, affine, ventricles)
    return tuple(
        Lesion(
            number=int(number),
            centre_mm=tuple(float(value) for value in centre),
            voxels=int(size),
            volume_ml=float(size * voxel_ml),
            mean_probability=float(mean),
            peak_probability=float(peak),
            site=None if away is None else "periventricular" if away <= PERIVENTRICULAR_MM else "deep",
            ventricle_mm=away,
        )
        for number, centre, size, mean, peak, away in zip(index, centres, sizes, means, peaks, distances, strict=True)
    )


def lesions_of(result: PatientResult) -> tuple[Lesion, ...]:
    """Returns the lesions of a patient's mask; which are periventricular where the scans show the ventricles."""
    mask, probability, affine = result.mask.data[..., 0], result.probability.data[..., 0], result.mask.affine
    if not mask.any():
        return ()
    scans = [scan for scan in result.used if scan.image is not None]
    volumes, contrasts = [scan.image.data[..., 0] for scan in scans], [scan.taken_for for scan in scans]
    return measure_lesions(mask, probability, affine, find_ventricles(volumes, contrasts, result.brain, affine))


def write_lesions(lesions: Sequence[Lesion], path: Path) -> Path:
    """Returns `path` after `lesions.tsv` has been written there: a row for each lesion, `n/a` for what is not known.

    Raises:
        OSError: the folder cannot be written.
    """
    return write_text(path, tsv_text([COLUMNS, *(lesion_cells(lesion) for lesion in lesions)]))


def lesion_cells(lesion: Lesion) -> tuple[str, ...]:
    """Returns the cells of one lesion in the order of `COLUMNS`."""
    return (
        str(lesion.number),
        *(f"{value:.1f}" for value in lesion.centre_mm),
        str(lesion.voxels),
        f"{lesion.volume_ml:.4f}",
        f"{lesion.mean_probability:.3f}",
        f"{lesion.peak_probability:.3f}",
        lesion.site or "n/a",
        "n/a" if lesion.ventricle_mm is None else f"{lesion.ventricle_mm:.1f}",
    )


def _centres_mm(numbers: np.ndarray, count: int, affine: np.ndarray) -> np.ndarray:
    """(lesion, 3): the mean place of the voxels of each number from 1 to `count`."""
    centres = np.array(ndimage.center_of_mass(numbers > 0, numbers, np.arange(1, count + 1)))
    return centres @ affine[:3, :3].T + affine[:3, 3]


def _distances_mm(
    numbers: np.ndarray, index: np.ndarray, affine: np.ndarray, ventricles: np.ndarray | None
) -> list[float | None]:
    if ventricles is None or not ventricles.any():
        return [None] * len(index)
    spacing_mm = np.linalg.norm(affine[:3, :3], axis=0)
    away = ndimage.distance_transform_edt(~ventricles.astype(bool), sampling=spacing_mm)
    return [float(value) for value in ndimage.minimum(away, numbers, index)]
