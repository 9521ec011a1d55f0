"""From a trained model to segmentations on the files' own grids; exports are written by `pimms_tf.serving`."""

from pimms_tf.inference.outputs import ResultFolder, image_name, orthogonal_slices, subset_folder, write_class_table
from pimms_tf.inference.segmentation import label_scores, modality_scores, segment

_OF_SERVING = ("export_saved_model",)

__all__ = [
    "ResultFolder",
    "export_saved_model",
    "image_name",
    "label_scores",
    "modality_scores",
    "orthogonal_slices",
    "segment",
    "subset_folder",
    "write_class_table",
]


def __getattr__(name: str):
    # A public name of this package since its first release; the room that it lives in now stands above this one.
    if name in _OF_SERVING:
        from pimms_tf.serving import export

        return getattr(export, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
