"""Evaluation of a cohort: settings → reference and inferred masks → tables on disk."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from niftynet_compat import Config, ConfigError
from niftynet_compat.subjects.lists import read_file_list
from pimms_tf.data.images import read_image, reorient
from pimms_tf.data.intensity import LabelMapping, map_labels, unlisted_labels
from pimms_tf.errors import InputError
from pimms_tf.evaluation import (
    FilePair,
    LabelPair,
    SubjectResult,
    evaluate_subject,
    join_by_subject,
    modality_subsets,
    niftynet_tables,
    table_1,
    write_results,
    write_summary,
)
from pimms_tf.files import sweep
from pimms_tf.inference import subset_folder
from pimms_tf.study import cohort, journal, mappings
from pimms_tf.study.task import Task, real_modalities, require_section, task_of, write_settings

log = logging.getLogger(__name__)


def evaluation(config: Config) -> str:
    """Scores segmentations against reference labels, both on the files' own grid; returns the summary as text.

    Writes `evaluation.csv`, a line per subject (and subset), and `evaluation_summary.csv` into `save_csv_dir`, and with
    `evaluations` NiftyNet's own tables of those metrics. The segmentations are those of the section `inferred`, or else
    of `inferred.csv` in `save_seg_dir`.

    Raises:
        ConfigError, InputError: a mistake in the configuration or the data.
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
    results = []
    for subset, inferred in found.items():
        # Only subjects that inference was meant to segment are missed where they have no segmentation.
        wanted = {name: path for name, path in references.items() if name in inferred or name in expected}
        files = join_by_subject(wanted, inferred)
        for each in files:
            pair = _read_pair(config, task, codes, each)
            kind = "niftynet" if config.pimms.distance == "niftynet" else "standard"
            scores = evaluate_subject(pair.reference, pair.foreground, pair.spacing_mm, surface_distance=kind)
            results.append(SubjectResult(each.subject_id, subset, scores))
        if config.evaluation.evaluations:
            pairs = ((each.subject_id, _read_pair(config, task, codes, each)) for each in files)
            tables = niftynet_tables(
                (LabelPair(subject_id, pair.reference, pair.inferred) for subject_id, pair in pairs),
                getattr(config.task, "evaluation_units", "foreground").split(","),
                config.evaluation.evaluations.split(","),
                task.num_classes,
            )
            for table in tables:
                table.write(subset_folder(config.save_csv_dir, subset))
    write_settings(config)
    sweep(config.save_csv_dir)
    journal.evaluation_starts(config, references, len({name for part in found.values() for name in part}))
    write_results(config.save_csv_dir / "evaluation.csv", results)
    write_summary(config.save_csv_dir / "evaluation_summary.csv", results)
    log.info("Saved %s and evaluation_summary.csv", config.save_csv_dir / "evaluation.csv")
    return table_1({config.network.name: results}, baseline=config.network.name).markdown()


def _segmentations(config: Config, subsets: Sequence[tuple[str, ...]]) -> dict[tuple[str, ...], dict[str, Path]]:
    """The segmentations of each subset that any subject has, {subject: file}."""
    named = config.sources("inferred")
    if named and not any(subsets):
        return {(): cohort.files_of_section(config, named[0])}
    lists = {subset: subset_folder(config.save_seg_dir, subset) / "inferred.csv" for subset in subsets}
    found = {subset: read_file_list(path, "inferred") for subset, path in lists.items() if path.is_file()}
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


class _Pair(NamedTuple):
    """A reference and a segmentation, both turned to RAS so that slices are axial whatever the files' order."""

    reference: np.ndarray  # (x, y, z) classes
    inferred: np.ndarray  # (x, y, z) classes
    foreground: np.ndarray  # (x, y, z) classes, or the probability of being anything but background
    spacing_mm: tuple[float, float, float]


def _read_pair(config: Config, task: Task, codes: LabelMapping | None, files: FilePair) -> _Pair:
    truth = reorient(read_image(files.reference, config.inputs[task.label].loader), ("R", "A", "S"))
    found = reorient(read_image(files.inferred), ("R", "A", "S"))
    if truth.shape != found.shape or not np.allclose(truth.affine, found.affine, atol=1e-2):
        raise InputError(
            f"subject {files.subject_id}: reference {files.reference} {truth.shape} and segmentation {files.inferred} "
            f"{found.shape} are not on one grid; segment the scans on the grid of the label, or resample the label"
        )
    reference = truth.data[..., 0] if codes is None else map_labels(truth.data[..., 0], codes)
    if found.data.shape[-1] > 1:  # probabilities of every class, the background first
        return _Pair(reference, np.argmax(found.data, axis=-1), 1.0 - found.data[..., 0], truth.spacing_mm)
    inferred = found.data[..., 0]
    # What other programs wrote may be classes already.
    if codes is not None and not unlisted_labels(inferred, codes):
        inferred = map_labels(inferred, codes)
    return _Pair(reference, inferred, inferred, truth.spacing_mm)
