"""Batch, and datasets of batches: subjects loaded, augmented and cut into windows by threads, in an order of their own.

What comes when is decided in `visits`, from the seed and a counter alone: results are equal for every number of
threads, and a run resumed after k batches sees what the uninterrupted run would have seen.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol

import numpy as np
import tensorflow as tf

from pimms_tf.data.augmentation import Curriculum, draw_hidden, missing_slots
from pimms_tf.data.subjects import UNKNOWN, Subject
from pimms_tf.data.visits import Schedule, SubjectCache, Workers
from pimms_tf.data.windows import crop
from pimms_tf.errors import InputError

DEFAULT_CACHE_BYTES = 4 * 2**30

Augment = Callable[[Subject, np.random.Generator], Subject]
Locate = Callable[[Subject, np.random.Generator], np.ndarray]


class Batch(NamedTuple):
    """Windows of training: tensors, or arrays on their way to becoming tensors.

    `scans` (batch, *space, scan) float32, `valid` (batch, scan) bool, `modality` (batch, scan) int32, -1 for unknown,
    `label` (batch, *space) int32. `space` is what is left of x, y, z without axes of length 1.
    """

    scans: tf.Tensor
    valid: tf.Tensor
    modality: tf.Tensor
    label: tf.Tensor


class Loader(Protocol):
    """What prepares subjects, such as a SubjectLoader."""

    def load(self, images: dict, subject_id: str) -> Subject: ...


@dataclass(frozen=True)
class _Recipe:
    """How a subject becomes windows."""

    cache: SubjectCache
    augment: Augment | None
    locate: Locate
    curriculum: Curriculum
    permute: bool
    max_slots: int | None
    empty_modality: int
    label_required: bool

    def located(self, index: int, rng: np.random.Generator) -> tuple[Subject, np.ndarray]:
        """The augmented subject and where to cut it."""
        subject = self.cache.get(index)
        with _naming(subject):
            if self.label_required and subject.label is None:
                raise InputError(
                    f"subject {subject.subject_id} has no label: add its file, or leave the subject out of training"
                )
            if self.augment is not None:
                subject = self.augment(subject, rng)
            locations = np.asarray(self.locate(subject, rng))
        if locations.ndim != 2 or locations.shape[0] == 0 or locations.shape[1] != 6:
            raise ValueError(f"locations must be (n, 6) with n > 0, received {locations.shape}")
        return subject, locations

    def windows(self, index: int, rng: np.random.Generator, dropping: Callable[[int], np.ndarray]) -> Batch:
        """The windows of one visit, (n, *space, slot) and so on; scans are hidden only in ``dropping`` rows."""
        subject, locations = self.located(index, rng)
        num, num_scans = len(locations), len(subject.valid)
        with _naming(subject):
            slots = num_scans + (0 if self.max_slots is None else missing_slots(subject, self.max_slots))
            shown = np.tile(subject.valid, (num, 1))
            hidden = draw_hidden(shown, rng, self.curriculum)
            shown &= ~(hidden & dropping(num)[:, np.newaxis])
            order = np.tile(np.arange(slots), (num, 1))
            if self.permute:
                order = rng.permuted(order, axis=1)
            scans = _cut_scans(subject.scans, locations, shown, order)
            label = np.zeros(scans.shape[:-1], np.int32)
            if subject.label is not None:
                for row, location in enumerate(locations):
                    label[row] = crop(subject.label, location)
        padding = slots - num_scans
        shown = np.pad(shown, [(0, 0), (0, padding)])
        modality = np.pad(subject.modality, (0, padding), constant_values=self.empty_modality)
        space = tuple(length for length in label.shape[1:] if length != 1)
        return Batch(
            scans.reshape(num, *space, slots),
            np.take_along_axis(shown, order, axis=1),
            modality.astype(np.int32)[order],
            label.reshape(num, *space),
        )


@dataclass(frozen=True)
class _Run:
    """The batches of a run as arrays."""

    schedule: Schedule
    recipe: _Recipe
    batch_size: int
    start: int
    num_batches: int | None
    warmup: int
    num_threads: int

    def workers(self) -> Workers[Batch]:
        """Threads that make the windows of the visits still needed, one block ahead."""
        agenda = (visit for block in self._blocks() for visit in _visits(block))
        return Workers(self._visit, agenda, 2 * self.schedule.visits_per_block, self.num_threads)

    def batches(self, workers: Workers[Batch]) -> Iterator[Batch]:
        """The batches, of arrays, from ``start`` on; stops the workers."""
        try:
            yield from itertools.islice(self._endless(workers), self.num_batches)
        finally:
            workers.stop()
        self.recipe.cache.clear()

    def _endless(self, workers: Workers[Batch]) -> Iterator[Batch]:
        waiting: list[tuple[Batch, int]] = []
        for block in self._blocks():
            made = {visit: workers.take(visit) for visit in _visits(block)}
            for visit, row in block.tolist():
                waiting.append((made[visit], row))
                if len(waiting) == self.batch_size:
                    yield _gathered(waiting, self.recipe.empty_modality)
                    waiting.clear()
            workers.release(len(made))

    def _visit(self, number: int) -> Batch:
        schedule = self.schedule

        def dropping(num: int) -> np.ndarray:
            if num != schedule.windows_per_visit:
                raise ValueError(f"locate gave {num} windows, but {schedule.windows_per_visit} for the first subject")
            if self.warmup == 0:
                return np.ones(num, bool)
            return schedule.places(number) >= self.warmup * self.batch_size

        return self.recipe.windows(schedule.subject(number), schedule.generator(number), dropping)

    def _blocks(self) -> Iterator[np.ndarray]:
        return self.schedule.blocks_from(self.start * self.batch_size)


class BatchDataset(tf.data.Dataset):
    """A tf.data.Dataset of Batch that Python threads feed; made by `training_batches` and `validation_batches`.

    Datasets derived from it go through from_generator, which replaces an exception by one of its own and waits
    for the generator when an iterator is given up, be that minutes. Iterating this one does neither.
    """

    def __init__(self, run: _Run, rank: int, prefetch: int, keep: bool = False) -> None:
        self._run, self._rank, self._prefetch = run, rank, max(prefetch, 1)
        self._keep, self._kept = keep, None
        num, slots, space = run.batch_size, run.recipe.max_slots, (None,) * rank
        self._generated = tf.data.Dataset.from_generator(
            lambda: self._pass(run.workers() if self._kept is None else None),
            output_signature=Batch(
                scans=tf.TensorSpec((num, *space, slots), tf.float32),
                valid=tf.TensorSpec((num, slots), tf.bool),
                modality=tf.TensorSpec((num, slots), tf.int32),
                label=tf.TensorSpec((num, *space), tf.int32),
            ),
        )
        super().__init__(self._generated._variant_tensor)

    def kept(self) -> "BatchDataset":
        """The same batches, held in memory by the first complete pass."""
        return BatchDataset(self._run, self._rank, self._prefetch, keep=True)

    def subjects_of(self, number: int) -> list[int]:
        """The positions of the subjects in a batch, which is counted from 0 at the start of the run; loads nothing."""
        return self._run.schedule.subjects_in(number * self._run.batch_size, self._run.batch_size)

    def _inputs(self) -> list[tf.data.Dataset]:
        return [self._generated]

    @property
    def element_spec(self) -> Batch:
        return self._generated.element_spec

    def __iter__(self) -> Iterator[Batch]:
        return self._tensors() if tf.executing_eagerly() else super().__iter__()

    def _tensors(self) -> Iterator[Batch]:
        workers = self._run.workers() if self._kept is None else None
        arrays = self._pass(workers)

        def assembled(_: int) -> Batch | None:
            batch = next(arrays, None)
            with tf.device("/CPU:0"):
                return None if batch is None else Batch(*map(tf.convert_to_tensor, batch))

        ahead = Workers(assembled, itertools.count(), self._prefetch, num_threads=1)
        try:
            for number in itertools.count():
                batch = ahead.take(number)
                if batch is None:
                    return
                ahead.release(1)
                yield batch
        finally:
            ahead.stop()
            if workers is not None:
                workers.stop()

    def _pass(self, workers: Workers[Batch] | None) -> Iterator[Batch]:
        if workers is None:
            yield from self._kept
            return
        seen = []
        for batch in self._run.batches(workers):
            if self._keep:
                seen.append(batch)
            yield batch
        if self._keep:
            self._kept = seen


def training_batches(
    subjects: Sequence,
    loader: Loader | Callable[[object], Subject],
    augment: Augment | None,
    locate: Locate,
    batch_size: int,
    seed: int,
    num_threads: int,
    *,
    queue_length: int = 0,
    curriculum: Curriculum = "intended",
    drop: bool = True,
    warmup: int = 0,
    permute: bool = False,
    max_slots: int | None = None,
    empty_modality: int = UNKNOWN,
    label_required: bool = True,
    repeat: bool = True,
    num_batches: int | None = None,
    start: int = 0,
    prefetch: int = 2,
    cache_bytes: int = DEFAULT_CACHE_BYTES,
) -> BatchDataset:
    """A dataset of Batch: windows of shuffled subjects, mixed in a queue; the same for every number of threads.

    One subject is loaded, augmented and located here, to learn how many windows a visit gives and their rank. Iterating
    starts ``num_threads`` threads; iterating again starts from the same batch again. An exception in a thread ends the
    iteration as itself, an InputError as an InputError; only a dataset derived from this one (`map`, `cache`, one
    distributed by a strategy) wraps it in a tf.errors.OpError that quotes it.

    Args:
        subjects: what ``loader`` takes, SubjectFiles for a SubjectLoader; with ``load`` it is asked for
            ``load(images, subject_id=...)``, else it is called with the item.
        augment: (subject, rng) -> Subject, or None.
        locate: (subject, rng) -> locations (n, 6), all of one size; n is the same for every subject.
        queue_length: windows that are mixed; at least five batches' worth, as in NiftyNet.
        curriculum: how many scans are hidden in each window (`draw_hidden`), unless ``drop`` is False or the window
            belongs to the first ``warmup`` batches of the run.
        permute: whether each window has its slots, absent ones included, in an order of its own.
        max_slots: slots that absent scans of ``empty_modality`` fill up; None: as many as the batch's richest subject.
        label_required: False gives subjects without label one of zeros, for training that ignores it.
        repeat: whether epochs follow without end; else one epoch, its last incomplete batch dropped.
        num_batches: a limit, None for none; at the end of a limited pass all subjects are forgotten.
        start: batches already consumed, left out without loading anything for them.
        prefetch: finished batches kept ready.
        cache_bytes: memory for prepared subjects between visits. Besides, two queues of windows are held.

    Raises: InputError for no subjects, too few windows for one batch, numbers out of range, and for mistakes in the
        first subject; while iterating, for mistakes in others.
    """
    for name, value, least in (
        ("batch_size", batch_size, 1),
        ("seed", seed, 0),
        ("num_threads", num_threads, 1),
        ("start", start, 0),
        ("warmup", warmup, 0),
    ):
        if value < least:
            raise InputError(f"{name} = {value} is too small: it must be at least {least}")
    if not len(subjects):
        raise InputError("there are no subjects to cut windows from: check the input sections and the split file")
    load = (lambda item: loader.load(item.images, subject_id=item.subject_id)) if hasattr(loader, "load") else loader
    cache = SubjectCache(subjects, load, cache_bytes)
    recipe = _Recipe(
        cache, augment, locate, curriculum if drop else "none", permute, max_slots, empty_modality, label_required
    )
    schedule = Schedule(seed, len(subjects), num_visits=None if repeat else len(subjects))
    _, locations = recipe.located(schedule.subject(0), schedule.generator(0))
    queue = max(queue_length, 5 * batch_size)
    schedule = replace(schedule, windows_per_visit=len(locations), visits_per_block=-(-queue // len(locations)))
    if not repeat:
        available = len(subjects) * len(locations) // batch_size
        if available == 0:
            raise InputError(
                f"{len(subjects)} subjects of {len(locations)} windows do not fill one batch of {batch_size}: lower "
                "batch_size or raise sample_per_volume"
            )
        left = max(available - start, 0)
        num_batches = left if num_batches is None else min(num_batches, left)

    run = _Run(schedule, recipe, batch_size, start, num_batches, warmup, num_threads)
    rank = np.count_nonzero(locations[0, 3:] - locations[0, :3] != 1)
    return BatchDataset(run, int(rank), prefetch)


def validation_batches(
    subjects: Sequence,
    loader: Loader | Callable[[object], Subject],
    augment: Augment | None,
    locate: Locate,
    batch_size: int,
    seed: int,
    num_threads: int,
    num_batches: int,
    *,
    curriculum: Curriculum = "none",
    permute: bool = False,
    max_slots: int | None = None,
    empty_modality: int = UNKNOWN,
    label_required: bool = True,
    prefetch: int = 2,
    cache_bytes: int = DEFAULT_CACHE_BYTES,
) -> BatchDataset:
    """A dataset of exactly ``num_batches`` of Batch, the same in every pass, so that validations can be compared.

    Arguments are those of `training_batches`; ``augment`` is for what every window needs, such as resizing. The first
    complete pass leaves all batches in memory, and later ones load nothing.

    Raises: as `training_batches`.
    """
    training = training_batches(
        subjects,
        loader,
        augment,
        locate,
        batch_size,
        seed,
        num_threads,
        curriculum=curriculum,
        permute=permute,
        max_slots=max_slots,
        empty_modality=empty_modality,
        label_required=label_required,
        num_batches=num_batches,
        prefetch=prefetch,
        cache_bytes=cache_bytes,
    )
    return training.kept()


def _visits(block: np.ndarray) -> list[int]:
    return np.unique(block[:, 0]).tolist()


@contextmanager
def _naming(subject: Subject) -> Iterator[None]:
    try:
        yield
    except InputError as error:
        if f"subject {subject.subject_id}" in str(error):
            raise
        raise InputError(f"subject {subject.subject_id}: {error}") from error


def _gathered(windows: list[tuple[Batch, int]], empty_modality: int) -> Batch:
    spaces = {part.label.shape[1:] for part, _ in windows}
    if len(spaces) > 1:
        raise InputError(
            f"windows of one batch have the sizes {' and '.join(map(str, sorted(spaces)))}: give every axis of "
            "spatial_window_size a length above 0, or use batch_size = 1"
        )
    (space,) = spaces
    num, slots = len(windows), max(part.valid.shape[1] for part, _ in windows)
    batch = Batch(
        scans=np.zeros((num, *space, slots), np.float32),
        valid=np.zeros((num, slots), bool),
        modality=np.full((num, slots), empty_modality, np.int32),
        label=np.empty((num, *space), np.int32),
    )
    for row, (part, source) in enumerate(windows):
        for target, values in zip(batch[:3], part[:3], strict=True):
            target[row, ..., : values.shape[-1]] = values[source]
        batch.label[row] = part.label[source]
    return batch


def _cut_scans(scans: np.ndarray, locations: np.ndarray, shown: np.ndarray, order: np.ndarray) -> np.ndarray:
    """Windows (n, x, y, z, slot) of ``scans``: slot j is scan order[:, j] where there is one and it is ``shown``."""
    extents = locations[:, 3:] - locations[:, :3]
    if (extents != extents[0]).any():
        raise ValueError(f"windows of one visit must have one size, received {np.unique(extents, axis=0).tolist()}")
    num_scans, slots = scans.shape[-1], order.shape[1]
    windows = np.zeros((len(locations), *extents[0], slots), np.float32)
    for row, location in enumerate(locations):
        window = crop(scans, location)
        for slot, scan in enumerate(order[row]):
            if scan < num_scans and shown[row, scan]:
                windows[row, ..., slot] = window[..., scan]
    return windows
