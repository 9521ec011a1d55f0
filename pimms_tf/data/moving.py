"""Volumes after a random change, computed only where they are looked at.

    voxel  →  bent  →  turned  →  stretched back  →  flipped back  →  place in the volume as it was prepared

NiftyNet interpolates the whole volume at each of these steps. Here the steps are composed, and what lies at the place
is interpolated once, by splines whose coefficients were computed when the subject was prepared.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from pimms_tf.data.images import spline_coefficients

Axes3 = tuple[int, int, int]
_AT_ONCE = 2**16  # neighbours in a plane of the places that are read at once, to fit into a processor's cache
_EDGE = 1e-6  # voxels that rounding may put a place outside
_NEGLIGIBLE = 1e-6  # of a Gaussian's height: neighbours that weigh less are left out


@dataclass(frozen=True, eq=False)
class Geometry:
    """Which place of a volume of shape `source` each voxel of the changed volume, of `shape`, shows.

    The place is `matrix` (voxel + bend(voxel)) + `offset`, in voxels; what lies outside `source` shows 0. `bend`
    (3, i, j, k) holds the coefficients in voxels of a cubic B-spline for each axis, None for no bend. `smoothing` (3,)
    is the sigma in voxels of a Gaussian that smooths the volume first, where it is interpolated by more than lines.
    """

    source: Axes3
    shape: Axes3
    matrix: np.ndarray
    offset: np.ndarray
    bend: np.ndarray | None = None
    smoothing: np.ndarray | None = None

    @property
    def interpolates(self) -> bool:
        """False if every voxel shows one voxel of the source, or nothing: for flips alone."""
        is_flip = np.array_equal(abs(self.matrix), np.eye(3)) and self.smoothing is None
        return not (is_flip and self.bend is None and np.array_equal(self.offset, np.rint(self.offset)))

    def places(self, x: np.ndarray, y: np.ndarray, z: np.ndarray) -> list[np.ndarray]:
        """Three coordinates in the source, each (len(x), len(y), len(z)) float64, of the voxels at x, y, z."""
        voxels = [np.asarray(x, float)[:, None, None], np.asarray(y, float)[:, None], np.asarray(z, float)]
        if self.bend is not None:
            bases = [
                _bend_basis(voxel.ravel(), length, number)
                for voxel, length, number in zip(voxels, self.shape, self.bend.shape[1:], strict=True)
            ]
            shift = np.einsum("dijk,kz->dijz", self.bend, bases[2])
            shift = np.einsum("dijz,jy->diyz", shift, bases[1])
            shift = np.einsum("diyz,ix->dxyz", shift, bases[0])
            voxels = [voxel + by for voxel, by in zip(voxels, shift, strict=True)]
        size = (len(x), len(y), len(z))
        places = []
        for row, offset in zip(self.matrix, self.offset, strict=True):
            # Sums of arrays, not a matrix product: its rounding would depend on how many voxels are asked for.
            terms = [factor * voxel for factor, voxel in zip(row, voxels, strict=True) if factor]
            places.append(np.broadcast_to(sum(terms, np.float64(offset)), size))
        return places


def composed(
    source: Sequence[int],
    shape: Sequence[int],
    flips: Sequence[bool] | None = None,
    rotation: np.ndarray | None = None,
    bend: np.ndarray | None = None,
    smoothing: np.ndarray | None = None,
) -> Geometry:
    """The geometry of flips, then a stretch of ``source`` to ``shape``, then a turn, then a bend, each as in NiftyNet.

    A stretch keeps the corner voxels in place; a turn by ``rotation`` (3, 3) is about half the shape, and none at all
    where an axis has length 1. ``bend`` is what `bend_coefficients` gives.
    """
    source, shape = tuple(source), tuple(shape)
    matrix, offset = np.eye(3), np.zeros(3)
    if rotation is not None and 1 not in shape:
        centre = np.asarray(shape) / 2
        matrix, offset = rotation.T, centre - rotation.T @ centre
    steps = np.array([1 if n == m else (n - 1) / max(m - 1, 1) for n, m in zip(source, shape, strict=True)])
    matrix, offset = steps[:, np.newaxis] * matrix, steps * offset
    for axis in np.flatnonzero([] if flips is None else flips):
        matrix[axis], offset[axis] = -matrix[axis], source[axis] - 1 - offset[axis]
    return Geometry(source, shape, matrix, offset, bend, smoothing)


def bend_coefficients(shape: Sequence[int], drawn: np.ndarray, num_ctrl_points: int) -> np.ndarray:
    """The numbers that `augmentation.draw_deformation` drew, as `Geometry.bend`; an axis of length 1 is not bent.

    SimpleITK counts axes backwards, so the first numbers shift along the last axis.
    """
    long = [axis for axis, length in enumerate(shape) if length > 1]
    bend = np.zeros((3, *(num_ctrl_points + 3 if length > 1 else 1 for length in shape)))
    bend[long[::-1]] = drawn.reshape(len(long), *bend.shape[1:])
    return bend


class MovedVolume:
    """A volume after a change of geometry, and of brightness; a part of it is computed when it is taken.

    Taken like a part of an array, ``moved[x0:x1, y0:y1, z, scans]``, by numbers, slices or, along the last axis, a list
    of scans; `numpy.asarray` computes all of it.

    Args:
        source: the volume (x, y, z) or (x, y, z, scan) as it was prepared.
        geometry: where its voxels go.
        order: 0 takes the nearest voxel and its type, 1 is linear, higher ones a cubic spline; these give float32.
        coefficients: those of the spline, as `images.spline_coefficients` gives them; else computed when needed.
        bias: by what to multiply the voxels of the changed volume.
    """

    def __init__(
        self,
        source: np.ndarray,
        geometry: Geometry,
        order: int,
        coefficients: np.ndarray | None = None,
        bias: "Polynomial | None" = None,
    ) -> None:
        self.source, self.geometry, self.order, self.bias = source, geometry, order, bias
        self._given = coefficients
        self.shape = (*geometry.shape, *source.shape[3:])
        self.ndim = source.ndim
        self.dtype = source.dtype if order == 0 and bias is None else np.dtype(np.float32)

    @property
    def nearest(self) -> "MovedVolume":
        """The same change of geometry by nearest voxels, which is quick, and without the change of brightness."""
        return MovedVolume(self.source, self.geometry, 0)

    def __getitem__(self, key: object) -> np.ndarray:
        key = key if isinstance(key, tuple) else (key,)
        if any(each is Ellipsis or each is None for each in key):
            raise TypeError("a volume that is computed when it is taken is indexed along x, y, z and scan, one by one")
        spatial = [*key[:3], *[slice(None)] * (3 - len(key))]
        x, y, z = (np.atleast_1d(np.arange(n)[each]) for n, each in zip(self.shape[:3], spatial, strict=True))
        scans = np.arange(self.shape[3])[key[3] if len(key) > 3 else slice(None)] if self.ndim == 4 else None
        part = np.empty((*np.shape(scans), len(x), len(y), len(z)), self.dtype)  # () for one volume, or one scan
        volumes = self._volumes(scans)
        stack = part.reshape(len(volumes), *part.shape[-3:])
        for rows in _slabs(len(x), len(y) * len(z)):
            stack[:, rows] = self._computed(volumes, x[rows], y, z)
        if self.bias is not None:
            part *= self.bias.at(x, y, z)
        dropped = [axis - 3 for axis, each in enumerate(spatial) if np.ndim(np.arange(self.shape[axis])[each]) == 0]
        part = part.squeeze(tuple(dropped)) if dropped else part
        return np.moveaxis(part, 0, -1) if np.ndim(scans) else part

    def __array__(self, dtype: object = None, copy: bool | None = None) -> np.ndarray:
        if copy is False:
            raise ValueError("a volume that is computed when it is taken cannot be had without computing it")
        return self[:, :, :].astype(dtype or self.dtype, copy=False)

    def _volumes(self, scans: np.ndarray | None) -> list[np.ndarray]:
        """Those that are read, (x, y, z) each."""
        whole = np.asarray(self._coefficients if self.order > 1 else self.source)
        return [whole] if scans is None else [whole[..., scan] for scan in np.atleast_1d(scans)]

    @cached_property
    def _coefficients(self) -> np.ndarray:
        return spline_coefficients(self.source) if self._given is None else self._given

    def _computed(self, volumes: list[np.ndarray], x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
        places = self.geometry.places(x, y, z)
        size, places = places[0].shape, [place.ravel() for place in places]
        if self.order == 0:
            values = nearest_at(volumes, places)
        else:
            smoothing = self.geometry.smoothing if self.order > 1 else None
            values = spline_at(volumes, places, self.order, (0.0,) * 3 if smoothing is None else smoothing)
        return values.reshape(len(volumes), *size)


class Polynomial(NamedTuple):
    """The exponential of a polynomial in x, y and z, by coefficients (i, j, k); see `augmentation.bias_field`."""

    coefficients: np.ndarray
    shape: Axes3

    def at(self, x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
        """Its values (len(x), len(y), len(z)) float32 at these voxels of a volume of `shape`."""
        powers = []
        for voxels, length, number in zip((x, y, z), self.shape, self.coefficients.shape, strict=True):
            # Two voxels lie at -1 and 0, one voxel at 0: there is no positive coordinate to divide by.
            coordinate = (voxels - length / 2) / (length / 2 - 1) if length > 2 else (voxels - length / 2).round()
            powers.append(coordinate ** np.arange(number)[:, np.newaxis])
        terms = np.einsum("ijk,kz->ijz", self.coefficients, powers[2])
        terms = np.einsum("ijz,jy->iyz", terms, powers[1])
        return np.exp(np.einsum("iyz,ix->xyz", terms, powers[0])).astype(np.float32)


Volume = np.ndarray | MovedVolume


def nearest_at(volumes: Sequence[np.ndarray], places: Sequence[np.ndarray]) -> np.ndarray:
    """The voxels of (x, y, z) volumes on one grid nearest to places, (volume, place) in their type; 0 outside.

    ``places`` are three coordinates (place,) in voxels.
    """
    lines = _Lines(volumes)
    inside, places = _inside(places, lines.shape)
    index = sum(np.floor(place + 0.5).astype(np.intp) * step for place, step in zip(places, lines.steps, strict=True))
    return np.stack([np.where(inside, line[index], 0) for line in lines.lines])


def spline_at(
    coefficients: Sequence[np.ndarray],
    places: Sequence[np.ndarray],
    order: int = 3,
    smoothing: Sequence[float] = (0.0, 0.0, 0.0),
) -> np.ndarray:
    """What splines show at places, (volume, place) float32; 0 outside the volumes.

    Args:
        coefficients: of each volume (x, y, z), on one grid; for ``order`` 1, linear, the volumes themselves.
        places: three coordinates (place,) in voxels.
        smoothing: sigma in voxels of a Gaussian that smooths the volumes first.
    """
    lines = _Lines(coefficients)
    found = np.zeros((len(coefficients), len(places[0])), np.float32)
    reaches = [_reach(order, sigma) for sigma in smoothing]
    inside, places = _inside(places, lines.shape)
    far = inside.copy()  # from the edges: all neighbours are there, and none has to be mirrored
    for place, length, (before, num) in zip(places, lines.shape, reaches, strict=True):
        far &= (place >= before) & (place < length + before + 1 - num)
    at_once = _AT_ONCE // (reaches[0][1] * reaches[1][1])
    for chosen, mirrored in ((far, False), (inside & ~far, True)):
        which = np.flatnonzero(chosen)
        for first in range(0, len(which), at_once):
            part = which[first : first + at_once]
            # A run of places is taken as it lies.
            part = slice(part[0], part[-1] + 1) if part[-1] - part[0] == len(part) - 1 else part
            found[:, part] = _weighed(lines, [place[part] for place in places], order, smoothing, mirrored)
    return found


def _weighed(
    lines: "_Lines", places: Sequence[np.ndarray], order: int, smoothing: Sequence[float], mirrored: bool
) -> np.ndarray:
    """The neighbours of places inside volumes, times their weights, (volume, place) float32."""
    firsts = [np.floor(place) for place in places]
    x, y, z = (
        _weights((place - first).astype(np.float32), order, sigma)
        for place, first, sigma in zip(places, firsts, smoothing, strict=True)
    )
    # Of the neighbours those in one plane together: (neighbour, place).
    xy = (x[:, np.newaxis] * y).reshape(-1, x.shape[1])
    total = np.zeros((len(lines.lines), x.shape[1]), np.float32)
    if mirrored:
        at_x, at_y, at_z = (
            _distances(first.astype(np.intp), length, step, *_reach(order, sigma))
            for first, length, step, sigma in zip(firsts, lines.shape, lines.steps, smoothing, strict=True)
        )
        at_xy = (at_x[:, np.newaxis] + at_y).reshape(xy.shape)
        indices = ((at_xy + at, 0) for at in at_z)
    else:
        # All places have the same distance to their n-th neighbours, so that one index serves along a moved line.
        along = [
            (np.arange(num) - before) * step
            for (before, num), step in zip((_reach(order, sigma) for sigma in smoothing), lines.steps, strict=True)
        ]
        at = sum((first.astype(np.intp) * step for first, step in zip(firsts, lines.steps, strict=True)), along[2][0])
        at_xy = (along[0][:, np.newaxis] + along[1]).reshape(-1, 1) + at
        indices = ((at_xy, start) for start in along[2] - along[2][0])
    for (index, start), weight in zip(indices, z, strict=True):
        for line, row in zip(lines.lines, total, strict=True):
            row += weight * np.einsum("np,np->p", np.take(line[start:], index), xy)
    return total


class _Lines:
    """Volumes as the lines of voxels that they are in memory, and the steps from a voxel to the next along x, y, z."""

    def __init__(self, volumes: Sequence[np.ndarray]) -> None:
        # A flipped view runs backwards.
        volumes = [volume if min(volume.strides) > 0 else np.ascontiguousarray(volume) for volume in volumes]
        self.shape, size = volumes[0].shape, volumes[0].itemsize
        self.steps = [stride // size for stride in volumes[0].strides]
        extent = 1 + sum((length - 1) * step for length, step in zip(self.shape, self.steps, strict=True))
        as_line = np.lib.stride_tricks.as_strided
        self.lines = [as_line(volume, (extent,), (size,), writeable=False) for volume in volumes]


def _inside(places: Sequence[np.ndarray], shape: Axes3) -> tuple[np.ndarray, list[np.ndarray]]:
    """Which places lie in a volume, and all of them, those outside moved to its edge."""
    within = [(place >= -_EDGE) & (place <= n - 1 + _EDGE) for place, n in zip(places, shape, strict=True)]
    return within[0] & within[1] & within[2], [place.clip(0, n - 1) for place, n in zip(places, shape, strict=True)]


def _distances(first: np.ndarray, length: int, step: int, before: int, num: int) -> np.ndarray:
    """Of places on a line, whose voxels at or below are ``first``, the neighbours' distance in memory from its start.

    (neighbour, place). Beyond the ends of the line its voxels are mirrored, the outermost not repeated.
    """
    period = max(2 * (length - 1), 1)
    voxels = np.arange(-before, length - before + num) % period
    distance = np.minimum(voxels, period - voxels) * step
    return np.take(distance, first + np.arange(num)[:, np.newaxis])


def _weights(t: np.ndarray, order: int, sigma: float) -> np.ndarray:
    """The weights (neighbour, place) of the neighbours on a line of places ``t``, in [0, 1), behind a voxel."""
    weights = np.stack([1 - t, t]) if order == 1 else _cubic(t)
    if _radius(sigma) == 0:
        return weights
    gaussian = _gaussian(sigma)
    smoothed = np.zeros((len(weights) + len(gaussian) - 1, len(t)), np.float32)
    for shift, factor in enumerate(gaussian):
        smoothed[shift : shift + len(weights)] += factor * weights
    return smoothed


def _reach(order: int, sigma: float) -> tuple[int, int]:
    """How many neighbours on a line lie before the voxel at or below a place, and how many there are."""
    smooth = _radius(sigma)
    return (0, 2) if order == 1 else (1 + smooth, 4 + 2 * smooth)


def _cubic(t: np.ndarray) -> np.ndarray:
    """Weights (4, place) of the cubic B-spline at voxels -1, 0, 1 and 2, for places ``t`` in [0, 1)."""
    u, t2 = 1 - t, t * t
    u2 = u * u
    return np.stack([u2 * u, 3 * t2 * (t - 2) + 4, 3 * u2 * (u - 2) + 4, t2 * t]) * t.dtype.type(1 / 6)


def _gaussian(sigma: float) -> np.ndarray:
    """The weights by which `scipy.ndimage.gaussian_filter` smooths along a line, but for negligible ones."""
    reach = _radius(sigma)
    weights = np.exp(-0.5 * (np.arange(-reach, reach + 1) / max(sigma, 1e-12)) ** 2)
    return (weights / weights.sum()).astype(np.float32)


def _radius(sigma: float) -> int:
    # Scaling by a tenth asks for a sigma below 0.21, whose neighbours would make three times the work for nothing.
    return int(min(4 * sigma + 0.5, sigma * np.sqrt(-2 * np.log(_NEGLIGIBLE))))


def _bend_basis(voxels: np.ndarray, length: int, number: int) -> np.ndarray:
    """Values (number, voxel) of ``number`` cubic B-splines that cover an axis, as SimpleITK lays them.

    They cover the voxels from their outer edges on, and an eighth more at each end.
    """
    if number == 1:
        return np.ones((1, len(voxels)))
    place = (voxels + 0.625) / (length + 0.25) * (number - 3)
    first = np.floor(place).astype(np.intp)
    basis = np.zeros((number, len(voxels)))
    basis[first + np.arange(4)[:, np.newaxis], np.arange(len(voxels))] = _cubic(place - first)
    return basis


def _slabs(num_rows: int, size_of_row: int) -> Iterator[slice]:
    """Rows that are computed at once, so that places take little memory."""
    step = max(2**16 // max(size_of_row, 1), 1)
    return (slice(first, first + step) for first in range(0, num_rows, step))
