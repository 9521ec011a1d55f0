"""What TensorBoard shows of training: losses, the confusion of modalities, pictures."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import tensorflow as tf

from pimms_tf.files import disk_complaint
from pimms_tf.training.steps import Metrics

log = logging.getLogger(__name__)


def write_metrics(writer: tf.summary.SummaryWriter, metrics: Metrics, iteration: int) -> None:
    """Writes every scalar and, where scans have been classified, their accuracy and a picture of the confusion."""
    with _into(writer, iteration):
        for name in Metrics._fields[:-1]:
            tf.summary.scalar(name, getattr(metrics, name))
        counts = np.asarray(metrics.confusion)
        if counts.sum() > 0:
            tf.summary.scalar("modality_accuracy", np.trace(counts) / counts.sum())
            tf.summary.image("confusion", _confusion_picture(counts)[None])


def write_picture(writer: tf.summary.SummaryWriter, picture: np.ndarray | None, iteration: int) -> None:
    """Writes a picture (height, width, 3), if there is one, as the preview."""
    if picture is not None:
        with _into(writer, iteration):
            tf.summary.image("preview", picture[None])


@contextmanager
def _into(writer: tf.summary.SummaryWriter, iteration: int) -> Iterator[None]:
    """Takes summaries of an iteration and writes them; where the disk refuses them training goes on without."""
    try:
        with writer.as_default(step=iteration):
            yield
            writer.flush()
    except tf.errors.OpError as error:
        reason = disk_complaint(error)
        if not reason:
            raise
        log.warning("iteration %d is not recorded for TensorBoard (%s)", iteration, reason)


def _confusion_picture(counts: np.ndarray) -> np.ndarray:
    # Rows are true modalities, each scaled to its own count; 16 pixels a cell, so that a viewer need not interpolate.
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    return np.kron(shares, np.ones((16, 16)))[..., None].astype(np.float32)
