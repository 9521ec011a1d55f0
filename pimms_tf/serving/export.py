"""A SavedModel that takes any number of scans, and the proof that it answers like the model it came from.

Exported arrays put the scan before space: scans are `[batch, scan, height, width]`, or `[batch, scan, x, y, z]` for a
3-D model. Height and width are the model's first and second spatial axis, x and y of the prepared grid, in this order:
an exported array is `numpy.moveaxis(windows, -1, 1)` of the model's `(b, x, y, scan)`. A client that reads images by
rows (y first) must transpose them.
"""

import dataclasses
import json
import logging
from collections.abc import Callable
from pathlib import Path

import keras
import tensorflow as tf

from pimms_tf.errors import InputError
from pimms_tf.files import disk_complaint, replacing, sweep
from pimms_tf.graph import obstacles
from pimms_tf.inference.loading import version_folder, versions
from pimms_tf.inference.preparation import PREPARATION_FILE, Preparation, ScanSlot, read_preparation
from pimms_tf.serving.endpoints import volume_endpoints, window_endpoints
from pimms_tf.serving.onnx import write_onnx
from pimms_tf.serving.proof import write_proof

_EARLIER_FILE = "preprocessing.json"  # what exports had instead of the record of preparation

log = logging.getLogger(__name__)



def export_saved_model(
    model: keras.Model,
    directory: Path,
    version: int | None = None,
    preparation: Preparation | None = None,
    prove: Callable[[Path], None] = lambda folder: None,
    card: str = "",
    with_onnx: bool = False,
) -> Path:
    """Folder `<directory>/<version>` which TensorFlow Serving, or `tf.saved_model.load`, can use without this package.

    Without `version` the next free number is taken. The folder appears complete or not at all, and only after `prove`,
    which is given the complete folder while it is still hidden, has raised nothing. `card` is added to the model card;
    `with_onnx` adds `serving_default` as an ONNX file, see `serving.onnx`.
    All axes of batch, scan and space are free. Of prepared windows, as training has them, float32:

        serving_default(scans)           probabilities [batch, *space, class], modality_scores [batch, scan, modality]
        classify_windows(scans)          modality_scores
        segment_with_scores(scans, …)    probabilities, from scores [batch, scan, modality] that are given

    `scans` [batch, scan, *space] are one or more, in any order. `segmentation`, the name that `probabilities` had in
    the first release, is still there. Each window of the batch is classified by itself, which the record of
    `preparation`, written beside the SavedModel, says as `served_scope`.

    If the record says how scans are prepared, and the network segments whole slices (`graph.obstacles`), also raw
    scans of one person, each classified once, as `Segmenter` does it:

        serving_volume(scans [scan, z, y, x] float32, affine [4, 4])  probability, mask [z, y, x], modality_scores
        serving_nifti(files [scan] strings)     mask_bytes, a NIfTI file on their grid, modality_scores, volume_ml
        classify, classify_nifti                modality_scores, of the same inputs

    `affine` says as in NIfTI where voxel (x, y, z) lies in mm; servers take that of a prepared grid if it is left out.
    What cannot be answered is refused as InvalidArgument, with a reason.

    A scan that is zero throughout counts as absent: its scores are zero and it takes no part (unless the model has a
    class for empty slots). A model without a classifier (HeMIS) wants to be told: windows with `modality` [batch, scan]
    int32, -1 for a scan to be left out, and volumes with `names` [scan], as does one that standardises histograms.

    Raises:
        InputError: the version exists or is not a positive number, the record is of another number of modalities or
            classes than the model has, the model has no segmenter, or the disk is full.
    """
    directory = Path(directory)
    sweep(directory)
    if model.attention is None:
        raise InputError("the model only classifies scans; export one that segments them")
    if version is None:
        version = max(versions(directory), default=0) + 1
    if version < 1:
        raise InputError(f"version {version} of the export in {directory} is not a positive number; use 1 or above")
    path = directory / str(version)
    if path.exists():
        raise InputError(
            f"version {version} is already in {directory}, and a server may be reading it; "
            f"give version {max(versions(directory), default=version) + 1} or remove the folder first"
        )
    if preparation is None:
        preparation = Preparation(num_classes=model.num_classes, choices={"spatial_rank": model.spatial_rank})
    if preparation.modalities:
        _check_count("modalities", len(preparation.modalities), model.num_modalities)
    _check_count("segmentation classes", preparation.num_classes, model.num_classes)
    # The archive finds the variables of its endpoints by itself, also of layers held in lists. `track(model)` would add
    # none, and would trace the model's own call as well, which may want labels.
    archive = keras.export.ExportArchive()
    endpoints = window_endpoints(model) | volume_endpoints(model, preparation)
    functions = {name: archive.add_endpoint(name, *endpoint) for name, endpoint in endpoints.items()}
    if reason := obstacles(preparation):
        log.warning("the export takes prepared windows alone, no volumes and no files: %s", reason)
    try:
        with replacing(path) as temporary:
            archive.write_out(str(temporary), verbose=False)
            record = dataclasses.replace(preparation, served_scope="slice")  # which is what these endpoints do
            (temporary / PREPARATION_FILE).write_text(record.to_json(), encoding="utf-8")
            if with_onnx:
                write_onnx(temporary, functions["serving_default"])
            write_proof(temporary, model, preparation, endpoints, card)
            prove(temporary)
    except (OSError, tf.errors.OpError) as error:
        reason = disk_complaint(error)
        if not reason:
            raise
        raise InputError(
            f"version {version} cannot be written into {directory} ({reason}): free space, or choose another folder"
        ) from error
    log.info("Exported %d variables to %s", len(model.variables), path)
    return path


def exported_preparation(directory: Path) -> Preparation:
    """The record of preparation in an exported version folder, or in the newest below a folder.

    Exports of earlier releases say less; what they do not say has its default, and `variant` is "unknown".

    Raises:
        InputError: there is no export, or see `Preparation.from_json`.
    """
    folder = version_folder(directory)
    earlier = folder / _EARLIER_FILE
    if (folder / PREPARATION_FILE).is_file() or not earlier.is_file():
        return read_preparation(folder)
    try:
        found = json.loads(earlier.read_text(encoding="utf-8"))
        given = {name: tuple(value) if isinstance(value, list) else value for name, value in found.items() if value}
        names, landmarks = given.get("modalities", ()), map(tuple, found.get("landmarks", ()))
        told = [(place, *each) for place, each in enumerate(zip(names, landmarks, strict=False)) if each[1]]
        renamed = {"foreground": "foreground_type", "fusion": "foreground_fusion"}
        as_now = ("class_names", "axcodes", "pixdim_mm", "norm_type", "cutoff", "window", "border")
        return Preparation(
            choices={"spatial_rank": given.get("spatial_rank", 2)},
            modalities=names,
            num_classes=len(given.get("class_names", ())),
            whitening=bool(found.get("whitening", True)),
            scans=tuple(ScanSlot(name, place, landmarks=each) for place, name, each in told),
            **{name: given[old] for name, old in (renamed | {n: n for n in as_now}).items() if old in given},
        )
    except (ValueError, TypeError, AttributeError) as error:
        raise InputError(f"{earlier} is damaged ({error}); export the model anew") from None


def _check_count(what: str, recorded: int, count: int) -> None:
    if recorded != count:
        raise InputError(
            f"the record of preparation is of {recorded} {what}, but the model has {count}; give the record that lies "
            "with its weights"
        )
