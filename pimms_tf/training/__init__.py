"""Training: losses, schedules, checkpoints and the one loop."""

from pimms_tf.training.checkpoints import Checkpoints, latest_iteration, load_arrays, write_arrays
from pimms_tf.training.loop import (
    OPTIMISERS,
    Intervals,
    Metrics,
    Objective,
    Report,
    TrainingState,
    make_train_step,
    make_validation_step,
    mean_metrics,
    new_state,
    train,
)
from pimms_tf.training.losses import LOSSES, Loss, make_loss, mean_weight_penalty, modality_cross_entropy
from pimms_tf.training.schedules import Schedule, constant, exponential_decay

__all__ = [
    "LOSSES",
    "OPTIMISERS",
    "Checkpoints",
    "Intervals",
    "Loss",
    "Metrics",
    "Objective",
    "Report",
    "Schedule",
    "TrainingState",
    "constant",
    "exponential_decay",
    "latest_iteration",
    "load_arrays",
    "make_loss",
    "make_train_step",
    "make_validation_step",
    "mean_metrics",
    "mean_weight_penalty",
    "modality_cross_entropy",
    "new_state",
    "train",
    "write_arrays",
]
