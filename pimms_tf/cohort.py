"""Settings → subjects and how they are prepared: files, split, loader, landmarks, label codes."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from niftynet_compat import (
    Config,
    ConfigError,
    InputSection,
    Phase,
    SubjectFiles,
    discover,
    phase_subjects,
    read_label_mapping,
    read_mapping,
    read_split,
    select_subjects,
    split_subjects,
    write_label_mapping,
    write_mapping,
)
from niftynet_compat.paths import search_folders
from pimms_tf.data.images import read_image
from pimms_tf.data.intensity import LabelMapping, label_mapping
from pimms_tf.data.subjects import SubjectLoader, train_mapping
from pimms_tf.data.windows import resolve_window
from pimms_tf.errors import InputError
from pimms_tf.evaluation.results import some_of
from pimms_tf.task import Task, real_modalities

log = logging.getLogger(__name__)


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


def _reads_modalities(config: Config, task: Task) -> bool:
    """Whether the files that say which modality each scan has are needed: they are the answer, not the question."""
    return task.modality_image is not None and (
        config.action == "training" or task.variant == "hemis" or config.pimms.subsets
    )


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


def scan_files(files: SubjectFiles, task: Task) -> dict[str, Path]:
    """The files of a subject without those that hold an answer, which inference has no use for."""
    return {name: path for name, path in files.images.items() if name in (*task.scans, task.modality_image)}


def files_of_section(config: Config, section: str) -> dict[str, Path]:
    _refuse_values(config, {section: config.inputs[section]})
    found = discover({section: config.inputs[section]})
    return {subject.subject_id: subject.images[section] for subject in found.subjects}
