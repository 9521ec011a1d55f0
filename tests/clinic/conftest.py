"""A segmenter so small that a patient takes a second; what it marks means nothing, but any change of it shows."""

import keras
import pytest

from pimms_tf.inference.preparation import Preparation
from pimms_tf.inference.segmenter import Segmenter
from pimms_tf.models import build_model

CHOICES = {"classifier_blocks": 1, "classifier_features": (4, 8), "frontend": "highres_1x1"}


@pytest.fixture(scope="session")
def segmenter() -> Segmenter:
    keras.utils.set_random_seed(3)
    preparation = Preparation(
        variant="soft",
        choices=CHOICES,
        modalities=("T1", "T2", "FLAIR"),
        num_classes=2,
        class_names=("background", "lesion"),
        axcodes=("L", "P", "S"),
        foreground="threshold_plus",
        classifier_slices=3,
    )
    return Segmenter(build_model("soft", 3, 2, **CHOICES), preparation)
