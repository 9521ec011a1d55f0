"""The network of a record, and the network as functions of arrays, compiled once for each shape."""

import time
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from pimms_tf.data.images import Image
from pimms_tf.data.subjects import Subject
from pimms_tf.errors import InputError
from pimms_tf.inference.preparation import Preparation
from pimms_tf.inference.slices import logits_beyond, reach_of, segment_slices
from pimms_tf.models import PIMMS, build_classifier, build_model

# Voxels of whole slices that go to the network at once. Each takes about 2.6 kB with three modalities: a slice or two
# fill the cores of a CPU, and more would only fill its memory; a GPU wants more.
_VOXELS_PER_CALL = {"CPU": 2**16, "GPU": 2**20}


def build_network(preparation: Preparation) -> PIMMS:
    """The network that a record describes, with weights drawn.

    Raises:
        InputError: the record does not say which network it is, or names choices that no network of this release has.
    """
    count = len(preparation.modalities)
    if preparation.variant == "unknown" or not count or not preparation.num_classes:
        raise InputError(
            "the record of preparation does not say which network it belongs to, as those of earlier releases; export "
            "the model anew with its configuration"
        )
    try:
        if preparation.variant == "classifier":
            return build_classifier(count, preparation.preset, **preparation.choices)
        return build_model(
            preparation.variant, count, preparation.num_classes, preparation.preset, **preparation.choices
        )
    except (TypeError, ValueError) as error:
        raise InputError(
            f"the record of preparation describes a network that this release of pimms-tf cannot build: {error}; use "
            "the release that wrote it, or a later one"
        ) from error


class Network:
    """The network as functions of arrays; `done` is told how many seconds each answer of the segmenter took."""

    def __init__(self, model: PIMMS, done: Callable[[float], None] = lambda seconds: None) -> None:
        @tf.function(reduce_retracing=True, autograph=False)
        def classify(scans, valid):
            return model.classify(scans, valid)

        @tf.function(reduce_retracing=True, autograph=False)
        def predict(scans, scores, valid):
            return model.segment(scans, model.classify(scans, valid) if scores is None else scores, valid)

        # Crops have all sorts of sizes, so this one is traced for all of them at once.
        crops, scores = tf.TensorSpec((None,) * 4), tf.TensorSpec((None, None, model.num_modalities))

        @tf.function(input_signature=(crops, scores, tf.TensorSpec((None, None), tf.bool)), autograph=False)
        def predict_beyond(scans, scores, valid):
            return logits_beyond(model, scans, scores, valid)

        self._classify, self._predict, self._predict_beyond, self._done = classify, predict, predict_beyond, done
        self._model = model

    def classify(self, scans: np.ndarray, valid: np.ndarray) -> np.ndarray:
        """Probability of each modality for each scan; see `segmentation.Classify`."""
        return self._classify(tf.constant(scans), tf.constant(valid)).numpy()

    def predict(self, scans: np.ndarray, scores: np.ndarray | None, valid: np.ndarray) -> np.ndarray:
        """Class logits of windows; see `segmentation.Predict`."""
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
