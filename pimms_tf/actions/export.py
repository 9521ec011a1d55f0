"""A trained model as a SavedModel, with the proof that it answers as the one in memory."""

import functools
import logging
from pathlib import Path

from niftynet_compat import Config
from pimms_tf.models import PIMMS
from pimms_tf.serving import export_saved_model, verify_export
from pimms_tf.study import cohort, mappings
from pimms_tf.study.bundled import with_bundled
from pimms_tf.study.preparing import preparation_of
from pimms_tf.study.task import task_of
from pimms_tf.study.trained import trained_model
from pimms_tf.training import devices
from pimms_tf.weights import bundled_model, bundled_preparation

log = logging.getLogger(__name__)


def export(config: Config, directory: Path, version: int | None = None) -> Path:
    """Writes the trained model as a SavedModel, proves that it answers as the one in memory, and returns its folder.

    The folder is not there before the proof.
    """
    config = with_bundled(config)
    task = task_of(config)
    devices.prepare_machine(config.pimms.device_threads)
    model = trained_model(config, task)
    loader = mappings.with_landmarks(cohort.subject_loader(config, task, needs_label=False), config, task)
    preparation, prove = preparation_of(config, task, loader.mapping), functools.partial(_prove, model)
    return export_saved_model(model, directory, version, preparation, prove)


def export_bundled(directory: Path, version: int | None = None) -> Path:
    """Writes the weights that come with the package as a SavedModel, as `export` does those of a training."""
    model = bundled_model()
    return export_saved_model(model, directory, version, bundled_preparation(), functools.partial(_prove, model))


def _prove(model: PIMMS, folder: Path) -> None:
    proof = verify_export(folder, model)
    text = "%d comparisons with the model in memory: largest difference %.1e"
    log.info(text, proof.num_comparisons, proof.largest_difference)
