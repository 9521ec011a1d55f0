"""Checkpoints of the released PIMMS networks (TensorFlow 1) as arrays under our variable paths.

Names are those of `checkpoint_names`. Two things are kept otherwise: a PReLU slope (channel,) is (1, 1, channel) here,
and the count of updates behind a zero-debiased moving average is here the weight `unseen` that the average's starting
value still has, 0.9 to the power of that count.
"""

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from niftynet_compat.runs.checkpoint_names import (
    GRAPHS,
    Graph,
    auxiliary_kind,
    examples,
    local_step_name,
    our_path,
    recognised,
    tf1_name,
)
from niftynet_compat.spelling import nearest
from pimms_tf.errors import ConfigError

_DECAY = 0.9  # of NiftyNet's moving averages
_BETA_2 = 0.999  # of TensorFlow's Adam
_SHOWN = 3


@dataclass(frozen=True)
class Released:
    """A released checkpoint, its variables sorted by what they are."""

    prefix: Path
    graph: Graph
    arrays: Mapping[str, np.ndarray]  # by released name
    weights: Mapping[str, str]  # our path, without the model's name → released name
    auxiliary: Mapping[str, str]  # released name → what it is
    unknown: tuple[str, ...]  # released names that are neither

    def shape(self, path: str) -> tuple[int, ...] | None:
        """Returns the shape of what is stored for our path; None if nothing is."""
        return self.arrays[self.weights[path]].shape if path in self.weights else None

    @property
    def iteration(self) -> int | None:
        """The iteration by the global step that is stored, else by the name `model.ckpt-N`; None without either."""
        for name, kind in self.auxiliary.items():
            if kind == "global step":
                return int(self.arrays[name])
        number = re.search(r"-(\d+)$", self.prefix.name)
        return int(number[1]) if number else None


def import_tf1(
    prefix: str | Path,
    expected: Mapping[str, tuple[int, ...]],
    network: str | None = None,
    optimizer: bool = False,
) -> dict[str, np.ndarray]:
    """Returns {our variable path: float32 array} of a released checkpoint for the expected paths and shapes.

    Every weight and moving statistic in the file is used exactly once. Variables `unseen` (see the top) are 0.9ⁿ where
    the file has the count n of updates, and 0 where it has none: the statistics of a long training, or tf.contrib's.

    Args:
        prefix: the file's name up to `.index`.
        expected: paths with or without the model's name in front.
        network: "hemis", "modality_classifier" or "pimms_online", if the file must be of that one.
        optimizer: add Adam's moments as `optimizer/adam/…_momentum` and `…_velocity` and its count of updates as
            `optimizer/adam/iteration`, as far as the file has them.

    Raises:
        ConfigError: no checkpoint, a damaged one, one of another network, or names, shapes and values that do not fit;
            those of both sides are listed.
    """
    return fit(read_tf1(prefix, network), expected, optimizer)


def read_tf1(prefix: str | Path, network: str | None = None) -> Released:
    """Returns the released checkpoint `prefix` with its variables sorted.

    Raises:
        ConfigError: no checkpoint, a damaged one, one of none of the PIMMS networks, or of another than `network`.
    """
    prefix = Path(re.sub(r"\.(index|meta|data-\d+-of-\d+)$", "", str(prefix)))
    if network is not None and network not in GRAPHS:
        near = nearest(network, GRAPHS)
        hint = f"did you mean {near}?" if near else f"choose one of {', '.join(GRAPHS)}"
        raise ConfigError(f"no checkpoint of a network {network} can be imported; {hint}")
    arrays = _stored(prefix)
    graph = recognised(arrays)
    if graph is None:
        raise ConfigError(
            f"checkpoint {prefix} is of none of the released networks {', '.join(GRAPHS)}: it holds "
            f"{_listed(sorted(arrays, key=len))}"
        )
    if network is not None and network != graph.network:
        raise ConfigError(
            f"checkpoint {prefix} is not of {network} but of {graph.network}: it holds "
            f"{_listed(examples(graph.network))}, where {network} has {_listed(examples(network))}; import it as "
            f"{graph.network}, or give another checkpoint"
        )
    weights = {path: name for name in arrays if (path := our_path(name, graph)) is not None}
    auxiliary = {name: kind for name in arrays if (kind := auxiliary_kind(name, graph)) is not None}
    unknown = sorted(set(arrays) - set(weights.values()) - set(auxiliary))
    return Released(prefix, graph, arrays, weights, auxiliary, tuple(unknown))


def fit(released: Released, expected: Mapping[str, tuple[int, ...]], optimizer: bool = False) -> dict[str, np.ndarray]:
    """Returns what `import_tf1` returns, of a checkpoint that has been read.

    Raises:
        ConfigError: names, shapes or values that do not fit; of each kind the first three are listed.
    """
    stored, graph = released.arrays, released.graph
    arrays: dict[str, np.ndarray] = {}
    absent, unequal, unusable, used = [], [], [], set()

    def take(path: str, name: str, shape: tuple[int, ...], key: str) -> None:
        array = stored[name]
        # Keras keeps PReLU slopes with the axes that share them; this is the only reshape.
        if path.endswith("/prelu/alpha") and (1,) * (len(shape) - 1) + array.shape == shape:
            array = array.reshape(shape)
        if array.shape != shape:
            unequal.append(f"{name} has shape {stored[name].shape}, {path} of the model {shape}")
        elif array.dtype != np.float32 or not np.isfinite(array).all():
            unusable.append(f"{name} ({array.dtype})")
        arrays[key] = array

    for path, shape in expected.items():
        shape = tuple(shape)
        step = local_step_name(path, graph)
        if step is not None:
            count = float(stored[step]) if step in stored else math.inf
            arrays[path] = np.asarray(_DECAY**count, np.float32)
            continue
        name = tf1_name(path, graph)
        if name is None or name not in stored or name in used:
            absent.append(f"{path} {shape}" + (f", there {name}" if name else ""))
            continue
        used.add(name)
        take(path, name, shape, path)
        for slot, moment in (("Adam", "momentum"), ("Adam_1", "velocity")):
            if optimizer and f"{name}/{slot}" in released.auxiliary:
                take(path, f"{name}/{slot}", shape, f"optimizer/adam/{path.replace('/', '_')}_{moment}")
    left_over = sorted((set(released.weights.values()) | set(released.unknown)) - used)
    problems = [
        f"{what}: {_listed(names, '; ')}"
        for what, names in (
            ("not in it are", absent),
            ("only in it are", [f"{name} {stored[name].shape}" for name in left_over]),
            ("different are", unequal),
            ("not finite float32 numbers are", unusable),
        )
        if names
    ]
    if problems:
        raise ConfigError(
            f"checkpoint {released.prefix} does not fit the model of {graph.network}; {'; '.join(problems)}"
        )
    if any(key.startswith("optimizer/") for key in arrays):
        arrays["optimizer/adam/iteration"] = np.asarray(_num_updates(released), np.int64)
    return arrays


def _num_updates(released: Released) -> int:
    """Returns how often Adam has moved the weights, from the power of its decay that it keeps."""
    powers = [array for name, array in released.arrays.items() if name.rpartition("/")[2] == "beta2_power"]
    if not powers:
        return released.iteration or 0
    # The power is that of the next update. It vanishes after 87,000, when its correction has long been 1.
    return max(round(math.log(max(float(powers[0]), 1e-38)) / math.log(_BETA_2)) - 1, 0)


def _stored(prefix: Path) -> dict[str, np.ndarray]:
    if not Path(f"{prefix}.index").is_file() and not prefix.is_file():
        folder = prefix if prefix.is_dir() else prefix.parent
        there = sorted(path.name.removesuffix(".index") for path in folder.glob("*.index"))
        hint = f"{folder} holds {_listed(there)}" if there else f"{folder} holds none"
        raise ConfigError(f"{prefix} is not the name of a checkpoint: there is no {prefix}.index; {hint}")
    import tensorflow as tf

    try:
        reader = tf.train.load_checkpoint(str(prefix))
        return {name: np.asarray(reader.get_tensor(name)) for name in sorted(reader.get_variable_to_shape_map())}
    except (tf.errors.OpError, RuntimeError, ValueError, LookupError, OSError) as error:
        reason = str(getattr(error, "message", None) or error).splitlines()[0]
        raise ConfigError(
            f"checkpoint {prefix} cannot be read ({reason}); all its files must be there and complete: copy them "
            "again, or give an earlier one"
        ) from error


def _listed(names: Iterable[str], separator: str = ", ") -> str:
    names = list(names)
    more = f"{separator}and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return (separator.join(names[:_SHOWN]) + more) or "no variable"
