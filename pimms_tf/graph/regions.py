"""Masks as scipy.ndimage grows, shrinks, fills and parts them, as a graph. Masks are (x, y, z) bool."""

from collections.abc import Sequence

import tensorflow as tf

SPACE = (0, 1, 2)


def dilated(mask: tf.Tensor, times: int) -> tf.Tensor:
    """The mask and its neighbours across faces, `times` over."""
    for _ in range(times):
        sides = [_shifted(mask, axis, by) for axis in SPACE for by in (-1, 1)]
        mask = tf.reduce_any(tf.stack([mask, *sides]), axis=0)
    return mask


def eroded(mask: tf.Tensor, times: int) -> tf.Tensor:
    """The voxels whose neighbours across faces are in the mask, `times` over; beyond the volume nothing is."""
    for _ in range(times):
        sides = [_shifted(mask, axis, by) for axis in SPACE for by in (-1, 1)]
        mask = tf.reduce_all(tf.stack([mask, *sides]), axis=0)
    return mask


def widened(mask: tf.Tensor, axis: int, voxels: tf.Tensor) -> tf.Tensor:
    """Whether the mask has something within so many voxels along an axis."""
    counts = tf.cumsum(tf.cast(mask, tf.int32), axis=axis)
    counts = tf.concat([tf.zeros_like(tf.gather(counts, [0], axis=axis)), counts], axis=axis)
    length = tf.shape(mask)[axis]
    first = tf.maximum(tf.range(length) - voxels, 0)
    last = tf.minimum(tf.range(length) + voxels + 1, length)
    return tf.gather(counts, last, axis=axis) > tf.gather(counts, first, axis=axis)


def filled(mask: tf.Tensor, axes: Sequence[int] = SPACE) -> tf.Tensor:
    """The mask with every hole filled that no path between neighbours along `axes` connects to the outermost voxels."""
    outside = tf.logical_not(mask)
    border = tf.zeros_like(mask)
    for axis in axes:
        length = tf.shape(mask)[axis]
        ends = tf.logical_or(tf.range(length) == 0, tf.range(length) == length - 1)
        border = tf.logical_or(border, tf.reshape(ends, [-1 if k == axis else 1 for k in SPACE]))
    reached = _spread(tf.cast(tf.logical_and(outside, border), tf.int32), outside, axes)
    return reached == 0


def largest_part(mask: tf.Tensor) -> tf.Tensor:
    """The largest of the parts that are connected across faces, of equal ones the one whose first voxel comes first."""
    # Numbers fall along the volume, so that a part keeps that of its first voxel, and bins can be compared in order.
    count = tf.size(mask)
    parts = _spread(_numbered(mask), mask, SPACE)
    sizes = tf.math.bincount(tf.reshape(parts, [-1]), minlength=count + 1, maxlength=count + 1)[1:]
    largest = count - tf.argmax(tf.reverse(sizes, [0]), output_type=tf.int32)
    return tf.logical_and(mask, parts == largest)


def without_small_parts(mask: tf.Tensor, least_voxels: tf.Tensor) -> tf.Tensor:
    """The mask without parts, connected also across edges and corners, of fewer voxels."""

    def step(parts: tf.Tensor, _: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        spread = parts
        for axis in SPACE:
            spread = tf.maximum(spread, tf.maximum(_shifted(spread, axis, -1), _shifted(spread, axis, 1)))
        spread = _along_runs(tf.where(mask, spread, tf.zeros_like(spread)), mask, SPACE)
        return spread, tf.reduce_any(spread != parts)

    parts, _ = tf.while_loop(lambda _, moved: moved, step, (_numbered(mask), tf.reduce_any(mask)))
    count = tf.size(mask)
    sizes = tf.math.bincount(tf.reshape(parts, [-1]), minlength=count + 1, maxlength=count + 1)
    return tf.logical_and(mask, tf.gather(sizes, parts) >= least_voxels)


def _numbered(mask: tf.Tensor) -> tf.Tensor:
    """A number for each voxel of the mask, falling from the first one; 0 outside."""
    numbers = tf.reshape(tf.size(mask) - tf.range(tf.size(mask)), tf.shape(mask))
    return tf.where(mask, numbers, tf.zeros_like(numbers))


def _spread(values: tf.Tensor, mask: tf.Tensor, axes: Sequence[int]) -> tf.Tensor:
    """The largest value (x, y, z) int32 within each part of the mask that is connected along `axes`."""

    def step(values: tf.Tensor, _: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        spread = _along_runs(values, mask, axes)
        return spread, tf.reduce_any(spread != values)

    return tf.while_loop(lambda _, moved: moved, step, (values, tf.reduce_any(mask)))[0]


def _along_runs(values: tf.Tensor, mask: tf.Tensor, axes: Sequence[int]) -> tf.Tensor:
    """The largest value within each run of the mask along the first axis, of these along the next, and so on."""
    for axis in axes:
        order = [k for k in SPACE if k != axis] + [axis]
        inside, found = tf.transpose(mask, order), tf.transpose(values, order)
        before = _shifted(inside, 2, 1)
        # What lies between runs counts to the run before it, with the value 0.
        run = tf.cumsum(tf.reshape(tf.cast(tf.logical_and(inside, tf.logical_not(before)), tf.int32), [-1]))
        found = tf.reshape(tf.where(inside, found, tf.zeros_like(found)), [-1])
        largest = tf.reshape(tf.gather(tf.math.segment_max(found, run), run), tf.shape(inside))
        largest = tf.where(inside, largest, tf.zeros_like(largest))
        values = tf.transpose(largest, [order.index(k) for k in SPACE])
    return values


def _shifted(x: tf.Tensor, axis: int, by: int) -> tf.Tensor:
    """x one voxel further along (by 1) or back (by -1), with False or 0 where nothing comes from."""
    length = tf.shape(x)[axis]
    edge = tf.zeros_like(tf.gather(x, [0], axis=axis))
    begin = [0, 0, 0]
    if by > 0:
        size = [-1, -1, -1]
        size[axis] = length - 1
        return tf.concat([edge, tf.slice(x, begin, size)], axis=axis)
    begin[axis] = 1
    return tf.concat([tf.slice(x, begin, [-1, -1, -1]), edge], axis=axis)
