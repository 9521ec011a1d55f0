"""Label maps: which class each value becomes, and what is wrong with values that become none; one judgement for all."""

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from pimms_tf.data.grids import print_numbers
from pimms_tf.data.intensity import LabelMapping, map_labels, unlisted_labels
from pimms_tf.errors import InputError

log = logging.getLogger(__name__)

_ROUNDING = 1e-3  # how far from a whole number a value may be that stands for it


class Judgement(NamedTuple):
    """The values of a label map with which something is wrong, in ascending order.

    `between` are no whole numbers, `outside` are or become no class, `unlisted` have no code and become 0.
    """

    between: tuple[float, ...] = ()
    outside: tuple[float, ...] = ()
    unlisted: tuple[float, ...] = ()


@dataclass(frozen=True)
class LabelRules:
    """Which values the label maps of a study may have.

    Args:
        num_classes: values are 0 to this number less 1; None allows every whole number.
        mapping: codes of the files and their classes; None takes values for classes.
        is_interpolated: whether maps are resampled by splines, so that values between classes are no mistake.
        ignored: numbers that are no class, but allowed: what counts neither way in an evaluation.
    """

    num_classes: int | None = None
    mapping: LabelMapping | None = None
    is_interpolated: bool = False
    ignored: tuple[int, ...] = ()

    def judge(self, values: Iterable[float]) -> Judgement:
        """Returns what is wrong with these values."""
        values = np.unique(np.asarray(list(values), float))
        unlisted, between = np.zeros(len(values), bool), np.zeros(len(values), bool)
        classes = np.rint(values)
        if self.mapping is not None:
            unlisted = ~np.isin(values, self.mapping.source)
            classes = map_labels(values, self.mapping)
        elif not self.is_interpolated:
            between = np.abs(values - classes) > _ROUNDING
        outside = np.zeros(len(values), bool)
        if self.num_classes is not None:
            outside = ((classes < 0) | (classes >= self.num_classes)) & ~np.isin(classes, self.ignored) & ~between
        return Judgement(*(tuple(values[wrong].tolist()) for wrong in (between, outside, unlisted)))

    def classes(self, label: np.ndarray, source: str) -> np.ndarray:
        """Returns the classes of a label map, int32 of its shape; `source` begins the message about it.

        Raises:
            InputError: values that are no whole numbers, or no classes. Those without a code become 0 with a warning.
        """
        found = self.judge(np.unique(label))
        if found.between:
            raise InputError(
                f"{source} should hold whole numbers but has {print_numbers(found.between[:5])}; give a label map,"
                " or map its values by label_normalisation"
            )
        if found.outside:
            outside = [int(value) if value.is_integer() else value for value in found.outside[:10]]
            raise InputError(
                f"{source} has label values {outside} outside 0 to {self.num_classes - 1}; set num_classes, or"
                " map them by label_normalisation"
            )
        if found.unlisted:
            log.warning("%s has label values %s that the mapping does not list; they become 0", source, found.unlisted)
        classes = np.rint(label) if self.mapping is None else map_labels(label, self.mapping)
        return np.ascontiguousarray(classes, np.int32)


def whole_numbers(values: np.ndarray, source: str) -> np.ndarray:
    """Returns the values rounded; `source` begins the message about values that are no whole numbers.

    Raises:
        InputError: there are such values.
    """
    return LabelRules().classes(values, source)


def modality_classes(values: np.ndarray, mapping: LabelMapping, source: str) -> np.ndarray:
    """Returns the classes (scan,) int that a mapping gives to the modality labels (scan,) of a file.

    Raises:
        InputError: a label is not in the mapping; `source` says where it stands.
    """
    if unlisted := unlisted_labels(values, mapping):
        raise InputError(
            f"{source} has the modality labels {print_numbers(unlisted)}, but known are "
            f"{print_numbers(mapping.source)}; correct the file or the number of modality classes"
        )
    return map_labels(values, mapping)
