"""How well a mask agrees with its reference: overlap, distances in mm, volumes in ml, lesions found.

Masks are arrays of one shape, any non-zero voxel being foreground; `spacing_mm` is the voxel size along each axis.
All functions are exact for the whole array, but look only at the box that holds the foreground.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from scipy import ndimage
from scipy.spatial import cKDTree

from pimms_tf.errors import InputError

OTHER_PATHOLOGY = 2  # in references of the WMH challenge, which counts neither way
SurfaceDistance = Literal["standard", "niftynet", "pairwise"]


class LesionMasks(NamedTuple):
    """Two boolean masks of one shape, ready to be scored."""

    reference: np.ndarray
    inferred: np.ndarray


def lesion_masks(
    reference_label: np.ndarray, inferred: np.ndarray, label: int = 1, ignored_label: int | None = OTHER_PATHOLOGY
) -> LesionMasks:
    """The masks that the MICCAI-2017 WMH challenge scores, from a label map and a segmentation of one shape.

    Reference: voxels within 0.5 of `label`. Inferred: integers from 1, other numbers (probabilities) from 0.5; without
    the voxels within 0.5 of `ignored_label` in the reference, "other pathology", which are neither right nor wrong.

    Raises:
        InputError: the shapes differ.
    Source: hjkuijf/wmhchallenge, evaluation.py.
    """
    reference_label, inferred = _same_shape(reference_label, inferred)
    lowest = 1 if inferred.dtype.kind in "bui" else 0.5
    marked = (inferred >= lowest) & (inferred <= 1000)
    if ignored_label is not None:
        marked &= ~_close_to(reference_label, ignored_label)
    return LesionMasks(_close_to(reference_label, label), marked)


def dice(reference: np.ndarray, inferred: np.ndarray, both_empty: float = 1.0) -> float:
    """2 TP / (2 TP + FP + FN), from 0 (disjoint) to 1 (equal); `both_empty` if neither mask has a voxel.

    Raises:
        InputError: the shapes differ.

    >>> dice(np.array([1, 1, 1, 0]), np.array([0, 0, 1, 0]))
    0.5
    """
    reference, inferred = _masks(reference, inferred)
    total = np.count_nonzero(reference) + np.count_nonzero(inferred)
    return float(2 * np.count_nonzero(reference & inferred) / total) if total else both_empty


class BorderDistances(NamedTuple):
    """Border voxels (border, axis) of two masks and how far each lies, in mm, from the other mask's border."""

    reference_border: np.ndarray
    inferred_border: np.ndarray
    from_reference: np.ndarray
    from_inferred: np.ndarray

    @property
    def num_border_voxels(self) -> int:
        """How many voxels are on either border; a shared one counts once."""
        return len(self.from_reference) + len(self.from_inferred) - np.count_nonzero(self.from_reference == 0)


def border_distances(
    reference: np.ndarray, inferred: np.ndarray, spacing_mm: Sequence[float], compat: bool = False
) -> BorderDistances:
    """Distances in mm from each border voxel to the nearest border voxel of the other mask, both ways.

    A border voxel is a foreground voxel with a background voxel, or the end of the array, beside one of its faces. An
    empty mask has no border, and distances to it are NaN; with `compat` they lead to the point (-1, 0, 0) instead,
    where NiftyNet's distance maps measure from when there is nothing to measure from.

    Raises:
        InputError: the shapes differ, or the spacing does not fit them.
    Source: niftynet/evaluation/segmentation_evaluations.py `border_distance`.
    """
    reference, inferred = _masks(reference, inferred)
    spacing = _spacing(spacing_mm, reference)
    box, origin = _box(reference | inferred)
    borders = [mask & ~ndimage.binary_erosion(mask) for mask in (reference[box], inferred[box])]
    return _distances_between(*borders, spacing, origin, compat)


def average_surface_distance_mm(
    reference: np.ndarray,
    inferred: np.ndarray,
    spacing_mm: Sequence[float],
    kind: SurfaceDistance = "standard",
    compat: bool = False,
) -> float:
    """Mean distance in mm between the borders of two masks, taken both ways; 0 if they are equal.

    The sum of all `border_distances` is divided by

    "standard"  the number of border voxels of both masks;
    "niftynet"  the number of voxels that are on either border, so a shared one counts once;
    "pairwise"  the volumes of both masks, the distance being 0 anywhere inside the other mask.

    Both masks empty: 0. One empty: NaN. With `compat`, what NiftyNet's arithmetic gives: NaN and the distance to the
    point (-1, 0, 0). NiftyNet counts in voxels; give spacing (1, 1, 1) for its numbers.

    Raises:
        InputError: the shapes differ, or the spacing does not fit them.
        ValueError: an unknown kind.
    Source: niftynet/evaluation/segmentation_evaluations.py `average_distance`; pairwise_measures.py
    `measured_average_distance`.
    """
    if kind not in ("standard", "niftynet", "pairwise"):
        raise ValueError(f'kind of surface distance is standard, niftynet or pairwise, not "{kind}"')
    reference, inferred = _masks(reference, inferred)
    distances = border_distances(reference, inferred, spacing_mm, compat)
    from_reference, from_inferred = distances.from_reference, distances.from_inferred
    if kind == "standard":
        divisor = len(from_reference) + len(from_inferred)
    elif kind == "niftynet":
        divisor = distances.num_border_voxels
    else:
        divisor = np.count_nonzero(reference) + np.count_nonzero(inferred)
        # The voxel of a region nearest to a point outside it is on its border, so only the inside differs.
        from_reference = np.where(inferred[tuple(distances.reference_border.T)], 0.0, from_reference)
        from_inferred = np.where(reference[tuple(distances.inferred_border.T)], 0.0, from_inferred)
    if divisor == 0:
        return float("nan") if compat else 0.0
    return float((from_reference.sum() + from_inferred.sum()) / divisor)


def hausdorff_mm(
    reference: np.ndarray,
    inferred: np.ndarray,
    spacing_mm: Sequence[float],
    percent: float = 100,
) -> float:
    """The larger of the two directed border distances in mm, at that percentile; 100 is the greatest distance.

    Both masks empty: 0. One empty: NaN.

    Raises:
        InputError: the shapes differ, or the spacing does not fit them.

    >>> mask = np.zeros((5, 1, 1), bool)
    >>> reference, inferred = mask.copy(), mask.copy()
    >>> reference[0], inferred[3] = True, True
    >>> hausdorff_mm(reference, inferred, spacing_mm=(2.0, 1.0, 1.0))
    6.0
    """
    distances = border_distances(reference, inferred, spacing_mm)
    if len(distances.from_reference) == len(distances.from_inferred) == 0:
        return 0.0
    return _greatest(distances, percent)


def wmh_h95_mm(reference: np.ndarray, inferred: np.ndarray, spacing_mm: Sequence[float]) -> float:
    """The 95 % Hausdorff distance in mm as the MICCAI-2017 WMH challenge measures it; NaN if a mask is empty.

    Borders are drawn in each axial slice (the first two axes): a foreground voxel with background among its eight
    neighbours there. Beyond the slice counts as foreground, so a mask that fills its slices has no border: NaN too.

    Raises:
        InputError: the shapes differ, or the spacing does not fit them.
    Source: hjkuijf/wmhchallenge, evaluation.py `getHausdorff`.
    """
    reference, inferred = _masks(reference, inferred)
    spacing = _spacing(spacing_mm, reference)
    # One voxel of background around the box keeps its own rim from passing for the end of the slice.
    box, origin = _box(reference | inferred, margin=1)
    in_plane = np.ones((3, 3) + (1,) * (reference.ndim - 2), bool)
    borders = [
        mask & ~ndimage.binary_erosion(mask, in_plane, border_value=1) for mask in (reference[box], inferred[box])
    ]
    return _greatest(_distances_between(*borders, spacing, origin), 95)


def volume_ml(mask: np.ndarray, spacing_mm: Sequence[float]) -> float:
    """Volume of the foreground in millilitres.

    Raises:
        InputError: the spacing does not fit the mask.
    """
    mask = np.asarray(mask)
    return float(np.count_nonzero(mask) * np.prod(_spacing(spacing_mm, mask)) / 1000)


def volume_difference_percent(reference: np.ndarray, inferred: np.ndarray) -> float:
    """100 · |V - V'| / V of the reference volume V; NaN if the reference is empty.

    Raises:
        InputError: the shapes differ.
    """
    reference, inferred = _masks(reference, inferred)
    volume = np.count_nonzero(reference)
    return float(100 * abs(volume - np.count_nonzero(inferred)) / volume) if volume else float("nan")


def lesion_recall(reference: np.ndarray, inferred: np.ndarray) -> float:
    """Share of the reference lesions (26-connected) that the inferred mask touches; 1 if there is no lesion.

    Raises:
        InputError: the shapes differ.

    >>> reference, inferred = np.array([[[1, 0, 1]]]), np.array([[[1, 0, 0]]])
    >>> lesion_recall(reference, inferred)
    0.5
    """
    reference, inferred = _masks(reference, inferred)
    return _share_touched(reference, inferred)


def lesion_f1(reference: np.ndarray, inferred: np.ndarray) -> float:
    """Harmonic mean of lesion recall and lesion precision; 0 if both are 0.

    Precision is the share of the inferred lesions (26-connected) that touch the reference, 1 if there are none.

    Raises:
        InputError: the shapes differ.
    """
    reference, inferred = _masks(reference, inferred)
    recall, precision = _share_touched(reference, inferred), _share_touched(inferred, reference)
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def confusion_matrix(reference: np.ndarray, inferred: np.ndarray, num_classes: int) -> np.ndarray:
    """Counts (reference class, inferred class) int64 over arrays of class numbers, such as modalities of scans.

    Entries whose reference is negative (unknown) are left out.

    Raises:
        InputError: the shapes differ.
        ValueError: a class number is not below `num_classes`.
    """
    reference, inferred = (np.asarray(numbers, np.int64).ravel() for numbers in _same_shape(reference, inferred))
    known = reference >= 0
    reference, inferred = reference[known], inferred[known]
    if reference.size and (max(reference.max(), inferred.max()) >= num_classes or inferred.min() < 0):
        present = np.union1d(reference, inferred).tolist()
        raise ValueError(f"class numbers {present} do not fit {num_classes} classes")
    return np.bincount(reference * num_classes + inferred, minlength=num_classes**2).reshape(num_classes, num_classes)


def class_accuracies(matrix: np.ndarray) -> np.ndarray:
    """Share of each reference class (class,) that was named correctly; NaN for a class the matrix does not hold."""
    matrix = np.asarray(matrix)
    totals = matrix.sum(axis=1)
    return np.where(totals > 0, matrix.diagonal() / np.maximum(totals, 1), np.nan)


def _same_shape(reference: np.ndarray, inferred: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    reference, inferred = np.asarray(reference), np.asarray(inferred)
    if reference.shape != inferred.shape:
        raise InputError(
            f"the inferred image has shape {inferred.shape} and the reference {reference.shape}; "
            "bring both onto the grid of the original file before comparing them"
        )
    return reference, inferred


def _masks(reference: np.ndarray, inferred: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    reference, inferred = _same_shape(reference, inferred)
    return reference != 0, inferred != 0


def _spacing(spacing_mm: Sequence[float], mask: np.ndarray) -> np.ndarray:
    spacing = np.asarray(spacing_mm, float)
    if spacing.shape != (mask.ndim,) or not np.all(spacing > 0):
        raise InputError(f"spacing {tuple(spacing_mm)} mm does not fit an image of shape {mask.shape}")
    return spacing


def _close_to(values: np.ndarray, label: int) -> np.ndarray:
    return (values >= label - 0.5) & (values <= label + 0.5)


def _box(mask: np.ndarray, margin: int = 0) -> tuple[tuple[slice, ...], np.ndarray]:
    # The smallest box that holds the foreground, widened where the array allows, and its first corner.
    box = []
    for axis, length in enumerate(mask.shape):
        occupied = np.flatnonzero(mask.any(axis=tuple(other for other in range(mask.ndim) if other != axis)))
        first, last = (occupied[0], occupied[-1]) if len(occupied) else (0, 0)
        box.append(slice(max(first - margin, 0), min(last + 1 + margin, length)))
    return tuple(box), np.array([side.start for side in box])


def _distances_between(
    reference_border: np.ndarray,
    inferred_border: np.ndarray,
    spacing: np.ndarray,
    origin: np.ndarray,
    compat: bool = False,
) -> BorderDistances:
    # Borders are thin, so a tree of their voxels is many times faster than a distance map of the volume, and as exact.
    voxels = [np.argwhere(border) + origin for border in (reference_border, inferred_border)]
    return BorderDistances(*voxels, *(_nearest_mm(*ends, spacing, compat) for ends in (voxels, reversed(voxels))))


def _nearest_mm(start: np.ndarray, end: np.ndarray, spacing: np.ndarray, compat: bool) -> np.ndarray:
    if len(start) == 0 or (len(end) == 0 and not compat):
        return np.full(len(start), np.nan)
    nowhere = -np.eye(1, len(spacing))
    return cKDTree((end if len(end) else nowhere) * spacing).query(start * spacing)[0]


def _greatest(distances: BorderDistances, percent: float) -> float:
    directed = (distances.from_reference, distances.from_inferred)
    if not all(map(len, directed)):
        return float("nan")
    return float(max(np.percentile(values, percent) for values in directed))


def _share_touched(lesions: np.ndarray, other: np.ndarray) -> float:
    if not lesions.any():
        return 1.0
    box, _ = _box(lesions)
    numbered, count = ndimage.label(lesions[box], np.ones((3,) * lesions.ndim, bool))
    return float(np.count_nonzero(np.bincount(numbered[other[box]], minlength=count + 1)[1:]) / count)
