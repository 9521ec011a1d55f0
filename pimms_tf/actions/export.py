"""A trained model as a SavedModel, with the proof that it answers as the one in memory."""

import logging
from pathlib import Path

from niftynet_compat import Config
from pimms_tf.serving import ExportInfo, export_saved_model, verify_export
from pimms_tf.study import mappings, settings
from pimms_tf.study.task import task_of
from pimms_tf.study.trained import trained_model

log = logging.getLogger(__name__)


def export(config: Config, directory: Path, version: int | None = None) -> Path:
    """Writes the trained model as a SavedModel and proves that it answers as the one in memory; returns its folder."""
    task = task_of(config)
    settings.prepare_machine(config)
    model = trained_model(config, task)
    network = config.network
    info = ExportInfo(
        modalities=task.modalities,
        axcodes=tuple(config.common("image", "axcodes") or ()),
        pixdim_mm=tuple(config.common("image", "pixdim") or ()),
        whitening=network.whitening,
        foreground_type=network.foreground_type if network.normalise_foreground_only else "",
        foreground_fusion=network.multimod_foreground_type if network.normalise_foreground_only else "",
        landmarks=mappings.landmarks_by_modality(config, task),
        norm_type=network.norm_type if network.normalisation else "",
        cutoff=tuple(network.cutoff) if network.normalisation else (),
        window=tuple(settings.window_of(config, "inference")),
        border=settings.border_of(config, settings.window_of(config, "inference")),
    )
    path = export_saved_model(model, directory, version, info)
    proof = verify_export(path, model)
    log.info(
        "%d comparisons with the model in memory: largest difference %.1e",
        proof.num_comparisons,
        proof.largest_difference,
    )
    return path
