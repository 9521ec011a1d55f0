"""Training: losses, schedules, checkpoints and the one loop."""

from pimms_tf.cluster import Cluster, cluster_of
from pimms_tf.training.checkpoints import Checkpoints, latest_iteration, load_arrays, write_arrays
from pimms_tf.training.devices import (
    agreed,
    check_equal_start,
    check_precision,
    is_chief,
    rows_here,
    set_precision,
    strategy,
    watched,
)
from pimms_tf.training.loop import Hooks, Intervals, Report, mean_metrics, train
from pimms_tf.training.losses import LOSSES, Loss, make_loss, mean_weight_penalty, modality_cross_entropy
from pimms_tf.training.schedules import Schedule, constant, exponential_decay
from pimms_tf.training.steps import (
    OPTIMISERS,
    LossScale,
    Metrics,
    Objective,
    TrainingState,
    make_train_step,
    make_validation_step,
    new_state,
)

__all__ = [
    "LOSSES",
    "OPTIMISERS",
    "Checkpoints",
    "Cluster",
    "Hooks",
    "Intervals",
    "Loss",
    "LossScale",
    "Metrics",
    "Objective",
    "Report",
    "Schedule",
    "TrainingState",
    "agreed",
    "check_equal_start",
    "check_precision",
    "cluster_of",
    "constant",
    "exponential_decay",
    "is_chief",
    "latest_iteration",
    "load_arrays",
    "make_loss",
    "make_train_step",
    "make_validation_step",
    "mean_metrics",
    "mean_weight_penalty",
    "modality_cross_entropy",
    "new_state",
    "rows_here",
    "set_precision",
    "strategy",
    "train",
    "watched",
    "write_arrays",
]
