"""Which way axes grow, and voxels of another size: `data.images` as a graph. Volumes are (scan, x, y, z)."""

from typing import NamedTuple

import numpy as np
import tensorflow as tf
from nibabel import orientations

from pimms_tf.data.images import FarPlane


class Turn(NamedTuple):
    """Axes in another order and direction: axis k of the turned volume is axis `source[k]`, reversed if `flip[k]`."""

    source: tf.Tensor  # (3,) int32
    flip: tf.Tensor  # (3,) bool


def turn_to(axcodes: tuple[str, str, str] | None, affine: tf.Tensor, shape: tf.Tensor) -> Turn:
    """The turn that makes axes of `shape` and `affine` (4, 4) float64 grow towards `axcodes`.

    Of a grid with fewer than three axes longer than 1 it only puts those of length 1 last, as readers of files do.
    """
    is_flat = tf.reduce_sum(tf.cast(shape > 1, tf.int32)) < 3
    unflipped = Turn(tf.argsort(tf.cast(shape == 1, tf.int32), stable=True), tf.zeros(3, tf.bool))
    if axcodes is None:
        return Turn(tf.where(is_flat, unflipped.source, tf.range(3)), unflipped.flip)
    target = orientations.axcodes2ornt(axcodes)
    world, sign = _world_axes(affine)
    source = tf.stack([tf.argmax(tf.cast(world == int(axis), tf.int32), output_type=tf.int32) for axis in target[:, 0]])
    flip = tf.gather(sign, source) != tf.constant(target[:, 1])
    return Turn(tf.where(is_flat, unflipped.source, source), tf.logical_and(flip, tf.logical_not(is_flat)))


def turned(volume: tf.Tensor, turn: Turn) -> tf.Tensor:
    """A volume (scan, x, y, z) turned."""
    volume = tf.transpose(volume, tf.concat([[0], 1 + turn.source], axis=0))
    return tf.raw_ops.Reverse(tensor=volume, dims=tf.concat([[False], turn.flip], axis=0))


def turned_back(volume: tf.Tensor, turn: Turn) -> tf.Tensor:
    """A turned volume (scan, x, y, z) as it was."""
    volume = tf.raw_ops.Reverse(tensor=volume, dims=tf.concat([[False], turn.flip], axis=0))
    return tf.transpose(volume, tf.concat([[0], 1 + tf.math.invert_permutation(turn.source)], axis=0))


def turned_affine(affine: tf.Tensor, turn: Turn, shape: tf.Tensor) -> tf.Tensor:
    """The affine (4, 4) of a volume of `shape` that is then turned."""
    steps = tf.gather(affine[:, :3], turn.source, axis=1)
    lengths = tf.cast(tf.gather(shape, turn.source) - 1, affine.dtype)
    flip = tf.cast(turn.flip, affine.dtype)
    origin = affine[:, 3] + tf.reduce_sum(steps * (flip * lengths), axis=1)
    return tf.concat([steps * (1 - 2 * flip), origin[:, None]], axis=1)


def spacing_of(affine: tf.Tensor) -> tf.Tensor:
    """Distance in mm between neighbouring voxels along x, y and z of an affine (4, 4)."""
    return tf.norm(affine[:3, :3], axis=0)


def resampled_shape(shape: tf.Tensor, affine: tf.Tensor, pixdim_mm: tuple[float, float, float]) -> tf.Tensor:
    """(3,) int64 voxels at a size of `pixdim_mm`; that of a flat grid, and an axis of pixdim 0, stays."""
    # As in data.images: more digits than a header has would decide halves by noise.
    spacing = tf.cast(tf.cast(spacing_of(affine), tf.float32), tf.float64)
    wanted = tf.constant([size or 1.0 for size in pixdim_mm], tf.float64)
    factor = tf.where(tf.constant([bool(size) for size in pixdim_mm]), spacing / wanted, tf.ones_like(spacing))
    resampled = tf.maximum(tf.cast(tf.round(tf.cast(shape, tf.float64) * factor), tf.int64), 1)
    is_flat = tf.reduce_sum(tf.cast(shape > 1, tf.int32)) < 3
    return tf.where(is_flat, tf.cast(shape, tf.int64), resampled)


def resampled(volume: tf.Tensor, shape: tf.Tensor, order: int, keep_zeros: bool, far_plane: FarPlane) -> tf.Tensor:
    """A volume (scan, x, y, z) float32 by splines of `order` 0 to 3 on another number of voxels, corners in place."""
    before = tf.shape(volume)[1:]

    def one_scan(scan: tf.Tensor) -> tf.Tensor:
        result = _along_axes(scan, before, shape, order)
        if far_plane == "zeroed":
            result = _without_far_planes(result, before, shape)
        if keep_zeros and order > 1:
            near = _along_axes(tf.cast(scan != 0, tf.float32), before, shape, 1)
            result = tf.where(near == 0, tf.zeros_like(result), result)
        return result

    def all_scans() -> tf.Tensor:
        # One after the other, since sums are in float64.
        return tf.map_fn(one_scan, volume, parallel_iterations=1)

    result = tf.cond(tf.reduce_all(before == shape), lambda: volume, all_scans)
    return tf.ensure_shape(result, (None, None, None, None))


def nearest(volume: tf.Tensor, shape: tf.Tensor, far_plane: FarPlane) -> tf.Tensor:
    """A volume (x, y, z) of any type on another number of voxels, corners in place, each the nearest one."""
    before = tf.shape(volume)
    for axis in range(3):
        volume = tf.gather(volume, tf.cast(tf.floor(_places(before[axis], shape[axis]) + 0.5), tf.int32), axis=axis)
    return _without_far_planes(volume, before, shape) if far_plane == "zeroed" else volume


def _world_axes(affine: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """For each axis of voxels the axis of mm (3,) int32 it runs along, and in which direction (3,) float64."""
    # As nibabel.io_orientation: of the nearest rotation the largest elements, the clearest axis first.
    steps = affine[:3, :3]
    _, left, right = tf.linalg.svd(steps / tf.norm(steps, axis=0))
    rotation = tf.matmul(left, right, transpose_b=True)
    first_to_last = tf.argsort(tf.reduce_min(-tf.square(rotation), axis=0), stable=True)
    world, sign = tf.zeros(3, tf.int32), tf.zeros(3, tf.float64)
    for place in range(3):
        axis = first_to_last[place]
        column = rotation[:, axis]
        row = tf.argmax(tf.abs(column), output_type=tf.int32)
        world = tf.where(tf.range(3) == axis, row, world)
        sign = tf.where(tf.range(3) == axis, tf.where(column[row] < 0, np.float64(-1), np.float64(1)), sign)
        rotation = tf.where(tf.range(3)[:, None] == row, tf.zeros_like(rotation), rotation)
    return world, sign


def _places(before: tf.Tensor, after: tf.Tensor) -> tf.Tensor:
    """(after,) float64 where a line of `before` voxels is read, corners in place, as scipy.ndimage.zoom rounds it."""
    step = tf.where(after > 1, tf.cast(before - 1, tf.float64) / tf.cast(tf.maximum(after - 1, 1), tf.float64), 1.0)
    return tf.cast(tf.range(after), tf.float64) * step


def _along_axes(scan: tf.Tensor, before: tf.Tensor, after: tf.Tensor, order: int) -> tf.Tensor:
    """(x, y, z) float32 interpolated along each axis that changes its length."""
    scan = tf.cast(scan, tf.float64)
    for axis, (target, source) in enumerate((("ax", "xyz->ayz"), ("by", "xyz->xbz"), ("cz", "xyz->xyc"))):

        def along(scan=scan, axis=axis, equation=f"{target},{source}"):
            return tf.einsum(equation, _spline(before[axis], after[axis], order), scan)

        scan = tf.cond(before[axis] == after[axis], lambda scan=scan: scan, along)
    return tf.cast(scan, tf.float32)


def _spline(before: tf.Tensor, after: tf.Tensor, order: int) -> tf.Tensor:
    """The matrix (after, before) float64 that interpolates a line of voxels; beyond its ends the line is mirrored."""
    places = _places(before, after)
    start = tf.floor(places) if order % 2 else tf.floor(places + 0.5)
    t = places - start
    if order == 0:
        taps, offset = [tf.ones_like(t)], 0
    elif order == 1:
        taps, offset = [1 - t, t], 0
    elif order == 2:
        near, low = 0.75 - t * t, 0.5 * tf.square(0.5 - t)
        taps, offset = [low, near, 1 - low - near], 1
    else:
        z = 1 - t
        low, left = z * z * z / 6, (t * t * (t - 2) * 3 + 4) / 6
        right = (z * z * (z - 2) * 3 + 4) / 6
        taps, offset = [low, left, right, 1 - low - left - right], 1
    start = tf.cast(start, tf.int32) - offset
    reads = tf.add_n([_at(start + k, before) * tap[:, None] for k, tap in enumerate(taps)])
    if order < 2:
        return reads
    voxels = tf.range(before)
    centre, side = (6 / 8, 1 / 8) if order == 2 else (4 / 6, 1 / 6)
    basis = centre * _at(voxels, before) + side * (_at(voxels - 1, before) + _at(voxels + 1, before))
    return tf.transpose(tf.linalg.solve(basis, tf.transpose(reads), adjoint=True))


def _at(index: tf.Tensor, length: tf.Tensor) -> tf.Tensor:
    """(index, length) float64 with a one at each index, mirrored at the two ends."""
    last = length - 1
    index = tf.abs(index)
    index = tf.clip_by_value(tf.where(index > last, 2 * last - index, index), 0, last)
    return tf.one_hot(index, length, dtype=tf.float64)


def _without_far_planes(volume: tf.Tensor, before: tf.Tensor, after: tf.Tensor) -> tf.Tensor:
    """(x, y, z) with the last plane zeroed along each axis where rounding puts it outside, see `images.zoom_to`."""
    for axis in range(3):
        length = after[axis]
        outside = tf.logical_and(length > 1, _places(before[axis], length)[-1] > tf.cast(before[axis] - 1, tf.float64))
        is_far = tf.logical_and(outside, tf.range(length) == length - 1)
        volume = tf.where(tf.reshape(is_far, [-1 if k == axis else 1 for k in range(3)]), tf.zeros_like(volume), volume)
    return volume
