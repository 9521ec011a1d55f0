"""Which subject is for training, validation or inference: the file dataset_split.csv, and drawing it with a seed.

Source: `niftynet/io/image_sets_partitioner.py`.
"""

import enum
import logging
import math
import random
from collections.abc import Mapping, Sequence
from pathlib import Path

from niftynet_compat.spelling import nearest
from niftynet_compat.subjects.lists import csv_rows
from pimms_tf.errors import ConfigError
from pimms_tf.files import write_text
from pimms_tf.wording import counted

log = logging.getLogger(__name__)


class Phase(str, enum.Enum):
    """What a subject is used for; equal to its word in the file."""

    TRAINING = "training"
    VALIDATION = "validation"
    INFERENCE = "inference"

    def __str__(self) -> str:
        return self.value


_WORDS = {phase.value: phase for phase in Phase} | {
    "train": Phase.TRAINING,
    "valid": Phase.VALIDATION,
    "test": Phase.INFERENCE,
}


def split_subjects(
    subject_ids: Sequence[str], validation_fraction: float, inference_fraction: float, seed: int
) -> dict[str, Phase]:
    """Returns the phase of every subject, in the order of the sorted ids; the same seed gives the same split.

    With N subjects ceil(N v) are for validation, ceil(N i) for inference and the rest for training. The order is
    Python's `random.shuffle` of the list of phases after `random.seed(seed)`, as in NiftyNet, which set no seed.

    Raises:
        ConfigError: an id occurs twice, a fraction is outside [0, 1], or no subject is left for training.

    >>> {name: str(phase) for name, phase in split_subjects(["a", "b", "c", "d"], 0.25, 0.25, seed=0).items()}
    {'a': 'validation', 'b': 'training', 'c': 'training', 'd': 'inference'}
    """
    ids = sorted(subject_ids)
    num = len(ids)
    for left, right in zip(ids, ids[1:], strict=False):
        if left == right:
            raise ConfigError(f"subject {left} occurs twice among those to be split; every id must be unique")
    for key, fraction in (
        ("exclude_fraction_for_validation", validation_fraction),
        ("exclude_fraction_for_inference", inference_fraction),
    ):
        if not 0 <= fraction <= 1:
            raise ConfigError(f"[TRAINING] {key} = {fraction} is not a fraction; give a number between 0 and 1")
    num_valid = math.ceil(num * validation_fraction)
    num_infer = math.ceil(num * inference_fraction)
    num_train = num - num_valid - num_infer
    if num_train <= 0:
        raise ConfigError(
            f"of {counted(num, 'subject')} {num_valid} would be for validation (exclude_fraction_for_validation = "
            f"{validation_fraction}) and {num_infer} for inference (exclude_fraction_for_inference = "
            f"{inference_fraction}), which leaves none for training; lower the fractions or add subjects"
        )
    return shuffled_phases(ids, num_train, num_valid, seed)


def shuffled_phases(ids: Sequence[str], num_train: int, num_valid: int, seed: int) -> dict[str, Phase]:
    """Returns {id: phase}: `num_train` training, `num_valid` validation, the rest inference, shuffled by `seed`.

    A negative `num_train` counts as 0 and shortens the others from the end, as NiftyNet's cut of the list does.
    """
    phases = [Phase.TRAINING] * max(num_train, 0) + [Phase.VALIDATION] * num_valid
    phases = (phases + [Phase.INFERENCE] * len(ids))[: len(ids)]
    random.Random(seed).shuffle(phases)
    return dict(zip(ids, phases, strict=True))


def read_split(path: str | Path) -> dict[str, Phase]:
    """Returns {subject id: phase} of a file of lines `subject,phase`, in file order.

    Phases in any case; `train`, `valid` and `test` are understood too. Blank lines and # lines are passed over.

    Raises:
        ConfigError: no such file, an empty file, a line without two columns, an unknown phase, or an id given twice.
    """
    path = Path(path)
    split: dict[str, Phase] = {}
    for number, row in csv_rows(path, f"dataset_split_file {path}"):
        here = f"dataset_split_file {path}, line {number}:"
        if len(row) != 2 or not row[0]:
            raise ConfigError(
                f"{here} {','.join(row)!r} is not `subject,phase`; write the two with a comma between them"
            )
        subject_id, word = row
        if word.lower() not in _WORDS:
            known = nearest(word, _WORDS)
            hint = f"did you mean {_WORDS[known]}? The" if known else "the"
            raise ConfigError(f"{here} {word!r} of subject {subject_id} is not a phase; {hint} phases are {_phases()}")
        if subject_id in split:
            raise ConfigError(f"{here} subject {subject_id} is listed twice; keep one line per subject")
        split[subject_id] = _WORDS[word.lower()]
    if not split:
        raise ConfigError(f"dataset_split_file {path}: is empty; delete it to have a split drawn, or list the subjects")
    return split


def write_split(path: str | Path, split: Mapping[str, Phase]) -> Path:
    """Returns `path` after writing lines `subject,phase` in the order given.

    Raises:
        ConfigError: an id holds a comma, a quote or a line break, which the format cannot carry.
    """
    for subject_id in split:
        if any(mark in subject_id for mark in ',"\n\r') or subject_id != subject_id.strip() or subject_id[:1] == "#":
            raise ConfigError(
                f"subject {subject_id!r} cannot stand in a list of comma-separated columns; rename its files"
            )
    return write_text(path, "".join(f"{subject_id},{Phase(phase).value}\n" for subject_id, phase in split.items()))


def phase_subjects(
    subject_ids: Sequence[str],
    split: Mapping[str, Phase] | None,
    phases: str | Sequence[str] = "",
    source: str = "dataset_split_file",
) -> list[str]:
    """Returns the ids, in their order, that belong to the wanted phases; `source` is the name of the split in messages.

    `phases` is one phase, several (a list, or separated by commas), or `all`. Empty is NiftyNet's rule for inference
    and evaluation: the phase inference, or all subjects if a split lacks it (with a warning) or does not exist.
    Without a split all subjects are for training. Otherwise a subject is in no phase but the one the split gives it.

    Raises:
        ConfigError: an unknown phase, a split without any of these subjects, a wanted phase without subjects, or
            validation or inference wanted by name without a split.
    """
    wanted = _wanted(phases)
    if wanted is None:
        return list(subject_ids)
    if split is None:
        if not wanted or wanted == [Phase.TRAINING]:
            return list(subject_ids)
        raise ConfigError(
            f"{' and '.join(wanted)} subjects are wanted, but there is no {source} that names them; give "
            "exclude_fraction_for_validation and exclude_fraction_for_inference in training, or use all subjects"
        )
    known = [subject_id for subject_id in subject_ids if subject_id in split]
    if not known and subject_ids:
        raise ConfigError(
            f"{source} lists {counted(len(split), 'subject')} such as {next(iter(split), '(none)')}, but the data has "
            f"{len(subject_ids)} such as {subject_ids[0]} and none are in common; to segment subjects that took no "
            "part in training give dataset_to_infer = all, else correct the ids or name another file"
        )
    present = {split[subject_id] for subject_id in known}
    takes_all = not wanted and Phase.INFERENCE not in present
    _warn_of_strangers(subject_ids, split, source, "taken all the same" if takes_all else "left out")
    if takes_all:
        trained = sum(split[subject_id] is not Phase.INFERENCE for subject_id in known)
        log.warning(
            "%s has no inference subject, so all %d subjects are taken, %d of which training has looked at: scores of "
            "these say nothing of new patients; name those that are meant in dataset_to_infer, or all",
            source,
            len(subject_ids),
            trained,
        )
        return list(subject_ids)
    for phase in wanted:
        if phase not in present:
            counts = ", ".join(f"{sum(split[item] == other for item in known)} {other}" for other in Phase)
            raise ConfigError(
                f"{source} has no {phase} subject among the {len(known)} found ({counts}); add some to it or delete it"
            )
    return [subject_id for subject_id in known if split[subject_id] in (wanted or [Phase.INFERENCE])]


def _warn_of_strangers(subject_ids: Sequence[str], split: Mapping[str, Phase], source: str, fate: str) -> None:
    unlisted = [subject_id for subject_id in subject_ids if subject_id not in split]
    without_data = sorted(set(split) - set(subject_ids))
    if unlisted:
        log.warning("%s does not list %s, such as %s, %s", source, counted(len(unlisted), "subject"), unlisted[0], fate)
    if without_data:
        number = counted(len(without_data), "subject")
        log.warning("%s lists %s without data, such as %s", source, number, without_data[0])


def _wanted(phases: str | Sequence[str]) -> list[Phase] | None:
    """The phases meant, [] for the empty text, None for all."""
    words = phases.split(",") if isinstance(phases, str) else list(phases)
    words = [str(word).strip().lower() for word in words if str(word).strip()]
    if "all" in words:
        return None
    unknown = [word for word in words if word not in _WORDS]
    if unknown:
        raise ConfigError(f"dataset_to_infer = {unknown[0]} is not a phase; the phases are all, {_phases()}")
    return [_WORDS[word] for word in words]


def _phases() -> str:
    return ", ".join(phase.value for phase in Phase)
