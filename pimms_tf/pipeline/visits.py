"""Who is visited when, by which thread, and what is remembered: the clockwork below `pipeline`, without TensorFlow.

Everything random follows from (seed, number of the item), never from timing. A *visit* is one subject loaded,
augmented and cut into its windows; visit v belongs to epoch v // subjects, whose order is a permutation of its own. A
*block* is as many visits as fill the queue; its windows are shuffled together, and handed out while the next block is
made. So the k-th window of a run, and with it the batch at which to resume, is known without loading anything.

    subjects  c a b | b c a | ...          one permutation per epoch
    visits    0 1 2 3 | 4 5 6 7 | ...      blocks of four
    windows   shuffled | shuffled          batches of consecutive windows, also across blocks
"""

import atexit
import functools
import itertools
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

import numpy as np

from pimms_tf.data.subjects import Subject

Result = TypeVar("Result")

# Every mapped file keeps a file descriptor, of which a process has 1024 unless told otherwise; training and validation
# each have a cache.
MAX_MAPPED = 256

_EPOCH, _BLOCK, _VISIT = range(3)  # kinds of items, so that their generators differ


@dataclass(frozen=True)
class Schedule:
    """Which window comes when: a pure function of the seed.

    `num_visits` is None for an endless run. The last block of a finite run may be smaller.
    """

    seed: int
    num_subjects: int
    windows_per_visit: int = 1
    visits_per_block: int = 1
    num_visits: int | None = None

    def subject(self, visit: int) -> int:
        """The position of the visited subject; each epoch visits every subject once."""
        epoch, position = divmod(visit, self.num_subjects)
        return int(_epoch_order(self.seed, epoch, self.num_subjects)[position])

    def generator(self, visit: int) -> np.random.Generator:
        """The source of everything random in a visit."""
        return np.random.default_rng((self.seed, _VISIT, visit))

    def windows(self, block: int) -> np.ndarray:
        """The windows of a block (window, 2) in the order of their delivery: visit, and row among its windows."""
        order, _ = _block_order(self.seed, block, self._visits_in(block) * self.windows_per_visit)
        visit, row = np.divmod(order, self.windows_per_visit)
        return np.stack([block * self.visits_per_block + visit, row], axis=-1)

    def visits(self, block: int) -> range:
        """The visits of a block."""
        first = block * self.visits_per_block
        return range(first, first + self._visits_in(block))

    def _visits_in(self, block: int) -> int:
        if self.num_visits is None:
            return self.visits_per_block
        return min(self.visits_per_block, self.num_visits - block * self.visits_per_block)

    def places(self, visit: int) -> np.ndarray:
        """The place in the whole run of each window of a visit."""
        block, position = divmod(visit, self.visits_per_block)
        _, place = _block_order(self.seed, block, self._visits_in(block) * self.windows_per_visit)
        first = position * self.windows_per_visit
        first_of_block = block * self.visits_per_block * self.windows_per_visit
        return first_of_block + place[first : first + self.windows_per_visit]

    def subjects_in(self, window: int, num: int) -> list[int]:
        """The positions of the subjects that `num` windows from a place of the run on come from, ascending."""
        windows = (tuple(row) for block in self.blocks_from(window) for row in block.tolist())
        return sorted({self.subject(visit) for visit, _ in itertools.islice(windows, num)})

    def blocks_from(self, window: int) -> Iterator[np.ndarray]:
        """The blocks from the one that holds a place of the run, the first without the windows before that place."""
        skipped = window % (self.visits_per_block * self.windows_per_visit)
        for block in self.block_numbers_from(window):
            yield self.windows(block)[skipped:]
            skipped = 0

    def block_numbers_from(self, window: int) -> Iterable[int]:
        """The numbers of the blocks from the one that holds a place of the run."""
        first = window // (self.visits_per_block * self.windows_per_visit)
        if self.num_visits is None:
            return itertools.count(first)
        return range(first, -(-self.num_visits // self.visits_per_block))


class SubjectCache:
    """Prepared subjects in memory, loaded once by whichever thread comes first.

    The first subjects that fit into ``max_bytes`` stay; none is pushed out, since over shuffled epochs any replacement
    finds fewer. Kept arrays are read-only and stored slice by slice, so that axial windows are quick to cut. Arrays
    that are mapped from files already are read-only, so stored, and take no memory that the system could not reclaim:
    they do not count, but at most `MAX_MAPPED` subjects of them stay.
    """

    def __init__(self, subjects: Sequence, load: Callable[[object], Subject], max_bytes: int) -> None:
        self._subjects, self._load = subjects, load
        self._max_bytes, self._bytes, self._mapped = max_bytes, 0, 0
        self._kept: dict[int, Subject] = {}
        self._loading = [threading.Lock() for _ in subjects]
        self._counting = threading.Lock()

    def clear(self) -> None:
        """Forgets the subjects kept so far."""
        with self._counting:
            self._kept.clear()
            self._bytes, self._mapped = 0, 0

    def get(self, index: int) -> Subject:
        """The subject at a position of the list; whatever its loading raises."""
        with self._loading[index]:
            kept = self._kept.get(index)
            if kept is not None:
                return kept
            subject = self._load(self._subjects[index])
            if isinstance(subject.scans, np.memmap):
                with self._counting:
                    fits = self._mapped < MAX_MAPPED
                    self._mapped += int(fits)
            else:
                size = sum(
                    array.nbytes for array in (subject.scans, subject.label, subject.weight) if array is not None
                )
                with self._counting:
                    fits = self._bytes + size <= self._max_bytes
                    self._bytes += size if fits else 0
                if fits:
                    subject = replace(
                        subject,
                        scans=slices_first(subject.scans),
                        label=slices_first(subject.label),
                        weight=slices_first(subject.weight),
                    )
            if fits:
                self._kept[index] = subject
            return subject


class Stopped(Exception):  # noqa: N818  (an event, not a mistake)
    """Somebody stopped the threads of whose work one was waiting for."""


class Workers(Generic[Result]):
    """Threads that work off an agenda of numbers, at most ``ahead`` of them beyond those released."""

    def __init__(self, work: Callable[[int], Result], agenda: Iterator[int], ahead: int, num_threads: int) -> None:
        self._work, self._agenda, self._ahead = work, agenda, threading.Semaphore(ahead)
        self._done: dict[int, Result | Exception] = {}
        self._awaited: int | None = None
        self._change, self._stopped = threading.Condition(), False
        # Daemons, because the owner may be an iterator that nobody closes; at exit each may finish what it is at.
        self._threads = [
            threading.Thread(target=self._run, name=f"pimms-batches-{n}", daemon=True) for n in range(num_threads)
        ]
        for thread in self._threads:
            thread.start()
        atexit.register(self._finish)

    def take(self, number: int) -> Result:
        """The result of a number on the agenda, once it is there; raises what its work raised, or Stopped.

        One thread at a time may wait.
        """
        with self._change:
            self._awaited = number
            self._change.wait_for(lambda: self._stopped or number in self._done)
            self._awaited = None
            if self._stopped:
                raise Stopped
            outcome = self._done.pop(number)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    def release(self, count: int) -> None:
        """Lets the threads begin ``count`` more."""
        if count:
            self._ahead.release(count)

    def stop(self) -> None:
        """Lets every thread end after what it is at, without waiting for it, and whoever waits for a result go."""
        with self._change:
            self._stopped = True
            self._done.clear()
            self._change.notify_all()
        self._ahead.release(len(self._threads))
        atexit.unregister(self._finish)

    def _finish(self) -> None:
        self.stop()
        for thread in self._threads:
            thread.join()

    def _run(self) -> None:
        while True:
            self._ahead.acquire()
            with self._change:
                number = None if self._stopped else next(self._agenda, None)
            if number is None:
                return
            try:
                outcome = self._work(number)
            except Exception as error:  # whoever takes the result gets it
                outcome = error
            with self._change:
                self._done[number] = outcome
                # Waking whoever waits for another number costs more than cutting a window.
                if number == self._awaited:
                    self._change.notify_all()


@functools.lru_cache(maxsize=8)
def _epoch_order(seed: int, epoch: int, num_subjects: int) -> np.ndarray:
    return np.random.default_rng((seed, _EPOCH, epoch)).permutation(num_subjects)


@functools.lru_cache(maxsize=8)
def _block_order(seed: int, block: int, num_windows: int) -> tuple[np.ndarray, np.ndarray]:
    """The order in which the windows of a block are delivered, and the place of each in it."""
    order = np.random.default_rng((seed, _BLOCK, block)).permutation(num_windows)
    return order, np.argsort(order)


def slices_first(volume: np.ndarray | None) -> np.ndarray | None:
    """The same array (x, y, z) or (x, y, z, scan), read-only, in memory by slice, then by scan."""
    if volume is None:
        return None
    to_memory = (2, 0, 1) if volume.ndim == 3 else (2, 3, 0, 1)
    stored = np.ascontiguousarray(volume.transpose(to_memory)).transpose(np.argsort(to_memory))
    stored.flags.writeable = False
    return stored
