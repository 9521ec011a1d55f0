"""What preparation learns from the training subjects or reads from file: landmarks, label codes, modality labels."""

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from niftynet_compat import (
    Config,
    ConfigError,
    SubjectFiles,
    read_label_mapping,
    read_mapping,
    write_label_mapping,
    write_mapping,
)
from pimms_tf.data.images import read_image
from pimms_tf.data.intensity import LabelMapping, label_mapping
from pimms_tf.data.labels import LabelRules
from pimms_tf.data.learning import train_mapping
from pimms_tf.data.loading import SubjectLoader
from pimms_tf.evaluation.metrics import OTHER_PATHOLOGY
from pimms_tf.study import journal
from pimms_tf.study.cohort import modality_classes, reads_modalities
from pimms_tf.study.task import Task, real_modalities
from pimms_tf.wording import counted

log = logging.getLogger(__name__)


def with_mappings(
    loader: SubjectLoader,
    config: Config,
    task: Task,
    learn_from: Sequence[SubjectFiles] | None = None,
    store: bool = True,
    landmarks_from: Sequence[SubjectFiles] | None = None,
) -> SubjectLoader:
    """The loader with histogram landmarks, label codes and modality labels, as far as the configuration asks for them.

    They are read from `histogram_ref_file`. Training learns those that the file lacks from its subjects, `learn_from`,
    and puts them there unless `store` is False; a trial may take `landmarks_from` fewer. Label codes that the loader
    has already are kept.

    Raises:
        ConfigError: the file lacks some and there is nothing to learn from.
    """
    if config.network.normalisation:
        loader = replace(loader, mapping=_landmarks(config, task, loader, landmarks_from or learn_from, store))
    if loader.label is not None and config.task.label_normalisation and loader.label_mapping is None:
        loader = replace(loader, label_mapping=label_codes(config, task.label, learn_from, store))
    if loader.modality_image is not None:
        loader = replace(loader, modality_mapping=_modality_labels(config, task, learn_from, store))
    if task.modality_values is not None and reads_modalities(config, task):
        loader = replace(loader, modality=modality_classes(config, task))
    return loader


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


def _landmarks(
    config: Config, task: Task, loader: SubjectLoader, subjects: Sequence[SubjectFiles] | None, store: bool
) -> dict:
    """Histogram landmarks from file; those that the file lacks are computed from training subjects and put there."""
    if subjects is None:
        return _read_landmarks(config, task)
    path = _landmark_file(config)
    known = read_mapping(path) if path.is_file() else {}
    missing = [name for name in task.scans if name not in known]
    if missing:
        number = counted(len(subjects), "subject")
        log.info("computing histogram landmarks of %s from %s", ", ".join(missing), number)
        text = "training normalisation histogram references for image:%s, using %d subjects"
        journal.say(text, tuple(missing), len(subjects))
        computed = train_mapping(loader, subjects)
        known |= {name: computed[name] for name in missing if name in computed}
        if store:
            write_mapping(path, known)
    return {name: known[name] for name in task.scans if name in known}


def with_landmarks(loader: SubjectLoader, config: Config, task: Task) -> SubjectLoader:
    """The loader with the landmarks on file, as far as histograms are standardised, and with nothing else.

    Raises:
        ConfigError: the file lacks the landmarks of a section.
    """
    return replace(loader, mapping=_read_landmarks(config, task)) if config.network.normalisation else loader


def label_codes(
    config: Config, section: str, learn_from: Sequence[SubjectFiles] | None = None, store: bool = True
) -> LabelMapping:
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
    log.info("collecting label codes of [%s] from %s", section, counted(len(learn_from), "subject"))
    journal.say("Looking for the set of unique discrete labels from input label using %d subjects", len(learn_from))
    loader = config.inputs[section].loader
    mapping = label_mapping(read_image(subject.images[section], loader).data for subject in learn_from)
    if store:
        write_label_mapping(path, "label", section, *mapping)
    return mapping


def label_rules(config: Config, task: Task, codes: LabelMapping | None) -> LabelRules:
    """Which values label maps may have, the same for training, evaluation and a dry run of both."""
    ignored = (OTHER_PATHOLOGY,) if config.action == "evaluation" else ()
    return LabelRules(task.num_classes, codes, config.inputs[task.label].interp_order > 0, ignored)


def _modality_labels(
    config: Config, task: Task, learn_from: Sequence[SubjectFiles] | None, store: bool
) -> LabelMapping:
    """Values of the modality files and their classes.

    In [MULTITASK] 0 is an empty slot and modalities count from 1; without a class for empty slots 0 says nothing. In
    [CLASSIFICATION] they count from 0, or are codes that `label_normalisation` numbers.
    """
    count, first = len(real_modalities(task)), int(task.null_class)
    if config.task_name == "MULTITASK":
        return LabelMapping(tuple(range(count + 1)), (0 if task.null_class else -1, *range(first, first + count)))
    if not config.task.label_normalisation:
        return LabelMapping(tuple(range(count)), tuple(range(first, first + count)))
    codes = label_codes(config, task.modality_image, learn_from, store)
    if max(codes.target) >= count:
        raise ConfigError(
            f"the files of [{task.modality_image}] have {max(codes.target) + 1} label codes, "
            f"{', '.join(f'{code:g}' for code in codes.source)}, but there are {count} modality classes; correct "
            "num_classes or the files"
        )
    return LabelMapping(codes.source, tuple(target + first for target in codes.target))
