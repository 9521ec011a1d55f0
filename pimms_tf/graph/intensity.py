"""What a scan's numbers mean, `data.intensity` as a graph. A scan is (x, y, z) float32, a mask (x, y, z) bool."""

from collections.abc import Sequence

import tensorflow as tf

from pimms_tf.data.intensity import INNER_FRACTIONS, NORM_TYPES, SMALLEST_DEVIATION
from pimms_tf.graph.checks import checked
from pimms_tf.graph.regions import dilated, filled


def foreground(scan: tf.Tensor, method: str) -> tf.Tensor:
    """Foreground of a scan by a threshold, see `data.intensity.foreground_mask`; InvalidArgument if nothing is."""
    rule, side = method.split("_")
    threshold = {"otsu": otsu_threshold, "mean": _mean, "threshold": lambda _: 0.0}[rule](scan)
    # Whatever decides is rounded as NumPy rounds it where a float32 array meets a float64 scalar.
    values = tf.cast(scan, tf.float64)
    mask = values > threshold if side == "plus" else values < threshold
    text = f"a scan has no voxel of foreground by the rule {method}; check that it is not blank"
    return filled(dilated(checked(mask, tf.reduce_any(mask), text), 2))


def fused(masks: tf.Tensor, valid: tf.Tensor, fusion: str, multi_is_empty: bool) -> tf.Tensor:
    """Masks (scan, x, y, z) of scans that are valid (scan,), as `data.intensity.foreground_masks` joins them."""
    there = valid[:, None, None, None]
    if fusion == "multi":
        return tf.zeros_like(masks) if multi_is_empty else tf.logical_and(masks, there)
    if fusion == "and":
        together = tf.reduce_all(tf.logical_or(masks, tf.logical_not(there)), axis=0)
        text = "the foregrounds of the scans share no voxel; check that all scans show the same place"
        together = checked(together, tf.reduce_any(together), text)
    else:
        together = tf.reduce_any(tf.logical_and(masks, there), axis=0)
    return tf.logical_and(together, there)


def otsu_threshold(scan: tf.Tensor) -> tf.Tensor:
    """The threshold of `data.intensity.otsu_threshold`, float64."""
    values = tf.reshape(scan, [-1])
    low, high = tf.reduce_min(values), tf.reduce_max(values)
    edges = tf.cast(tf.range(256), tf.float32) * ((high - low) / 256) + low
    bins = tf.maximum(tf.searchsorted(edges, values, side="right") - 1, 0)
    counts = tf.cast(tf.math.bincount(bins, minlength=256, maxlength=256), tf.float64)
    centres = tf.cast(edges + (edges[1] - edges[0]) * 0.5, tf.float64)
    ends = tf.logical_or(tf.range(256) == 0, tf.range(256) == 255)
    sums = tf.where(ends, counts, counts * centres)  # as there
    lower, upper = tf.cumsum(counts)[:-1], tf.cumsum(counts, reverse=True)[1:]
    means = tf.cumsum(sums)[:-1] / lower, tf.cumsum(sums, reverse=True)[1:] / upper
    return centres[tf.argmax(lower * upper * tf.square(means[0] - means[1]))]


def percentiles(values: tf.Tensor, fractions: Sequence[float]) -> tf.Tensor:
    """Percentiles (fraction,) float64 of values (n,), linear between them."""
    ordered = tf.sort(values)
    places = tf.constant(fractions, tf.float64) * tf.cast(tf.size(ordered) - 1, tf.float64)
    before = tf.floor(places)
    share = places - before
    first = tf.cast(before, tf.int32)
    low = tf.gather(ordered, first)
    step = tf.cast(tf.gather(ordered, tf.minimum(first + 1, tf.size(ordered) - 1)) - low, tf.float64)
    low = tf.cast(low, tf.float64)
    return tf.where(share < 0.5, low + step * share, low + step - step * (1 - share))


def median(values: tf.Tensor) -> tf.Tensor:
    """The median of values (n,), mean of the middle two of an even number, in their type."""
    ordered, size = tf.sort(values), tf.size(values)
    return (ordered[(size - 1) // 2] + ordered[size // 2]) / 2


def standardised(
    scan: tf.Tensor, mask: tf.Tensor, mapping: tf.Tensor, norm_type: str, cutoff: tuple[float, float]
) -> tf.Tensor:
    """The scan with the landmarks of its masked voxels moved onto `mapping` (13,), see `data.intensity.standardise`."""
    used, largest_lower, smallest_upper = NORM_TYPES[norm_type]
    lower, upper = min(cutoff[0], largest_lower), max(cutoff[1], smallest_upper)
    source = tf.gather(percentiles(tf.boolean_mask(scan, mask), (lower, *INNER_FRACTIONS, upper)), used)
    target = tf.gather(tf.cast(mapping, tf.float64), used)
    steps = source[1:] - source[:-1]
    slope = tf.math.divide_no_nan(target[1:] - target[:-1], steps)
    values = tf.reshape(tf.cast(scan, tf.float64), [-1])
    segment = tf.searchsorted(source[1:-1], values, side="right")
    mapped = tf.gather(target, segment) + tf.gather(slope, segment) * (values - tf.gather(source, segment))
    return tf.reshape(tf.cast(mapped, tf.float32), tf.shape(scan))


def whitened(scan: tf.Tensor, mask: tf.Tensor) -> tf.Tensor:
    """The scan with mean 0 and deviation 1 over the mask, see `data.intensity.whiten`; an empty mask changes nothing.

    InvalidArgument if it is the same everywhere in the mask.
    """
    inside = tf.boolean_mask(scan, mask)
    is_empty = tf.size(inside) == 0
    has_contrast = tf.logical_or(is_empty, tf.reduce_min(inside) < tf.reduce_max(inside))
    text = "a scan is the same in every voxel of the foreground, so it shows nothing; check it, or leave it out"
    inside, scan = checked((inside, scan), has_contrast, text)

    def change() -> tf.Tensor:
        mean = tf.cast(_mean(inside), tf.float32)
        centred = tf.cast(inside - mean, tf.float64)
        offset = tf.reduce_mean(centred)
        variance = tf.maximum(tf.reduce_mean(tf.square(centred)) - tf.square(offset), 0)
        deviation = tf.cast(tf.maximum(tf.sqrt(variance), SMALLEST_DEVIATION), tf.float32)
        return (scan - mean - tf.cast(offset, tf.float32)) / deviation

    return tf.cond(is_empty, lambda: scan, change)


def with_zero_background(scan: tf.Tensor) -> tf.Tensor:
    """A scan that was standardised before, shifted, see `data.intensity.with_zero_background`; others as they are."""
    sample = tf.cast(scan[::2, ::2, ::2], tf.float64)
    below = -tf.reduce_sum(tf.minimum(sample, 0))
    is_centred = tf.logical_and(below > 0, below >= 0.1 * tf.reduce_sum(tf.abs(sample)))

    def shifted() -> tf.Tensor:
        ends = [tf.gather(scan, [0, tf.shape(scan)[axis] - 1], axis=axis) for axis in range(3)]
        faces = tf.sort(tf.concat([tf.reshape(face, [-1]) for face in ends], axis=0))
        values, _, counts = tf.unique_with_counts(faces)
        lowest, around = tf.reduce_min(scan), values[tf.argmax(counts)]
        raised = scan - lowest
        more = raised + 1e-3 * tf.reduce_max(raised)
        blanked = tf.where(scan == around, tf.zeros_like(scan), tf.where(around > lowest, more, raised))
        return tf.where(2 * tf.reduce_max(counts) >= tf.size(faces), blanked, raised)

    return tf.cond(is_centred, shifted, lambda: scan)


def _mean(values: tf.Tensor) -> tf.Tensor:
    return tf.reduce_mean(tf.cast(values, tf.float64))
