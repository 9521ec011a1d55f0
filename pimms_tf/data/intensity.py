"""What a scan's numbers mean: foreground, histogram landmarks, whitening, label codes, and voxels added around it."""

import difflib
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from scipy import ndimage

from pimms_tf.errors import InputError

FOREGROUND_METHODS = ("otsu_plus", "otsu_minus", "threshold_plus", "threshold_minus", "mean_plus")
FUSIONS = ("and", "or", "multi")

# Fractions of the masked voxels at landmarks 1 to 11; landmarks 0 and 12 are at the two cutoffs.
INNER_FRACTIONS = (0.1, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6, 0.7, 0.75, 0.8, 0.9)
# Word of `norm_type` → landmarks used, largest lower and smallest upper cutoff, so that landmarks stay in order.
NORM_TYPES = {
    "percentile": ((0, 1, 2, 4, 5, 6, 7, 8, 10, 11, 12), 0.09, 0.91),
    "quartile": ((0, 3, 6, 9, 12), 0.24, 0.76),
    "median": ((0, 6, 12), 0.09, 0.91),
}
SMALLEST_DEVIATION = 1e-5

Border = int | Sequence[int] | Sequence[Sequence[int]]


def foreground_mask(volume: np.ndarray, method: str, threshold: float = 0.0) -> np.ndarray:
    """Foreground of a volume (x, y, z), bool of the same shape: a threshold, two dilations, holes filled.

    `method` is `threshold_plus` (x > threshold), `threshold_minus` (<), `mean_plus` (x > mean) or `otsu_plus` and
    `otsu_minus`, which use `threshold` only if the volume is zero everywhere. Holes are filled in three dimensions, so
    a single slice keeps its holes.

    Raises:
        InputError: an unknown method, or no voxel is foreground, as in a volume of zeros with `threshold_plus`.
    Source: niftynet/layer/binary_masking.py.

    >>> volume = np.zeros((9, 9, 9))
    >>> volume[3:6, 3:6, 3:6] = 5
    >>> volume[4, 4, 4] = 0
    >>> mask = foreground_mask(volume, "threshold_plus")  # grown, and without holes
    >>> int(mask.sum()), bool(mask[4, 4, 4])
    (171, True)
    """
    _check_word("foreground_type", method, FOREGROUND_METHODS)
    rule, side = method.split("_")
    if rule == "otsu":
        threshold = otsu_threshold(volume) if volume.any() else threshold
    elif rule == "mean":
        threshold = volume.mean(dtype=np.float64)
    mask = volume > threshold if side == "plus" else volume < threshold
    if not mask.any():
        raise InputError(
            f"foreground_type {method} leaves no voxel: values are {volume.min():g} to {volume.max():g}, the threshold"
            f" is {threshold:g}; choose another foreground_type, or check that the scan is not blank"
        )
    return _filled(_dilated(_dilated(mask)))


def foreground_masks(
    scans: np.ndarray, method: str, fusion: str, threshold: float = 0.0, multi_is_empty: bool = False
) -> np.ndarray:
    """Foreground of each scan of (x, y, z, scan), bool of the same shape; a scan of zeros has an empty mask.

    `fusion` over the scans that are not zero: `and` gives all of them the intersection of their masks, `or` the union,
    `multi` leaves each its own. NiftyNet has a fault here that makes every mask of `multi` empty, and with it turns
    whitening off; `multi_is_empty` brings that back.

    Raises:
        InputError: an unknown word, a scan without foreground, or masks that share no voxel.
    Source: niftynet/layer/binary_masking.py.
    """
    _check_word("multimod_foreground_type", fusion, FUSIONS)
    masks = np.moveaxis(np.zeros((scans.shape[-1], *scans.shape[:-1]), bool), 0, -1)
    present = [slot for slot in range(scans.shape[-1]) if scans[..., slot].any()]
    for slot in present:
        try:
            masks[..., slot] = foreground_mask(scans[..., slot], method, threshold)
        except InputError as error:
            raise InputError(f"scan {slot + 1} of {scans.shape[-1]}: {error}") from error
    if fusion == "multi":
        return np.zeros_like(masks) if multi_is_empty else masks
    if len(present) > 1:
        combine = np.logical_and if fusion == "and" else np.logical_or
        fused = combine.reduce([masks[..., slot] for slot in present])
        if not fused.any():
            raise InputError(
                "the foregrounds of the scans share no voxel (multimod_foreground_type and); use multi, or check that"
                " the scans show the same place"
            )
        for slot in present:
            masks[..., slot] = fused
    return masks


def is_centred(volume: np.ndarray) -> bool:
    """Whether a scan was standardised before, so that part of the head, or all around it, lies below 0.

    True if a tenth or more of all that the voxels add up to is below 0. Raw scans are never negative; of scans that
    splines have resampled some hundredths may be.
    """
    sample = volume[::2, ::2, ::2]
    whole = float(np.abs(sample).sum(dtype=np.float64))
    below = -float(np.minimum(sample, 0).sum(dtype=np.float64))
    return below > 0 and below >= 0.1 * whole


def with_zero_background(volume: np.ndarray) -> np.ndarray:
    """A scan that `is_centred`, shifted so that what surrounds the head is 0 and the head above; others as they are.

    The surroundings are the commonest value of the outermost voxels if at least half of them have it, else the lowest
    of all. Whitened within its foreground, the head is then the same as before it was standardised; and the
    surroundings are, too, unless the head alone was standardised, when they end just below its darkest voxel.
    """
    if not is_centred(volume):
        return volume
    faces = np.concatenate([np.take(volume, (0, -1), axis=axis).ravel() for axis in range(3)])
    values, counts = np.unique(faces, return_counts=True)
    lowest, around = volume.min(), values[np.argmax(counts)]
    shifted = volume - lowest
    if 2 * counts.max() >= len(faces):
        if around > lowest:  # the head alone was standardised, and its darkest voxel is not to be lost
            shifted += np.float32(1e-3) * shifted.max()
        shifted[volume == around] = 0
    return shifted


def otsu_threshold(volume: np.ndarray) -> float:
    """Threshold that splits the values into two classes of greatest between-class variance.

    A histogram of 256 bins over all voxels; the result is the centre of the last bin of the lower class, the lowest if
    several are best. Of a constant volume no split is better than another.

    Source: niftynet/layer/binary_masking.py, after Otsu, IEEE Trans Syst Man Cybern 1979;9:62.
    """
    counts, edges = np.histogram(volume, bins=256)
    centres = edges[:-1] + (edges[1] - edges[0]) * 0.5
    sums = counts * centres.astype(np.float64)
    # NiftyNet enters the two outermost bins as if their centres were 1. It shows where the background is far from 0;
    # kept, because its masks are what trained models were whitened with.
    sums[[0, -1]] = counts[[0, -1]]
    lower, upper = np.cumsum(counts)[:-1], np.cumsum(counts[::-1])[-2::-1]
    lower_mean, upper_mean = np.cumsum(sums)[:-1] / lower, np.cumsum(sums[::-1])[-2::-1] / upper
    return float(centres[np.argmax(lower.astype(np.float64) * upper * (lower_mean - upper_mean) ** 2)])


def landmarks(volume: np.ndarray, mask: np.ndarray, cutoff: tuple[float, float]) -> np.ndarray:
    """The 13 landmarks of a histogram, float64: percentiles of the masked voxels, linear between values.

    Fractions: lower cutoff, .1, .2, .25, .3, .4, .5, .6, .7, .75, .8, .9, upper cutoff.

    Raises:
        InputError: an empty mask, or a cutoff that is not 0 <= lower < upper <= 1.
    Source: niftynet/utilities/histogram_standardisation.py; Nyúl et al., IEEE Trans Med Imaging 2000;19:143.
    """
    lower, upper = cutoff
    if not 0 <= lower < upper <= 1:
        raise InputError(f"cutoff {tuple(cutoff)} must be two fractions with 0 <= lower < upper <= 1, as in 0.01,0.99")
    voxels = volume[mask]
    if voxels.size == 0:
        raise InputError("histogram landmarks need foreground voxels, and the mask is empty; check foreground_type")
    return np.percentile(voxels, 100 * np.array([lower, *INNER_FRACTIONS, upper])).astype(np.float64)


def average_landmarks(image_landmarks: Sequence[np.ndarray]) -> np.ndarray:
    """Mapping (13,) float64 of one modality from the landmarks (image, 13) of its training images; from 0 to 100.

    Each image's landmarks are stretched so that its first is 0 and its last 100, then averaged. An image whose two ends
    are equal has no contrast and is left out; NiftyNet takes it and the average becomes meaningless.

    Raises:
        InputError: no image has contrast.
    Source: niftynet/utilities/histogram_standardisation.py `create_mapping_from_multimod_arrayfiles`.
    """
    table = np.asarray(image_landmarks, np.float64).reshape(-1, 2 + len(INNER_FRACTIONS))
    table = table[table[:, -1] != table[:, 0]]
    if not len(table):
        raise InputError(
            "no training image has more than one intensity in its foreground; check images and foreground_type"
        )
    slope = 100 / (table[:, -1] - table[:, 0])
    return np.einsum("i,il->l", slope, table) / len(table) - np.mean(slope * table[:, 0])


def standardise(
    volume: np.ndarray,
    mask: np.ndarray,
    mapping: np.ndarray,
    norm_type: str = "percentile",
    cutoff: tuple[float, float] = (0.01, 0.99),
) -> np.ndarray:
    """The volume, float32, with its histogram landmarks moved onto `mapping` (13,), linear between and beyond them.

    Landmarks are those of the masked voxels; every voxel is mapped. `norm_type` chooses which of the 13 serve: all but
    the quartiles, the quartiles, or the median, always with the two ends. The cutoff is first moved outwards where it
    would cross an inner landmark. Where two landmarks of the volume coincide, the segment between them is flat. A
    volume of zeros, an absent scan, stays zero.

    Raises:
        InputError: an unknown `norm_type`, a mapping of other than 13 values, an empty mask or an impossible cutoff.
    Source: niftynet/utilities/histogram_standardisation.py `transform_by_mapping`.
    """
    _check_word("norm_type", norm_type, tuple(NORM_TYPES))
    if not volume.any():
        return np.zeros(volume.shape, np.float32)
    if np.shape(mapping) != (2 + len(INNER_FRACTIONS),):
        raise InputError(f"a histogram mapping has 13 values, received {np.size(mapping)}; train the mapping anew")
    used, largest_lower, smallest_upper = NORM_TYPES[norm_type]
    cutoff = (min(cutoff[0], largest_lower), max(cutoff[1], smallest_upper))
    source = landmarks(volume, mask, cutoff)[list(used)]
    target = np.asarray(mapping, np.float64)[list(used)]
    steps = np.diff(source)
    slope = np.divide(np.diff(target), steps, out=np.zeros_like(steps), where=steps != 0)
    result = np.empty(volume.shape, np.float32)
    for voxels, mapped in zip(
        np.atleast_2d(volume), np.atleast_2d(result), strict=True
    ):  # float64 for one plane at a time
        segment = np.digitize(voxels, source[1:-1])
        mapped[...] = target[segment] + slope[segment] * (voxels - source[segment])
    return result


def whiten(volume: np.ndarray, mask: np.ndarray | None = None) -> np.ndarray:
    """The volume, float32, less the mean and divided by the standard deviation of its masked voxels (default: all).

    Every voxel is changed, background included. The deviation is the population's and counts as 1e-5 if smaller, so a
    constant volume becomes zero. With an empty mask, as an absent scan has, the values stay as they are.

    Source: niftynet/layer/mean_variance_normalisation.py.

    >>> whiten(np.array([[[1.0, 3.0]]])).tolist()
    [[[-1.0, 1.0]]]
    """
    if mask is not None and not mask.any():
        return volume.astype(np.float32)
    mean = (volume if mask is None else volume[mask]).mean(dtype=np.float64)
    centred = volume.astype(np.float32)
    centred -= np.float32(mean)
    inside = centred if mask is None else centred[mask]
    # The variance about the rounded mean, corrected for the rounding.
    offset = inside.mean(dtype=np.float64)
    variance = np.mean(np.square(inside, dtype=np.float64)) - offset**2  # squares of large values leave float32
    centred -= np.float32(offset)
    centred /= np.float32(max(np.sqrt(max(variance, 0.0)), SMALLEST_DEVIATION))
    return centred


class LabelMapping(NamedTuple):
    """Label codes of the files and the classes they stand for, pair by pair; several codes may share a class."""

    source: tuple[float, ...]
    target: tuple[int, ...]


def label_mapping(labels: Iterable[np.ndarray]) -> LabelMapping:
    """The mapping that numbers all codes found in `labels` from 0 upwards in ascending order.

    Raises:
        InputError: there is no label map.
    Source: niftynet/layer/discrete_label_normalisation.py.
    """
    found = sorted({float(code) for label in labels for code in np.unique(label)})
    if not found:
        raise InputError("label_normalisation needs at least one label map to find the codes in; none was given")
    return LabelMapping(tuple(found), tuple(range(len(found))))


def unlisted_labels(label: np.ndarray, mapping: LabelMapping) -> tuple[float, ...]:
    """The codes of a label map that the mapping does not list, ascending."""
    return tuple(float(code) for code in np.unique(label) if float(code) not in mapping.source)


def map_labels(label: np.ndarray, mapping: LabelMapping) -> np.ndarray:
    """Classes of a label map, int32 of the same shape; a code that is not listed becomes 0, as in NiftyNet.

    Raises:
        InputError: source and target differ in length.
    Source: niftynet/layer/discrete_label_normalisation.py.
    """
    return _recoded(label, mapping.source, mapping.target).astype(np.int32)


def unmap_labels(classes: np.ndarray, mapping: LabelMapping) -> np.ndarray:
    """Label codes of a map of classes, int32 if all codes are whole numbers, else float32.

    If several codes share a class, the last one listed stands for it. A class that is not listed becomes 0.

    Raises:
        InputError: source and target differ in length.
    Source: niftynet/layer/discrete_label_normalisation.py `inverse_op`.
    """
    whole = all(float(code).is_integer() for code in mapping.source)
    return _recoded(classes, mapping.target, mapping.source).astype(np.int32 if whole else np.float32)


def borders_to(shape: Sequence[int], size: Sequence[int]) -> tuple[tuple[int, int], ...]:
    """Voxels (before, after) per axis that bring a volume to `size`; the odd one goes behind, longer axes stay.

    Source: niftynet/layer/pad.py.
    """
    missing = (max(int(wanted) - int(length), 0) for length, wanted in zip(shape, size, strict=False))
    return tuple((number // 2, (number + 1) // 2) for number in missing)


def to_pairs(border: Border) -> tuple[tuple[int, int], ...]:
    """A border as three pairs (before, after); see `pad`.

    Raises:
        InputError: negative numbers, or more than three.
    """
    axes = (border,) * 3 if np.ndim(border) == 0 else tuple(border)
    pairs = tuple((int(axis), int(axis)) if np.ndim(axis) == 0 else (int(axis[0]), int(axis[1])) for axis in axes)
    if len(pairs) > 3 or any(number < 0 for pair in pairs for number in pair):
        raise InputError(f"volume_padding_size {border!r} must be one to three numbers from 0 upwards, as in 16,16,0")
    return pairs + ((0, 0),) * (3 - len(pairs))


def pad(volume: np.ndarray, border: Border, mode: str = "minimum") -> np.ndarray:
    """The volume (x, y, z, ...) with `border` voxels more on both sides of x, y and z.

    `border` is one number for all axes, one for each (0 for those left out), or a pair (before, after) for each. `mode`
    is one of `numpy.pad`; `minimum` takes, axis after axis, the least value along each line, not of the volume. No
    border: the volume itself.

    Raises:
        InputError: a negative border, or a mode `numpy.pad` does not know or cannot apply.
    Source: niftynet/layer/pad.py.
    """
    pairs = to_pairs(border)
    if not any(map(any, pairs)):
        return volume
    try:
        return np.pad(volume, (*pairs, *((0, 0),) * (volume.ndim - 3)), mode=mode)
    except ValueError as error:
        raise InputError(
            f"volume_padding_mode {mode!r} cannot pad {volume.shape[:3]} by {pairs}; use minimum, constant or edge"
        ) from error


def pad_to(volume: np.ndarray, size: Sequence[int], mode: str = "minimum") -> np.ndarray:
    """The volume (x, y, z, ...) padded to at least `size`, the odd voxel behind; see `pad`."""
    return pad(volume, borders_to(volume.shape[:3], size), mode)


def unpad(volume: np.ndarray, border: Border) -> np.ndarray:
    """The volume (x, y, z, ...) without the voxels `pad` added; an axis no longer than its borders stays whole.

    Source: niftynet/layer/pad.py `inverse_op`.
    """
    lengths = zip(volume.shape, to_pairs(border), strict=False)
    return volume[tuple(slice(b, n - a) if b + a < n else slice(None) for n, (b, a) in lengths)]


def _check_word(key: str, word: str, legal: tuple[str, ...]) -> None:
    if word not in legal:
        near = difflib.get_close_matches(str(word), legal, n=1)
        hint = f"did you mean {near[0]}?" if near else f"use one of {', '.join(legal)}"
        raise InputError(f"{key} {word!r} is unknown; {hint}")


def _dilated(mask: np.ndarray) -> np.ndarray:
    """The mask and the neighbours of its voxels across their faces."""
    # The same as scipy's binary_dilation in a tenth of the time.
    grown = mask.copy(order="K")
    for axis in range(mask.ndim):
        source, target = np.moveaxis(mask, axis, 0), np.moveaxis(grown, axis, 0)
        target[1:] |= source[:-1]
        target[:-1] |= source[1:]
    return grown


def _filled(mask: np.ndarray) -> np.ndarray:
    """The mask with every hole filled that no path between neighbouring voxels connects to the volume's faces."""
    # The same as scipy's binary_fill_holes, in one pass instead of one per voxel of depth.
    background, count = ndimage.label(~mask)
    outside = [np.unique(np.take(background, (0, -1), axis=axis)) for axis in range(mask.ndim)]
    is_hole = np.ones(count + 1, bool)
    is_hole[np.concatenate(outside)] = False
    is_hole[0] = True  # 0 is the mask itself
    return is_hole[background] if is_hole[1:].any() else mask


def _recoded(values: np.ndarray, codes: Sequence[float], replacements: Sequence[float]) -> np.ndarray:
    if len(codes) != len(replacements):
        raise InputError(
            f"a label mapping needs as many sources as targets, received {tuple(codes)} and {tuple(replacements)}"
        )
    present, positions = np.unique(values, return_inverse=True)
    table = np.zeros(len(present), np.float64)
    for code, replacement in zip(codes, replacements, strict=True):  # the last of several wins
        table[present == code] = replacement
    return table[positions].reshape(np.shape(values))
