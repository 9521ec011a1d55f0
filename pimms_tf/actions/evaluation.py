"""Evaluation of a cohort: pairs of reference and inferred masks → tables on disk."""

import logging
from collections.abc import Sequence
from pathlib import Path

from pimms_tf.actions.failures import raise_failure, sentence
from pimms_tf.evaluation import (
    FilePair,
    ImagePair,
    LabelPair,
    ScoreTable,
    SubjectResult,
    SubjectScores,
    evaluate_subject,
    niftynet_tables,
    read_pair,
    table_1,
    write_results,
    write_summary,
)
from pimms_tf.evaluation.results import subset_name
from pimms_tf.files import sweep
from pimms_tf.inference import subset_folder
from pimms_tf.study import journal
from pimms_tf.study.scoring import Scoring
from pimms_tf.study.task import write_settings

log = logging.getLogger(__name__)


def evaluation(scoring: Scoring) -> str:
    """Scores segmentations against reference labels, both on the files' own grid; returns the summary as text.

    Writes `evaluation.csv`, a line per subject (and subset), and `evaluation_summary.csv` into `save_csv_dir`, and with
    `evaluations` NiftyNet's own tables of those metrics.

    Raises:
        ConfigError, InputError: a mistake in the configuration, or in the data of one or more subjects; the tables of
            the others are written before.
    """
    config = scoring.config
    results: list[SubjectResult] = []
    tables: dict[Path, list[ScoreTable]] = {}
    failed: dict[str, Exception] = {}
    subjects: set[str] = set()
    for subset, pairs in scoring.pairs.items():
        good = []
        for each in pairs:
            subjects.add(each.subject_id)
            try:
                results.append(SubjectResult(each.subject_id, subset, _scores(scoring, each)))
                good.append(each)
            except Exception as error:  # the others are scored all the same
                failed.setdefault(each.subject_id, error)
                log.error("%s (%s) failed: %s", each.subject_id, subset_name(subset), sentence(error))
        if config.evaluation.evaluations and good:
            tables[subset_folder(config.save_csv_dir, subset)] = _niftynet_tables(scoring, good)
    if results:
        write_settings(config)
        sweep(config.save_csv_dir)
        journal.evaluation_starts(config, scoring.references, scoring.num_inferred)
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


def _scores(scoring: Scoring, files: FilePair) -> SubjectScores:
    pair = _read(scoring, files)
    kind = "niftynet" if scoring.config.pimms.distance == "niftynet" else "standard"
    return evaluate_subject(pair.reference, pair.foreground, pair.spacing_mm, surface_distance=kind)


def _niftynet_tables(scoring: Scoring, files: Sequence[FilePair]) -> list[ScoreTable]:
    config, pairs = scoring.config, ((each.subject_id, _read(scoring, each)) for each in files)
    return niftynet_tables(
        (LabelPair(subject_id, pair.reference, pair.inferred) for subject_id, pair in pairs),
        getattr(config.task, "evaluation_units", "foreground").split(","),
        config.evaluation.evaluations.split(","),
        scoring.task.num_classes,
    )


def _read(scoring: Scoring, files: FilePair) -> ImagePair:
    return read_pair(files, scoring.rules, scoring.config.inputs[scoring.task.label].loader)
