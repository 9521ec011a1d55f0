"""Scoring: an evaluation, prepared. Which segmentations are held against which references is decided here alone."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from niftynet_compat import Config, ConfigError
from niftynet_compat.subjects.lists import read_file_list
from pimms_tf.data.labels import LabelRules
from pimms_tf.errors import InputError
from pimms_tf.evaluation import FilePair, join_by_subject, modality_subsets
from pimms_tf.evaluation.niftynet_scores import NIFTYNET_TABLES
from pimms_tf.inference import subset_folder
from pimms_tf.study import cohort, mappings
from pimms_tf.study.overwriting import refuse_overwriting
from pimms_tf.study.study import MODEL, SETTINGS, SUBJECTS, Heed, let_through
from pimms_tf.study.task import Task, real_modalities, require_section, task_of

log = logging.getLogger(__name__)

Subset = tuple[str, ...]


@dataclass(frozen=True)
class Scoring:
    """An evaluation, prepared; of images only names were looked at.

    Args:
        config: the settings that all else follows from.
        task: what was asked of the network.
        references: the label map of each subject that has one.
        inferred: the segmentation of each subject, for each subset of the scans that any subject was segmented from.
        pairs: those of them that are scored, subject by subject.
        rules: which values label maps may have; None only after mistakes of a dry run.
    """

    config: Config
    task: Task
    references: Mapping[str, Path]
    inferred: Mapping[Subset, Mapping[str, Path]]
    pairs: Mapping[Subset, tuple[FilePair, ...]]
    rules: LabelRules | None

    @property
    def num_inferred(self) -> int:
        """How many subjects have a segmentation of any kind."""
        return len({subject_id for part in self.inferred.values() for subject_id in part})


def evaluation_study(config: Config, heed: Heed = let_through) -> Scoring:
    """Returns the evaluation that a configuration describes; logs which subjects cannot take part.

    The segmentations are those of the section `inferred`, or else of `inferred.csv` in `save_seg_dir`, and of the lists
    of all subsets where these are asked for. Only subjects that inference was meant to segment are missed where they
    have no segmentation.

    Raises:
        ConfigError, InputError: a mistake in the configuration, or nothing to evaluate. With another `heed` there are
            none but those that leave nothing to look at.
    """
    task = task_of(config)
    if not task.segments:
        raise ConfigError(f"{config.path}: evaluation scores segmentations, but {config.network.name} makes none")
    require_section(config, task.label, "label")
    references, inferred, pairs, rules = {}, {}, {}, None
    with heed(SUBJECTS):
        references = cohort.files_of_section(config, task.label)
        inferred = _segmentations(config, _subsets(config, task))
        pairs = dict(_pairs(config, references, inferred))
    with heed(SETTINGS):
        refuse_overwriting(config, _tables(config, _subsets(config, task)))
    with heed(MODEL):
        codes = mappings.label_codes(config, task.label) if config.task.label_normalisation else None
        rules = mappings.label_rules(config, task, codes)
    return Scoring(config, task, references, inferred, pairs, rules)


def _subsets(config: Config, task: Task) -> Sequence[Subset]:
    return modality_subsets(real_modalities(task)) if config.pimms.subsets else [()]


def _pairs(
    config: Config, references: Mapping[str, Path], inferred: Mapping[Subset, Mapping[str, Path]]
) -> Iterator[tuple[Subset, tuple[FilePair, ...]]]:
    expected = cohort.expected_subjects(config, references)
    for subset, found in inferred.items():
        wanted = {name: path for name, path in references.items() if name in found or name in expected}
        yield subset, tuple(join_by_subject(wanted, found))


def _tables(config: Config, subsets: Sequence[Subset]) -> list[Path]:
    """The files that may be written."""
    files = [config.save_csv_dir / name for name in ("evaluation.csv", "evaluation_summary.csv")]
    for subset in subsets if config.evaluation.evaluations else []:
        files += [subset_folder(config.save_csv_dir, subset) / name for name in NIFTYNET_TABLES]
    return files


def _segmentations(config: Config, subsets: Sequence[Subset]) -> dict[Subset, dict[str, Path]]:
    """The segmentations of each subset that any subject has, {subject: file}."""
    named = config.sources("inferred")
    if named and not any(subsets):
        return {(): cohort.files_of_section(config, named[0])}
    lists = {subset: subset_folder(config.save_seg_dir, subset) / "inferred.csv" for subset in subsets}
    found = {
        subset: read_file_list(path, "inferred", must_exist=False) for subset, path in lists.items() if path.is_file()
    }
    if not found:
        option = " --subsets" if any(subsets) else ""
        raise InputError(
            f"{lists[subsets[0]]} is not there, so there is nothing to evaluate: run pimms-tf inference "
            f"{config.path}{option} first, or name segmentations by inferred in the task section"
        )
    for subset in subsets:
        if subset not in found:
            log.warning("%s: no subject was segmented from %s", config.save_seg_dir, "+".join(subset))
    return found
