"""What TensorBoard shows of training: losses, the confusion of modalities, pictures."""

import numpy as np
import tensorflow as tf

from pimms_tf.training.steps import Metrics


def write_metrics(writer: tf.summary.SummaryWriter, metrics: Metrics, iteration: int) -> None:
    """Writes every scalar and, where scans have been classified, their accuracy and a picture of the confusion."""
    with writer.as_default(step=iteration):
        for name in Metrics._fields[:-1]:
            tf.summary.scalar(name, getattr(metrics, name))
        counts = np.asarray(metrics.confusion)
        if counts.sum() > 0:
            tf.summary.scalar("modality_accuracy", np.trace(counts) / counts.sum())
            tf.summary.image("confusion", _confusion_picture(counts)[None])


def write_picture(writer: tf.summary.SummaryWriter, picture: np.ndarray | None, iteration: int) -> None:
    """Writes a picture (height, width, 3), if there is one, as the preview."""
    if picture is not None:
        with writer.as_default(step=iteration):
            tf.summary.image("preview", picture[None])


def _confusion_picture(counts: np.ndarray) -> np.ndarray:
    # Rows are true modalities, each scaled to its own count; 16 pixels a cell, so that a viewer need not interpolate.
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    return np.kron(shares, np.ones((16, 16)))[..., None].astype(np.float32)
