"""Schedule: which subject is visited when, and which window comes when. Without TensorFlow, and without a clock.

Everything random follows from (seed, number of the item), never from timing. A *visit* is one subject loaded,
augmented and cut into its windows; visit v belongs to epoch v // subjects, whose order is a permutation of its own. A
*block* is as many visits as fill the queue; its windows are shuffled together, and handed out while the next block is
made. So the k-th window of a run, and with it the batch at which to resume, is known without loading anything.

    subjects  c a b | b c a | ...          one permutation per epoch
    visits    0 1 2 3 | 4 5 6 7 | ...      blocks of four
    windows   shuffled | shuffled          batches of consecutive windows, also across blocks
"""

import functools
import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

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


@functools.lru_cache(maxsize=8)
def _epoch_order(seed: int, epoch: int, num_subjects: int) -> np.ndarray:
    return np.random.default_rng((seed, _EPOCH, epoch)).permutation(num_subjects)


@functools.lru_cache(maxsize=8)
def _block_order(seed: int, block: int, num_windows: int) -> tuple[np.ndarray, np.ndarray]:
    """The order in which the windows of a block are delivered, and the place of each in it."""
    order = np.random.default_rng((seed, _BLOCK, block)).permutation(num_windows)
    return order, np.argsort(order)
