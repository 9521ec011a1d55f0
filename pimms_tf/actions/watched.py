"""What training sees of its windows: a first look at them, classes that never come, and how long it waits for them."""

import logging
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

import numpy as np

from pimms_tf.wording import counted

if TYPE_CHECKING:
    from pimms_tf.pipeline.trays import Batch
    from pimms_tf.training import Report

log = logging.getLogger(__name__)

_LOOKS = 50  # batches in which each class should have come


class WatchedBatches:
    """Batches as they come; `num_classes` is that of the labels, 0 for training that looks at none.

    `awaiting` is given what waits for the next batch and returns it; where it returns None the batches end.
    """

    def __init__(
        self,
        batches: "Iterable[Batch]",
        num_classes: int,
        awaiting: "Callable[[Callable[[], Batch | None]], Batch | None]" = lambda work: work(),
    ) -> None:
        self._batches, self._num_classes, self._awaiting = batches, num_classes, awaiting
        self._waits: list[float] = []
        self._iterations: list[float] = []
        self._seen: set[int] = set()

    def __iter__(self) -> "Iterator[Batch]":
        iterator = iter(self._batches)
        while True:
            began = time.perf_counter()
            batch = self._awaiting(lambda: next(iterator, None))
            if batch is None:
                return
            self._waits.append(time.perf_counter() - began)
            self._look(batch)
            yield batch

    @property
    def num_taken(self) -> int:
        """How many batches were taken."""
        return len(self._waits)

    def watching(self, report: "Callable[[Report], None]") -> "Callable[[Report], None]":
        """Returns `report`, noting how long each iteration took."""

        def noted(each: "Report") -> None:
            if each.phase == "training":
                self._iterations.append(each.seconds)
            report(each)

        return noted

    def say_classes(self) -> None:
        """Warns of classes that no window had, of those that training saw before it ended; see `_look`."""
        if 0 < len(self._waits) < _LOOKS:
            self._warn_of_missing(len(self._waits))

    def say_times(self) -> None:
        """Logs how long an iteration took and how much of it was waiting for windows; the first one is left out."""
        if len(self._iterations) < 3:
            return
        whole = float(np.median(self._iterations[1:]))
        waiting = float(np.mean(self._waits[1 : len(self._iterations)]))
        share = waiting / max(float(np.mean(self._iterations[1:])), 1e-9)
        advice = "; more num_threads, or scans prepared beforehand, would help" if share > 0.3 else ""
        log.info(
            "an iteration took %.3f s (median), of which %.0f %% waiting for windows%s", whole, 100 * share, advice
        )

    def _look(self, batch: "Batch") -> None:
        number = len(self._waits)
        if number > _LOOKS:
            return
        if self._num_classes:
            self._seen |= set(np.unique(batch.label).tolist())
        if number == 1:
            log.info("%s", first_look(batch, bool(self._num_classes)))
        if number == _LOOKS:
            self._warn_of_missing(number)

    def _warn_of_missing(self, number: int) -> None:
        missing = sorted(set(range(self._num_classes)) - self._seen)
        if not missing:
            return
        what = f"class {', '.join(map(str, missing))}"
        if self._seen == {0}:
            what = "any foreground, so that only background is learnt"
        log.warning(
            "no window of %d batches has %s: check the labels and num_classes, or draw windows by window_sampling = "
            "balanced",
            number,
            what,
        )


def first_look(batch: "Batch", has_labels: bool = True) -> str:
    """A sentence about the intensities of a batch's scans and the classes in its labels."""
    scans, valid = np.asarray(batch.scans), np.asarray(batch.valid)
    shown = np.moveaxis(scans, -1, 1)[valid]  # (scan that is there, *space)
    text = "the first windows hold no scan"
    if shown.size:
        text = (
            f"the first windows hold {counted(len(shown), 'scan')} with values {shown.min():.3g} to {shown.max():.3g} "
            f"(mean {shown.mean():.3g}, deviation {shown.std():.3g})"
        )
    if has_labels:
        label = np.asarray(batch.label)
        lesion = int((label > 0).reshape(len(label), -1).any(axis=1).sum())
        classes = ", ".join(map(str, np.unique(label).tolist()))
        text += f"; {lesion} of {len(label)} have foreground, classes {classes}"
    return text
