"""One step: a batch → its losses, gradients and update, on one replica or on several as if they were one."""

import logging
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from pimms_tf.errors import InputError
from pimms_tf.models import PIMMS, Prediction, regularised_variables
from pimms_tf.models.layers import sharing_statistics
from pimms_tf.pipeline.trays import Batch
from pimms_tf.training.devices import cluster_in, gather, over_workers
from pimms_tf.training.losses import Loss, mean_weight_penalty, modality_cross_entropy
from pimms_tf.training.schedules import Schedule

log = logging.getLogger(__name__)

# NiftyNet's optimisers with the constants of TensorFlow 1. Source: niftynet/engine/application_optimiser.py.
OPTIMISERS: dict[str, Callable[[float], keras.optimizers.Optimizer]] = {
    "adam": lambda lr: keras.optimizers.Adam(lr, epsilon=1e-8),
    "gradientdescent": lambda lr: keras.optimizers.SGD(lr),
    "momentum": lambda lr: keras.optimizers.SGD(lr, momentum=0.9),
    "nesterov": lambda lr: keras.optimizers.SGD(lr, momentum=0.9, nesterov=True),
    "adagrad": lambda lr: keras.optimizers.Adagrad(lr, initial_accumulator_value=0.1),
    "rmsprop": lambda lr: keras.optimizers.RMSprop(lr, rho=0.9, epsilon=1e-10),
}


class Metrics(NamedTuple):
    """What one batch gave; scalars but for the confusion matrix (true modality, predicted modality)."""

    total_loss: tf.Tensor
    segmentation_loss: tf.Tensor
    modality_loss: tf.Tensor
    penalty: tf.Tensor
    dice: tf.Tensor  # of the foreground, over the whole batch
    confusion: tf.Tensor


@dataclass(frozen=True)
class Objective:
    """What is minimised besides the segmentation loss.

    total = segmentation + λ(iteration) · modality cross-entropy + weight penalty, a term being absent where the model
    lacks the part it belongs to. Source: paper §2.4; training.md §3 of the specification.
    """

    decay: float = 0.0
    penalty: Literal["L1", "L2"] = "L2"
    reduction: Literal["mean", "sum"] = "mean"
    double_softmax: bool = False
    # "label": the segmenter of Hard and Soft learns on scans put into their slots by label; "score": by the classifier.
    assemble_with: Literal["label", "score"] = "score"
    # Regular expression over variable paths; what matches is not trained (NiftyNet's `vars_to_freeze`).
    freeze: str = ""


@dataclass(frozen=True)
class TrainingState:
    """Everything that changes while training."""

    model: PIMMS
    optimizer: keras.optimizers.Optimizer
    iteration: tf.Variable


class LossScale:
    """The factor that keeps small float16 gradients from vanishing: halved where one overflows, doubled now and then.

    Attributes:
        value: the factor of the next step.
        skipped: how many steps overflowed and were left out.
    """

    doubled_every = 2000

    def __init__(self, value: float = 2.0**15) -> None:
        self.value, self.skipped, self._good = value, 0, 0

    def update(self, finite: bool, iteration: int) -> None:
        """Takes note of whether the gradients of an iteration were finite."""
        self._good = self._good + 1 if finite else 0
        if not finite:
            self.skipped += 1
            self.value = max(self.value / 2, 1.0)
            log.warning(
                "iteration %d taught nothing: its gradients overflowed float16; loss scale %g from now on, %d skipped",
                iteration,
                self.value,
                self.skipped,
            )
        elif self._good % self.doubled_every == 0:
            self.value *= 2


def new_state(model: PIMMS, optimiser: str, lr: float, freeze: str = "") -> TrainingState:
    """Returns the state before the first iteration; `freeze` as in `Objective`.

    Raises:
        InputError: `freeze` leaves nothing to train.
    """
    optimizer = OPTIMISERS[optimiser](lr)
    optimizer.build(trained_variables(model, freeze))
    if optimiser == "rmsprop":  # TensorFlow 1 begins with running squares of one, so that the first steps are small
        for variable in optimizer.variables:
            if "velocity" in variable.path:
                variable.assign(tf.ones(variable.shape))
    return TrainingState(model, optimizer, tf.Variable(0, dtype=tf.int64, trainable=False, name="iteration"))


def trained_variables(model: PIMMS, freeze: str = "") -> list[keras.Variable]:
    """Returns the trainable variables whose path `freeze` does not match, without those of a held classifier."""
    held = model.attention is not None and not model.joint
    variables = [
        variable
        for variable in model.trainable_variables
        if not (freeze and re.search(freeze, variable.path)) and not (held and "/classifier/" in variable.path)
    ]
    if not variables:
        raise InputError(f"vars_to_freeze = {freeze} matches every variable of the model, so there is nothing to train")
    return variables


def make_train_step(
    state: TrainingState,
    loss: Loss,
    modality_weight: Schedule,
    strategy: tf.distribute.Strategy | None = None,
    objective: Objective = Objective(),
    learning_rate: Schedule | None = None,
    loss_scale: LossScale | None = None,
) -> Callable[[Batch], Metrics]:
    """Returns a function that learns from one batch, moves the iteration on and returns the batch's metrics.

    Without a schedule the optimiser keeps the learning rate it was made with. With a loss scale, which float16 needs,
    a batch whose gradients overflow teaches nothing.

    The function takes the rows of the global batch that this process computes, in the order of its replicas (see
    `devices.rows_here`), or a batch that is distributed already. Gradients are those of each replica's share of the
    loss, so that their sum over replicas is the gradient of the loss of the global batch.
    """
    strategy = strategy or tf.distribute.get_strategy()
    variables = trained_variables(state.model, objective.freeze)
    shared = gather if strategy.num_replicas_in_sync > 1 else None

    def replica_step(batch: Batch, weight: tf.Tensor, scale: tf.Tensor) -> tuple[Metrics, tf.Tensor]:
        changing = [] if loss_scale is None else _changing(state)
        before = [tf.convert_to_tensor(variable.value) for variable in changing]
        with sharing_statistics(shared):
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch([variable.value for variable in variables])
                metrics = _losses(state.model, batch, weight, loss, objective, training=True)
                share = metrics.total_loss / strategy.num_replicas_in_sync
                share = share if loss_scale is None else share * scale
            gradients = tape.gradient(share, [variable.value for variable in variables])
        finite = tf.constant(True)
        if loss_scale is not None:
            overflowed = [tf.logical_not(tf.reduce_all(tf.math.is_finite(gradient))) for gradient in gradients]
            finite = tf.logical_not(_anywhere(tf.reduce_any(overflowed)))
            gradients = [gradient / scale for gradient in gradients]
        state.optimizer.apply(gradients, variables)
        # Putting back what the step changed needs no branch, inside which replicas could not meet.
        for variable, value in zip(changing, before, strict=True):
            variable.value.assign(tf.where(finite, variable.value, value))
        return metrics, finite

    compute = _compiled(strategy, replica_step)

    def step(batch: Batch) -> Metrics:
        iteration = int(state.iteration.numpy()) + 1
        weight = modality_weight(iteration)
        if learning_rate is not None:
            state.optimizer.learning_rate.assign(learning_rate(iteration))
        scale = 1.0 if loss_scale is None else loss_scale.value
        metrics, finite = compute(batch, tf.constant(weight, tf.float32), tf.constant(scale, tf.float32))
        if loss_scale is not None:
            loss_scale.update(bool(finite), iteration)
        state.iteration.assign_add(1)
        return metrics

    return step


def _changing(state: TrainingState) -> list[keras.Variable]:
    # The learning rate is set before each step, not by it.
    kept = [variable for variable in state.optimizer.variables if variable is not state.optimizer.learning_rate]
    return [*state.model.variables, *kept]


def _anywhere(flag: tf.Tensor) -> tf.Tensor:
    return tf.reduce_any(gather(tf.cast(flag, tf.int32)) > 0)


def make_validation_step(
    state: TrainingState,
    loss: Loss,
    modality_weight: Schedule,
    strategy: tf.distribute.Strategy | None = None,
    objective: Objective = Objective(),
) -> Callable[[Batch], Metrics]:
    """Returns a function from a batch to its metrics that changes nothing: moving statistics, no update."""
    strategy = strategy or tf.distribute.get_strategy()

    def replica_check(batch: Batch, weight: tf.Tensor, scale: tf.Tensor) -> tuple[Metrics, tf.Tensor]:
        return _losses(state.model, batch, weight, loss, objective, training=False), tf.constant(True)

    compute = _compiled(strategy, replica_check)

    def check(batch: Batch) -> Metrics:
        weight = modality_weight(int(state.iteration.numpy()))
        return compute(batch, tf.constant(weight, tf.float32), tf.constant(1.0))[0]

    return check


def _compiled(strategy: tf.distribute.Strategy, replica: Callable) -> Callable:
    if strategy.num_replicas_in_sync == 1:
        return tf.function(lambda *inputs: strategy.run(replica, args=inputs), reduce_retracing=True, autograph=False)
    local = len(strategy.extended.worker_devices)

    def own_rows(batch: Batch) -> Batch:
        number = tf.distribute.get_replica_context().replica_id_in_sync_group % local
        with tf.device("/CPU:0"):  # where the batch lies: a replica's device gets its own rows alone
            rows = [tf.shape(part)[0] // local for part in batch]
            return Batch(*(part[number * n : (number + 1) * n] for part, n in zip(batch, rows, strict=True)))

    def compute(batch: Batch, weight: tf.Tensor, scale: tf.Tensor) -> tuple[Metrics, tf.Tensor]:
        spread = isinstance(batch.scans, tf.distribute.DistributedValues)

        def packed(batch: Batch, weight: tf.Tensor, scale: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            metrics, finite = replica(batch if spread else own_rows(batch), weight, scale)
            # One sum over replicas for all; counts below 2²⁴ are whole numbers in float32, too.
            means = [tf.reshape(value / strategy.num_replicas_in_sync, (1,)) for value in metrics[:-1]]
            counts = tf.reshape(tf.cast(metrics.confusion, tf.float32), (-1,))
            return tf.concat([*means, counts], axis=0), finite

        values, finite = strategy.run(packed, args=(batch, weight, scale))
        total = strategy.reduce(tf.distribute.ReduceOp.SUM, values, axis=None)
        num = len(Metrics._fields) - 1
        side = math.isqrt(total.shape[0] - num)
        confusion = tf.cast(tf.reshape(total[num:], (side, side)), tf.int32)
        return Metrics(*tf.unstack(total[:num]), confusion), strategy.experimental_local_results(finite)[0]

    if cluster_in(strategy) is None:
        return tf.function(compute, reduce_retracing=True, autograph=False)
    return _TracedOnce(compute, over_workers(strategy))


class _TracedOnce:
    """A computation of several processes together, traced for the first batch and open to others in space.

    A process that traces again, for windows of another size, would number its collective operations otherwise than the
    rest and wait for ever. Sizes in space therefore stay open; slots cannot, and must be as many.
    """

    def __init__(self, compute: Callable, everyone: Callable[[np.ndarray], np.ndarray]) -> None:
        self._compute, self._everyone = compute, everyone
        self._function: Callable | None = None
        self._slots = 0

    def __call__(self, batch: Batch, *numbers: tf.Tensor) -> tuple[Metrics, tf.Tensor]:
        slots = batch.scans.shape[-1]
        if self._function is None:
            check_equal_slots(self._everyone(np.array([slots], np.int32)).ravel().tolist(), slots)
            signature = _signature(batch)
            self._function = tf.function(self._compute, input_signature=signature, autograph=False)
            self._slots = slots
        check_equal_slots([self._slots], slots)
        return self._function(batch, *numbers)


def _signature(batch: Batch) -> list:
    """Of a batch with windows of any size, and of two numbers."""
    scans, valid, modality, label = (tf.TensorSpec(part.shape, part.dtype) for part in batch)
    space = (None,) * (len(label.shape) - 1)
    scans = tf.TensorSpec((scans.shape[0], *space, scans.shape[-1]), scans.dtype)
    label = tf.TensorSpec((label.shape[0], *space), label.dtype)
    return [Batch(scans, valid, modality, label), *(tf.TensorSpec((), tf.float32),) * 2]


def check_equal_slots(others: Sequence[int], slots: int) -> None:
    """Nothing, if all batches that are computed together have as many slots as this one.

    Raises:
        InputError: some have another number, because their subjects have.
    """
    if any(other != slots for other in others):
        raise InputError(
            f"the workers' windows have {' and '.join(map(str, sorted({slots, *others})))} scan slots, since subjects "
            "differ in how many scans they have: set max_slots in [PIMMS] to the largest number"
        )


def _losses(model: PIMMS, batch: Batch, weight, loss: Loss, objective: Objective, training: bool) -> Metrics:
    # On several replicas: this one's share of each term times their number, so that the mean over them is the term.
    zero = tf.constant(0.0)
    prediction = _forward(model, batch, objective, training)
    segmentation, modality, penalty, dice = zero, zero, zero, zero
    confusion = tf.zeros((model.num_modalities, model.num_modalities), tf.int32)
    if prediction.segmentation_logits is not None:
        segmentation = loss(prediction.segmentation_logits, batch.label)
        dice = _foreground_dice(prediction.segmentation_logits, batch.label)
    if prediction.modality_logits is not None:
        target = _modality_target(model, batch)
        modality = modality_cross_entropy(
            prediction.modality_logits,
            target,
            batch.valid,
            double_softmax=objective.double_softmax,
            count_empty=model.null_class,
        )
        counted = tf.logical_and(target >= 0, tf.logical_or(batch.valid, model.null_class))
        if _num_replicas() > 1 and not model.null_class:
            modality *= _share(tf.math.count_nonzero(counted, dtype=tf.float32))
        confusion = tf.math.confusion_matrix(
            tf.boolean_mask(target, counted),
            tf.boolean_mask(tf.argmax(prediction.modality_logits, axis=-1, output_type=tf.int32), counted),
            model.num_modalities,
        )
    if objective.decay > 0:
        trained = {id(variable) for variable in trained_variables(model, objective.freeze)}
        regularised = [variable for variable in regularised_variables(model) if id(variable) in trained]
        if regularised:
            penalty = mean_weight_penalty(regularised, objective.decay, objective.penalty, objective.reduction)
    # A classifier on its own learns from its loss alone, whatever the schedule of the joint model says.
    weight = weight if prediction.segmentation_logits is not None else 1.0
    if model.attention is not None and not model.joint:
        weight = 0.0
    total = segmentation + weight * modality + penalty
    return Metrics(total, segmentation, modality, penalty, dice, confusion)


def _forward(model: PIMMS, batch: Batch, objective: Objective, training: bool) -> Prediction:
    held = model.attention is not None and not model.joint
    if held and (model.needs_labels or objective.assemble_with == "label"):
        scores = model.label_scores(batch.scans, batch.modality)
        return Prediction(model.segment(batch.scans, scores, batch.valid, training=training), None)
    return model(batch.scans, batch.valid, training=training)


def _modality_target(model: PIMMS, batch: Batch) -> tf.Tensor:
    return tf.where(batch.valid, batch.modality, 0) if model.null_class else batch.modality


def _num_replicas() -> int:
    context = tf.distribute.get_replica_context()
    return 1 if context is None else context.num_replicas_in_sync


def _share(count: tf.Tensor) -> tf.Tensor:
    """Returns how much more of something this replica has than replicas have on average."""
    return tf.math.divide_no_nan(_num_replicas() * count, tf.reduce_sum(gather(count)))


def _foreground_dice(logits: tf.Tensor, label: tf.Tensor) -> tf.Tensor:
    predicted = tf.argmax(logits, axis=-1, output_type=label.dtype) > 0
    reference = label > 0
    overlap = tf.reduce_sum(tf.cast(tf.logical_and(predicted, reference), tf.float32))
    sizes = tf.reduce_sum(tf.cast(predicted, tf.float32)) + tf.reduce_sum(tf.cast(reference, tf.float32))
    if _num_replicas() > 1:
        overlap, sizes = tf.unstack(tf.reduce_sum(gather(tf.stack([overlap, sizes])), axis=0))
    return tf.math.divide_no_nan(2.0 * overlap, sizes)
