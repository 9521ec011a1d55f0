"""Files to arrays: images, intensities, subjects, windows, augmentation; batches of them are in `pimms_tf.pipeline`."""

from pimms_tf.data.augmentation import Augmentation
from pimms_tf.data.grids import Grid
from pimms_tf.data.images import (
    Image,
    read_image,
    reorient,
    resample,
    resample_onto,
    restore_grid,
    write_image,
)
from pimms_tf.data.intensity import (
    LabelMapping,
    average_landmarks,
    foreground_mask,
    foreground_masks,
    label_mapping,
    landmarks,
    map_labels,
    pad,
    pad_to,
    standardise,
    unmap_labels,
    unpad,
    whiten,
)
from pimms_tf.data.learning import train_mapping
from pimms_tf.data.loading import SubjectLoader
from pimms_tf.data.slots import drop_scans, pad_slots, permute_scans, scan_dropout_probabilities
from pimms_tf.data.subjects import Subject, restore
from pimms_tf.data.windows import (
    GridAggregator,
    balanced_locations,
    crop,
    foreground_locations,
    grid_locations,
    resize_window,
    uniform_locations,
    weighted_locations,
)

# Reading, masks and metrics must not wait for TensorFlow, so what needs it is fetched on first use.
_WITH_TENSORFLOW = ("Batch", "training_batches", "validation_batches")

__all__ = [
    "Augmentation",
    "Batch",
    "Grid",
    "GridAggregator",
    "Image",
    "LabelMapping",
    "Subject",
    "SubjectLoader",
    "average_landmarks",
    "balanced_locations",
    "crop",
    "drop_scans",
    "foreground_locations",
    "foreground_mask",
    "foreground_masks",
    "grid_locations",
    "label_mapping",
    "landmarks",
    "map_labels",
    "pad",
    "pad_slots",
    "pad_to",
    "permute_scans",
    "read_image",
    "reorient",
    "resample",
    "resample_onto",
    "resize_window",
    "restore",
    "restore_grid",
    "scan_dropout_probabilities",
    "standardise",
    "train_mapping",
    "training_batches",
    "uniform_locations",
    "unmap_labels",
    "unpad",
    "validation_batches",
    "weighted_locations",
    "whiten",
    "write_image",
]


def __getattr__(name: str):
    # Public names of this package since its first release; the room that they live in now needs TensorFlow.
    if name in _WITH_TENSORFLOW:
        from pimms_tf.pipeline import batches

        return getattr(batches, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
