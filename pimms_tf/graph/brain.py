"""Where the brain is: the network and the rules of `data.brain` as a graph."""

import numpy as np
import tensorflow as tf

from pimms_tf.data.brain import ALIKE, FAINT, FAR, LEVELS, NEAR_MM, ROUNDING, SPACING_MM, STRIPPED, brain_weights
from pimms_tf.graph.grids import spacing_of, turn_to, turned, turned_affine, turned_back
from pimms_tf.graph.intensity import median, percentiles
from pimms_tf.graph.regions import SPACE, dilated, eroded, filled, largest_part, widened


class Brains:
    """The brain by any of some scans (scan, x, y, z) of one head, each of which the network looks at once."""

    def __init__(self, scans: tf.Tensor, affine: tf.Tensor, threshold: float = 0.5) -> None:
        shape = tf.shape(scans)[1:]
        self._turn = turn_to(("L", "P", "S"), affine, shape)
        self._spacing_mm = spacing_of(turned_affine(affine, self._turn, shape))
        self._scans = turned(scans, self._turn)
        self._least_logit = float(np.log(threshold / (1 - threshold)))
        shape, spacing_mm = tf.shape(self._scans)[1:], self._spacing_mm
        coarse_shape = [_coarse_length(shape[axis], spacing_mm[axis]) for axis in SPACE]
        down = [_averaging(shape[axis], spacing_mm[axis], coarse_shape[axis]) for axis in SPACE]
        self._up = [_between(shape[axis], spacing_mm[axis], coarse_shape[axis]) for axis in SPACE]
        weights = {name: tf.constant(value) for name, value in brain_weights().items()}
        self._coarse = tf.map_fn(lambda scan: _separable(scan, down), self._scans, parallel_iterations=1)

        def logits(scan: tf.Tensor) -> tf.Tensor:
            is_there = tf.reduce_any(scan != 0)
            return tf.cond(is_there, lambda: _logits(_scaled(scan), weights), lambda: tf.zeros_like(scan))

        self._logits = tf.map_fn(logits, self._coarse, parallel_iterations=1)

    def by(self, valid: tf.Tensor) -> tf.Tensor:
        """The brain, bool (x, y, z), as those scans show it that are valid (scan,); no other has a say."""
        is_first = _first_of_equals(self._scans, valid)
        scans = tf.boolean_mask(self._scans, is_first)
        says = _shares(tf.boolean_mask(self._coarse, is_first))
        logits = says[:, None, None, None] * tf.boolean_mask(self._logits, is_first)
        logits = tf.reduce_sum(logits, axis=0) / tf.reduce_sum(says)
        found = _one_body(_separable(logits, self._up) > self._least_logit)
        mask = tf.cond(tf.reduce_any(found), lambda: _stripped(scans, says, self._spacing_mm, found), lambda: found)
        return turned_back(mask[None], self._turn)[0]


def brain_mask(scans: tf.Tensor, valid: tf.Tensor, affine: tf.Tensor, threshold: float = 0.5) -> tf.Tensor:
    """The brain, bool (x, y, z), of scans (scan, x, y, z) of which those are looked at that are valid (scan,)."""
    return Brains(scans, affine, threshold).by(valid)


def _first_of_equals(scans: tf.Tensor, valid: tf.Tensor) -> tf.Tensor:
    """(scan,) bool: those that are valid and equal to none before them."""

    def is_first(place: tf.Tensor) -> tf.Tensor:
        equals = tf.reduce_all(scans[:place] == scans[place], axis=(1, 2, 3))
        is_there = tf.reduce_any(tf.logical_and(equals, valid[:place]))
        return tf.logical_and(valid[place], tf.logical_not(is_there))

    places = tf.range(tf.shape(scans)[0])
    return tf.map_fn(is_first, places, fn_output_signature=tf.bool, parallel_iterations=1)


def _shares(coarse: tf.Tensor) -> tf.Tensor:
    """(scan,): 1, divided by how many of all scans are nearly the same."""
    flat = tf.cast(tf.reshape(coarse, [tf.shape(coarse)[0], -1]), tf.float64)
    flat -= tf.reduce_mean(flat, axis=1, keepdims=True)
    length = tf.norm(flat, axis=1)
    alike = tf.matmul(flat, flat, transpose_b=True) > ALIKE * length[:, None] * length
    alike = tf.linalg.set_diag(alike, tf.ones_like(length, tf.bool))
    return 1.0 / tf.cast(tf.math.count_nonzero(alike, axis=1), tf.float32)


def _stripped(scans: tf.Tensor, says: tf.Tensor, spacing_mm: tf.Tensor, found: tf.Tensor) -> tf.Tensor:
    def shows(scan: tf.Tensor) -> tf.Tensor:
        darkest = tf.cast(percentiles(tf.reshape(scan[::4, ::4], [-1]), (0.01,))[0], tf.float32)
        return scan - darkest > FAINT * (median(tf.boolean_mask(scan, found)) - darkest)

    votes = tf.map_fn(shows, scans, fn_output_signature=tf.bool, parallel_iterations=1)
    votes = tf.reduce_sum(tf.cast(votes, tf.float32) * says[:, None, None, None], axis=0)
    shown = 2 * votes > tf.reduce_sum(says) + ROUNDING
    num_shown, num_found = (tf.cast(tf.math.count_nonzero(mask), tf.float64) for mask in (shown, found))

    def edge() -> tf.Tensor:
        near = found
        for axis in SPACE:
            steps = tf.maximum(tf.cast(tf.round(NEAR_MM / spacing_mm[axis]), tf.int32), 1)
            near = widened(near, axis, steps)
        opened = dilated(eroded(tf.logical_and(shown, near), 2), 2)
        far = tf.cast(tf.math.count_nonzero(tf.logical_and(shown, tf.logical_not(near))), tf.float64)
        both = tf.logical_or(opened, tf.logical_and(shown, found))
        return tf.cond(far > FAR * num_found, lambda: found, lambda: _one_body(both))

    return tf.cond(num_shown > STRIPPED * num_found, lambda: found, edge)


def _scaled(coarse: tf.Tensor) -> tf.Tensor:
    values = tf.reshape(coarse, [-1])
    low = tf.cast(percentiles(values, (0.01,))[0], tf.float32)
    bright = tf.boolean_mask(values, tf.cast(values, tf.float64) > tf.reduce_mean(tf.cast(values, tf.float64)))
    high = tf.cond(
        tf.size(bright) > 0, lambda: tf.cast(percentiles(bright, (0.95,))[0], tf.float32), lambda: low + 1.0
    )
    return tf.clip_by_value((coarse - low) / tf.maximum(high - low, 1e-6), -0.5, 2.0)


def _logits(coarse: tf.Tensor, weights: dict[str, tf.Tensor]) -> tf.Tensor:
    shape = tf.shape(coarse)
    missing = tf.math.floormod(-shape, 2**LEVELS)
    x, kept = tf.pad(coarse, tf.stack([tf.zeros_like(missing), missing], axis=1))[None, ..., None], []

    def layer(x: tf.Tensor, name: str) -> tf.Tensor:
        y = tf.nn.conv3d(x, weights[name + "/kernel"], [1] * 5, "SAME")
        return tf.nn.relu(y + weights[name + "/bias"])

    for level in range(LEVELS):
        x = layer(layer(x, f"down_{level}_0"), f"down_{level}_1")
        kept.append(x)
        x = tf.nn.max_pool3d(x, 2, 2, "VALID")
    x = layer(layer(x, "bottom_0"), "bottom_1")
    for level in reversed(range(LEVELS)):
        for axis in (1, 2, 3):
            x = tf.repeat(x, 2, axis)
        x = layer(tf.concat([x, kept[level]], axis=-1), f"up_{level}")
    x = tf.einsum("bxyzi,io->bxyzo", x, weights["head/kernel"]) + weights["head/bias"]
    return tf.slice(x[0, ..., 0], [0, 0, 0], shape)


def _coarse_length(length: tf.Tensor, spacing_mm: tf.Tensor) -> tf.Tensor:
    return tf.maximum(tf.cast(tf.math.ceil(tf.cast(length, tf.float64) * spacing_mm / SPACING_MM), tf.int32), 1)


def _averaging(length: tf.Tensor, spacing_mm: tf.Tensor, num_coarse: tf.Tensor) -> tf.Tensor:
    fine = (tf.cast(tf.range(length), tf.float64) + 0.5) * spacing_mm
    coarse = (tf.cast(tf.range(num_coarse), tf.float64) + 0.5) * SPACING_MM
    weights = tf.maximum(1 - tf.abs(coarse[:, None] - fine) / tf.maximum(spacing_mm, SPACING_MM), 0)
    total = tf.reduce_sum(weights, axis=1, keepdims=True)
    last = tf.one_hot(length - 1, length, dtype=tf.float64)
    return tf.cast(tf.where(total == 0, last, weights / tf.where(total == 0, tf.ones_like(total), total)), tf.float32)


def _between(length: tf.Tensor, spacing_mm: tf.Tensor, num_coarse: tf.Tensor) -> tf.Tensor:
    position = (tf.cast(tf.range(length), tf.float64) + 0.5) * spacing_mm / SPACING_MM - 0.5
    position = tf.clip_by_value(position, 0, tf.cast(num_coarse - 1, tf.float64))
    return tf.cast(tf.maximum(1 - tf.abs(position[:, None] - tf.cast(tf.range(num_coarse), tf.float64)), 0), tf.float32)


def _separable(volume: tf.Tensor, matrices: list[tf.Tensor]) -> tf.Tensor:
    for equation, matrix in zip(("ax,xyz->ayz", "by,xyz->xbz", "cz,xyz->xyc"), matrices, strict=True):
        volume = tf.einsum(equation, matrix, volume)
    return volume


def _one_body(mask: tf.Tensor) -> tf.Tensor:
    return filled(largest_part(mask), axes=(0, 1))
