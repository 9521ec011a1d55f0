"""Settings and a network → what it says of one subject, in inference, validation and pictures of training."""

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from niftynet_compat import Config, SubjectFiles
from pimms_tf.data.images import Image
from pimms_tf.data.resizing import resized
from pimms_tf.data.subjects import Subject, SubjectLoader, restore
from pimms_tf.data.windows import resize_window
from pimms_tf.evaluation import confusion_matrix, dice
from pimms_tf.inference import label_scores, modality_scores, orthogonal_slices, segment
from pimms_tf.inference.segmentation import axis_across
from pimms_tf.inference.slices import logits_beyond, reach_of, segment_slices
from pimms_tf.models import PIMMS
from pimms_tf.pipeline.memory import SubjectCache
from pimms_tf.study.task import Task, border_of, check_arrangement, takes_slices, window_of
from pimms_tf.training import Metrics

log = logging.getLogger(__name__)

# Voxels of whole slices that go to the network at once. Each takes about 2.6 kB with three modalities: a slice or two
# fill the cores of a CPU, and more would only fill its memory; a GPU wants more.
_VOXELS_PER_CALL = {"CPU": 2**16, "GPU": 2**20}


class Network:
    """The network as functions of arrays, compiled once for each shape."""

    def __init__(self, model: PIMMS, done: Callable[[float], None] = lambda seconds: None) -> None:
        @tf.function(reduce_retracing=True)
        def classify(scans, valid):
            return model.classify(scans, valid)

        @tf.function(reduce_retracing=True)
        def predict(scans, scores, valid):
            return model.segment(scans, model.classify(scans, valid) if scores is None else scores, valid)

        # Crops have all sorts of sizes, so this one is traced for all of them at once.
        crops, scores = tf.TensorSpec((None,) * 4), tf.TensorSpec((None, None, model.num_modalities))

        @tf.function(input_signature=(crops, scores, tf.TensorSpec((None, None), tf.bool)))
        def predict_beyond(scans, scores, valid):
            return logits_beyond(model, scans, scores, valid)

        self._classify, self._predict, self._predict_beyond, self._done = classify, predict, predict_beyond, done
        self._model = model

    def classify(self, scans: np.ndarray, valid: np.ndarray) -> np.ndarray:
        return self._classify(tf.constant(scans), tf.constant(valid)).numpy()

    def predict(self, scans: np.ndarray, scores: np.ndarray | None, valid: np.ndarray) -> np.ndarray:
        given = None if scores is None else tf.constant(scores)
        return self._timed(lambda: self._predict(tf.constant(scans), given, tf.constant(valid)))

    def segment_slices(self, subject: Subject, scores: np.ndarray, **others) -> Image:
        """As `inference.slices.segment_slices`, with this network and no more voxels at once than its device likes."""
        device = "GPU" if tf.config.list_logical_devices("GPU") else "CPU"
        voxels = _VOXELS_PER_CALL[device]
        return segment_slices(self._beyond, reach_of(self._model), subject, scores, voxels, **others)

    def _beyond(self, scans: np.ndarray, scores: np.ndarray, valid: np.ndarray) -> np.ndarray:
        return self._timed(lambda: self._predict_beyond(*map(tf.constant, (scans, scores, valid))))

    def _timed(self, call: Callable[[], tf.Tensor]) -> np.ndarray:
        began = time.perf_counter()
        answer = call().numpy()
        self._done(time.perf_counter() - began)
        return answer


class _Answer(NamedTuple):
    """What the network says of a subject; no image if it only classifies scans."""

    scores: np.ndarray  # (scan, modality)
    image: Image | None


def segmented(
    config: Config,
    task: Task,
    network: Network,
    subject: Subject,
    window: tuple[int, int, int],
    border: Sequence[int],
    *,
    probabilities: bool = False,
    order: int = 0,
    fill: float = 0.0,
) -> _Answer:
    """Scores and segmentation of a subject, by whole slices where `takes_slices`, else by windows.

    With window_sampling = resize it is segmented in slices zoomed to the window.
    """
    resizes, rank = config.network.window_sampling == "resize", config.pimms.spatial_rank
    seen = resized(subject, window) if resizes else subject
    scores = _scores(config, task, network, seen)
    if task.variant == "classifier":
        return _Answer(scores, None)
    if takes_slices(config, task):
        axis = axis_across(window, subject.scans.shape[:3])
        return _Answer(
            scores, network.segment_slices(subject, scores, axis=axis, probabilities=probabilities, order=order)
        )
    per_window = config.pimms.classifier_scope == "window" and task.variant != "hemis"
    given, batch_size = None if per_window else scores, config.network.batch_size
    if not resizes:
        image = segment(
            network.predict,
            subject,
            given,
            window,
            border,
            batch_size,
            spatial_rank=rank,
            probabilities=probabilities,
            order=order,
            fill=fill,
        )
        return _Answer(scores, image)
    # Interpolated labels mean nothing, so above order 0 the best of the interpolated probabilities is taken.
    soft = probabilities or order > 0
    full = (0, 0, 1) if rank == 2 else (0, 0, 0)
    small = segment(network.predict, seen, given, full, (0, 0, 0), batch_size, spatial_rank=rank, probabilities=soft)
    image = restore(subject, resize_window(small.data, subject.scans.shape[:3], order, subject.far_plane), order)
    if soft and not probabilities:
        image = replace(image, data=np.argmax(image.data, axis=-1)[..., np.newaxis].astype(np.int32))
    return _Answer(scores, image)


def _scores(config: Config, task: Task, network: Network, subject: Subject) -> np.ndarray:
    if task.variant == "hemis":
        return label_scores(subject, len(task.modalities))
    # With the paper's classifier a million voxels take a gigabyte.
    slices = max(1, 2**18 // int(np.prod(subject.scans.shape[:2] + subject.scans.shape[3:])))
    rank = config.pimms.spatial_rank
    return modality_scores(
        network.classify, subject, config.pimms.classifier_slices, spatial_rank=rank, batch_size=slices
    )


def arranged(config: Config, subject: Subject) -> tuple[list[int], Subject]:
    """The subject with the scans of `idxs_to_drop` absent and the others in the order of `permuted_indices`.

    Also which scan lies in each slot. Modalities stay with the slots, so a network that goes by them meets a scan where
    it expects another, which is what the fork's command lines were written to try.

    Raises:
        ConfigError: see `check_arrangement`.
    """
    num_scans = len(subject.valid)
    drop, order = (getattr(config.task, name, ()) for name in ("idxs_to_drop", "permuted_indices"))
    if not drop and not order:
        return list(range(num_scans)), subject
    check_arrangement(config, num_scans)
    order = list(order or range(num_scans))
    valid = subject.valid & ~np.isin(np.arange(num_scans), drop)
    return order, replace(subject, scans=(subject.scans * valid)[..., order], valid=valid[order])


def previewer(config: Config, task: Task, loader: SubjectLoader, model: PIMMS, files: SubjectFiles):
    """What draws one subject's lesions, reference and segmentation, with the weights of the moment."""
    if task.variant == "classifier":
        return lambda: None
    network = Network(model)

    def preview() -> np.ndarray:
        subject = loader.load(files.images, files.subject_id)
        image = segmented(config, task, network, subject, window_of(config, "training"), (0, 0, 0)).image
        scan = restore(subject, subject.scans[..., int(np.argmax(subject.valid))], 1).data[..., 0]
        return orthogonal_slices(scan, restore(subject, subject.label, 0).data[..., 0], image.data[..., 0])

    return preview


def whole_volume_validation(
    config: Config, task: Task, loader: SubjectLoader, model: PIMMS, subjects: Sequence[SubjectFiles]
) -> Callable[[], Metrics | None]:
    """What segments whole validation subjects as inference would, with the weights of the moment → their mean metrics.

    `dice` is the mean over subjects of the Dice of everything but background; the segmentation loss, which chooses the
    best checkpoint, is 1 less that. The modality loss is the cross-entropy of scans whose modality is known.
    """
    network = Network(model)
    window = window_of(config, "inference")
    border = border_of(config, window)
    kept = SubjectCache(subjects, lambda files: loader.load(files.images, files.subject_id), 2 * 2**30)

    def validate() -> Metrics | None:
        scores, losses = [], [0.0]
        confusion = np.zeros((len(task.modalities), len(task.modalities)), np.int64)
        for index in range(len(subjects)):
            subject = kept.get(index)
            answer = segmented(config, task, network, subject, window, border)
            known = subject.valid & (subject.modality >= 0)
            if known.any() and task.variant != "hemis":
                true = subject.modality[known]
                losses += (-np.log(np.maximum(answer.scores[known, true], 1e-7))).tolist()
                confusion += confusion_matrix(true, np.argmax(answer.scores[known], axis=-1), len(confusion))
            if answer.image is not None:
                truth = restore(subject, subject.label, 0).data[..., 0]
                scores.append(dice(truth > 0, answer.image.data[..., 0] > 0))
        if not subjects:
            return None
        mean_dice, modality = float(np.mean(scores or [0.0])), float(np.sum(losses) / max(len(losses) - 1, 1))
        loss = 1.0 - mean_dice if scores else 0.0
        return Metrics(*map(np.float32, (loss + modality, loss, modality, 0.0, mean_dice)), confusion)

    return validate
