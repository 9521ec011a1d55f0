"""The order in which a network takes the scans of a subject: that of their content, in whichever order they come."""

from typing import NamedTuple

import keras
from keras import KerasTensor, ops


class Slots(NamedTuple):
    """The scans of each subject, sorted. Slots that are not valid come last and hold zeros."""

    scans: KerasTensor  # (b, slot, *space)
    valid: KerasTensor  # (b, slot) bool
    scores: KerasTensor | None  # (b, slot, modality)
    place: KerasTensor  # (b, scan) int32: the slot of each scan, of equal scans the first one's


def by_content(scans, valid, scores=None) -> Slots:
    """Returns scans (b, *space, scan), valid (b, scan) and scores (b, scan, modality), if any, sorted by their content.

    Sums round, and so do convolutions, by the place of an image in its batch. Whatever takes the scans in this order
    gives the same bits for all orders in which they come.

    The first voxel in which two scans differ decides between them, then the first score. So only equals tie, and these
    may change places. Both signs of zero are one value, and NaN counts as infinity. TensorFlow leaves out the last
    slots if no subject of the batch has a scan for them; backends without dynamic shapes keep them.
    """
    scans, valid = ops.convert_to_tensor(scans), ops.convert_to_tensor(valid)
    num_scans = ops.shape(scans)[-1]
    rank = len(scans.shape) - 2
    scans = ops.transpose(scans, (0, rank + 1, *range(1, rank + 1)))  # (b, scan, *space)
    batch, _, *space = ops.shape(scans)
    there = ops.logical_and(ops.reshape(valid, (batch, num_scans, *(1,) * rank)), ops.not_equal(scans, 0))
    scans = ops.where(there, scans, ops.zeros_like(scans))
    # What comes first decides: 4 outweighs 2 and 1 together.
    sign = 4 * _comparison(ops.cast(ops.logical_not(valid), "float32")[:, :, None, None])
    sign = sign + 2 * _comparison(ops.reshape(scans, (batch, num_scans, -1, space[-1])))
    if scores is not None:
        scores = ops.where(valid[..., None], scores, ops.zeros_like(scores))
        sign = sign + _comparison(scores[:, :, None])
    first = ops.sum(ops.cast(sign < 0, "int32"), axis=1)  # (b, scan): how many lie before it
    numbers = ops.arange(num_scans)
    equals_before = ops.logical_and(ops.equal(sign, 0), numbers[:, None] < numbers)
    order = ops.argsort(first + ops.sum(ops.cast(equals_before, "int32"), axis=1), axis=-1)  # (b, slot)
    if keras.backend.backend() == "tensorflow":
        num_slots = ops.maximum(ops.max(ops.sum(ops.cast(valid, "int32"), axis=-1)), 1)
        order = order[:, :num_slots]
        first = ops.minimum(first, num_slots - 1)
    rows = ops.reshape(order + num_scans * ops.arange(batch)[:, None], (-1,))
    scans = ops.take(ops.reshape(scans, (batch * num_scans, *space)), rows, axis=0)
    scans = ops.reshape(scans, (batch, -1, *space))
    valid = ops.take_along_axis(valid, order, axis=1)
    if scores is not None:
        scores = rows_at(scores, order)
    return Slots(scans, valid, scores, first)


def rows_at(x, places):
    """Returns (b, n, value): of x (b, slot, value), the slots that places (b, n) int32 name.

    As rows of a matrix: TensorFlow complains on the error stream of the transposed indices of `take_along_axis`.
    """
    batch, num_slots, length = ops.shape(x)
    rows = places + num_slots * ops.arange(batch, dtype="int32")[:, None]
    taken = ops.take(ops.reshape(x, (batch * num_slots, length)), ops.reshape(rows, (-1,)), axis=0)
    return ops.reshape(taken, (batch, -1, length))


def _comparison(x):
    """Returns (b, i, j): -1 where x[:, i] comes before x[:, j], 0 where they are equal, else 1.

    x is (b, scan, line, value). Lines are compared first and values of the one that differs then, which is cheaper than
    looking for a value among all.
    """
    x = ops.where(ops.isnan(x), ops.full_like(x, float("inf")), x)
    differs = ops.any(ops.not_equal(x[:, :, None], x[:, None]), axis=-1)
    at = ops.argmax(ops.cast(differs, "int32"), axis=-1)  # (b, i, j); ONNX has no argmax of truths
    batch, num_scans, num_lines, length = ops.shape(x)
    lines = ops.reshape(x, (batch * num_scans, num_lines, length))
    ours = rows_at(lines, ops.reshape(at, (batch * num_scans, num_scans)))
    ours = ops.reshape(ours, (batch, num_scans, num_scans, length))  # (b, i, j, value): the line of scan i
    theirs = ops.transpose(ours, (0, 2, 1, 3))
    at = ops.argmax(ops.cast(ops.not_equal(ours, theirs), "int32"), axis=-1)
    ours = ops.take_along_axis(ours, at[..., None], axis=-1)[..., 0]
    theirs = ops.transpose(ours, (0, 2, 1))
    return ops.cast(ours > theirs, "int32") - ops.cast(ours < theirs, "int32")
