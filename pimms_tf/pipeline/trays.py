"""Batch, and trays: batches as arrays that threads fill with windows, cut straight from the volumes they come from."""

import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from pimms_tf.data.moving import MovedVolume, Volume
from pimms_tf.errors import InputError

if TYPE_CHECKING:
    import tensorflow as tf

    Values = tf.Tensor | np.ndarray


class Batch(NamedTuple):
    """Windows of training: tensors, or arrays on their way to becoming tensors.

    `scans` (batch, *space, scan) float32, `valid` (batch, scan) bool, `modality` (batch, scan) int32, -1 for unknown,
    `label` (batch, *space) int32. `space` is what is left of x, y, z without axes of length 1; while a tray is filled
    it has all three.
    """

    scans: "Values"
    valid: "Values"
    modality: "Values"
    label: "Values"


class Visit(NamedTuple):
    """Windows of one subject, not yet cut: slot j of window i is to hold scan order[i, j], where it is ``shown``."""

    scans: Volume  # (x, y, z, scan)
    label: Volume | None  # (x, y, z)
    locations: list[list[int]]
    order: np.ndarray  # (window, slot)
    shown: np.ndarray  # (window, slot) bool
    modality: np.ndarray  # (window, slot)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Voxels along x, y and z of a window, and its slots."""
        x0, y0, z0, x1, y1, z1 = self.locations[0]
        return x1 - x0, y1 - y0, z1 - z0, self.order.shape[1]

    def cut(self, windows: Sequence[int], target: Batch, rows: Sequence[int]) -> None:
        """Writes these windows into rows of a batch of the same shape, whose scans and labels are zero there."""
        target.valid[rows], target.modality[rows] = self.shown[windows], self.modality[windows]
        for window, row in zip(windows, rows, strict=True):
            x0, y0, z0, x1, y1, z1 = self.locations[window]
            place = slice(x0, x1), slice(y0, y1), slice(z0, z1)
            scans, slots = target.scans[row], np.flatnonzero(self.shown[window])
            if isinstance(self.scans, MovedVolume):  # which computes all scans of a window together
                scans[..., slots] = self.scans[(*place, self.order[window, slots])]
            else:
                for slot in slots.tolist():
                    scans[..., slot] = self.scans[(*place, self.order[window, slot])]
            if self.label is not None:
                target.label[row] = self.label[place]


class Tray:
    """A batch that several threads fill, each its own rows, straight from the volumes."""

    def __init__(self, num: int, empty_modality: int) -> None:
        self._num, self._empty_modality = num, empty_modality
        self._batch: Batch | None = None
        self._parts: list[tuple[Sequence[int], Batch]] = []
        self._taking = threading.Lock()

    def fill(self, rows: Sequence[int], visit: Visit, windows: Sequence[int]) -> None:
        """Cuts windows of a visit into these rows."""
        with self._taking:
            if self._batch is None:
                self._batch = _zeros(self._num, visit.shape, self._empty_modality)
            fits = self._batch.scans.shape[1:] == visit.shape
            part = self._batch if fits else _zeros(len(rows), visit.shape, self._empty_modality)
            self._parts.append((rows, part))
        visit.cut(windows, part, rows if fits else range(len(rows)))

    def batch(self) -> Batch:
        """The batch once every row is filled, without axes of length 1."""
        batch = self._batch
        if any(part is not batch for _, part in self._parts):
            batch = self._gathered()
        space = tuple(length for length in batch.label.shape[1:] if length != 1)
        return batch._replace(
            scans=batch.scans.reshape(self._num, *space, batch.scans.shape[-1]),
            label=batch.label.reshape(self._num, *space),
        )

    def _gathered(self) -> Batch:
        """The batch with as many slots as its richest subject."""
        spaces = {tuple(n for n in part.label.shape[1:] if n != 1) for _, part in self._parts}
        if len(spaces) > 1:
            raise InputError(
                f"windows of one batch have the sizes {' and '.join(map(str, sorted(spaces)))}: give every axis of "
                "spatial_window_size a length above 0, or use batch_size = 1"
            )
        largest = max((part.scans.shape[1:] for _, part in self._parts), key=lambda shape: shape[-1])
        batch = _zeros(self._num, largest, self._empty_modality)
        for rows, part in self._parts:
            source = list(rows) if part is self._batch else slice(None)
            for target, values in zip(batch[:3], part[:3], strict=True):
                target[list(rows), ..., : values.shape[-1]] = values[source]
            batch.label[list(rows)] = part.label[source]
        return batch


def _zeros(num: int, shape: tuple[int, int, int, int], empty_modality: int) -> Batch:
    """Arrays for ``num`` windows (x, y, z, slot) that hold nothing yet."""
    *space, slots = shape
    return Batch(
        scans=np.zeros((num, *space, slots), np.float32),
        valid=np.zeros((num, slots), bool),
        modality=np.full((num, slots), empty_modality, np.int32),
        label=np.zeros((num, *space), np.int32),
    )


def check_locations(shape: tuple[int, ...], locations: np.ndarray) -> None:
    """Nothing, for windows of one size inside the volume."""
    extents = locations[:, 3:] - locations[:, :3]
    if (extents != extents[0]).any():
        raise ValueError(f"windows of one visit must have one size, received {np.unique(extents, axis=0).tolist()}")
    outside = (locations[:, :3] < 0) | (extents <= 0) | (locations[:, 3:] > shape[:3])
    if outside.any():
        location = locations[outside.any(axis=1)][0].tolist()
        raise InputError(f"location {tuple(location)} is not inside the volume {tuple(shape[:3])}")
