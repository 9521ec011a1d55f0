"""What preparation learns from training subjects: histogram landmarks."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Protocol

import numpy as np

from pimms_tf.data.intensity import average_landmarks
from pimms_tf.data.loading import SubjectLoader


class SubjectFiles(Protocol):
    """What `train_mapping` needs to know of a subject."""

    subject_id: str
    images: Mapping[str, Path]


def train_mapping(loader: SubjectLoader, subjects: Iterable[SubjectFiles]) -> dict[str, np.ndarray]:
    """Histogram mapping (13,) of every section with a scan among the training `subjects`; absent scans do not count.

    Raises:
        InputError: a file cannot be read or has no foreground, or no scan of a section has contrast.
    Source: niftynet/layer/histogram_normalisation.py; see `intensity.average_landmarks`.
    """
    found: dict[str, list[np.ndarray]] = {}
    for subject in subjects:
        for name, each in loader.landmarks(subject.images, subject.subject_id).items():
            found.setdefault(name, []).extend(each)
    return {name: average_landmarks(each) for name, each in found.items()}
