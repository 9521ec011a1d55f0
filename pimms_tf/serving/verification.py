"""The proof that an export answers as the model it came from, for windows, volumes and files."""

import dataclasses
import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from pimms_tf.data.images import Image
from pimms_tf.errors import InputError
from pimms_tf.inference.loading import version_folder
from pimms_tf.inference.preparation import Preparation
from pimms_tf.inference.segmenter import Segmenter
from pimms_tf.serving import replay
from pimms_tf.serving.proof import phantom

_SIZES = {2: ((24, 24), (31, 18), (17, 40)), 3: ((12, 12, 12), (16, 9, 13))}


@dataclasses.dataclass(frozen=True)
class ExportReport:
    """What `verify_export` saw: how often it compared, the largest difference, and the operations in the graph."""

    path: Path
    num_comparisons: int
    largest_difference: float  # between loaded and in-memory outputs, both within [0, 1]
    operations: tuple[str, ...]


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
    path = version_folder(directory)
    operations, foreign = replay.operations_of(path)
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
        reordered = _Answer(answer.probabilities, answer.modality_scores[:, order])
        compare(reordered, shuffled, f"{case} in another order", 0.0)
    return ExportReport(path, len(differences), max(differences), operations)


class _Answer(NamedTuple):
    probabilities: np.ndarray  # (b, *space, class)
    modality_scores: np.ndarray  # (b, scan, modality)


def verify_volumes(
    directory: Path, model: keras.Model, preparation: Preparation, tolerance: float = 1e-4
) -> float | None:
    """The largest difference between volumes served and those of `Segmenter`; None if the export takes no volumes.

    Masks must be equal, also those in files, but for voxels whose two best classes are nearer than `tolerance`. It is
    ten times that of windows: crops of another size add up in another order, and networks whose weights were hardly
    trained make much of that (1.2e-5 was seen, 3e-7 with the bundled weights). Where the one refuses a volume the other
    must, too.

    Raises:
        RuntimeError: they differ.
    """
    path = version_folder(directory)
    requests, responses = replay.read_golden(path / replay.EXTRA / replay.GOLDEN)
    if "serving_volume" not in responses:
        return None
    scans, affine = phantom(preparation)
    names = requests["serving_volume"].get("names", [f"scan {n}".encode() for n in range(len(scans))])
    volumes = [Image(scan[..., None].astype(np.float32), affine) for scan in scans]
    images = dict(zip((name.decode() for name in names), volumes, strict=True))
    segmenter, served = Segmenter(model, preparation), responses["serving_volume"]
    with tf.device("CPU:0"):
        try:
            subject = segmenter.prepare(images)
            scores, image = segmenter(subject, probabilities=True)
            mask = segmenter(subject, scores=scores).image.data[..., 0]
        except InputError as error:
            if "refusal" in served:
                return 0.0
            raise RuntimeError(f"{path} answers a volume that is refused otherwise: {error}") from error
    if "refusal" in served:
        raise RuntimeError(f"{path} refuses a volume that is answered otherwise: {served['refusal']}")
    best = np.sort(image.data, axis=-1)
    decided = best[..., -1] - best[..., -2] >= tolerance if preparation.threshold is None else np.ones(mask.shape, bool)
    in_file = np.frombuffer(responses["serving_nifti"]["mask_bytes"].item()[352:], np.uint8).reshape(mask.T.shape).T
    pairs = {
        "probability": (image.data[..., 1:].sum(axis=-1), served["probability"].T, tolerance),
        "modality_scores": (scores, served["modality_scores"], tolerance),
        "mask": (mask * decided, served["mask"].T * decided, 0.0),
        "mask_bytes": (served["mask"].T, in_file, 0.0),
    }
    differences = {name: float(np.abs(np.subtract(a, b, dtype=float)).max()) for name, (a, b, _) in pairs.items()}
    for name, difference in differences.items():
        if not difference <= pairs[name][2]:
            raise RuntimeError(f"{name} of {path} is off by {difference:.3g}; allowed is {pairs[name][2]:.3g}")
    return max(differences.values())


def _random_scans(
    rng: np.random.Generator, count: int, size: tuple[int, ...], model: keras.Model
) -> tuple[np.ndarray, np.ndarray | None]:
    scans = rng.normal(size=(2, count, *size)).astype(np.float32)
    if count >= 3:
        scans[0, rng.integers(count)] = 0
    if not model.needs_labels:
        return scans, None
    return scans, rng.integers(0, model.num_modalities, (2, count)).astype(np.int32)


def _ask(serve: Callable, scans: np.ndarray, modality: np.ndarray | None) -> _Answer:
    labels = {} if modality is None else {"modality": tf.constant(modality)}
    answer = serve(scans=tf.constant(scans), **labels)
    return _Answer(answer["probabilities"].numpy(), answer["modality_scores"].numpy())


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
