"""Settings → what the network is, what it learns from and how: task, windows, network, loss."""

import inspect
import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import keras
import numpy as np
import tensorflow as tf

from niftynet_compat import Config, ConfigError, ModelDir, SubjectFiles, resolve_network, settings_text
from pimms_tf.data.augmentation import Augmentation, Elastic
from pimms_tf.data.grids import Grid
from pimms_tf.data.pipeline import Batch, training_batches, validation_batches
from pimms_tf.data.subjects import Subject, SubjectLoader
from pimms_tf.data.windows import (
    balanced_locations,
    foreground_locations,
    resize_window,
    uniform_locations,
    weighted_locations,
)
from pimms_tf.errors import InputError
from pimms_tf.files import replacing
from pimms_tf.models import PIMMS, build_classifier, build_model, preset_choices
from pimms_tf.training import Objective, make_loss

log = logging.getLogger(__name__)

_VARIANTS = {
    "hemis": "hemis",
    "pimms_soft": "soft",
    "pimms_hard": "hard",
    "pimms_online": "online",
    "modality_classifier": "classifier",
}
# The released loss of each preset; the paper's is the textbook reading.
_LOSS_CHOICES = {
    "paper": {"dice_eps": "both", "double_softmax": False, "regulariser_reduction": "mean"},
    "niftynet2018": {"dice_eps": "denominator", "double_softmax": True, "regulariser_reduction": "mean"},
}


@dataclass(frozen=True)
class Task:
    """What a configuration asks of the network, in the network's words."""

    variant: str  # hemis, hard, soft, online or classifier
    scans: tuple[str, ...]  # input section of each slot
    modalities: tuple[str, ...]  # name of each modality class; with a null class its name stands first
    slot_modality: tuple[int, ...]  # class of each slot, -1 if the configuration does not say
    num_classes: int
    label: str | None
    sampler: str | None
    modality_image: str | None
    permute: bool  # whether training shuffles the scans
    choices: dict[str, object]  # arguments of PIMMS that the preset and [PIMMS] set

    @property
    def null_class(self) -> bool:
        return bool(self.choices["null_class"])


def task_of(config: Config) -> Task:
    """Returns the task of a configuration.

    Raises:
        ConfigError: unknown network, label or number of classes missing, a modality that is not among `modalities`.
    """
    variant = _VARIANTS[resolve_network(config.network.name)]
    pimms = config.pimms
    scans = config.sources("image")
    if not scans:
        raise ConfigError(f"{config.path}: image is not set in [{config.task_name}]; name the sections of the scans")
    known = set(inspect.signature(PIMMS.__init__).parameters)
    chosen = {name: getattr(pimms, name) for name in known if getattr(pimms, name, None) is not None}
    choices = preset_choices(variant, pimms.preset) | chosen
    modality_image = next(iter(config.sources("modalities")), None)
    if config.task_name == "CLASSIFICATION":
        modality_image = next(iter(config.sources("label")), None)
    names = pimms.modalities
    if not names and modality_image is not None:
        count = getattr(config.task, "num_classes_classification", -1)
        # In the released multi-task files class 0 is an empty slot and counts.
        count = count - 1 if config.task_name == "MULTITASK" else config.task.num_classes
        if count < 1:
            raise ConfigError(f"{config.path}: [{config.task_name}] needs the number of modality classes")
        names = tuple(f"modality_{number}" for number in range(1, count + 1))
    names = names or scans
    _check_modality_count(config, names)
    if choices["null_class"]:
        names = ("empty", *names)
    slots = pimms.image_modalities or scans
    if len(slots) != len(scans):
        raise ConfigError(
            f"{config.path}: [PIMMS] image_modalities names {len(slots)} modalities for the {len(scans)} sections "
            "in image"
        )
    if pimms.image_modalities and not set(slots) <= set(names):
        wrong = next(name for name in slots if name not in names)
        raise ConfigError(
            f"{config.path}: [PIMMS] image_modalities has {wrong}, which is not among the modalities {', '.join(names)}"
        )
    segments = variant != "classifier"
    return Task(
        variant=variant,
        scans=scans,
        modalities=tuple(names),
        slot_modality=tuple(names.index(name) if name in names else -1 for name in slots),
        num_classes=config.task.num_classes if segments else 1,
        label=next(iter(config.sources("label")), None) if segments else None,
        sampler=next(iter(config.sources("sampler")), None),
        modality_image=modality_image,
        permute=variant != "hemis" if pimms.permute is None else pimms.permute,
        choices=choices,
    )


def _check_modality_count(config: Config, names: Sequence[str]) -> None:
    key, null = ("num_classes_classification", 1) if config.task_name == "MULTITASK" else ("num_classes", 0)
    if config.task_name == "SEGMENTATION" or getattr(config.task, key) in (-1, len(names) + null):
        return
    what = f"{len(names)} modalities" + (" and the empty slot, class 0," if null else "")
    raise ConfigError(
        f"{config.path}: {key} = {getattr(config.task, key)} in [{config.task_name}], but {what} "
        f"({', '.join(names)}) make {len(names) + null}; correct it, or name the modalities in [PIMMS] modalities"
    )


def check_sampler(config: Config, task: Task) -> None:
    if config.network.window_sampling in ("weighted", "balanced") and task.sampler is None:
        raise ConfigError(
            f"{config.path}: window_sampling = {config.network.window_sampling} needs a map to draw windows by; set "
            f"sampler in [{config.task_name}], for example to the section of the label"
        )


def require_section(config: Config, section: str | None, key: str) -> None:
    if section is None:
        raise ConfigError(
            f"{config.path}: {key} is not set in [{config.task_name}]; name the section of the {key} maps"
        )


def check_num_classes(config: Config, task: Task) -> None:
    if task.num_classes < 2:
        raise ConfigError(
            f"{config.path}: num_classes = {task.num_classes} in [{config.task_name}]; give at least 2, the background "
            "counts"
        )


def check_parts(config: Config, task: Task) -> None:
    """Hard and Soft begin with a classifier that was trained before; parts that are named have been trained.

    Raises:
        ConfigError: `[PIMMS] classifier` is not set, or a part has no checkpoint.
    """
    if task.variant in ("hard", "soft") and config.classifier_dir is None:
        raise ConfigError(
            f"{config.path}: {config.network.name} mixes scans by a classifier that was trained before; name its model "
            "folder in [PIMMS] classifier"
        )
    for root in (config.segmenter_dir, config.classifier_dir):
        if root is not None:
            ModelDir(root).latest_iteration()


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


def modality_decay(config: Config) -> float:
    # [MULTITASK] has the released code's own key for the same constant.
    if config.task_name == "MULTITASK" and config.origin("PIMMS", "modality_decay") == "default":
        return config.task.decay_constant
    return config.pimms.modality_decay


def window_of(config: Config, action: str) -> tuple[int, int, int]:
    window = config.inference.spatial_window_size if action == "inference" else ()
    window = window or config.common("image", "spatial_window_size")
    if not window:
        raise ConfigError(
            f"{config.path}: spatial_window_size is set neither in the input sections of image nor in [INFERENCE]; "
            "give for example 100, 100, 1"
        )
    return tuple((*window, 1, 1)[:3])


def border_of(config: Config, window: tuple[int, int, int]) -> tuple[int, int, int]:
    """What inference cuts off each side of a window: `border`, but nothing along axes where it is one voxel thick.

    The released 2-D files ask for (5, 0, 5) of windows (100, 100, 1); their resize sampler never looked at it.
    """
    border = tuple(0 if size == 1 else voxels for size, voxels in zip(window, config.inference.border, strict=True))
    if border != tuple(config.inference.border):
        log.warning("border %s becomes %s: windows %s are one voxel thick", config.inference.border, border, window)
    return border


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


def real_modalities(task: Task) -> tuple[str, ...]:
    return task.modalities[1:] if task.null_class else task.modalities


def prepare_machine(config: Config) -> None:
    if keras.backend.backend() != "tensorflow":
        raise InputError(
            f"training, inference and export need Keras on TensorFlow, but KERAS_BACKEND is {keras.backend.backend()}"
        )
    if config.system.num_gpus > 1 and config.action == "training":
        log.warning("num_gpus = %d has no effect: training runs on one device", config.system.num_gpus)
    if config.pimms.device_threads > 0:
        tf.config.threading.set_intra_op_parallelism_threads(config.pimms.device_threads)
        tf.config.threading.set_inter_op_parallelism_threads(config.pimms.device_threads)


def write_settings(config: Config) -> None:
    with replacing(ModelDir(config.model_dir).settings_file(config.action)) as temporary:
        temporary.write_text(settings_text(config), encoding="utf-8")
