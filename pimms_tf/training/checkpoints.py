"""Checkpoints: TensorFlow's file format, keyed by variable path, under NiftyNet's names `model.ckpt-N`."""

import itertools
import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from pimms_tf.errors import InputError
from pimms_tf.files import disk_complaint, flush, scratch_beside, write_text

_ITERATION = "iteration"
_VALIDATION_LOSS = "validation_loss"
_OPTIMIZER = "optimizer/"

log = logging.getLogger(__name__)


class Checkpoints:
    """The checkpoints of one run in one folder: `model.ckpt-N` and the text file `checkpoint` that names the latest.

    Holds weights, normalisation statistics, optimiser state (without the learning rate) and iteration under their
    variable paths, so they can be read with `tf.train.load_checkpoint` and restored under any number of replicas.

    Args:
        folder: created when first saved to.
        iteration: counts finished training iterations.
        max_to_keep: older checkpoints of this object's own making are deleted, those of earlier runs are not; at least
            2, as in NiftyNet. None keeps all.
        writes: False leaves the files to another process, which trains the same weights; `save` then does nothing.
    """

    def __init__(
        self,
        folder: Path,
        model: keras.Model,
        optimizer: keras.optimizers.Optimizer | None,
        iteration: tf.Variable,
        max_to_keep: int | None = 100,
        writes: bool = True,
    ):
        self.folder = Path(folder)
        self.model = model
        self.optimizer = optimizer
        self.iteration = iteration
        self.max_to_keep = None if max_to_keep is None else max(2, max_to_keep)
        self.writes = writes
        self._written: list[int] = []

    def save(self, validation_loss: float | None = None) -> Path:
        """Writes `model.ckpt-N` for the current iteration N, completely or not at all; returns its prefix.

        Raises:
            InputError: a weight is no finite number, which all processes find alike, or the folder cannot be written;
                every checkpoint of before is still there.
        """
        number = int(self.iteration.numpy())
        arrays = {name: np.asarray(variable.numpy()) for name, variable in self.variables().items()}
        if broken := not_finite(arrays):
            raise InputError(
                f"checkpoint {number} is not written into {self.folder}, because {broken}: the training has diverged; "
                f"lower lr{earlier(self.folder)}"
            )
        if not self.writes:
            return self.folder / f"model.ckpt-{number}"
        arrays[_ITERATION] = np.asarray(number, np.int64)
        if validation_loss is not None:
            arrays[_VALIDATION_LOSS] = np.asarray(validation_loss, np.float32)
        try:
            write_arrays(self.folder / f"model.ckpt-{number}", arrays)
            self._written = [n for n in self._written if n != number] + [number]
            dropped = [] if self.max_to_keep is None else self._written[: -self.max_to_keep]
            self._written = self._written[len(dropped) :]
            # What is named there must be there, whenever the process ends.
            self._write_state()
            for old in dropped:
                # The index first: what has one is taken for complete.
                for file in sorted(self.folder.glob(f"model.ckpt-{old}.*"), reverse=True):
                    file.unlink()
        except (OSError, tf.errors.OpError) as error:
            reason = disk_complaint(error) or getattr(error, "strerror", None) or getattr(error, "message", error)
            raise InputError(
                f"cannot write checkpoint {number} into {self.folder} ({reason}): "
                "free space or choose another model_dir"
            ) from error
        return self.folder / f"model.ckpt-{number}"

    def restore(self, iteration: int | None = None, pattern: str = "", optimizer: bool = True) -> int:
        """Loads checkpoint N (the latest when None) into model, optimiser and counter; returns N.

        Args:
            pattern: regular expression (searched for); given, only matching weights are loaded, and neither optimiser
                nor counter (NiftyNet's `vars_to_restore`).
            optimizer: whether the optimiser's state is loaded.

        Raises:
            InputError: no such checkpoint, a damaged one, a pattern that matches nothing, or names or shapes that do
                not fit; nothing has been assigned then.
        """
        number = latest_iteration(self.folder) if iteration is None else iteration
        prefix = self.folder / f"model.ckpt-{number}"
        wanted = self.variables(optimizer and not pattern)
        if pattern:
            wanted = {name: variable for name, variable in wanted.items() if re.search(pattern, name)}
            if not wanted:
                raise InputError(f"vars_to_restore = {pattern} matches no variable of the model, {self.model.name}/…")
        expected = {name: tuple(variable.shape) for name, variable in wanted.items()}
        if not pattern:
            expected[_ITERATION] = ()
        arrays = load_arrays(prefix, expected, complete=not pattern)
        if not pattern:
            self.iteration.assign(arrays.pop(_ITERATION))
        for name, array in arrays.items():
            wanted[name].assign(array)
        log.info("Restoring parameters from %s", prefix)
        return number

    def validation_loss(self, iteration: int) -> float | None:
        """Returns the validation loss that was saved with checkpoint N, or None."""
        prefix = self.folder / f"model.ckpt-{iteration}"
        if _VALIDATION_LOSS not in _open(prefix).get_variable_to_shape_map():
            return None
        return float(load_arrays(prefix, {_VALIDATION_LOSS: ()})[_VALIDATION_LOSS])

    def variables(self, optimizer: bool = True) -> dict[str, keras.Variable]:
        """Returns what a checkpoint holds besides the iteration, by stored name; `optimizer` as in `restore`."""
        variables = {variable.path: variable for variable in self.model.variables}
        if self.optimizer is not None and optimizer:
            for variable in self.optimizer.variables:
                # Keras numbers the optimisers of a process; which one it was must not decide what can be resumed.
                path = re.sub(r"^([^/]*?)(_\d+)?/", r"\1/", variable.path)
                # The learning rate is a setting: resuming with another one is meant.
                if not path.endswith("/learning_rate"):
                    variables[_OPTIMIZER + path] = variable
        return variables

    def _write_state(self) -> None:
        lines = [f'model_checkpoint_path: "model.ckpt-{self._written[-1]}"']
        lines += [f'all_model_checkpoint_paths: "model.ckpt-{number}"' for number in self._written]
        write_text(self.folder / "checkpoint", "\n".join(lines) + "\n")


def iterations(folder: Path) -> set[int]:
    """Returns the iterations of which `folder` holds a checkpoint."""
    names = (re.fullmatch(r"model\.ckpt-(\d+)\.index", file.name) for file in Path(folder).glob("model.ckpt-*.index"))
    return {int(name[1]) for name in names if name}


def not_finite(arrays: Mapping[str, np.ndarray]) -> str:
    """Returns which arrays hold values that are no finite numbers, as a sentence goes on; "" if none does."""
    broken = [name for name, array in arrays.items() if array.dtype.kind == "f" and not np.isfinite(array).all()]
    if not broken:
        return ""
    return f"{len(broken)} of its {len(arrays)} arrays hold values that are no finite numbers, {broken[0]} the first"


def latest_iteration(folder: Path) -> int:
    """Returns the iteration of the checkpoint that `folder`/checkpoint names.

    Raises:
        InputError: the file is missing or does not name a checkpoint.
    """
    state = Path(folder) / "checkpoint"
    try:
        match = re.search(r'^model_checkpoint_path: ".*-(\d+)"', state.read_text(encoding="utf-8"), re.MULTILINE)
    except FileNotFoundError:
        match = None
    if match is None:
        raise InputError(f"{state} names no checkpoint: train first, or set model_dir to the folder of a trained model")
    return int(match[1])


def earlier(folder: Path) -> str:
    """Returns the advice to a training that diverged, after "lower lr": to go on from a checkpoint, if there is one."""
    try:
        return f" and go on from an earlier checkpoint, --starting_iter {latest_iteration(folder)} or less"
    except InputError:
        return " and begin anew"


def write_arrays(prefix: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Writes arrays under their names as the TensorFlow checkpoint `prefix` (.index and .data-…), whole or not at all.

    One of that name is replaced in one moment: its data stay, under names that the new ones do not take, until the new
    index has taken the place of the old one.
    """
    with scratch_beside(prefix) as scratch:
        # The name of a data file ends in how many there are, which is free: 1 at first, then 2, then 1 again.
        old = list(prefix.parent.glob(f"{prefix.name}.data-*"))
        taken = {file.name.rpartition("-")[2] for file in old}
        count = next(count for count in itertools.count(1) if f"{count:05d}" not in taken)
        names, parts = list(arrays), [str(scratch / f"{prefix.name}.part-{part}") for part in range(count)]
        for part, path in enumerate(parts):
            here = names[part::count]
            tf.raw_ops.SaveV2(
                prefix=path, tensor_names=here, shape_and_slices=[""] * len(here), tensors=[arrays[n] for n in here]
            )
        tf.raw_ops.MergeV2Checkpoints(
            checkpoint_prefixes=parts, destination_prefix=str(scratch / prefix.name), delete_old_dirs=False
        )
        data, index = sorted(scratch.glob(f"{prefix.name}.data-*")), scratch / f"{prefix.name}.index"
        flush(*data, index)
        for file in data:
            file.replace(prefix.parent / file.name)
        flush(prefix.parent)
        index.replace(prefix.parent / index.name)
        flush(prefix.parent)
        for file in old:
            file.unlink()


def load_arrays(
    prefix: Path,
    expected: Mapping[str, Sequence[int]],
    renamed: Mapping[str, str] = {},
    complete: bool = False,
) -> dict[str, np.ndarray]:
    """Returns {name: array} of a checkpoint for the expected names and shapes; `renamed` maps a name to its stored one.

    Args:
        complete: the checkpoint may hold no other weights; an optimiser's state may always be left out.

    Raises:
        InputError: no such checkpoint, a damaged one, or names and shapes of which it lacks some, holds some in another
            shape or, if `complete`, holds more; all are counted and the first five listed. Or values that are no finite
            numbers.
    """
    reader = _open(prefix)
    stored = reader.get_variable_to_shape_map()
    problems = []
    for name, shape in expected.items():
        source = renamed.get(name, name)
        if source not in stored:
            problems.append(f"{source} is not in it")
        elif tuple(stored[source]) != tuple(shape):
            problems.append(f"{source} has shape {tuple(stored[source])}, the model {tuple(shape)}")
    if complete:
        known = {renamed.get(name, name) for name in expected} | {_ITERATION, _VALIDATION_LOSS}
        others = sorted(name for name in set(stored) - known if not name.startswith(_OPTIMIZER))
        problems += [f"{name} is in it but not in the model" for name in others]
    if problems:
        shown = "; ".join(problems[:5]) + (f"; and {len(problems) - 5} more" if len(problems) > 5 else "")
        raise InputError(
            f"checkpoint {prefix} does not fit the model that the configuration describes: {shown}; "
            "give the network, modalities, num_classes and [PIMMS] choices it was trained with"
        )
    with _damage_named(prefix):
        arrays = {name: reader.get_tensor(renamed.get(name, name)) for name in expected}
    if broken := not_finite(arrays):
        raise InputError(f"checkpoint {prefix} comes from a training that diverged: {broken}; use an earlier one")
    return arrays


def _open(prefix: Path):
    if not Path(f"{prefix}.index").exists():
        others = sorted(iterations(prefix.parent))
        there = f"it holds iterations {', '.join(map(str, others))}" if others else "it holds none"
        raise InputError(f"no checkpoint {prefix.name} in {prefix.parent} ({there})")
    with _damage_named(prefix):
        return tf.train.load_checkpoint(str(prefix))


@contextmanager
def _damage_named(prefix: Path) -> Iterator[None]:
    try:
        yield
    except (tf.errors.OpError, RuntimeError, ValueError, IndexError) as error:
        reason = getattr(error, "message", None) or error
        raise InputError(f"checkpoint {prefix} is damaged ({reason}): use an earlier one") from error
