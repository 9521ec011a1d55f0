"""Files to arrays to batches: images, intensities, subjects, windows, augmentation and the input pipeline."""

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
from pimms_tf.data.subjects import Subject, SubjectLoader, restore, train_mapping

__all__ = [
    "Grid",
    "Image",
    "LabelMapping",
    "Subject",
    "SubjectLoader",
    "average_landmarks",
    "foreground_mask",
    "foreground_masks",
    "label_mapping",
    "landmarks",
    "map_labels",
    "pad",
    "pad_to",
    "read_image",
    "reorient",
    "resample",
    "resample_onto",
    "restore",
    "restore_grid",
    "standardise",
    "train_mapping",
    "unmap_labels",
    "unpad",
    "whiten",
    "write_image",
]
