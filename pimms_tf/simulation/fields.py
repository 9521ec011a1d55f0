"""Random smooth fields, and the axis-by-axis matrices that blur, sample and interpolate a volume."""

import numpy as np
from scipy import ndimage
from scipy.special import erf


def smooth_noise(shape: tuple[int, ...], scale: float, rng: np.random.Generator) -> np.ndarray:
    """Random field (x, y, z) float32 of mean 0 and variance about 1 that varies over about `scale` voxels.

    Wide fields are drawn on a coarser grid and interpolated.
    """
    step = max(1, int(scale / 1.5))
    coarse = tuple(n // step + 3 for n in shape)
    noise = rng.standard_normal(coarse, dtype=np.float32)
    noise = ndimage.gaussian_filter(noise, scale / step, mode="wrap", truncate=3)
    noise /= max(float(noise.std()), 1e-6)
    if step == 1:
        return noise[tuple(slice(n) for n in shape)]
    return along_axes(
        noise, [linear_weights((np.arange(n) / step + 1).clip(0, c - 1), c) for n, c in zip(shape, coarse, strict=True)]
    )


def linear_weights(places: np.ndarray, size: int) -> np.ndarray:
    """Weights (place, voxel) float32 of linear interpolation between `size` voxels; the ends go on outside."""
    places = np.clip(places, 0, size - 1)
    low = np.minimum(np.floor(places).astype(int), max(size - 2, 0))
    weights = np.zeros((len(places), size), np.float32)
    rows = np.arange(len(places))
    weights[rows, low] = 1 - (places - low)
    weights[rows, np.minimum(low + 1, size - 1)] += (places - low).astype(np.float32)
    return weights


def profile_weights(places: np.ndarray, size: int, box: float, sigma: float) -> np.ndarray:
    """Weights (place, voxel) float32 of a sampling profile at places in voxels: a box blurred by a Gaussian.

    A place beyond the volume reads nothing of it.
    """
    offset = np.arange(size)[None] - places[:, None]
    sigma = max(sigma, 0.35)  # voxels are points here; a narrower profile would fall between them
    # The integral of the Gaussian over the box around each voxel, the voxel being a point.
    box = max(box, 0.05)
    weights = erf((offset + box / 2) / (np.sqrt(2) * sigma)) - erf((offset - box / 2) / (np.sqrt(2) * sigma))
    total = 2 * box
    norm = np.maximum(weights.sum(axis=1, keepdims=True), total * 0.5)
    return (weights / norm).astype(np.float32)


def along_axes(volume: np.ndarray, weights: list[np.ndarray | None]) -> np.ndarray:
    """A volume after a matrix (new, old) along each of its axes; None leaves an axis."""
    for axis, matrix in enumerate(weights):
        if matrix is not None:
            volume = np.moveaxis(np.tensordot(matrix, volume, (1, axis)), 0, axis)
    return np.ascontiguousarray(volume, np.float32)
