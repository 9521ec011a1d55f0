"""A SavedModel that takes any number of scans, and the proof that it answers like the model it came from.

Exported arrays put the scan before space: scans are `[batch, scan, height, width]`, or `[batch, scan, x, y, z]` for a
3-D model. Height and width are the model's first and second spatial axis, x and y of the prepared grid, in this order:
an exported array is `numpy.moveaxis(windows, -1, 1)` of the model's `(b, x, y, scan)`. A client that reads images by
rows (y first) must transpose them.
"""

import dataclasses
import itertools
import json
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf
from keras import ops
from tensorflow.core.protobuf import saved_model_pb2

from pimms_tf.errors import InputError
from pimms_tf.files import disk_complaint, replacing, sweep
from pimms_tf.inference.loading import exported_version
from pimms_tf.inference.preparation import PREPARATION_FILE, Preparation, ScanSlot, read_preparation

_EARLIER_FILE = "preprocessing.json"  # what exports had instead of the record of preparation

log = logging.getLogger(__name__)

_PYTHON_OPERATIONS = frozenset({"PyFunc", "PyFuncStateless", "EagerPyFunc"})
_SIZES = {2: ((24, 24), (31, 18), (17, 40)), 3: ((12, 12, 12), (16, 9, 13))}


@dataclasses.dataclass(frozen=True)
class ExportReport:
    """What `verify_export` saw: how often it compared, the largest difference, and the operations in the graph."""

    path: Path
    num_comparisons: int
    largest_difference: float  # between loaded and in-memory outputs, both within [0, 1]
    operations: tuple[str, ...]


def export_saved_model(
    model: keras.Model,
    directory: Path,
    version: int | None = None,
    preparation: Preparation | None = None,
    prove: Callable[[Path], None] = lambda folder: None,
) -> Path:
    """Folder `<directory>/<version>` which TensorFlow Serving, or `tf.saved_model.load`, can use without this package.

    Without `version` the next free number is taken. The folder appears complete or not at all, and only after `prove`,
    which is given the complete folder while it is still hidden, has raised nothing. Endpoints, all float32
    with free batch, scan and space axes:

        serving_default(scans)              segmentation [batch, *space, class], modality_scores [batch, scan, modality]
        classify(scans)                     modality_scores
        segment_with_scores(scans, scores)  segmentation

    `scans` [batch, scan, *space] are prepared as in training, one or more, in any order; both outputs are
    probabilities. `serving_default` classifies each slice of the batch by itself, which the record of `preparation`,
    written beside the SavedModel, says as `served_scope`; `Segmenter` classifies each scan once, and so can a client:
    average `classify` over central slices and give the result to `segment_with_scores`.

    A scan that is zero throughout counts as absent: its scores are zero and it takes no part (unless the model has a
    class for empty slots). Where every scan is absent the answer is what the model says of nothing, and finite. A model
    without a classifier (HeMIS) wants to be told: `serving_default(scans, modality)` with `modality` [batch, scan]
    int32, -1 for a scan to be left out, whose modality_scores are those labels as zeros and ones; it has no `classify`.

    Raises:
        InputError: the version exists or is not a positive number, the record is of another number of modalities or
            classes than the model has, the model has no segmenter, or the disk is full.
    """
    directory = Path(directory)
    sweep(directory)
    if model.attention is None:
        raise InputError("the model only classifies scans; export one that segments them")
    if version is None:
        version = max(_versions(directory), default=0) + 1
    if version < 1:
        raise InputError(f"version {version} of the export in {directory} is not a positive number; use 1 or above")
    path = directory / str(version)
    if path.exists():
        raise InputError(
            f"version {version} is already in {directory}, and a server may be reading it; "
            f"give version {max(_versions(directory), default=version) + 1} or remove the folder first"
        )
    if preparation is None:
        preparation = Preparation(num_classes=model.num_classes, choices={"spatial_rank": model.spatial_rank})
    if preparation.modalities:
        _check_count("modalities", len(preparation.modalities), model.num_modalities)
    _check_count("segmentation classes", preparation.num_classes, model.num_classes)
    # The archive finds the variables of its endpoints by itself, also of layers held in lists. `track(model)` would add
    # none, and would trace the model's own call as well, which may want labels.
    archive = keras.export.ExportArchive()
    for name, (endpoint, signature) in _endpoints(model).items():
        archive.add_endpoint(name, endpoint, signature)
    try:
        with replacing(path) as temporary:
            archive.write_out(str(temporary), verbose=False)
            record = dataclasses.replace(preparation, served_scope="slice")  # which is what these endpoints do
            (temporary / PREPARATION_FILE).write_text(record.to_json(), encoding="utf-8")
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
    folder = _version_folder(directory)
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


def verify_export(
    directory: Path,
    model: keras.Model,
    num_scans: Sequence[int] = (1, 2, 3, 5),
    sizes: Sequence[tuple[int, ...]] | None = None,
    tolerance: float = 1e-5,
    seed: int = 0,
) -> ExportReport:
    """Report on a loaded export whose answers all equal the model's, for several numbers, sizes and orders of scans.

    `directory` is a version folder or its parent, of which the newest version is taken. Random scans, one of them blank
    where there are three or more, go through the loaded folder and through `model` in memory. They are then sent again
    in shuffled order, which must shuffle the scores and leave the segmentation to the last bit. `tolerance` bounds the
    absolute difference of probabilities between model and export, which are computed on the CPU: sums in another order
    differ by some 1e-7, and the normalisation of the logits makes more of that in some networks than in others.

    Raises:
        InputError: there is no export.
        RuntimeError: an answer differs by more than `tolerance`, or at all in shuffled order, or the graph holds an
            operation which runs Python or which a stock TensorFlow does not have.
    """
    path = _version_folder(directory)
    operations = _operations(path)
    foreign = [name for name in operations if name in _PYTHON_OPERATIONS or not hasattr(tf.raw_ops, name)]
    if foreign:
        raise RuntimeError(f"the export {path} needs operations a server does not have: {', '.join(foreign)}")
    serve = tf.saved_model.load(str(path)).signatures["serving_default"]
    answer_in_memory = _in_memory(model)
    rng = np.random.default_rng(seed)
    differences: list[float] = []

    def compare(expected: _Answer, found: _Answer, case: str, tolerance: float) -> None:
        for name, wanted, got in zip(_Answer._fields, expected, found, strict=True):
            difference = float(np.abs(wanted - got).max())
            if not difference <= tolerance:  # also catches NaN
                raise RuntimeError(
                    f"{name} of {path} is off by {difference:.3g} for {case}; allowed is {tolerance:.3g}"
                )
            differences.append(difference)

    for count, size in itertools.product(num_scans, sizes or _SIZES[model.spatial_rank]):
        case = f"{count} scans of {size}"
        scans, modality = _random_scans(rng, count, size, model)
        order = rng.permutation(count)
        # An accelerator picks its convolutions by timing them, and some keep few bits; the export has no part in that.
        with tf.device("CPU:0"):
            expected = answer_in_memory(scans, modality)
            answer = _ask(serve, scans, modality)
            shuffled = _ask(serve, scans[:, order], None if modality is None else modality[:, order])
        compare(expected, answer, case, tolerance)
        reordered = _Answer(answer.segmentation, answer.modality_scores[:, order])
        compare(reordered, shuffled, f"{case} in another order", 0.0)
    return ExportReport(path, len(differences), max(differences), operations)


def _endpoints(model: keras.Model) -> dict[str, tuple[Callable, list[tf.TensorSpec]]]:
    space = (None,) * model.spatial_rank
    scans_spec = tf.TensorSpec((None, None, *space), tf.float32, name="scans")
    scores_spec = tf.TensorSpec((None, None, model.num_modalities), tf.float32, name="scores")
    modality_spec = tf.TensorSpec((None, None), tf.int32, name="modality")

    def windows(scans):  # as Keras casts what a model is called with
        return ops.cast(ops.moveaxis(scans, 1, -1), model.compute_dtype)

    def probabilities(scans, scores, valid):
        logits = model.segment(windows(scans), scores, valid)
        return ops.softmax(ops.cast(logits, "float32"), axis=-1)

    def scores_of(scans, valid):
        return ops.cast(model.classify(windows(scans), valid), "float32")

    def classify(scans):
        return {"modality_scores": scores_of(scans, _is_present(scans))}

    def segment_with_scores(scans, scores):
        return {"segmentation": probabilities(scans, scores, _is_present(scans))}

    def serving_default(scans):
        valid = _is_present(scans)
        scores = scores_of(scans, valid)
        return {"segmentation": probabilities(scans, scores, valid), "modality_scores": scores}

    def serving_labelled(scans, modality):
        valid = ops.logical_and(_is_present(scans), modality >= 0)
        scores = _label_scores(modality, valid, model.num_modalities)
        return {"segmentation": probabilities(scans, scores, valid), "modality_scores": scores}

    with_scores = {"segment_with_scores": (segment_with_scores, [scans_spec, scores_spec])}
    if _needs_labels(model):
        return {"serving_default": (serving_labelled, [scans_spec, modality_spec])} | with_scores
    unlabelled = {"serving_default": (serving_default, [scans_spec]), "classify": (classify, [scans_spec])}
    return unlabelled | with_scores


def _needs_labels(model: keras.Model) -> bool:
    return model.needs_labels


def _is_present(scans):
    """(batch, scan) bool: which scans [batch, scan, *space] are not zero throughout."""
    return ops.any(ops.not_equal(scans, 0), axis=tuple(range(2, len(scans.shape))))


def _label_scores(modality, valid, num_modalities: int):
    return ops.einsum("bn,bnm->bnm", ops.cast(valid, "float32"), ops.one_hot(modality, num_modalities))


class _Answer(NamedTuple):
    segmentation: np.ndarray  # (b, *space, class)
    modality_scores: np.ndarray  # (b, scan, modality)


def _random_scans(
    rng: np.random.Generator, count: int, size: tuple[int, ...], model: keras.Model
) -> tuple[np.ndarray, np.ndarray | None]:
    scans = rng.normal(size=(2, count, *size)).astype(np.float32)
    if count >= 3:
        scans[0, rng.integers(count)] = 0
    if not _needs_labels(model):
        return scans, None
    return scans, rng.integers(0, model.num_modalities, (2, count)).astype(np.int32)


def _ask(serve: Callable, scans: np.ndarray, modality: np.ndarray | None) -> _Answer:
    labels = {} if modality is None else {"modality": tf.constant(modality)}
    answer = serve(scans=tf.constant(scans), **labels)
    return _Answer(answer["segmentation"].numpy(), answer["modality_scores"].numpy())


def _in_memory(model: keras.Model) -> Callable[[np.ndarray, np.ndarray | None], _Answer]:
    """The model as a function of scans and their labels, if it wants any."""
    space = (None,) * model.spatial_rank
    windows, slots = tf.TensorSpec((None, *space, None), tf.float32), tf.TensorSpec((None, None), tf.bool)

    # Sizes are left open as in the export, since convolutions are computed otherwise where they are known.
    @tf.function(input_signature=(windows, slots))
    def classified(windows, valid):
        return model(windows, valid).segmentation_logits, model.classify(windows, valid)

    @tf.function(input_signature=(windows, tf.TensorSpec((None, None, model.num_modalities)), slots))
    def segmented(windows, scores, valid):
        return model.segment(windows, scores, valid)

    def answer(scans: np.ndarray, modality: np.ndarray | None) -> _Answer:
        windows, valid = np.moveaxis(scans, 1, -1), scans.any(axis=tuple(range(2, scans.ndim)))
        if modality is None:
            logits, scores = classified(windows, valid)
        else:
            scores = np.eye(model.num_modalities, dtype=np.float32)[modality] * valid[..., np.newaxis]
            logits = segmented(windows, scores, valid)
        probabilities = ops.softmax(ops.cast(logits, "float32"), axis=-1)
        return _Answer(ops.convert_to_numpy(probabilities), ops.convert_to_numpy(ops.cast(scores, "float32")))

    return answer


def _operations(path: Path) -> tuple[str, ...]:
    """Sorted names of all operations in the graph and its functions."""
    graph = saved_model_pb2.SavedModel.FromString((path / "saved_model.pb").read_bytes()).meta_graphs[0].graph_def
    functions = {function.signature.name for function in graph.library.function}
    nodes = [*graph.node, *(node for function in graph.library.function for node in function.node_def)]
    return tuple(sorted({node.op for node in nodes} - functions))


def _versions(directory: Path) -> list[int]:
    return [int(item.name) for item in directory.glob("*") if item.name.isdecimal()]


def _version_folder(directory: Path) -> Path:
    folder = exported_version(directory)
    if folder is None:
        raise InputError(f"there is no exported model in {directory}; give the folder that an export has written")
    return folder


def _check_count(what: str, recorded: int, count: int) -> None:
    if recorded != count:
        raise InputError(
            f"the record of preparation is of {recorded} {what}, but the model has {count}; give the record that lies "
            "with its weights"
        )
