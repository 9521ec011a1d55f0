"""From a trained model to segmentations on the files' own grids; exports are written by `pimms_tf.serving`."""

import importlib

from pimms_tf.inference.outputs import ResultFolder, image_name, orthogonal_slices, subset_folder, write_class_table
from pimms_tf.inference.preparation import Preparation, ScanSlot, read_preparation, write_preparation
from pimms_tf.inference.segmentation import label_scores, modality_scores, segment

# Fetched on first use: masks of files and records of preparation must not wait for TensorFlow.
_WITH_TENSORFLOW = {"Answer": "segmenter", "Segmenter": "segmenter", "load_segmenter": "loading"}
_OF_SERVING = ("export_saved_model",)

__all__ = [
    "Answer",
    "Preparation",
    "ResultFolder",
    "ScanSlot",
    "Segmenter",
    "export_saved_model",
    "image_name",
    "label_scores",
    "load_segmenter",
    "modality_scores",
    "orthogonal_slices",
    "read_preparation",
    "segment",
    "subset_folder",
    "write_class_table",
    "write_preparation",
]


def __getattr__(name: str):
    if name in _WITH_TENSORFLOW:
        return getattr(importlib.import_module(f"{__name__}.{_WITH_TENSORFLOW[name]}"), name)
    # A public name of this package since its first release; the room that it lives in now stands above this one.
    if name in _OF_SERVING:
        from pimms_tf.serving import export

        return getattr(export, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
