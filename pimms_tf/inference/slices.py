"""Whole slices at once: what windows of any size with a wide enough border give, without cutting any.

A slice is taken to go on beyond its edges as it ends there, for ever. Windows see the same as soon as their border is
as wide as the network looks, since `segment` then repeats the outermost voxels; what is added here is that nothing is
computed twice. Of each slice only the crop is looked at outside which every row and column repeats its neighbour, so
air of one intensity costs nothing, and neither does a slice that repeats the one before it. A little beyond the crop
the answer repeats itself likewise, so nothing is left out: skipped voxels get the very answer of the network.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import tensorflow as tf
from numpy.typing import ArrayLike

from pimms_tf.data.images import Image
from pimms_tf.data.subjects import Subject, restore
from pimms_tf.inference.segmentation import check_finite, check_scans, labels_of, probabilities_of, repeated
from pimms_tf.models import PIMMS

# Lengths of crops are rounded up to a multiple of this, so that few shapes reach the network.
_STEP = 16


class Reach(NamedTuple):
    """How many voxels before the first and after the last one of a crop its content can change the answer."""

    before: int
    after: int


# crops (b, x, y, scan) float32, scores (b, scan, modality) float32, valid (b, scan) bool
# → logits (b, before + x + after, before + y + after, class)
PredictBeyond = Callable[[np.ndarray, np.ndarray, np.ndarray], ArrayLike]


def reach_of(model: PIMMS) -> Reach:
    """How far the answers of a 2-D model reach beyond what causes them; 17 and 16 voxels with the paper's front-end.

    Two 5×5 kernels and the far voxel of a 2×2 pool in the back-end, two kernels in the front-end.
    """
    backend, *frontend = _kernel_radii(model)
    return Reach(backend + 1 + sum(frontend), backend + sum(frontend))


def logits_beyond(model: PIMMS, crops: tf.Tensor, scores: tf.Tensor, valid: tf.Tensor) -> tf.Tensor:
    """Class logits of slices that repeat their outermost voxels for ever, as far as these logits change.

    Crops (b, x, y, scan), scores (b, scan, modality) and valid (b, scan) give (b, before + x + after, before + y +
    after, class), see `reach_of`; further out, logits repeat the outermost ones. What a modality's absence is decided
    on is the crop.

    Features, too, repeat themselves a little beyond the crop. Each layer is therefore computed only where its input
    changes, and its output is extended for the next one: the costly back-ends look at 9 voxels around the crop and not
    at 34, which is what zero padding would need to stay out of sight.
    """
    backend, first, second = _kernel_radii(model)
    mixed = model.attention(crops, scores, tf.ones_like(valid) if model.null_class else valid)
    available = tf.reduce_any(mixed != 0, axis=(1, 2))  # (b, modality)
    # The pool looks one voxel ahead, so features begin to change one voxel earlier, and the last row lacks a voxel.
    around = _extended(mixed, 0, 0, 2 * backend + 1)
    features = [
        _unless_absent(layer, around[..., m : m + 1], tf.reduce_any(available[:, m]))
        for m, layer in enumerate(model.backends)
    ]
    x = model.abstraction(features, available)
    x = model.frontend.conv_1(_extended(x, backend, backend + 1, 2 * first))
    x = model.frontend.conv_2(_extended(x, first, first, 2 * second))
    return _extended(x, second, second, 0)


def segment_slices(
    predict: PredictBeyond,
    reach: Reach,
    subject: Subject,
    scores: np.ndarray,
    max_voxels: int,
    *,
    axis: int = 2,
    probabilities: bool = False,
    order: int = 0,
) -> Image:
    """The segmentation on the grid of the subject's own files: labels (x, y, z, 1) int32, or probabilities per class.

    Equal to `segment` with windows of any size and a border of at least `reach`, as long as each window shows something
    of each modality that its slice shows: a modality that is zero everywhere counts as missing, in a window or a slice.

    Args:
        predict: as `logits_beyond`.
        max_voxels: of the crops that go to one call; a larger slice goes alone.
        axis: across which slices lie.
        probabilities, order: as in `segment`.

    Raises:
        InputError: the subject has no scan; the model answers with NaN or infinity.
    """
    check_scans(subject, scores)
    keeps_classes = probabilities or order > 0
    slices = np.moveaxis(subject.scans, axis, 0)  # (slice, x, y, scan), x and y standing for the other two axes
    num_slices, *plane = slices.shape[:3]
    distinct, shown_by = _distinct(slices)
    boxes = [_changing(slices, axis=along)[distinct] for along in (1, 2)]
    result = None
    for group in _groups(boxes, max_voxels):
        first, lengths = zip(*(_rounded(box[group]) for box in boxes), strict=True)
        inside = [_clipped(start, start + n, size) for start, n, size in zip(first, lengths, plane, strict=True)]
        crops = np.ascontiguousarray(slices[np.ix_(distinct[group], *inside)])
        given = [repeated(value, len(crops)) for value in (np.asarray(scores, np.float32), subject.valid)]
        logits = np.asarray(predict(crops, *given), np.float32)
        check_finite(logits, subject)
        answers = probabilities_of(logits) if keeps_classes else labels_of(logits)
        if result is None:
            result = np.empty((num_slices, *plane, answers.shape[-1]), answers.dtype)
        begins = [start - reach.before for start in first]
        whole = [
            _clipped(-start, size - start, length)
            for start, size, length in zip(begins, plane, answers.shape[1:3], strict=True)
        ]
        for answer, index in zip(answers, np.arange(len(distinct))[group], strict=True):
            result[shown_by == index] = answer[np.ix_(*whole)]
    image = restore(subject, np.moveaxis(result, 0, axis), order)
    return image if probabilities or not keeps_classes else Image(labels_of(image.data), image.affine, image.original)


def _kernel_radii(model: PIMMS) -> tuple[int, int, int]:
    """Of the back-end's two convolutions together, and of each of the front-end's."""
    backend = model.backends[0]
    kernels = ((backend.conv_1, backend.conv_2), (model.frontend.conv_1,), (model.frontend.conv_2,))
    return tuple(sum(layer.conv.kernel.shape[0] // 2 for layer in layers) for layers in kernels)


def _extended(x: tf.Tensor, before: int, after: int, pad: int) -> tf.Tensor:
    """x (b, x, y, channel) less some voxels on each side, then with its outermost ones `pad` times more."""
    for axis in (1, 2):
        length = tf.shape(x)[axis]
        voxels = tf.range(before - pad, length - after + pad)
        x = tf.gather(x, tf.clip_by_value(voxels, before, length - after - 1), axis=axis)
    return x


def _unless_absent(backend, x: tf.Tensor, is_there: tf.Tensor) -> tf.Tensor:
    """The features of a modality, or zeros without computing anything."""
    features = tf.cond(
        is_there,
        lambda: backend(x),
        lambda: tf.zeros(tf.concat([tf.shape(x)[:-1], [backend.features]], axis=0), backend.compute_dtype),
    )
    features.set_shape((*x.shape[:-1], backend.features))
    return features


def _distinct(slices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The first of each run of equal slices, and for each slice the place of its run among them."""
    begins = np.ones(len(slices), bool)
    begins[1:] = (slices[1:] != slices[:-1]).any(axis=(1, 2, 3))
    return np.flatnonzero(begins), np.cumsum(begins) - 1


def _changing(slices: np.ndarray, axis: int) -> np.ndarray:
    """(slice, 2) start and stop along an axis of what has to be kept for the rest to repeat its outermost voxels."""
    lines = np.moveaxis(slices, axis, 1)  # (slice, line, other, scan)
    differs = (lines[:, 1:] != lines[:, :-1]).any(axis=(2, 3))  # (slice, line - 1)
    if not differs.shape[1]:
        return np.tile([0, 1], (len(slices), 1))
    first, last = np.argmax(differs, axis=1), differs.shape[1] - 1 - np.argmax(differs[:, ::-1], axis=1)
    return np.where(differs.any(axis=1)[:, np.newaxis], np.stack([first, last + 2], axis=1), (0, 1))


def _groups(boxes: list[np.ndarray], max_voxels: int) -> list[slice]:
    """Runs of slices whose crops, all as large as the largest needs, have at most so many voxels together."""
    groups, start = [], 0
    for stop in range(1, len(boxes[0]) + 1):
        if stop == len(boxes[0]) or _voxels(boxes, start, stop + 1) > max_voxels:
            groups.append(slice(start, stop))
            start = stop
    return groups


def _voxels(boxes: list[np.ndarray], start: int, stop: int) -> int:
    return (stop - start) * int(np.prod([_rounded(box[start:stop])[1] for box in boxes]))


def _rounded(box: np.ndarray) -> tuple[int, int]:
    """First voxel and rounded length of what holds all of (slice, 2) starts and stops."""
    start, length = int(box[:, 0].min()), int(box[:, 1].max() - box[:, 0].min())
    return start, -(-length // _STEP) * _STEP


def _clipped(start: int, stop: int, size: int) -> np.ndarray:
    return np.arange(start, stop).clip(0, size - 1)
