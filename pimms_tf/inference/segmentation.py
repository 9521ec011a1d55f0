"""From a prepared subject to its segmentation: score scans, cut windows, predict, paste, go back to the file's grid.

Networks are callables here, so that anything with their shapes will do, a `tf.function` around a model for instance.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from pimms_tf.data.images import Image
from pimms_tf.data.subjects import Subject, restore
from pimms_tf.data.windows import GridAggregator, check_border, crop, grid_locations
from pimms_tf.errors import InputError
from pimms_tf.wording import counted

# scans (b, *space, scan) float32, valid (b, scan) bool → probabilities (b, scan, modality)
Classify = Callable[[np.ndarray, np.ndarray], ArrayLike]
# scans (b, *space, scan) float32, scores (b, scan, modality) float32 or None, valid (b, scan) bool
# → logits (b, *space, class)
Predict = Callable[[np.ndarray, np.ndarray | None, np.ndarray], ArrayLike]

Axes3 = tuple[int, int, int]


def modality_scores(
    classify: Classify,
    subject: Subject,
    num_slices: int = 11,
    *,
    spatial_rank: int = 2,
    batch_size: int | None = None,
) -> np.ndarray:
    """Probability of each modality for each scan, (scan, modality) float32; rows of absent scans are zero.

    A 2-D classifier sees `num_slices` slices across z of each scan and its probabilities are averaged; a 3-D classifier
    sees the whole volume. Slices are spread over the central half of what each scan shows, so padding does not count,
    and scans may begin and end anywhere. All slices go to one call of `classify`, or `batch_size` of them to each.
    Reused for every window, the scores send all windows of a scan to the same back-ends.

    Raises:
        InputError: `num_slices` or `batch_size` is below 1.
    Source: central slices as in the released 3-D code, but probabilities are averaged instead of logits.
    """
    if num_slices < 1:
        raise InputError(f"num_slices is {num_slices}; the modality of a scan needs at least 1 slice")
    windows = subject.scans[np.newaxis]
    if spatial_rank == 2:
        slices = _central_slices(subject.scans, num_slices)
        windows = np.moveaxis(np.take_along_axis(subject.scans, slices[np.newaxis, np.newaxis], axis=2), 2, 0)
    batch_size = len(windows) if batch_size is None else _checked_batch_size(batch_size)
    total = 0.0
    for start in range(0, len(windows), batch_size):
        batch = windows[start : start + batch_size]
        scores = np.asarray(classify(batch, repeated(subject.valid, len(batch))), np.float32)
        total = total + scores.sum(axis=0)
    return np.where(subject.valid[:, np.newaxis], total / np.float32(len(windows)), np.float32(0))


def label_scores(subject: Subject, num_modalities: int) -> np.ndarray:
    """The known modalities as scores, (scan, modality) float32 of zeros and ones; rows of absent scans are zero.

    Raises:
        InputError: a scan is there but its modality is unknown or not below `num_modalities`.
    Source: HeMIS, whose slots are modalities.
    """
    for scan, (modality, valid) in enumerate(zip(subject.modality, subject.valid, strict=True)):
        if valid and not 0 <= modality < num_modalities:
            known = "unknown" if modality < 0 else f"{modality}, and the model has modalities 0 to {num_modalities - 1}"
            raise InputError(
                f"the modality of scan {scan} of subject {subject.subject_id} is {known}; "
                "name the modality of each scan, or use a model with a classifier"
            )
    classes = np.arange(num_modalities)
    return ((subject.modality[:, np.newaxis] == classes) & subject.valid[:, np.newaxis]).astype(np.float32)


def segment(
    predict: Predict,
    subject: Subject,
    scores: np.ndarray | None,
    window: Axes3,
    border: Axes3,
    batch_size: int = 1,
    *,
    spatial_rank: int = 2,
    probabilities: bool = False,
    order: int = 0,
    fill: float = 0.0,
    pads_edges: bool = True,
) -> Image:
    """The segmentation on the grid of the subject's own files: labels (x, y, z, 1) int32, or probabilities per class.

    Windows lie on NiftyNet's grid, lose `border` on each side and overwrite each other; labels or probabilities are
    taken before that. `predict` gets exactly `batch_size` windows each time, the first ones again where they run out,
    so a compiled function is traced once. A model with a single class is taken as it is, without softmax.

    Args:
        scores: (scan, modality), used for all windows; None lets `predict` score each window on its own.
        window, border: voxels along x, y and z of the prepared grid. 0 is the full axis. A 2-D model sees slices, so
            one entry of `window` must be 1, for axial slices the last; without any the last full axis is taken slice by
            slice, as NiftyNet's 2-D networks accept (100, 100, 0).
        probabilities: (x, y, z, class) float32 instead of labels.
        order: of the splines on the way back (`output_interp_order`). Above 0, labels are the best of the resampled
            probabilities, as labels themselves must not be interpolated.
        fill: value of voxels that no window covers (`fill_constant`); labels of `order` above 0 are 0 there.
        pads_edges: by default the volume grows by `border` on each side, less the loader's padding, and to `window`
            where it is smaller, repeating its outermost voxels; so each voxel is covered and any volume will do. (The
            line's minimum, with which NiftyNet pads, suits raw intensities; after whitening it can be darker than the
            background.) A full axis has no seams: its border is neither added nor cut. False is NiftyNet: voxels within
            `border` of the edge are `fill`, and the first windows, where they fill the last batch, are pasted again.

    Raises:
        InputError: the subject has no scan; a border leaves nothing of the window; a 2-D model is given thick windows;
            the window is larger than the volume and `pads_edges` is False; the model answers with NaN or infinity.
    Source: niftynet/engine/sampler_grid_v2.py, windows_aggregator_grid.py.
    """
    shape = subject.scans.shape[:3]
    slice_axis = axis_across(window, shape) if spatial_rank == 2 else None
    if slice_axis is not None and window[slice_axis] <= 0:
        window = tuple(1 if axis == slice_axis else size for axis, size in enumerate(window))
        border = tuple(0 if axis == slice_axis else voxels for axis, voxels in enumerate(border))
    tiling = _tiling(subject, window, border, pads_edges)
    check_scans(subject, scores)
    keeps_classes = probabilities or order > 0
    scans = subject.scans
    if any(sum(sides) for sides in tiling.padding):
        scans = np.pad(scans, (*tiling.padding, (0, 0)), mode="edge")
    aggregator = GridAggregator(scans.shape[:3], tiling.border, fill)
    locations = grid_locations(scans.shape[:3], tiling.window, tiling.border)
    for start in range(0, len(locations), _checked_batch_size(batch_size)):
        batch = locations[np.arange(start, start + batch_size) % len(locations)]
        windows = np.stack([crop(scans, location) for location in batch])
        if slice_axis is not None:
            windows = windows.squeeze(1 + slice_axis)
        given = None if scores is None else repeated(np.asarray(scores, np.float32), batch_size)
        logits = np.asarray(predict(windows, given, repeated(subject.valid, batch_size)), np.float32)
        check_finite(logits, subject)
        answers = probabilities_of(logits) if keeps_classes else labels_of(logits)
        if slice_axis is not None:
            answers = np.expand_dims(answers, 1 + slice_axis)
        num_pasted = min(batch_size, len(locations) - start) if pads_edges else batch_size
        for answer, location in zip(answers[:num_pasted], batch[:num_pasted], strict=True):
            aggregator.add(answer, location)
    inside = tuple(slice(before, before + length) for (before, _), length in zip(tiling.padding, shape, strict=True))
    image = restore(subject, aggregator.result()[inside], order)
    return image if probabilities or not keeps_classes else Image(labels_of(image.data), image.affine, image.original)


class _Tiling(NamedTuple):
    window: Axes3
    border: Axes3
    padding: tuple[tuple[int, int], ...]  # voxels before and after, per axis


def _tiling(subject: Subject, window: Axes3, border: Axes3, pads_edges: bool) -> _Tiling:
    shape = subject.scans.shape[:3]
    is_full = [size <= 0 for size in window]
    if pads_edges:
        border = tuple(0 if full else b for b, full in zip(border, is_full, strict=True))
    window = tuple(n if full else size for n, full, size in zip(shape, is_full, window, strict=True))
    check_border(window, border)
    if pads_edges:
        axes = zip(shape, window, border, subject.padding, strict=True)
        return _Tiling(window, border, tuple(_padding(*axis) for axis in axes))
    if any(size > n for size, n in zip(window, shape, strict=True)):
        raise InputError(
            f"window {window} is larger than volume {tuple(shape)} of subject {subject.subject_id}; choose a smaller "
            "window, write 0 for the full length of an axis, or let the volume be padded"
        )
    return _Tiling(window, border, ((0, 0),) * 3)


def _padding(length: int, size: int, border: int, there: tuple[int, int]) -> tuple[int, int]:
    """Voxels before and after that complete what is there already to the border, and the axis to the window."""
    before, after = (max(border - voxels, 0) for voxels in there)
    missing = max(size - length - before - after, 0)
    return before + missing // 2, after + missing - missing // 2


def axis_across(window: Axes3, shape: Axes3) -> int:
    """The axis of a volume along which a window is one voxel thick, the last of several, else the last full axis.

    Raises: InputError if it is thick everywhere.
    """
    lengths = [n if size <= 0 else size for size, n in zip(window, shape, strict=True)]
    for is_it in (lambda axis: lengths[axis] == 1, lambda axis: window[axis] <= 0):
        for axis in (2, 1, 0):
            if is_it(axis):
                return axis
    raise InputError(f"window {tuple(window)} is thick, but a 2-D model sees slices; write 1 for z: (100, 100, 1)")


def check_finite(logits: np.ndarray, subject: Subject) -> None:
    """Refuses logits that are NaN or infinite."""
    if not np.isfinite(logits).all():
        raise InputError(
            f"the model answers subject {subject.subject_id} with NaN or infinity; its training has diverged or "
            "its precision is too low, so take an earlier checkpoint or float32"
        )


def check_scans(subject: Subject, scores: np.ndarray | None) -> None:
    """Refuses a subject without scans, or with another number of scans than scores."""
    if not np.any(subject.valid):
        raise InputError(f"subject {subject.subject_id} has no scan that is not blank, so there is nothing to segment")
    if scores is not None and len(scores) != len(subject.valid):
        raise InputError(
            f"subject {subject.subject_id} has {counted(len(subject.valid), 'scan')} and scores for {len(scores)}; "
            "each needs one"
        )


def _checked_batch_size(batch_size: int) -> int:
    if batch_size < 1:
        raise InputError(f"batch_size is {batch_size}; it must be at least 1")
    return batch_size


def repeated(values: np.ndarray, count: int) -> np.ndarray:
    """(count, …) with the same values in each row, as a view."""
    return np.broadcast_to(values, (count, *np.shape(values)))


def probabilities_of(logits: np.ndarray) -> np.ndarray:
    """(…, class) softmax of logits; a single class as it is."""
    if logits.shape[-1] == 1:
        return logits
    exponentials = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return exponentials / exponentials.sum(axis=-1, keepdims=True)


def labels_of(scores: np.ndarray) -> np.ndarray:
    """(…, 1) int32 index of the best class, the first of equals; a single class as it is."""
    if scores.shape[-1] == 1:
        return scores
    return np.argmax(scores, axis=-1, keepdims=True).astype(np.int32)


def _central_slices(scans: np.ndarray, num_slices: int) -> np.ndarray:
    """(slice, scan) z of slices at even steps through the middle half of what each scan shows.

    What a slice shows is its distance from the scan's median, which is the background, or near it, in most scans.
    """
    num_slices = min(num_slices, scans.shape[2])
    # Each by itself and in one layout, so that sums round alike whatever lies beside it.
    coarse = np.ascontiguousarray(np.moveaxis(scans[::2, ::2], -1, 0))
    shown = [np.abs(scan - np.median(scan)).sum(axis=(0, 1), dtype=np.float64) for scan in coarse]
    shown = np.stack(shown, axis=-1)  # (z, scan)
    shown = np.where(shown.any(axis=0), shown, 1.0)
    cumulated = np.cumsum(shown, axis=0)
    shares = 0.25 + 0.5 * (np.arange(num_slices) + 0.5) / num_slices
    return (cumulated[np.newaxis] < np.multiply.outer(shares, cumulated[-1])[:, np.newaxis]).sum(axis=1)
