"""Settings → the objects that a verb needs: task, subjects, loader, batches, network, loss."""

import inspect
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import tensorflow as tf

from niftynet_compat import (
    Config,
    ConfigError,
    InputSection,
    ModelDir,
    Phase,
    SubjectFiles,
    discover,
    phase_subjects,
    read_label_mapping,
    read_mapping,
    read_split,
    resolve_network,
    select_subjects,
    split_subjects,
    write_label_mapping,
    write_mapping,
)
from niftynet_compat.paths import search_folders
from pimms_tf.data.augmentation import Augmentation, Elastic
from pimms_tf.data.grids import Grid
from pimms_tf.data.images import read_image
from pimms_tf.data.intensity import LabelMapping, label_mapping
from pimms_tf.data.pipeline import Batch, training_batches, validation_batches
from pimms_tf.data.subjects import Subject, SubjectLoader, train_mapping
from pimms_tf.data.windows import (
    balanced_locations,
    foreground_locations,
    resize_window,
    resolve_window,
    uniform_locations,
    weighted_locations,
)
from pimms_tf.errors import InputError
from pimms_tf.evaluation.results import some_of
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


def _reads_modalities(config: Config, task: Task) -> bool:
    """Whether the files that say which modality each scan has are needed: they are the answer, not the question."""
    return task.modality_image is not None and (
        config.action == "training" or task.variant == "hemis" or config.pimms.subsets
    )


def task_subjects(config: Config, task: Task, needs_label: bool) -> list[SubjectFiles]:
    """The subjects that the action can use; files and subjects left aside are counted and named, with the reason."""
    required = [task.label] if needs_label else []
    if _reads_modalities(config, task):
        required.append(task.modality_image)
    if config.action == "training" and task.sampler is not None:
        required.append(task.sampler)
    needed = {*task.scans, *required}
    inputs = {name: section for name, section in config.inputs.items() if name in needed}
    _refuse_values(config, inputs)
    if config.action == "inference" and config.pimms.keep_incomplete:
        # A cohort to be segmented may lack a modality altogether; a folder that is not there is still a mistake.
        inputs |= {name: replace(inputs[name], referenced=not _is_searchable(inputs[name])) for name in task.scans}
    found = discover(inputs)
    unused = _grouped(((section, reason), file.name) for section, file, reason in found.unmatched if file is not None)
    for (section, reason), files in unused.items():
        log.warning("[%s] %d files are not used, since %s: %s", section, len(files), reason, some_of(files))
    any_of: Sequence[str] = task.scans
    if not config.pimms.keep_incomplete:
        required, any_of = [*task.scans, *required], ()
    kept, dropped = select_subjects(found.subjects, required, any_of)
    for reason, ids in _grouped((reason, subject_id) for subject_id, reason in dropped).items():
        log.warning("%d subjects are left out, each of which %s: %s", len(ids), reason, some_of(ids))
    lacking = (
        (", ".join(name for name in task.scans if name not in subject.images), subject.subject_id) for subject in kept
    )
    for names, ids in _grouped(lacking).items():
        if names:
            log.info("%d subjects lack %s: %s", len(ids), names, some_of(ids))
    if not kept:
        counts = ", ".join(f"{count} in [{name}]" for name, count in found.found.items())
        raise ConfigError(
            f"{config.path}: no subject has the files that are needed ({counts}): files of one subject must leave the "
            "same id when filename_contains is cut from their names"
        )
    return kept


def _refuse_values(config: Config, inputs: Mapping[str, InputSection]) -> None:
    for name, section in inputs.items():
        if section.csv_data_file:
            raise ConfigError(
                f"{config.path}: [{name}] has csv_data_file, a list of values, where images are needed; name images by "
                "path_to_search or csv_file"
            )


def _is_searchable(section: InputSection) -> bool:
    folders = search_folders(section.path_to_search, Path.cwd())
    return not section.csv_file and bool(folders) and all(folder.is_dir() for folder in folders)


def _grouped(pairs: Iterable[tuple]) -> dict:
    groups: dict = {}
    for key, value in pairs:
        groups.setdefault(key, []).append(value)
    return groups


def phases_of(config: Config, subjects: Sequence[SubjectFiles]) -> dict[str, Phase] | None:
    """The phases on file; without a file, drawn ones if the configuration gives fractions, else None."""
    path = config.split_file
    if path.is_file():
        log.info("Loading from existing partitioning file %s", path)
        return read_split(path)
    training = config.training
    fractions = (training.exclude_fraction_for_validation, training.exclude_fraction_for_inference)
    if max(fractions) <= 0:
        return None
    return split_subjects([subject.subject_id for subject in subjects], *fractions, config.pimms.seed)


def subjects_in_phase(
    subjects: Sequence[SubjectFiles], split: dict[str, Phase] | None, phase: str | Phase, config: Config
) -> list[SubjectFiles]:
    ids = [subject.subject_id for subject in subjects]
    if phase is Phase.VALIDATION and (split is None or Phase.VALIDATION not in split.values()):
        return []
    wanted = set(phase_subjects(ids, split, phase, f"dataset_split_file {config.split_file}"))
    return [subject for subject in subjects if subject.subject_id in wanted]


def subject_loader(config: Config, task: Task, needs_label: bool) -> SubjectLoader:
    """What prepares subjects, but for that which is learnt from the training subjects; see `with_mappings`."""
    network = config.network
    sections = [name for name in (*task.scans, task.label, task.sampler) if name is not None]
    return SubjectLoader(
        axcodes={name: tuple(config.inputs[name].axcodes) or None for name in sections},
        pixdim_mm={name: tuple(config.inputs[name].pixdim[:3]) or None for name in sections},
        padding=network.volume_padding_size,
        padding_mode=network.volume_padding_mode,
        padding_to=None if not any(network.volume_padding_to_size) else network.volume_padding_to_size,
        foreground=network.foreground_type if network.normalise_foreground_only else None,
        fusion=network.multimod_foreground_type,
        norm_type=network.norm_type,
        cutoff=tuple(network.cutoff),
        whitening=network.whitening,
        scans=task.scans,
        modality=task.slot_modality,
        label=task.label if needs_label else None,
        weight=task.sampler if needs_label and network.window_sampling in ("weighted", "balanced") else None,
        modality_image=task.modality_image if _reads_modalities(config, task) else None,
        null_class=task.null_class,
        orders={name: config.inputs[name].interp_order for name in sections},
        loader={name: config.inputs[name].loader for name in sections},
        num_classes=task.num_classes if needs_label else None,
        require_label=needs_label,
        reference=config.pimms.reference or None,
    )


def with_mappings(
    loader: SubjectLoader, config: Config, task: Task, learn_from: Sequence[SubjectFiles] | None = None
) -> SubjectLoader:
    """The loader with histogram landmarks, label codes and modality labels, as far as the configuration asks for them.

    They are read from `histogram_ref_file`. Training learns those that the file lacks from its subjects, `learn_from`,
    and puts them there.

    Raises:
        ConfigError: the file lacks some and there is nothing to learn from.
    """
    if config.network.normalisation:
        loader = replace(loader, mapping=_landmarks(config, task, loader, learn_from))
    if loader.label is not None and config.task.label_normalisation:
        loader = replace(loader, label_mapping=label_codes(config, task.label, learn_from))
    if loader.modality_image is not None:
        loader = replace(loader, modality_mapping=_modality_labels(config, task, learn_from))
    return loader


def check_subjects(loader: SubjectLoader, subjects: Sequence[SubjectFiles], window: Sequence[int] | None) -> None:
    """Reads the headers of all subjects: the files of each lie on one grid, and a window fits into it.

    Raises:
        InputError: the first subject of which this is not so.
    """
    for files in subjects:
        shape = loader.prepared_shape(files.images, files.subject_id)
        if window is not None:
            try:
                resolve_window(shape, window)
            except InputError as error:
                raise InputError(f"subject {files.subject_id}: {error}") from error


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


def _landmark_file(config: Config) -> Path:
    if config.histogram_file is None:
        raise ConfigError(f"{config.path}: normalisation = True needs histogram_ref_file in [NETWORK]")
    return config.histogram_file


def _read_landmarks(config: Config, task: Task) -> dict:
    path = _landmark_file(config)
    known = read_mapping(path) if path.is_file() else {}
    missing = [name for name in task.scans if name not in known]
    if missing:
        raise ConfigError(
            f"histogram_ref_file {path} has no landmarks for {', '.join(missing)}, which normalisation = True needs; "
            "train with this configuration first, or copy the file of the trained model there"
        )
    return {name: known[name] for name in task.scans}


def _landmarks(config: Config, task: Task, loader: SubjectLoader, subjects: Sequence[SubjectFiles] | None) -> dict:
    """Histogram landmarks from file; those that the file lacks are computed from training subjects and put there."""
    if subjects is None:
        return _read_landmarks(config, task)
    path = _landmark_file(config)
    known = read_mapping(path) if path.is_file() else {}
    missing = [name for name in task.scans if name not in known]
    if missing:
        log.info("computing histogram landmarks of %s from %d subjects", ", ".join(missing), len(subjects))
        computed = train_mapping(loader, subjects)
        known |= {name: computed[name] for name in missing if name in computed}
        write_mapping(path, known)
    return {name: known[name] for name in task.scans if name in known}


def landmarks_by_modality(config: Config, task: Task) -> tuple[tuple[float, ...], ...]:
    """The landmarks on file of each modality class, () of a class that no section has; () without standardisation.

    Raises:
        ConfigError: the file lacks the landmarks of a section.
    """
    if not config.network.normalisation:
        return ()
    known = _read_landmarks(config, task)
    sections = dict(zip(reversed(task.slot_modality), reversed(task.scans), strict=True))
    return tuple(
        tuple(map(float, known[sections[modality]])) if modality in sections else ()
        for modality in range(len(task.modalities))
    )


def label_codes(config: Config, section: str, learn_from: Sequence[SubjectFiles] | None = None) -> LabelMapping:
    """Label codes of the files of a section and their classes: from file, else numbered from subjects and put on file.

    Raises:
        ConfigError: they are not on file and there are no subjects to learn them from.
    """
    path = config.histogram_file
    if path is None:
        raise ConfigError(f"{config.path}: label_normalisation = True needs histogram_ref_file in [NETWORK]")
    stored = read_label_mapping(path, "label", section) if path.is_file() else None
    if stored is not None:
        return LabelMapping(tuple(map(float, stored.source)), tuple(map(int, stored.target)))
    if learn_from is None:
        raise ConfigError(
            f"histogram_ref_file {path} has no label codes of [{section}], which label_normalisation = True needs; "
            "train with this configuration first, or copy the file of the trained model there"
        )
    log.info("collecting label codes of [%s] from %d subjects", section, len(learn_from))
    loader = config.inputs[section].loader
    mapping = label_mapping(read_image(subject.images[section], loader).data for subject in learn_from)
    write_label_mapping(path, "label", section, *mapping)
    return mapping


def _modality_labels(config: Config, task: Task, learn_from: Sequence[SubjectFiles] | None) -> LabelMapping:
    """Values of the modality files and their classes.

    In [MULTITASK] 0 is an empty slot and modalities count from 1; without a class for empty slots 0 says nothing. In
    [CLASSIFICATION] they count from 0, or are codes that `label_normalisation` numbers.
    """
    count, first = len(real_modalities(task)), int(task.null_class)
    if config.task_name == "MULTITASK":
        return LabelMapping(tuple(range(count + 1)), (0 if task.null_class else -1, *range(first, first + count)))
    if not config.task.label_normalisation:
        return LabelMapping(tuple(range(count)), tuple(range(first, first + count)))
    codes = label_codes(config, task.modality_image, learn_from)
    if max(codes.target) >= count:
        raise ConfigError(
            f"the files of [{task.modality_image}] have {max(codes.target) + 1} label codes, "
            f"{', '.join(f'{code:g}' for code in codes.source)}, but there are {count} modality classes; correct "
            "num_classes or the files"
        )
    return LabelMapping(codes.source, tuple(target + first for target in codes.target))


def real_modalities(task: Task) -> tuple[str, ...]:
    return task.modalities[1:] if task.null_class else task.modalities


def scan_files(files: SubjectFiles, task: Task) -> dict[str, Path]:
    """The files of a subject without those that hold an answer, which inference has no use for."""
    return {name: path for name, path in files.images.items() if name in (*task.scans, task.modality_image)}


def files_of_section(config: Config, section: str) -> dict[str, Path]:
    _refuse_values(config, {section: config.inputs[section]})
    found = discover({section: config.inputs[section]})
    return {subject.subject_id: subject.images[section] for subject in found.subjects}
