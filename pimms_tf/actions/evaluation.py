"""Evaluation of a cohort: settings → reference and inferred masks → tables on disk."""

import logging
from collections.abc import Sequence
from pathlib import Path

from niftynet_compat import Config, ConfigError
from niftynet_compat.subjects.lists import read_file_list
from pimms_tf.actions.failures import raise_failure, sentence
from pimms_tf.data.labels import LabelRules
from pimms_tf.errors import InputError
from pimms_tf.evaluation import (
    FilePair,
    ImagePair,
    LabelPair,
    ScoreTable,
    SubjectResult,
    SubjectScores,
    evaluate_subject,
    join_by_subject,
    modality_subsets,
    niftynet_tables,
    read_pair,
    table_1,
    write_results,
    write_summary,
)
from pimms_tf.evaluation.niftynet_scores import NIFTYNET_TABLES
from pimms_tf.evaluation.results import subset_name
from pimms_tf.files import sweep
from pimms_tf.inference import subset_folder
from pimms_tf.study import cohort, journal, mappings
from pimms_tf.study.overwriting import refuse_overwriting
from pimms_tf.study.task import Task, real_modalities, require_section, task_of, write_settings

log = logging.getLogger(__name__)


def evaluation(config: Config) -> str:
    """Scores segmentations against reference labels, both on the files' own grid; returns the summary as text.

    Writes `evaluation.csv`, a line per subject (and subset), and `evaluation_summary.csv` into `save_csv_dir`, and with
    `evaluations` NiftyNet's own tables of those metrics. The segmentations are those of the section `inferred`, or else
    of `inferred.csv` in `save_seg_dir`.

    Raises:
        ConfigError, InputError: a mistake in the configuration, or in the data of one or more subjects; the tables of
            the others are written before.
    """
    task = task_of(config)
    if task.variant == "classifier":
        raise ConfigError(f"{config.path}: evaluation scores segmentations, but {config.network.name} makes none")
    require_section(config, task.label, "label")
    codes = mappings.label_codes(config, task.label) if config.task.label_normalisation else None
    references = cohort.files_of_section(config, task.label)
    subsets = modality_subsets(real_modalities(task)) if config.pimms.subsets else [()]
    found = _segmentations(config, subsets)
    expected = cohort.expected_subjects(config, references)
    refuse_overwriting(config, _tables(config, subsets))
    rules = mappings.label_rules(config, task, codes)
    results: list[SubjectResult] = []
    tables: dict[Path, list[ScoreTable]] = {}
    failed: dict[str, Exception] = {}
    subjects: set[str] = set()
    for subset, inferred in found.items():
        # Only subjects that inference was meant to segment are missed where they have no segmentation.
        wanted = {name: path for name, path in references.items() if name in inferred or name in expected}
        good = []
        for each in join_by_subject(wanted, inferred):
            subjects.add(each.subject_id)
            try:
                results.append(SubjectResult(each.subject_id, subset, _scores(config, task, each, rules)))
                good.append(each)
            except Exception as error:  # the others are scored all the same
                failed.setdefault(each.subject_id, error)
                log.error("%s (%s) failed: %s", each.subject_id, subset_name(subset), sentence(error))
        if config.evaluation.evaluations and good:
            tables[subset_folder(config.save_csv_dir, subset)] = _niftynet_tables(config, task, good, rules)
    if results:
        write_settings(config)
        sweep(config.save_csv_dir)
        journal.evaluation_starts(config, references, len({name for part in found.values() for name in part}))
        for folder, each in tables.items():
            for table in each:
                table.write(folder)
        write_results(config.save_csv_dir / "evaluation.csv", results)
        write_summary(config.save_csv_dir / "evaluation_summary.csv", results)
        log.info("Saved %s and evaluation_summary.csv", config.save_csv_dir / "evaluation.csv")
    summary = table_1({config.network.name: results}, baseline=config.network.name).markdown() if results else ""
    if failed:
        log.info("%s", summary)
        raise_failure(failed, len(subjects))
    return summary


def _tables(config: Config, subsets: Sequence[tuple[str, ...]]) -> list[Path]:
    """The files that may be written."""
    files = [config.save_csv_dir / name for name in ("evaluation.csv", "evaluation_summary.csv")]
    for subset in subsets if config.evaluation.evaluations else []:
        files += [subset_folder(config.save_csv_dir, subset) / name for name in NIFTYNET_TABLES]
    return files


def _scores(config: Config, task: Task, files: FilePair, rules: LabelRules) -> SubjectScores:
    pair = _read(config, task, files, rules)
    kind = "niftynet" if config.pimms.distance == "niftynet" else "standard"
    return evaluate_subject(pair.reference, pair.foreground, pair.spacing_mm, surface_distance=kind)


def _niftynet_tables(config: Config, task: Task, files: Sequence[FilePair], rules: LabelRules) -> list[ScoreTable]:
    pairs = ((each.subject_id, _read(config, task, each, rules)) for each in files)
    return niftynet_tables(
        (LabelPair(subject_id, pair.reference, pair.inferred) for subject_id, pair in pairs),
        getattr(config.task, "evaluation_units", "foreground").split(","),
        config.evaluation.evaluations.split(","),
        task.num_classes,
    )


def _read(config: Config, task: Task, files: FilePair, rules: LabelRules) -> ImagePair:
    return read_pair(files, rules, config.inputs[task.label].loader)


def _segmentations(config: Config, subsets: Sequence[tuple[str, ...]]) -> dict[tuple[str, ...], dict[str, Path]]:
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
