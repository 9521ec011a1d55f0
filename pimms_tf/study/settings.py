"""Settings → network, loss and windows of training, as objects of TensorFlow; what needs none is in `task`."""

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

import keras
import numpy as np
import tensorflow as tf

from niftynet_compat import Config, SubjectFiles
from pimms_tf.data.augmentation import Augmentation, Elastic
from pimms_tf.data.grids import Grid
from pimms_tf.data.subjects import Subject, SubjectLoader
from pimms_tf.data.windows import (
    balanced_locations,
    foreground_locations,
    resize_window,
    uniform_locations,
    weighted_locations,
)
from pimms_tf.errors import InputError
from pimms_tf.models import PIMMS, build_classifier, build_model
from pimms_tf.pipeline.batches import Batch, training_batches, validation_batches
from pimms_tf.study.task import (
    Task,
    border_of,
    check_num_classes,
    check_parts,
    check_sampler,
    modality_decay,
    real_modalities,
    require_section,
    task_of,
    window_of,
    write_settings,
)
from pimms_tf.training import Objective, make_loss

__all__ = [
    "Task",
    "border_of",
    "check_num_classes",
    "check_parts",
    "check_sampler",
    "modality_decay",
    "network",
    "objective_of",
    "prepare_machine",
    "real_modalities",
    "require_section",
    "resized",
    "task_of",
    "training_windows",
    "validation_windows",
    "window_of",
    "write_settings",
]

log = logging.getLogger(__name__)

# The released loss of each preset; the paper's is the textbook reading.
_LOSS_CHOICES = {
    "paper": {"dice_eps": "both", "double_softmax": False, "regulariser_reduction": "mean"},
    "niftynet2018": {"dice_eps": "denominator", "double_softmax": True, "regulariser_reduction": "mean"},
}


def network(task: Task) -> PIMMS:
    num_modalities = len(task.modalities)
    if task.variant == "classifier":
        return build_classifier(num_modalities, **task.choices)
    return build_model(task.variant, num_modalities, task.num_classes, **task.choices)


def objective_of(config: Config, task: Task):
    chosen = _LOSS_CHOICES[config.pimms.preset] | {
        name: value
        for name in ("dice_eps", "double_softmax", "regulariser_reduction")
        if (value := getattr(config.pimms, name)) is not None
    }
    name = config.training.loss_type if task.variant != "classifier" else "CrossEntropy"
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


def _augmentation(config: Config) -> Augmentation:
    training = config.training
    angles = tuple(training.rotation_angle) or None
    per_axis = tuple(tuple(getattr(training, f"rotation_angle_{axis}")) or (0.0, 0.0) for axis in "xyz")
    if angles is None and any(any(pair) for pair in per_axis):
        angles = per_axis
    elastic = None
    if training.do_elastic_deformation:
        elastic = Elastic(training.num_ctrl_points, training.deformation_sigma, training.proportion_to_deform)
    return Augmentation(
        flipping_axes=tuple(axis for axis in np.atleast_1d(training.random_flipping_axes) if axis >= 0),
        scaling_percentage=tuple(training.scaling_percentage) or None,
        isotropic=training.isotropic_scaling,
        antialiasing=training.antialiasing,
        rotation_degrees=angles,
        elastic=elastic,
        bias_field_range=tuple(training.bias_field_range) or None,
        bias_field_order=training.bf_order,
    )


def _locate(config: Config) -> Callable[[Subject, np.random.Generator], np.ndarray]:
    window, num = window_of(config, "training"), config.training.sample_per_volume
    kind = config.network.window_sampling

    def locate(subject: Subject, rng: np.random.Generator) -> np.ndarray:
        shape = subject.scans.shape[:3]
        if kind in ("weighted", "balanced"):
            cut = weighted_locations if kind == "weighted" else balanced_locations
            return cut(shape, window, num, subject.weight, rng)
        if config.pimms.sampling_area == "foreground":
            return foreground_locations(shape, window, num, subject.scans, rng)
        return uniform_locations(shape, window, num, rng)

    return locate


def resized(subject: Subject, window: tuple[int, int, int]) -> Subject:
    """The subject zoomed in plane to the window, all its slices kept: NiftyNet's resize sampler on single slices.

    A window that is thick or full along z zooms that axis too. The result lies on a grid of its own, without padding.
    """
    shape = subject.scans.shape[:3]
    size = (window[0], window[1], window[2] if window[2] != 1 else shape[2])
    scans = np.stack([resize_window(scan, size, 3) for scan in np.moveaxis(subject.scans, -1, 0)], axis=-1)
    label = None if subject.label is None else resize_window(subject.label, size, 0)
    affine = subject.affine.copy()
    steps = [(max(n - 1, 1), max(m - 1, 1)) for n, m in zip(shape, scans.shape[:3], strict=True)]
    affine[:3, :3] *= [before / after for before, after in steps]
    grid = Grid(scans.shape[:3], affine)
    return replace(
        subject,
        scans=scans * subject.valid,
        label=label,
        affine=affine,
        original=grid,
        weight=None,
        padding=((0, 0),) * 3,
    )


def training_windows(
    config: Config, task: Task, loader: SubjectLoader, subjects: Sequence[SubjectFiles], start: int
) -> tf.data.Dataset:
    """The endless windows of training from batch `start` on: augmented, scans hidden and shuffled."""
    # A classifier looks at each scan alone; hiding others teaches it nothing.
    curriculum = "none" if task.variant == "classifier" else config.pimms.curriculum
    return training_batches(
        subjects,
        loader,
        _augment(config, _augmentation(config)),
        _locate(config),
        config.network.batch_size,
        config.pimms.seed,
        max(config.system.num_threads, 1),
        start=start,
        queue_length=config.network.queue_length,
        curriculum=curriculum,
        warmup=config.pimms.curriculum_warmup_iters,
        permute=task.permute,
        **_slots(config, task),
    )


def validation_windows(
    config: Config, task: Task, loader: SubjectLoader, subjects: Sequence[SubjectFiles]
) -> Iterable[Batch]:
    """The same windows at every pass, none of them augmented and no scan hidden; () without subjects."""
    if not subjects:
        return ()
    return validation_batches(
        subjects,
        loader,
        _augment(config, None),
        _locate(config),
        config.network.batch_size,
        config.pimms.seed,
        max(config.system.num_threads, 1),
        config.training.validation_max_iter,
        permute=task.permute,
        **_slots(config, task),
    )


def _augment(config: Config, augmentation: Augmentation | None):
    if config.network.window_sampling != "resize":
        return augmentation
    window = window_of(config, "training")

    def augment(subject: Subject, rng: np.random.Generator) -> Subject:
        return resized(subject if augmentation is None else augmentation(subject, rng), window)

    return augment


def _slots(config: Config, task: Task) -> dict:
    return {
        "max_slots": config.pimms.max_slots or None,
        "empty_modality": 0 if task.null_class else -1,
        "label_required": task.variant != "classifier",
    }


def prepare_machine(config: Config) -> None:
    if keras.backend.backend() != "tensorflow":
        raise InputError(
            f"training, inference and export need Keras on TensorFlow, but KERAS_BACKEND is {keras.backend.backend()}"
        )
    if config.pimms.device_threads > 0:
        tf.config.threading.set_intra_op_parallelism_threads(config.pimms.device_threads)
        tf.config.threading.set_inter_op_parallelism_threads(config.pimms.device_threads)
