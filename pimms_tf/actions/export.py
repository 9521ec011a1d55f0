"""A trained model as a SavedModel, with the proof that it answers as the one in memory."""

import logging
from importlib import resources
from pathlib import Path

from niftynet_compat import Config
from pimms_tf.inference import load_segmenter
from pimms_tf.inference.preparation import Preparation
from pimms_tf.models import PIMMS
from pimms_tf.serving import export_saved_model, verify_export, verify_volumes
from pimms_tf.study import cohort, mappings
from pimms_tf.study.bundled import with_bundled
from pimms_tf.study.preparing import preparation_of
from pimms_tf.study.task import task_of
from pimms_tf.study.trained import trained_model
from pimms_tf.training import devices
from pimms_tf.weights import bundled_model, bundled_preparation

log = logging.getLogger(__name__)


def export(config: Config, directory: Path, version: int | None = None, with_onnx: bool = False) -> Path:
    """Writes the trained model as a SavedModel, proves that it answers as the one in memory, and returns its folder.

    The folder is not there before the proof.
    """
    config = with_bundled(config)
    task = task_of(config)
    devices.prepare_machine(config.pimms.device_threads)
    model = trained_model(config, task)
    loader = mappings.with_landmarks(cohort.subject_loader(config, task, needs_label=False), config, task)
    card = bundled_card() if config.pimms.weights else ""
    return _proved(model, preparation_of(config, task, loader.mapping), directory, version, with_onnx, card)


def export_folder(folder: Path, directory: Path, version: int | None = None, with_onnx: bool = False) -> Path:
    """Writes the latest checkpoint of a model folder, or the newest version of an export, as `export` does."""
    segmenter = load_segmenter(folder)
    return _proved(segmenter.model, segmenter.preparation, directory, version, with_onnx)


def export_bundled(directory: Path, version: int | None = None, with_onnx: bool = False) -> Path:
    """Writes the weights that come with the package as a SavedModel, as `export` does those of a training."""
    return _proved(bundled_model(), bundled_preparation(), directory, version, with_onnx, bundled_card())


def bundled_card() -> str:
    """What is to be known of the bundled weights, in Markdown."""
    text = resources.files("pimms_tf.weights").joinpath("MODEL_CARD.md").read_text(encoding="utf-8")
    return text.replace("# Bundled weights", "## The weights", 1)


def _proved(
    model: PIMMS, preparation: Preparation, directory: Path, version: int | None, with_onnx: bool, card: str = ""
) -> Path:
    def prove(folder: Path) -> None:
        proof = verify_export(folder, model)
        text = "%d comparisons with the model in memory: largest difference %.1e"
        log.info(text, proof.num_comparisons, proof.largest_difference)
        difference = verify_volumes(folder, model, preparation)
        if difference is not None:
            log.info("a volume and its file answer as inference does: largest difference %.1e", difference)

    return export_saved_model(model, directory, version, preparation, prove, card, with_onnx)
