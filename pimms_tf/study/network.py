"""Settings → the network and what it learns by: its loss, one step of training, one of validation."""

import logging
from collections.abc import Callable
from dataclasses import replace

import tensorflow as tf

from niftynet_compat import Config
from pimms_tf.models import PIMMS, build_classifier, build_model
from pimms_tf.pipeline.trays import Batch
from pimms_tf.study.study import Study
from pimms_tf.study.task import Task, modality_decay
from pimms_tf.training import (
    Loss,
    LossScale,
    Metrics,
    Objective,
    Schedule,
    TrainingState,
    exponential_decay,
    make_loss,
    make_train_step,
    make_validation_step,
)

log = logging.getLogger(__name__)

# The released loss of each preset; the paper's is the textbook reading.
_LOSS_CHOICES = {
    "paper": {"dice_eps": "both", "double_softmax": False, "regulariser_reduction": "mean"},
    "niftynet2018": {"dice_eps": "denominator", "double_softmax": True, "regulariser_reduction": "mean"},
}


_NO_CLASSIFIER = r"^(?!.*/classifier/)"  # paths of variables that are not the classifier's


def network(task: Task) -> PIMMS:
    """Returns the network of a task, with weights drawn by the seed of Keras."""
    num_modalities = len(task.modalities)
    if task.variant == "classifier":
        return build_classifier(num_modalities, **task.choices)
    return build_model(task.variant, num_modalities, task.num_classes, **task.choices)


def objective_of(config: Config, task: Task) -> tuple[Loss, Objective]:
    """Returns the segmentation loss, and what is minimised besides."""
    chosen = _LOSS_CHOICES[config.pimms.preset] | {
        name: value
        for name in ("dice_eps", "double_softmax", "regulariser_reduction")
        if (value := getattr(config.pimms, name)) is not None
    }
    name = config.training.loss_type if task.segments else "CrossEntropy"
    loss = make_loss(name, eps=chosen["dice_eps"], double_softmax=chosen["double_softmax"])
    objective = Objective(
        decay=config.network.decay,
        penalty=config.network.reg_type,
        reduction=chosen["regulariser_reduction"],
        double_softmax=chosen["double_softmax"],
        assemble_with=config.pimms.assemble_with,
        freeze=config.training.vars_to_freeze,
    )
    return loss, objective


def train_step(
    study: Study, state: TrainingState, strategy: tf.distribute.Strategy | None = None
) -> Callable[[Batch], Metrics]:
    """What learns from one batch; with `curriculum_learning_iter` the first iterations train the classifier alone."""
    config = study.config
    loss, objective = objective_of(config, study.task)
    schedules = _modality_weight(config), exponential_decay(config.pimms.lr_decay, config.training.lr)
    strategy, first = strategy or tf.distribute.get_strategy(), config.training.curriculum_learning_iter
    scale = LossScale() if config.pimms.precision == "mixed_float16" else None

    def step_without(freeze: str) -> Callable[[Batch], Metrics]:
        weight, learning_rate = schedules
        return make_train_step(state, loss, weight, strategy, replace(objective, freeze=freeze), learning_rate, scale)

    step = step_without(objective.freeze)
    if first <= 0:
        return step
    if study.task.variant != "online":
        log.warning(
            "curriculum_learning_iter = %d has no effect: %s has no classifier and segmenter that train together",
            first,
            config.network.name,
        )
        return step
    log.info("iterations up to %d train the classifier alone", first)
    alone = step_without("|".join(filter(None, (objective.freeze, _NO_CLASSIFIER))))
    return lambda batch: (alone if int(state.iteration.numpy()) < first else step)(batch)


def validation_step(study: Study, state: TrainingState, strategy: tf.distribute.Strategy) -> Callable[[Batch], Metrics]:
    """What looks at one batch and changes nothing."""
    loss, objective = objective_of(study.config, study.task)
    return make_validation_step(state, loss, _modality_weight(study.config), strategy, objective)


def _modality_weight(config: Config) -> Schedule:
    return exponential_decay(modality_decay(config), config.pimms.modality_weight)
