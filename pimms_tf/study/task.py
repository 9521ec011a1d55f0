"""Settings → what the network is and which windows it sees, without TensorFlow: task, window, border, needs."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace

from niftynet_compat import Config, ConfigError, ModelDir, resolve_network, settings_text
from niftynet_compat.settings.requirements import rank_complaint
from pimms_tf.files import write_text
from pimms_tf.presets import RESAMPLING, preset_choices
from pimms_tf.wording import counted

log = logging.getLogger(__name__)

_VARIANTS = {
    "hemis": "hemis",
    "pimms_soft": "soft",
    "pimms_hard": "hard",
    "pimms_online": "online",
    "modality_classifier": "classifier",
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
    modality_image: str | None  # section of files that hold the class of each scan
    modality_values: str | None  # section of a list that holds them instead
    permute: bool  # whether training shuffles the scans
    choices: dict[str, object]  # arguments of PIMMS that the preset and [PIMMS] set

    @property
    def null_class(self) -> bool:
        """Whether the first modality class is that of empty slots."""
        return bool(self.choices["null_class"])

    @property
    def segments(self) -> bool:
        """Whether the network segments, rather than only classify scans."""
        return self.variant != "classifier"


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
    preset = preset_choices(variant, pimms.preset)
    keys = (*preset, "spatial_rank", "average", "recompute")
    choices = preset | {name: value for name in keys if (value := getattr(pimms, name)) is not None}
    key = {"MULTITASK": "modalities", "CLASSIFICATION": "label"}.get(config.task_name, "modality_label")
    answer = next(iter((*config.sources(key), *config.sources("modality_label"))), None)
    is_list = answer is not None and bool(config.inputs[answer].csv_data_file)
    names = pimms.modalities
    if not names and answer is not None and config.task_name != "SEGMENTATION":
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
            f"{config.path}: [PIMMS] image_modalities names {counted(len(slots), 'modality', 'modalities')} for "
            f"{counted(len(scans), 'section')} in image"
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
        modality_image=None if is_list else answer,
        modality_values=answer if is_list else None,
        permute=variant != "hemis" if pimms.permute is None else pimms.permute,
        choices=choices,
    )


def _check_modality_count(config: Config, names: Sequence[str]) -> None:
    key, null = ("num_classes_classification", 1) if config.task_name == "MULTITASK" else ("num_classes", 0)
    if config.task_name == "SEGMENTATION" or getattr(config.task, key) in (-1, len(names) + null):
        return
    what = counted(len(names), "modality", "modalities") + (" and the empty slot, class 0," if null else "")
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
    if task.variant in ("hard", "soft") and config.classifier_dir is None and not config.pimms.weights:
        raise ConfigError(
            f"{config.path}: {config.network.name} mixes scans by a classifier that was trained before; name its model "
            "folder in [PIMMS] classifier"
        )
    for root in (config.segmenter_dir, config.classifier_dir):
        if root is not None:
            ModelDir(root).latest_iteration()


def starting_iteration(config: Config, task: Task) -> int:
    """The iteration that training starts from, 0 for a new model, whose folder must be unused and its parts trained.

    Raises:
        ConfigError: no such checkpoint, checkpoints that would be written over, or as `check_parts`.
    """
    folder = ModelDir(config.model_dir)
    start = folder.resolve(config.training.starting_iter)
    if config.training.starting_iter == 0:
        if config.training.max_iter > 0:
            folder.check_unused()
        check_parts(config, task)
    return start


def modality_decay(config: Config) -> float:
    # [MULTITASK] has the released code's own key for the same constant.
    if config.task_name == "MULTITASK" and config.origin("PIMMS", "modality_decay") == "default":
        return config.task.decay_constant
    return config.pimms.modality_decay


def resampling_of(config: Config) -> str:
    """How images get onto other voxel sizes: "mended", or as in NiftyNet, "niftynet"."""
    return config.pimms.resampling or RESAMPLING[config.pimms.preset]


def remark_on_modality_loss(config: Config) -> str:
    """A sentence for those who may count on a fault of the released program, "" for all others.

    Source: `niftynet/contrib/hemis_midl/hemis_app.py`, which adds the modality loss only where there is a weight
    penalty. The other reading stays within reach: modality_weight = 0.
    """
    if config.task_name != "MULTITASK" or config.network.decay > 0 or config.pimms.modality_weight == 0:
        return ""
    return (
        "[NETWORK] decay = 0 switched the modality loss off in the released program, which was a fault; here it stays "
        "on: write modality_weight = 0 in [PIMMS] to train without it"
    )


def window_of(config: Config, action: str) -> tuple[int, int, int]:
    window = config.inference.spatial_window_size if action == "inference" else ()
    window = window or config.common("image", "spatial_window_size")
    if not window:
        raise ConfigError(
            f"{config.path}: spatial_window_size is set neither in the input sections of image nor in [INFERENCE]; "
            "give for example 100, 100, 1"
        )
    return tuple((*window, 1, 1)[:3])


def check_rank(config: Config, window: tuple[int, int, int]) -> None:
    """Training windows have as many axes as the network looks at.

    Raises:
        ConfigError: they have more, or fewer.
    """
    if complaint := rank_complaint(window, config.pimms.spatial_rank):
        raise ConfigError(f"{config.path}: {complaint}")


def check_slices(config: Config, task: Task, window: tuple[int, int, int]) -> None:
    """Windows of inference are slices, or can be cut into some, where the network looks at slices.

    Raises:
        ConfigError: they are thick along all axes.
    """
    cuts = task.segments and config.pimms.spatial_rank == 2 and config.network.window_sampling != "resize"
    if cuts and all(size > 1 for size in window):
        raise ConfigError(f"{config.path}: {rank_complaint(window, 2)}")


def border_of(config: Config, window: tuple[int, int, int]) -> tuple[int, int, int]:
    """What inference cuts off each side of a window: `border`, but nothing along axes where it is one voxel thick.

    The released 2-D files ask for (5, 0, 5) of windows (100, 100, 1); their resize sampler never looked at it.
    """
    border = tuple(0 if size == 1 else voxels for size, voxels in zip(window, config.inference.border, strict=True))
    if border != tuple(config.inference.border):
        log.warning("border %s becomes %s: windows %s are one voxel thick", config.inference.border, border, window)
    return border


def check_subsets(config: Config, task: Task) -> None:
    """To segment subsets of the modalities, the modality of every scan must be known.

    Raises:
        ConfigError: that of some scan is not.
    """
    if config.pimms.subsets and task.modality_image is None and min(task.slot_modality) < 0:
        raise ConfigError(
            f"{config.path}: subsets need to know the modality of every scan; set image_modalities in [PIMMS]"
        )


def check_arrangement(config: Config, num_scans: int) -> None:
    """`idxs_to_drop` and `permuted_indices` speak of scans that there are.

    Raises:
        ConfigError: an index too large, an order that is none of all scans, or one together with subsets.
    """
    drop, order = (getattr(config.task, name, ()) for name in ("idxs_to_drop", "permuted_indices"))
    if order and config.pimms.subsets:
        raise ConfigError(
            f"{config.path}: permuted_indices changes which scan lies in which slot, and subsets chooses scans by "
            "their slots; give one of the two"
        )
    if any(index >= num_scans for index in drop):
        raise ConfigError(
            f"{config.path}: idxs_to_drop = {', '.join(map(str, drop))} in [{config.task_name}], but there are "
            f"{num_scans} scans, 0 to {num_scans - 1}"
        )
    if order and sorted(order) != list(range(num_scans)):
        raise ConfigError(
            f"{config.path}: permuted_indices = {', '.join(map(str, order))} in [{config.task_name}] is no order of "
            f"{counted(num_scans, 'scan')}; write each of 0 to {num_scans - 1} once"
        )


def real_modalities(task: Task) -> tuple[str, ...]:
    return task.modalities[1:] if task.null_class else task.modalities


def resumed(config: Config) -> Config:
    """The configuration of a training, with the `starting_iter` that `[PIMMS] resume` makes of its own.

    Where model_dir holds a checkpoint that is the latest one, and where it holds none, -1 becomes 0: so one command
    line serves the first start and every later one.

    Raises:
        ConfigError: `vars_to_restore` is set and it cannot be known whether the latest checkpoint is the one to take
            these variables from, or one of this training's own.
    """
    if not config.pimms.resume or config.action != "training":
        return config
    training, newest = config.training, ModelDir(config.model_dir).newest()
    start = max(training.starting_iter, 0) if newest is None else newest or -1  # 0 would be random weights
    if training.vars_to_restore and newest is not None:
        if training.starting_iter <= 0:
            raise ConfigError(
                f"{config.path}: vars_to_restore with resume needs the number of the checkpoint that these variables "
                f"come from; set starting_iter to it, such as {newest}"
            )
        # What lies behind that number this training has written itself, and all of it goes on.
        if newest != training.starting_iter:
            training = replace(training, vars_to_restore="")
    what = "there is no checkpoint, so training begins" if newest is None else f"goes on from iteration {newest}"
    log.info("resume: %s", what)
    return replace(config, training=replace(training, starting_iter=start))


def notes(config: Config) -> ModelDir:
    """Where a run leaves its settings, log, lists and records: in model_dir, or else in `run_notes` beside its results.

    The latter if model_dir cannot be written, being shared or part of a container, and from then on, so that shards and
    their merge find each other's records wherever they run.

    Raises:
        ConfigError: the folder of results cannot be written either.
    """
    folder = ModelDir(config.model_dir)
    if config.action not in ("inference", "evaluation"):
        return folder
    key = "save_seg_dir" if config.action == "inference" else "save_csv_dir"
    results = getattr(config, key)
    beside = ModelDir(results / "run_notes")
    if not beside.root.is_dir():
        obstacle = folder.obstacle()
        if not obstacle:
            return folder
        if beside.obstacle():
            raise ConfigError(
                f"{config.path}: model_dir {folder.root} cannot be written ({obstacle}), nor can {key} {results}; give "
                f"{key} a folder that can"
            )
    return beside


def write_settings(config: Config) -> None:
    """Writes the resolved settings of a run to `settings_<action>.txt`, see `notes`.

    Raises:
        ConfigError: as `notes`.
    """
    folder = notes(config)
    if folder.root != ModelDir(config.model_dir).root:
        log.info("model_dir is left alone; settings, log, lists and records of this run are in %s", folder.root)
    write_text(folder.settings_file(config.action), settings_text(config))
