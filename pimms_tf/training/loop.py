"""The one training loop: next batch, step, log, validate, save."""

import functools
import logging
import math
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import tensorflow as tf

from pimms_tf.errors import InputError
from pimms_tf.models import PIMMS
from pimms_tf.pipeline.batches import Batch
from pimms_tf.training.checkpoints import Checkpoints, latest_iteration
from pimms_tf.training.steps import Metrics, TrainingState

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
    report: Callable[[Report], None] = lambda report: None,
    stopped: Callable[[], bool] = lambda: False,
    preview: Callable[[], np.ndarray | None] = lambda: None,
    subjects_in: Callable[[int], str] = lambda iteration: "",
) -> str:
    """Trains from the state's iteration to `max_iter`; returns why it ended: "finished", "early" or "interrupted".

    A checkpoint is written every `every.save` iterations and at the end, also when `stopped()` turns true between two
    iterations; `best`, if given, gets one whenever a validation beats all before. A loss that is not a finite number,
    of training or of validation, ends training before anything is written over.

    Args:
        training: batches; where they end before `max_iter`, a stop was asked for while the next one was awaited.
        validation: one pass over the validation windows → mean metrics, or None if there is nothing to validate on.
        writer, validation_writer: summaries of training, and of validation if they are to be kept apart.
        preview: an RGB picture (height, width, 3) in [0, 1] to log at each save, or None.
        subjects_in: names the subjects in the batch of an iteration, for the message about a loss that is no number.

    Raises:
        InputError: a loss or a weight is NaN or infinite, a file cannot be read, a checkpoint cannot be written.
    """
    batches: Iterator[Batch] = iter(training)
    validation_writer = validation_writer or writer
    best_iteration, best_loss = (0, math.inf) if best is None else _best_so_far(best)
    start = int(state.iteration.numpy())
    saved, reason = start if start > 0 else -1, "finished"
    for iteration in range(start + 1, max_iter + 1):
        if stopped():
            reason = "interrupted"
            break
        began = time.perf_counter()
        if (batch := next(batches, _END)) is _END:
            reason = "interrupted"
            break
        metrics = _numpy(step(batch))
        if not math.isfinite(float(metrics.total_loss)):
            raise _no_number(_training_of(iteration, subjects_in(iteration)), metrics, checkpoints)
        report(Report("training", iteration, metrics, time.perf_counter() - began))
        if _due(iteration, every.summary):
            _write_summary(writer, metrics, iteration)
        if _due(iteration, every.validation):
            began = time.perf_counter()
            validated = validation()
            if validated is not None:
                report(Report("validation", iteration, validated, time.perf_counter() - began))
                _write_summary(validation_writer, validated, iteration)
                score = _validation_loss(state.model, validated)
                if not (math.isfinite(score) and math.isfinite(float(validated.total_loss))):
                    raise _no_number(f"the validation loss at iteration {iteration}", validated, checkpoints)
                if score < best_loss:
                    best_iteration, best_loss = iteration, score
                    if best is not None:
                        best.save(validation_loss=score)
                elif 0 < every.patience * every.validation <= iteration - best_iteration:
                    reason = "early"
                    break
        if _due(iteration, every.save):
            log.info("iter %d saved: %s", iteration, checkpoints.save())
            saved = iteration
            picture = preview()
            if picture is not None:
                with validation_writer.as_default(step=iteration):
                    tf.summary.image("preview", picture[None])
    # A run that was stopped before its first iteration has nothing to keep.
    if saved != int(state.iteration.numpy()) and not (reason == "interrupted" and int(state.iteration.numpy()) == 0):
        log.info("iter %d saved: %s", int(state.iteration.numpy()), checkpoints.save())
    writer.flush()
    validation_writer.flush()
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


def _validation_loss(model: PIMMS, metrics: Metrics) -> float:
    return float(metrics.segmentation_loss if model.attention is not None else metrics.modality_loss)


def _best_so_far(best: Checkpoints) -> tuple[int, float]:
    try:
        iteration = latest_iteration(best.folder)
        loss = best.validation_loss(iteration)
    except InputError:
        return 0, math.inf
    # A best that lies ahead belongs to a run that was since taken up again further back.
    return (0, math.inf) if loss is None or iteration > int(best.iteration.numpy()) else (iteration, loss)


def _training_of(iteration: int, subjects: str) -> str:
    return f"the loss of training batch {iteration}" + (f", which holds windows of {subjects}," if subjects else "")


def _no_number(what: str, metrics: Metrics, checkpoints: Checkpoints) -> InputError:
    parts = ", ".join(f"{name} {float(getattr(metrics, name)):g}" for name in Metrics._fields[:4])
    try:
        last = f" and go on from an earlier checkpoint, --starting_iter {latest_iteration(checkpoints.folder)} or less"
    except InputError:
        last = ""
    return InputError(
        f"{what} is not a finite number ({parts}); stopped before any checkpoint in {checkpoints.folder} was written "
        f"over: lower lr{last}, or look at the intensities of the scans"
    )


def _write_summary(writer: tf.summary.SummaryWriter, metrics: Metrics, iteration: int) -> None:
    with writer.as_default(step=iteration):
        for name in Metrics._fields[:-1]:
            tf.summary.scalar(name, getattr(metrics, name))
        counts = np.asarray(metrics.confusion)
        if counts.sum() > 0:
            tf.summary.scalar("modality_accuracy", np.trace(counts) / counts.sum())
            tf.summary.image("confusion", _confusion_picture(counts)[None])


def _confusion_picture(counts: np.ndarray) -> np.ndarray:
    # Rows are true modalities, each scaled to its own count; 16 pixels a cell, so that a viewer need not interpolate.
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    return np.kron(shares, np.ones((16, 16)))[..., None].astype(np.float32)
