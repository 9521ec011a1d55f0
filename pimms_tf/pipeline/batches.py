"""Datasets of batches: subjects loaded, augmented and cut into windows by threads, in an order of their own.

What comes when is decided in `schedule`, from the seed and a counter alone: results are equal for every number of
threads, and a run resumed after k batches sees what the uninterrupted run would have seen.
"""

import functools
import itertools
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import tensorflow as tf

from pimms_tf.data.moving import Volume
from pimms_tf.data.slots import Curriculum, draw_hidden, missing_slots
from pimms_tf.data.subjects import UNKNOWN, Subject
from pimms_tf.errors import InputError
from pimms_tf.pipeline.memory import SubjectCache
from pimms_tf.pipeline.schedule import Schedule
from pimms_tf.pipeline.trays import Batch, Tray, Visit, check_locations
from pimms_tf.pipeline.workers import Workers
from pimms_tf.wording import counted

DEFAULT_CACHE_BYTES = 4 * 2**30

Augment = Callable[[Subject, np.random.Generator], Subject]
Locate = Callable[[Subject, np.random.Generator], np.ndarray]


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
                raise InputError("there is no label: add its file, or leave the subject out of training")
            if self.augment is not None:
                subject = self.augment(subject, rng)
            locations = np.asarray(self.locate(subject, rng))
        if locations.ndim != 2 or locations.shape[0] == 0 or locations.shape[1] != 6:
            raise ValueError(f"locations must be (n, 6) with n > 0, received {locations.shape}")
        return subject, locations

    def visit(self, index: int, rng: np.random.Generator, dropping: Callable[[int], np.ndarray]) -> Visit:
        """What one visit shows and where; scans are hidden only in ``dropping`` rows."""
        subject, locations = self.located(index, rng)
        num, num_scans = len(locations), len(subject.valid)
        with _naming(subject):
            slots = num_scans + (0 if self.max_slots is None else missing_slots(subject, self.max_slots))
            shown = np.zeros((num, slots), bool)
            shown[:, :num_scans] = subject.valid
            hidden = draw_hidden(shown[:, :num_scans], rng, self.curriculum)
            shown[:, :num_scans] &= ~(hidden & dropping(num)[:, np.newaxis])
            order = np.tile(np.arange(slots), (num, 1))
            if self.permute:
                order = rng.permuted(order, axis=1)
            check_locations(subject.scans.shape, locations)
        modality = np.full(slots, self.empty_modality, np.int32)
        modality[:num_scans] = subject.modality
        return Visit(
            _quick(subject.scans),
            None if subject.label is None else _quick(subject.label),
            locations.tolist(),
            order,
            np.take_along_axis(shown, order, axis=1),
            modality[order],
        )


@dataclass(frozen=True)
class _Run:
    """What the batches of a run are made of."""

    schedule: Schedule
    recipe: _Recipe
    batch_size: int
    start: int
    num_batches: int | None
    warmup: int
    num_threads: int
    # The rows of each batch that are made here, start and stop; a process of several makes its own alone.
    rows: tuple[int, int]

    @property
    def num_rows(self) -> int:
        """How many windows of each batch are made here."""
        return self.rows[1] - self.rows[0]

    def makes(self, places: np.ndarray) -> np.ndarray:
        """Whether the windows at these places of the whole run are made here."""
        rows = places % self.batch_size
        return (places >= self.start * self.batch_size) & (rows >= self.rows[0]) & (rows < self.rows[1])


class _Pass:
    """One pass over the batches of a run, as arrays; its threads begin at once and end when it is stopped or over."""

    def __init__(self, run: _Run) -> None:
        self._run, self._trays, self._taking, self._visited = run, {}, threading.Lock(), 0
        schedule = run.schedule
        self._blocks = functools.partial(schedule.block_numbers_from, run.start * run.batch_size)
        agenda = (visit for block in self._blocks() for visit in self._needed(block))
        self._workers: Workers[None] = Workers(self._visit, agenda, 2 * schedule.visits_per_block, run.num_threads)

    def stop(self) -> None:
        """Lets the threads go."""
        self._workers.stop()

    def filled(self) -> tuple[int, int]:
        """Of the windows of the first queue those that are made, and all."""
        first = self._needed(next(iter(self._blocks()), 0))
        per_visit = self._run.schedule.windows_per_visit
        return min(self._visited, len(first)) * per_visit, len(first) * per_visit

    def batches(self) -> Iterator[Batch]:
        """The batches, from the first of the run on; stops the threads."""
        try:
            yield from itertools.islice(self._endless(), self._run.num_batches)
        finally:
            self.stop()
        self._run.recipe.cache.clear()

    def _endless(self) -> Iterator[Batch]:
        schedule, size = self._run.schedule, self._run.batch_size
        number = self._run.start
        for block in self._blocks():
            needed = self._needed(block)
            for visit in needed:
                self._workers.take(visit)
            finished = (schedule.visits(block).stop * schedule.windows_per_visit) // size
            for batch in range(number, finished):
                yield self._trays.pop(batch).batch()
            number = max(number, finished)
            self._workers.release(len(needed))

    def _needed(self, block: int) -> list[int]:
        """The visits of a block with a window that is made here and has not been delivered before the run."""
        windows = self._run.schedule.windows(block)
        first = self._run.schedule.visits(block).start * self._run.schedule.windows_per_visit
        return np.unique(windows[self._run.makes(np.arange(first, first + len(windows))), 0]).tolist()

    def _visit(self, number: int) -> None:
        run = self._run
        places = run.schedule.places(number)

        def dropping(num: int) -> np.ndarray:
            if num != run.schedule.windows_per_visit:
                raise ValueError(
                    f"locate gave {num} windows, but {run.schedule.windows_per_visit} for the first subject"
                )
            return places >= run.warmup * run.batch_size

        visit = run.recipe.visit(run.schedule.subject(number), run.schedule.generator(number), dropping)
        batches, rows = np.divmod(places, run.batch_size)
        made = run.makes(places)
        for batch in np.unique(batches[made]).tolist():
            windows = np.flatnonzero(made & (batches == batch))
            self._tray(batch).fill((rows[windows] - run.rows[0]).tolist(), visit, windows.tolist())
        with self._taking:
            self._visited += 1

    def _tray(self, number: int) -> Tray:
        with self._taking:
            if number not in self._trays:
                self._trays[number] = Tray(self._run.num_rows, self._run.recipe.empty_modality)
            return self._trays[number]


class BatchDataset(tf.data.Dataset):
    """A tf.data.Dataset of Batch that Python threads feed; made by `training_batches` and `validation_batches`.

    Datasets derived from it go through from_generator, which replaces an exception by one of its own and waits
    for the generator when an iterator is given up, be that minutes. Iterating this one does neither.
    """

    def __init__(self, run: _Run, rank: int, prefetch: int, keep: bool = False) -> None:
        self._run, self._rank, self._prefetch = run, rank, max(prefetch, 1)
        self._keep, self._kept = keep, None
        self._begun: _Pass | None = None
        num, slots, space = run.num_rows, run.recipe.max_slots, (None,) * rank
        self._generated = tf.data.Dataset.from_generator(
            lambda: self._arrays(self._begin()),
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

    def rows(self, start: int, stop: int) -> "BatchDataset":
        """Rows `start` to `stop` (exclusive) of the same batches; only what these windows need is loaded."""
        if not 0 <= start < stop <= self._run.batch_size:
            raise ValueError(f"rows {start} to {stop} are not among the {self._run.batch_size} of a batch")
        return BatchDataset(replace(self._run, rows=(start, stop)), self._rank, self._prefetch, self._keep)

    def subjects_of(self, number: int) -> list[int]:
        """The positions of the subjects in a batch, which is counted from 0 at the start of the run; loads nothing."""
        return self._run.schedule.subjects_in(number * self._run.batch_size, self._run.batch_size)

    def filled(self) -> tuple[int, int]:
        """Of the windows of the first queue of the latest pass those that are made, and all; 0 of 0 before any."""
        return (0, 0) if self._begun is None else self._begun.filled()

    def _inputs(self) -> list[tf.data.Dataset]:
        return [self._generated]

    @property
    def element_spec(self) -> Batch:
        return self._generated.element_spec

    def __iter__(self) -> Iterator[Batch]:
        return self._tensors() if tf.executing_eagerly() else super().__iter__()

    def _tensors(self) -> Iterator[Batch]:
        begun = self._begin()
        arrays = self._arrays(begun)

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
            if begun is not None:
                begun.stop()

    def _begin(self) -> _Pass | None:
        self._begun = _Pass(self._run) if self._kept is None else None
        return self._begun

    def _arrays(self, begun: _Pass | None) -> Iterator[Batch]:
        if begun is None:
            yield from self._kept
            return
        seen = []
        for batch in begun.batches():
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
            windows = counted(len(locations), "window")
            raise InputError(
                f"{counted(len(subjects), f'subject of {windows} does', f'subjects of {windows} do')} not fill one "
                f"batch of {batch_size}: lower batch_size or raise sample_per_volume"
            )
        left = max(available - start, 0)
        num_batches = left if num_batches is None else min(num_batches, left)

    run = _Run(schedule, recipe, batch_size, start, num_batches, warmup, num_threads, rows=(0, batch_size))
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
    **options: bool | int | None,
) -> BatchDataset:
    """A dataset of exactly ``num_batches`` of Batch, the same in every pass, so that validations can be compared.

    Arguments and ``options`` are those of `training_batches`; ``augment`` is for what every window needs, such as
    resizing. The first complete pass leaves all batches in memory, and later ones load nothing.

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
        num_batches=num_batches,
        **options,
    )
    return training.kept()


def _quick(volume: Volume) -> Volume:
    """The volume as it is quickest to cut: a map of a file is slow to slice, the array in it is not."""
    return np.asarray(volume) if isinstance(volume, np.memmap) else volume


@contextmanager
def _naming(subject: Subject) -> Iterator[None]:
    try:
        yield
    except InputError as error:
        raise error.within(subject=subject.subject_id) from error
