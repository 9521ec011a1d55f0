"""Where the brain is in a scan of any contrast, with or without skull: a small network at 4 mm, without TensorFlow.

The network is a 3-D U-Net of some 200,000 numbers, learnt from simulated heads whose tissues had brightnesses drawn at
random, so that it looks at shapes (`benchmarks/weights/brain.py`); its weights lie in `assets/brain.npz`.
"""

import logging
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from importlib import resources

import nibabel as nib
import numpy as np
from nibabel import orientations
from scipy import ndimage

from pimms_tf.data.intensity import foreground_masks

logger = logging.getLogger(__name__)

SPACING_MM = 4.0
LEVELS = 3  # how often the network halves the grid
FAINT = 0.15  # of the brain's median: air, or the rings that resampling leaves around a stripped brain
STRIPPED = 1.75  # what a scan shows in volumes of its brain; heads show twice as much and more
NEAR_MM = 8.0
# What a stripped scan shows further away, in volumes of its brain: at most 0.02 in three real ones, 0.12 and more in
# eleven real heads, of which seven showed less than STRIPPED in all.
FAR = 0.06
# Correlation on the grid of 4 mm from which on a scan is a copy of another. Copies in other units, rounded, noisy or
# resampled have 0.99997 and more; second scans of one modality had 0.994 at most (thirteen pairs, four of them real).
ALIKE = 0.999
ROUNDING = 1e-3  # of sums of shares, which are parts of 1


def brain_or_foreground(brain: np.ndarray, scans: np.ndarray) -> np.ndarray:
    """The brain, the same for each scan, bool (x, y, z, scan); where it is empty, what Otsu calls foreground.

    Raises:
        InputError: there is no foreground either.
    """
    if brain.any():
        return np.broadcast_to(brain[..., np.newaxis], scans.shape)
    logger.warning("no brain is found in these scans, so all that is not background counts as foreground")
    return foreground_masks(scans, "otsu_plus", "and")


def brain_mask(scans: np.ndarray, affine: np.ndarray, threshold: float = 0.5) -> np.ndarray:
    """The brain, bool (x, y, z), of scans (x, y, z, scan) of one head; `affine` (4, 4) says how they lie, in mm.

    Each scan is looked at by itself, and what the network says of them is averaged; scans that are zero do not count,
    and a scan that is there twice, or as a copy that is nearly the same, has one say.
    One body, without holes in any axial slice. Empty where the network finds no brain, or all scans are zero. Scans in
    which little is left but a brain were stripped before, by programs that saw its edge at full resolution; there
    that edge is kept.

    Source: the idea of learning from random contrast is that of Hoopes et al., SynthStrip, NeuroImage 2022;260:119474.
    """
    return Brains(scans, affine, threshold).by(range(scans.shape[-1]))


class Brains:
    """The brain by any of the scans of one head, each of which the network looks at once.

    `Brains(scans, affine).by([0, 2])` is what the first and the third say together.

    Scans (x, y, z, scan), `affine` and what is made of them as in `brain_mask`.
    """

    def __init__(self, scans: np.ndarray, affine: np.ndarray, threshold: float = 0.5) -> None:
        axes = nib.io_orientation(affine)
        turn = orientations.ornt_transform(axes, orientations.axcodes2ornt(("L", "P", "S")))
        self._back = orientations.ornt_transform(orientations.axcodes2ornt(("L", "P", "S")), axes)
        self._scans = [orientations.apply_orientation(scan, turn) for scan in np.moveaxis(scans, -1, 0)]
        self._least_logit = np.log(threshold / (1 - threshold))
        self._spacing_mm = np.linalg.norm(affine[:3, :3], axis=0)[np.argsort(turn[:, 0])]
        down = averaging(self._scans[0].shape, self._spacing_mm)
        self._coarse = [separable(scan, down) for scan in self._scans]
        self._first: dict[int, int] = {}  # of the scans that are equal, by place, but for those of zeros
        self._logits: dict[int, np.ndarray] = {}
        for place, scan in enumerate(self._scans):
            if scan.any():
                same = (first for first in self._logits if np.array_equal(scan, self._scans[first]))
                self._first[place] = first = next(same, place)
                if first == place:
                    self._logits[place] = brain_logits(scaled(self._coarse[place]), brain_weights())

    def by(self, places: Iterable[int]) -> np.ndarray:
        """The brain, bool (x, y, z), as the scans at these places show it; no other scan has a say."""
        firsts = sorted({self._first[int(place)] for place in places if place in self._first})
        shape = self._scans[0].shape
        if not firsts:
            return orientations.apply_orientation(np.zeros(shape, bool), self._back)
        says = shares([self._coarse[place] for place in firsts])
        logits = np.stack([self._logits[place] for place in firsts])
        logits = (says[:, np.newaxis, np.newaxis, np.newaxis] * logits).sum(axis=0) / says.sum()
        up = [_between(*each) for each in zip(shape, self._spacing_mm, logits.shape, strict=True)]
        mask = _one_body(separable(logits, up) > self._least_logit)
        mask = _stripped([self._scans[place] for place in firsts], says, self._spacing_mm, mask)
        return np.ascontiguousarray(orientations.apply_orientation(mask, self._back))


def shares(scans: Sequence[np.ndarray]) -> np.ndarray:
    """The say of each scan (scan,) float32: 1, divided by how many of all scans are nearly the same, itself included.

    >>> one, other = np.random.default_rng(0).normal(size=(2, 4, 4, 4))
    >>> shares([one, other, 3 * one + 2]).tolist()
    [0.5, 1.0, 0.5]
    """
    flat = np.array([np.ravel(scan) for scan in scans], np.float64)
    flat -= flat.mean(axis=1, keepdims=True)
    length = np.linalg.norm(flat, axis=1)
    alike = flat @ flat.T > ALIKE * np.outer(length, length)
    np.fill_diagonal(alike, True)
    return (1 / alike.sum(axis=1)).astype(np.float32)


def _stripped(scans: Sequence[np.ndarray], says: np.ndarray, spacing_mm: np.ndarray, found: np.ndarray) -> np.ndarray:
    """The brain of stripped scans as they show it, near the one that was found; of others the latter."""
    if not found.any():
        return found
    votes = np.zeros(found.shape, np.float32)
    for scan, say in zip(scans, says, strict=True):
        darkest = np.percentile(scan[::4, ::4], 1)  # not 0 in scans that were standardised before
        votes += say * (scan - darkest > FAINT * (np.median(scan[found]) - darkest))
    shown = 2 * votes > says.sum() + ROUNDING
    if shown.sum() > STRIPPED * found.sum():
        return found
    steps = np.maximum(np.rint(NEAR_MM / spacing_mm), 1).astype(int)
    near = found
    for axis, count in enumerate(steps):
        near = ndimage.maximum_filter1d(near, 2 * int(count) + 1, axis=axis)
    if np.count_nonzero(shown & ~near) > FAR * found.sum():
        return found
    return _one_body(ndimage.binary_opening(shown & near, iterations=2) | (shown & found))


def scaled(coarse: np.ndarray) -> np.ndarray:
    """A scan on the grid of 4 mm as the network sees it: 0 where it is darkest, about 1 where it is bright."""
    # Percentiles, so that neither an offset nor a few glaring voxels decide.
    low = np.percentile(coarse, 1)
    bright = coarse[coarse > coarse.mean()]
    high = np.percentile(bright, 95) if bright.size else low + 1
    return np.clip((coarse - low) / max(high - low, 1e-6), -0.5, 2.0).astype(np.float32)


def brain_logits(coarse: np.ndarray, weights: Mapping[str, np.ndarray]) -> np.ndarray:
    """The network: a scan (x, y, z) on the grid of 4 mm → logits (x, y, z)."""
    step = 2**LEVELS
    padding = [(0, -length % step) for length in coarse.shape]
    x, kept = np.pad(coarse, padding)[..., np.newaxis], []
    for level in range(LEVELS):
        x = _layer(_layer(x, weights, f"down_{level}_0"), weights, f"down_{level}_1")
        kept.append(x)
        x = _halved(x)
    x = _layer(_layer(x, weights, "bottom_0"), weights, "bottom_1")
    for level in reversed(range(LEVELS)):
        x = np.concatenate([_doubled(x), kept[level]], axis=-1)
        x = _layer(x, weights, f"up_{level}")
    x = x @ weights["head/kernel"] + weights["head/bias"]
    return x[tuple(slice(0, length) for length in coarse.shape)][..., 0]


@lru_cache(maxsize=1)
def brain_weights() -> dict[str, np.ndarray]:
    """What the network has learnt, float32 by name."""
    path = resources.files("pimms_tf.data").joinpath("assets/brain.npz")
    with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
        return {name: arrays[name].astype(np.float32) for name in arrays.files}


def _layer(x: np.ndarray, weights: Mapping[str, np.ndarray], name: str) -> np.ndarray:
    """3×3×3 convolution of (x, y, z, channel) with zeros around, bias, ReLU."""
    kernel = weights[name + "/kernel"]
    padded = np.pad(x, ((1, 1),) * 3 + ((0, 0),))
    y = np.broadcast_to(weights[name + "/bias"], (*x.shape[:3], kernel.shape[-1])).copy()
    for i, j, k in np.ndindex(3, 3, 3):
        y += padded[i : i + x.shape[0], j : j + x.shape[1], k : k + x.shape[2]] @ kernel[i, j, k]
    return np.maximum(y, 0)


def _halved(x: np.ndarray) -> np.ndarray:
    a, b, c, channels = x.shape
    return x.reshape(a // 2, 2, b // 2, 2, c // 2, 2, channels).max(axis=(1, 3, 5))


def _doubled(x: np.ndarray) -> np.ndarray:
    for axis in range(3):
        x = np.repeat(x, 2, axis)
    return x


def averaging(shape: Sequence[int], spacing_mm: Sequence[float]) -> list[np.ndarray]:
    """Per axis the matrix (coarse, fine) that reads a line of voxels every 4 mm, as the mean of what lies that near."""
    matrices = []
    for length, spacing in zip(shape, spacing_mm, strict=True):
        fine = (np.arange(length) + 0.5) * spacing
        coarse = (np.arange(max(int(np.ceil(length * spacing / SPACING_MM)), 1)) + 0.5) * SPACING_MM
        weights = np.maximum(1 - np.abs(coarse[:, np.newaxis] - fine) / max(spacing, SPACING_MM), 0)
        weights[weights.sum(axis=1) == 0, -1] = 1
        matrices.append((weights / weights.sum(axis=1, keepdims=True)).astype(np.float32))
    return matrices


def separable(volume: np.ndarray, matrices: Sequence[np.ndarray]) -> np.ndarray:
    """A volume with a matrix (to, from) applied along each axis, float32."""
    volume = np.asarray(volume, np.float32)
    for axis, matrix in enumerate(matrices):
        volume = np.moveaxis(np.tensordot(matrix, volume, axes=(1, axis)), 0, axis)
    return volume


def _between(length: int, spacing_mm: float, num_coarse: int) -> np.ndarray:
    """The matrix (fine, coarse) that interpolates a line read every 4 mm."""
    position = np.clip((np.arange(length) + 0.5) * spacing_mm / SPACING_MM - 0.5, 0, num_coarse - 1)
    return np.maximum(1 - np.abs(position[:, np.newaxis] - np.arange(num_coarse)), 0).astype(np.float32)


def _one_body(mask: np.ndarray) -> np.ndarray:
    """The largest connected part, with the holes of each axial slice filled."""
    labels, count = ndimage.label(mask)
    if count > 1:
        mask = labels == 1 + np.argmax(np.bincount(labels.ravel())[1:])
    return np.stack([ndimage.binary_fill_holes(plane) for plane in np.moveaxis(mask, 2, 0)], axis=2)
