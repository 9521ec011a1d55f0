"""Which scans of a training subject are there, and in which slots: hiding, permuting, and adding absent ones."""

from collections.abc import Callable
from dataclasses import replace
from typing import Literal

import numpy as np
from scipy import special

from pimms_tf.data.subjects import UNKNOWN, Subject
from pimms_tf.errors import InputError

CurriculumKind = Literal["intended", "uniform", "student_t", "none"]
Curriculum = CurriculumKind | Callable[[int], np.ndarray]


def scan_dropout_probabilities(num_scans: int, df: float = 0.1) -> np.ndarray:
    """Probabilities (num_scans,) of hiding k scans, k = 0 … num_scans - 1, float64; few are usually hidden, never all.

    The mass of a half Student-t with ``df`` degrees of freedom on equal bins of [0, 1]: three scans give 0.5078,
    0.3014, 0.1908, four 0.4026, 0.2755, 0.1861, 0.1358.

    Raises: ValueError for fewer than one scan.
    Source: the sampler of the 3-D PIMMS code.

    >>> scan_dropout_probabilities(3).round(2).tolist()
    [0.51, 0.3, 0.19]
    """
    _check_num_scans(num_scans)
    cdf = special.stdtr(df, np.arange(num_scans + 1) / num_scans)
    return np.diff(cdf) / (cdf[-1] - cdf[0])


def curriculum_probabilities(num_scans: int, kind: CurriculumKind) -> np.ndarray:
    """Probabilities (num_scans,) of hiding k of ``num_scans`` present scans, k = 0 … num_scans - 1, float64.

    intended    what the published 2-D code meant: 1 / .5 .5 / .5 .3 .2 / .5 .3 .15 .05 for one to four scans; our
                extension to more keeps .5 .3 .15 and shares the last .05 equally among the larger numbers
    uniform     what it did: the table was passed as another argument, and every k was equally likely
    student_t   the later 3-D code, `scan_dropout_probabilities`
    none        nothing is hidden

    Raises: ValueError for fewer than one scan; InputError for another kind.
    """
    _check_num_scans(num_scans)
    if kind == "student_t":
        return scan_dropout_probabilities(num_scans)
    if kind == "uniform":
        return np.full(num_scans, 1 / num_scans)
    if kind == "none":
        return np.eye(1, num_scans)[0]
    if kind != "intended":
        raise InputError(f"curriculum = {kind!r} is not one of intended, uniform, student_t, none")
    if num_scans <= 3:
        return np.array([[1.0], [0.5, 0.5], [0.5, 0.3, 0.2]][num_scans - 1])
    return np.array([0.5, 0.3, 0.15] + [0.05 / (num_scans - 3)] * (num_scans - 3))


def draw_hidden(valid: np.ndarray, rng: np.random.Generator, curriculum: Curriculum = "intended") -> np.ndarray:
    """Which scans to hide, (window, scan) bool, drawn anew for every row of ``valid`` (window, scan).

    Each row hides k of its valid scans, k by the curriculum, the first k of a random order; at least one stays. Rows
    without a valid scan hide nothing. ``curriculum`` is a kind, or a function from the number of valid scans to
    probabilities of hiding 0, 1, 2, … of them.

    Source: contrib/hemis_midl/hemis_sampler.py of the published code.
    """
    table = curriculum if callable(curriculum) else lambda num_scans: curriculum_probabilities(num_scans, curriculum)
    present, chance = valid.sum(axis=1), rng.random(len(valid))
    num_hidden = np.zeros(len(valid), np.int64)
    for num_scans in np.unique(present[present > 0]):
        rows = present == num_scans
        share = np.cumsum(table(int(num_scans)))
        num_hidden[rows] = np.searchsorted(share, chance[rows], side="right").clip(max=num_scans - 1)
    order = np.where(valid, rng.random(valid.shape), np.inf)
    rank = order.argsort(axis=1).argsort(axis=1)
    return rank < num_hidden[:, np.newaxis]


def drop_scans(subject: Subject, rng: np.random.Generator, kind: Curriculum = "intended") -> Subject:
    """The subject with some scans hidden, never all: their voxels are zero, `valid` is False, `modality` is kept.

    ``kind`` is a curriculum as in `draw_hidden`. The subject given is not changed.
    """
    (hidden,) = draw_hidden(subject.valid[np.newaxis], rng, kind)
    if not hidden.any():
        return subject
    scans = np.where(hidden, np.float32(0), subject.scans)
    return replace(subject, scans=scans, valid=subject.valid & ~hidden, coefficients=None)


def permute_scans(subject: Subject, rng: np.random.Generator) -> Subject:
    """The subject with its slots, absent ones too, in a random order; `valid` and `modality` move with the scans."""
    order = rng.permutation(len(subject.valid))
    return replace(
        subject,
        scans=subject.scans[..., order],
        valid=subject.valid[order],
        modality=subject.modality[order],
        coefficients=None,
    )


def pad_slots(subject: Subject, max_slots: int, modality: int = UNKNOWN) -> Subject:
    """The subject with absent scans appended up to ``max_slots``: zeros, not valid, of ``modality``.

    ``modality`` is -1, or `NULL_CLASS` where empty slots are a class of their own.

    Raises: InputError if the subject has more scans than that.
    """
    missing = missing_slots(subject, max_slots)
    if missing == 0:
        return subject
    return replace(
        subject,
        scans=np.pad(subject.scans, [(0, 0)] * 3 + [(0, missing)]),
        valid=np.pad(subject.valid, (0, missing)),
        modality=np.pad(subject.modality, (0, missing), constant_values=modality),
        coefficients=None,
        scores=None if subject.scores is None else np.pad(subject.scores, ((0, missing), (0, 0))),
    )


def missing_slots(subject: Subject, max_slots: int) -> int:
    """How many slots are left beside the scans of ``subject``.

    Raises: InputError if the subject has more scans than ``max_slots``.
    """
    num_scans = len(subject.valid)
    if num_scans > max_slots:
        raise InputError(
            f"there are {num_scans} scans but max_slots is {max_slots}: raise max_slots", subject=subject.subject_id
        )
    return max_slots - num_scans


def _check_num_scans(num_scans: int) -> None:
    if num_scans < 1:
        raise ValueError(f"num_scans must be at least 1, received {num_scans}")
