"""A trained model as a SavedModel, with the proof that it answers as the one in memory."""

import logging
from pathlib import Path

from niftynet_compat import Config
from pimms_tf.serving import export_saved_model, verify_export
from pimms_tf.study import cohort, mappings, settings
from pimms_tf.study.preparing import preparation_of
from pimms_tf.study.task import task_of
from pimms_tf.study.trained import trained_model

log = logging.getLogger(__name__)


def export(config: Config, directory: Path, version: int | None = None) -> Path:
    """Writes the trained model as a SavedModel and proves that it answers as the one in memory; returns its folder."""
    task = task_of(config)
    settings.prepare_machine(config)
    model = trained_model(config, task)
    loader = mappings.with_landmarks(cohort.subject_loader(config, task, needs_label=False), config, task)
    path = export_saved_model(model, directory, version, preparation_of(config, task, loader))
    proof = verify_export(path, model)
    log.info(
        "%d comparisons with the model in memory: largest difference %.1e",
        proof.num_comparisons,
        proof.largest_difference,
    )
    return path
