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
from pimms_tf.files import replacing

PREPROCESSING_FILE = "preprocessing.json"

_logger = logging.getLogger(__name__)

_PYTHON_OPERATIONS = frozenset({"PyFunc", "PyFuncStateless", "EagerPyFunc"})
_SIZES = {2: ((24, 24), (31, 18), (17, 40)), 3: ((12, 12, 12), (16, 9, 13))}


@dataclasses.dataclass(frozen=True)
class ExportInfo:
    """What a server's owner must know before sending arrays; written as `preprocessing.json` beside the SavedModel.

    Fields that stay empty are unknown, not zero.
    """

    modalities: tuple[str, ...] = ()  # name of each modality class, in the order of the scores' last axis
    class_names: tuple[str, ...] = ()  # name of each segmentation class, in the order of the probabilities' last axis
    axcodes: tuple[str, ...] = ()  # orientation of the prepared grid: which way x, y and z grow, such as L, P, S
    pixdim_mm: tuple[float, ...] = ()  # voxel size of the prepared grid along x, y and z
    whitening: bool = True  # each scan shifted and scaled to mean 0 and standard deviation 1 over its foreground
    foreground_type: str = ""  # how that foreground is found, NiftyNet's word; empty for all voxels
    foreground_fusion: str = ""  # which voxels count if there are several scans: and, or, multi (each its own)
    landmarks: tuple[tuple[float, ...], ...] = ()  # histogram landmarks per modality; empty for no standardisation
    norm_type: str = ""  # which of the landmarks are used, NiftyNet's word
    cutoff: tuple[float, ...] = ()  # fractions of the voxels at the first and the last landmark
    window: tuple[int, ...] = ()  # window of inference, in voxels; 0 is the full length
    border: tuple[int, ...] = ()  # voxels on each side of a window that lack full context


@dataclasses.dataclass(frozen=True)
class ExportReport:
    """What `verify_export` saw: how often it compared, the largest difference, and the operations in the graph."""

    path: Path
    num_comparisons: int
    largest_difference: float  # between loaded and in-memory outputs, both within [0, 1]
    operations: tuple[str, ...]


def export_saved_model(
    model: keras.Model, directory: Path, version: int | None = None, info: ExportInfo | None = None
) -> Path:
    """Folder `<directory>/<version>` which TensorFlow Serving, or `tf.saved_model.load`, can use without this package.

    Without `version` the next free number is taken. The folder appears complete or not at all. Endpoints, all float32
    with free batch, scan and space axes:

        serving_default(scans)              segmentation [batch, *space, class], modality_scores [batch, scan, modality]
        classify(scans)                     modality_scores
        segment_with_scores(scans, scores)  segmentation

    `scans` [batch, scan, *space] are prepared as in training (`ExportInfo`), one or more, in any order; both outputs
    are probabilities. A scan that is zero throughout counts as absent: its scores are zero and it takes no part (unless
    the model has a class for empty slots). Where every scan is absent the answer is what the model says of nothing, and
    finite. A model without a classifier (HeMIS) wants to be told: `serving_default(scans, modality)` with `modality`
    [batch, scan] int32, -1 for a scan to be left out, whose modality_scores are those labels as zeros and ones; it has
    no `classify`.

    Raises:
        InputError: the version exists or is not a positive number, `info` names another number of modalities or classes
            than the model has, or the model has no segmenter.
    """
    directory = Path(directory)
    if model.attention is None:
        raise InputError("The model only classifies scans; export one that segments them.")
    if version is None:
        version = max(_versions(directory), default=0) + 1
    if version < 1:
        raise InputError(f"Version {version} of the export in {directory} is not a positive number; use 1 or above.")
    path = directory / str(version)
    if path.exists():
        raise InputError(
            f"Version {version} is already in {directory}, and a server may be reading it; "
            f"give version {max(_versions(directory), default=version) + 1} or remove the folder first."
        )
    info = info or ExportInfo()
    _check_names("modalities", info.modalities, model.num_modalities, "modality classes")
    _check_names("class_names", info.class_names, model.num_classes, "segmentation classes")
    # The archive finds the variables of its endpoints by itself, also of layers held in lists. `track(model)` would add
    # none, and would trace the model's own call as well, which may want labels.
    archive = keras.export.ExportArchive()
    for name, (endpoint, signature) in _endpoints(model).items():
        archive.add_endpoint(name, endpoint, signature)
    with replacing(path) as temporary:
        archive.write_out(str(temporary), verbose=False)
        text = json.dumps(dataclasses.asdict(info) | {"spatial_rank": model.spatial_rank}, indent=2)
        (temporary / PREPROCESSING_FILE).write_text(text + "\n", encoding="utf-8")
    _logger.info("Exported %d variables to %s", len(model.variables), path)
    return path


def read_export_info(directory: Path) -> ExportInfo:
    """What was written about the preprocessing into an exported version folder, or into the newest below a folder.

    Raises:
        InputError: there is no export.
    """
    found = json.loads((_version_folder(directory) / PREPROCESSING_FILE).read_text(encoding="utf-8"))
    known = {field.name for field in dataclasses.fields(ExportInfo)}
    return ExportInfo(**{name: _as_tuple(value) for name, value in found.items() if name in known})


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
    in shuffled order, which must shuffle the scores and leave the segmentation. `tolerance` bounds the absolute
    difference of probabilities, which are computed on the CPU: sums in another order differ by some 1e-7, and the
    normalisation of the logits makes more of that in some networks than in others.

    Raises:
        InputError: there is no export.
        RuntimeError: an answer differs by more than `tolerance`, or the graph holds an operation which runs Python or
            which a stock TensorFlow does not have.
    """
    path = _version_folder(directory)
    operations = _operations(path)
    foreign = [name for name in operations if name in _PYTHON_OPERATIONS or not hasattr(tf.raw_ops, name)]
    if foreign:
        raise RuntimeError(f"The export {path} needs operations a server does not have: {', '.join(foreign)}.")
    serve = tf.saved_model.load(str(path)).signatures["serving_default"]
    answer_in_memory = _in_memory(model)
    rng = np.random.default_rng(seed)
    differences: list[float] = []

    def compare(expected: _Answer, found: _Answer, case: str) -> None:
        for name, wanted, got in zip(_Answer._fields, expected, found, strict=True):
            difference = float(np.abs(wanted - got).max())
            if not difference <= tolerance:  # also catches NaN
                raise RuntimeError(
                    f"{name} of {path} is off by {difference:.3g} for {case}; allowed is {tolerance:.3g}."
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
        compare(expected, answer, case)
        reordered = _Answer(answer.segmentation, answer.modality_scores[:, order])
        compare(reordered, shuffled, f"{case} in another order")
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
    directory = Path(directory)
    if (directory / "saved_model.pb").is_file():
        return directory
    versions = _versions(directory)
    if not versions:
        raise InputError(f"There is no exported model in {directory}; give the folder that an export has written.")
    return directory / str(max(versions))


def _check_names(field: str, names: tuple[str, ...], count: int, what: str) -> None:
    if names and len(names) != count:
        raise InputError(
            f"The export is given {len(names)} names in {field} ({', '.join(names)}) for a model with {count} {what}; "
            f"name each of them once."
        )


def _as_tuple(value):
    return tuple(_as_tuple(item) for item in value) if isinstance(value, list) else value
