"""A reference and a segmentation as they lie on disk: whether the two can be compared, and what is compared."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np

from pimms_tf.data.images import Image, read_image, read_image_header, reorient
from pimms_tf.data.intensity import map_labels
from pimms_tf.data.labels import LabelRules
from pimms_tf.errors import InputError
from pimms_tf.evaluation.results import FilePair

_AXIAL = ("R", "A", "S")


class ImagePair(NamedTuple):
    """A reference and a segmentation, both turned to RAS so that slices are axial whatever the files' order."""

    reference: np.ndarray  # (x, y, z) classes
    inferred: np.ndarray  # (x, y, z) classes
    foreground: np.ndarray  # (x, y, z) classes, or the probability of being anything but background
    spacing_mm: tuple[float, float, float]


def read_pair(files: FilePair, rules: LabelRules, loader: str | None = None) -> ImagePair:
    """Returns the voxels of a pair; values of the reference become classes as in training, see `LabelRules`.

    A segmentation may also have classes already, or the probabilities of every class, the background first. `loader`
    reads the reference.

    Raises:
        InputError: a file cannot be read, both are the same file or lie on different grids, or the reference has values
            that are no classes. The message names the subject.
    """
    with _told_of(files):
        _refuse_same_file(files)
        truth = reorient(read_image(files.reference, loader), _AXIAL)
        found = reorient(read_image(files.inferred), _AXIAL)
        _refuse_grids(files, truth, found)
        if truth.data.shape[3] != 1:
            raise InputError(f"{files.reference} has {truth.data.shape[3]} times or components; give a file of one")
        reference = rules.classes(truth.data[..., 0], f"reference {files.reference}")
    if found.data.shape[-1] > 1:
        return ImagePair(reference, np.argmax(found.data, axis=-1), 1.0 - found.data[..., 0], truth.spacing_mm)
    inferred = found.data[..., 0]
    # What other programs wrote may be classes already.
    if rules.mapping is not None and not rules.judge(np.unique(inferred)).unlisted:
        inferred = map_labels(inferred, rules.mapping)
    return ImagePair(reference, inferred, inferred, truth.spacing_mm)


def check_pair(files: FilePair, loader: str | None = None) -> None:
    """Refuses what `read_pair` refuses, as far as the headers of both files show it.

    Raises:
        InputError: as `read_pair`.
    """
    with _told_of(files):
        _refuse_same_file(files)
        truth = reorient(read_image_header(files.reference, loader), _AXIAL)
        _refuse_grids(files, truth, reorient(read_image_header(files.inferred), _AXIAL))


@contextmanager
def _told_of(files: FilePair) -> Iterator[None]:
    try:
        yield
    except InputError as error:
        raise error.within(subject=files.subject_id) from error


def _refuse_same_file(files: FilePair) -> None:
    reference, inferred = Path(files.reference), Path(files.inferred)
    is_one = os.path.realpath(reference) == os.path.realpath(inferred)
    if is_one or (reference.exists() and inferred.exists() and reference.samefile(inferred)):
        raise InputError(
            f"reference and segmentation are the same file {reference}; name the segmentations in the section of the "
            "inferred images"
        )


def _refuse_grids(files: FilePair, truth: Image, found: Image) -> None:
    if not truth.grid.matches(found.grid):
        raise InputError(
            f"reference {files.reference} with {truth.grid} and segmentation {files.inferred} with {found.grid} are "
            "not on one grid; segment the scans on the grid of the label, or resample the label"
        )
