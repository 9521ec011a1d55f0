"""The one training loop: next batch, step, log, validate, save."""

import functools
import logging
import math
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import tensorflow as tf

from pimms_tf.errors import InputError
from pimms_tf.models import PIMMS
from pimms_tf.pipeline.trays import Batch
from pimms_tf.training.checkpoints import Checkpoints, earlier, latest_iteration
from pimms_tf.training.steps import Metrics, TrainingState
from pimms_tf.training.summaries import write_metrics, write_picture

log = logging.getLogger(__name__)

_END = object()  # of the batches


@dataclass(frozen=True)
class Intervals:
    """How often things happen, in iterations; 0 or less is never."""

    summary: int = 20
    validation: int = 0
    save: int = 500
    # Validations without a new best loss after which training stops.
    patience: int = 0


class Report(NamedTuple):
    """One finished iteration, for a progress line."""

    phase: Literal["training", "validation"]
    iteration: int
    metrics: Metrics  # of NumPy scalars
    seconds: float


@dataclass(frozen=True)
class Hooks:
    """What the loop calls on its way besides steps and validations; unless given, they do nothing.

    Args:
        report: is told each finished iteration of training or validation.
        stopped: whether training is to stop; asked before each iteration.
        preview: an RGB picture (height, width, 3) in [0, 1] to log at each save, or None.
        subjects_in: names the subjects in the batch of an iteration, for the message about a loss that is no number.
    """

    report: Callable[[Report], None] = lambda report: None
    stopped: Callable[[], bool] = lambda: False
    preview: Callable[[], np.ndarray | None] = lambda: None
    subjects_in: Callable[[int], str] = lambda iteration: ""


def train(
    state: TrainingState,
    step: Callable[[Batch], Metrics],
    training: Iterable[Batch],
    validation: Callable[[], Metrics | None],
    checkpoints: Checkpoints,
    writer: tf.summary.SummaryWriter,
    every: Intervals,
    max_iter: int,
    *,
    validation_writer: tf.summary.SummaryWriter | None = None,
    best: Checkpoints | None = None,
    hooks: Hooks = Hooks(),
) -> str:
    """Trains from the state's iteration to `max_iter`; returns why it ended: "finished", "early" or "interrupted".

    A checkpoint is written every `every.save` iterations and at the end, also when a hook asks to stop between two
    iterations; `best`, if given, gets one whenever a validation beats all before. A loss that is not a finite number,
    of training or of validation, ends training before anything is written over.

    Args:
        training: batches; where they end before `max_iter`, a stop was asked for while the next one was awaited.
        validation: one pass over the validation windows → mean metrics, or None if there is nothing to validate on.
        writer, validation_writer: summaries of training, and of validation if they are to be kept apart.

    Raises:
        InputError: a loss or a weight is NaN or infinite, a file cannot be read, a checkpoint cannot be written.
    """
    validation_writer, bests = validation_writer or writer, _Bests(best)
    start, reason = int(state.iteration.numpy()), "finished"
    saved = start if start > 0 else -1
    with _closed_in_the_end(iter(training)) as batches:
        for iteration in range(start + 1, max_iter + 1):
            began = time.perf_counter()
            if hooks.stopped() or (batch := next(batches, _END)) is _END:
                reason = "interrupted"
                break
            metrics = _numpy(step(batch))
            if not math.isfinite(float(metrics.total_loss)):
                raise _no_number(_training_of(iteration, hooks.subjects_in(iteration)), metrics, checkpoints)
            hooks.report(Report("training", iteration, metrics, time.perf_counter() - began))
            if _due(iteration, every.summary):
                write_metrics(writer, metrics, iteration)
            if _due(iteration, every.validation):
                began = time.perf_counter()
                validated = validation()
                if validated is not None:
                    hooks.report(Report("validation", iteration, validated, time.perf_counter() - began))
                    write_metrics(validation_writer, validated, iteration)
                    bests.take(iteration, _validation_loss(state.model, validated, iteration, checkpoints))
                    if bests.age(iteration) >= every.patience * every.validation > 0:
                        reason = "early"
                        break
            if _due(iteration, every.save):
                log.info("iter %d saved: %s", iteration, checkpoints.save())
                saved = iteration
                write_picture(validation_writer, hooks.preview(), iteration)
    end = int(state.iteration.numpy())
    # A run that was stopped before its first iteration has nothing to keep.
    if saved != end and not (reason == "interrupted" and end == 0):
        log.info("iter %d saved: %s", end, checkpoints.save())
    return reason


def mean_metrics(metrics: Iterable[Metrics]) -> Metrics | None:
    """Returns the mean of several batches' metrics and the sum of their confusion matrices; None for no batch."""
    collected = [_numpy(item) for item in metrics]
    if not collected:
        return None
    means = [np.mean([item[field] for item in collected]) for field in range(len(Metrics._fields) - 1)]
    return Metrics(*means, functools.reduce(np.add, [item.confusion for item in collected]))


def _numpy(metrics: Metrics) -> Metrics:
    return Metrics(*(np.asarray(value) for value in metrics))


def _due(iteration: int, every: int) -> bool:
    return every > 0 and iteration % every == 0


@contextmanager
def _closed_in_the_end(batches: Iterator[Batch]) -> Iterator[Iterator[Batch]]:
    """The iterator, whose threads end with the loop, however that ends; those without any need no closing."""
    try:
        yield batches
    finally:
        getattr(batches, "close", lambda: None)()


class _Bests:
    """The best validation so far, those of the run that is resumed included, and the checkpoints of it."""

    def __init__(self, checkpoints: Checkpoints | None) -> None:
        self._checkpoints, self._iteration, self._loss = checkpoints, 0, math.inf
        if checkpoints is not None:
            self._iteration, self._loss = _best_so_far(checkpoints)

    def take(self, iteration: int, loss: float) -> None:
        """Keeps a validation that beats all before."""
        if loss < self._loss:
            self._iteration, self._loss = iteration, loss
            if self._checkpoints is not None:
                self._checkpoints.save(validation_loss=loss)

    def age(self, iteration: int) -> int:
        """Iterations since the best one."""
        return iteration - self._iteration


def _best_so_far(best: Checkpoints) -> tuple[int, float]:
    try:
        iteration = latest_iteration(best.folder)
        loss = best.validation_loss(iteration)
    except InputError:
        return 0, math.inf
    # A best that lies ahead belongs to a run that was since taken up again further back.
    return (0, math.inf) if loss is None or iteration > int(best.iteration.numpy()) else (iteration, loss)


def _validation_loss(model: PIMMS, metrics: Metrics, iteration: int, checkpoints: Checkpoints) -> float:
    """The loss by which validations are compared.

    Raises:
        InputError: it is no finite number, or the total is none.
    """
    loss = float(metrics.segmentation_loss if model.attention is not None else metrics.modality_loss)
    if not (math.isfinite(loss) and math.isfinite(float(metrics.total_loss))):
        raise _no_number(f"the validation loss at iteration {iteration}", metrics, checkpoints)
    return loss


def _training_of(iteration: int, subjects: str) -> str:
    return f"the loss of training batch {iteration}" + (f", which holds windows of {subjects}," if subjects else "")


def _no_number(what: str, metrics: Metrics, checkpoints: Checkpoints) -> InputError:
    parts = ", ".join(f"{name} {float(getattr(metrics, name)):g}" for name in Metrics._fields[:4])
    return InputError(
        f"{what} is not a finite number ({parts}); stopped before any checkpoint in {checkpoints.folder} was written "
        f"over: lower lr{earlier(checkpoints.folder)}, or look at the intensities of the scans"
    )
