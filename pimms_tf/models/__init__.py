"""The network: modality classifier, re-assembly, back-ends, abstraction, front-end (keras.ops only)."""

from pimms_tf.models.attention import Attention
from pimms_tf.models.classifier import ModalityClassifier
from pimms_tf.models.hemis import Abstraction, Backend, Frontend
from pimms_tf.models.layers import regularised_variables
from pimms_tf.models.pimms import PIMMS, Prediction, build_classifier, build_model
from pimms_tf.presets import PRESETS, VARIANTS, preset_choices

__all__ = [
    "PIMMS",
    "PRESETS",
    "VARIANTS",
    "Abstraction",
    "Attention",
    "Backend",
    "Frontend",
    "ModalityClassifier",
    "Prediction",
    "build_classifier",
    "build_model",
    "preset_choices",
    "regularised_variables",
]
