"""Central slices of scans, and a volume segmented slice by slice, as a graph."""

import numpy as np
import tensorflow as tf

from pimms_tf.graph.intensity import median
from pimms_tf.inference.slices import logits_beyond, reach_of
from pimms_tf.models import PIMMS

_STEP = 16  # lengths of crops are multiples of it, so that few shapes reach the network


def central_slices(scans: tf.Tensor, num_slices: int) -> tf.Tensor:
    """(slice, x, y, scan) of scans (scan, x, y, z): slices spread over the middle half of what each scan shows.

    Source: as `inference.segmentation.modality_scores` chooses them.
    """
    num_slices = tf.minimum(num_slices, tf.shape(scans)[3])

    def of_one(scan: tf.Tensor) -> tf.Tensor:
        coarse = scan[::2, ::2]
        shown = tf.abs(coarse - median(tf.reshape(coarse, [-1])))
        shown = tf.reduce_sum(tf.cast(shown, tf.float64), axis=(0, 1))
        cumulated = tf.cumsum(tf.cond(tf.reduce_any(shown != 0), lambda: shown, lambda: tf.ones_like(shown)))
        count = tf.cast(num_slices, tf.float64)
        shares = 0.25 + 0.5 * (tf.cast(tf.range(num_slices), tf.float64) + 0.5) / count
        places = tf.math.count_nonzero(cumulated < shares[:, None] * cumulated[-1], axis=1, dtype=tf.int32)
        return tf.gather(scan, places, axis=2)

    chosen = tf.map_fn(of_one, scans, parallel_iterations=1)  # (scan, x, y, slice)
    return tf.ensure_shape(tf.transpose(chosen, (3, 1, 2, 0)), (None, None, None, None))


def segmented_slices(
    model: PIMMS, scans: tf.Tensor, scores: tf.Tensor, valid: tf.Tensor, axis: int, threshold: float | None
) -> tuple[tf.Tensor, tf.Tensor]:
    """Probability of not being background float32 and class uint8, (x, y, z), of scans (scan, x, y, z).

    As `inference.slices.segment_slices`: each slice goes on for ever as it ends, and only the crop is computed outside
    which it repeats itself. The best class is taken, or with a `threshold` the best but background where these have
    that much together.
    """
    reach = reach_of(model)
    others = [k for k in range(3) if k != axis]
    slices = tf.transpose(scans, (1 + axis, 1 + others[0], 1 + others[1], 0))  # (slice, x, y, scan)
    plane = tf.shape(slices)[1:3]

    def one(place: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        crop, begins = slices[place], []
        for along in range(2):
            start, length = _changing(crop, along)
            crop = tf.gather(crop, tf.clip_by_value(start + tf.range(length), 0, plane[along] - 1), axis=along)
            begins.append(start - reach.before)
        logits = tf.cast(logits_beyond(model, crop[None], scores[None], valid[None])[0], tf.float32)
        probabilities = tf.nn.softmax(logits)
        if threshold is None:
            best = tf.argmax(logits, axis=-1, output_type=tf.int32)
        else:
            marked = 1 - probabilities[..., 0] >= np.float32(threshold)
            best = tf.where(marked, 1 + tf.argmax(probabilities[..., 1:], axis=-1, output_type=tf.int32), 0)
        answers = tf.reduce_sum(probabilities[..., 1:], axis=-1), tf.cast(best, tf.uint8)
        for along in range(2):
            voxels = tf.range(plane[along]) - begins[along]
            voxels = tf.clip_by_value(voxels, 0, tf.shape(answers[0])[along] - 1)
            answers = tuple(tf.gather(answer, voxels, axis=along) for answer in answers)
        return answers

    answers = tf.map_fn(
        one, tf.range(tf.shape(slices)[0]), fn_output_signature=(tf.float32, tf.uint8), parallel_iterations=1
    )
    back = [[axis, *others].index(k) for k in range(3)]
    return tuple(tf.transpose(tf.ensure_shape(answer, (None, None, None)), back) for answer in answers)


def _changing(plane: tf.Tensor, axis: int) -> tuple[tf.Tensor, tf.Tensor]:
    """Start and rounded length of what has to be kept of (x, y, scan) for the rest to repeat its outermost voxels."""
    lines = tf.transpose(plane, (axis, 1 - axis, 2))
    differs = tf.where(tf.reduce_any(lines[1:] != lines[:-1], axis=(1, 2)))[:, 0]

    def found() -> tuple[tf.Tensor, tf.Tensor]:
        first, last = tf.cast(differs[0], tf.int32), tf.cast(differs[-1], tf.int32)
        return first, (last + 2 - first + _STEP - 1) // _STEP * _STEP

    return tf.cond(tf.size(differs) > 0, found, lambda: (tf.constant(0), tf.constant(1)))
