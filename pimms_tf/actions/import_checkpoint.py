"""A checkpoint of the released TensorFlow 1 code → a model folder that trains on and segments here."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from keras import ops

from niftynet_compat import ConfigError, resolve_network
from niftynet_compat.runs.checkpoint import Released, fit, read_tf1
from pimms_tf.errors import InputError
from pimms_tf.files import replacing
from pimms_tf.models import PIMMS, build_classifier, build_model, preset_choices
from pimms_tf.training import Checkpoints, load_arrays, new_state
from pimms_tf.training.checkpoints import iterations

_PRESET = "niftynet2018"
_VARIANTS = {"hemis": "hemis", "modality_classifier": "classifier", "pimms_online": "online"}
_RELEASED_LR = 3e-4


class Difference(NamedTuple):
    """An output of the network and how far it is at most from the recorded one."""

    output: str
    largest: float


@dataclass(frozen=True)
class ImportReport:
    """What became of a released checkpoint."""

    network: str
    checkpoint: Path  # prefix of what was written
    num_modalities: int
    num_classes: int | None
    num_used: int  # weights and moving statistics, each used once
    num_slots: int  # of the optimiser that were used
    auxiliary: tuple[tuple[str, int], ...]  # kind and number of variables that are neither
    num_unused: int  # always 0: unknown variables are refused
    largest_difference: float  # between what was read and what the written checkpoint holds
    forward: tuple[Difference, ...] = ()

    @property
    def optimizer(self) -> str:
        """What continued training starts with."""
        if self.num_slots:
            return f"the optimiser goes on with {self.num_slots} of its stored moments"
        return "the optimiser starts fresh"

    def text(self) -> str:
        """Returns the report as lines to print."""
        auxiliary = ", ".join(f"{count} of kind {kind}" for kind, count in self.auxiliary) or "none"
        lines = [
            f"{self.network}, {self.num_modalities} modalities"
            + ("" if self.num_classes is None else f", {self.num_classes} classes")
            + f" → {self.checkpoint}",
            f"{self.num_used} variables used, {self.num_unused} unused; auxiliary: {auxiliary}; {self.optimizer}",
            f"largest difference between read and written: {self.largest_difference:g}",
        ]
        lines += [f"largest difference from the recorded {name}: {largest:.1e}" for name, largest in self.forward]
        return "\n".join(lines)


def import_checkpoint(
    prefix: str | Path,
    network: str,
    output: str | Path,
    *,
    optimizer: bool = True,
    iteration: int | None = None,
    recorded: str | Path | None = None,
) -> ImportReport:
    """Writes the model folder `output` from a released checkpoint and returns what was done.

    The folder gets `models/model.ckpt-N`, `models/checkpoint` and `imported.ini`, the settings that it must be used
    with. The network is the one of preset niftynet2018, in 2-D; modalities, classes, blocks and features are as many as
    the arrays have. Nothing is written unless everything fits.

    Args:
        prefix: the checkpoint's name up to `.index`.
        network: "hemis", "modality_classifier" or "pimms_online", or one of NiftyNet's names for them.
        optimizer: keep Adam's moments if they are stored; otherwise they start at 0.
        iteration: N; by default the checkpoint's global step, else the number in its name, else 1.
        recorded: .npz with `input` (b, x, y, scan) and the outputs of the original at inference, `output_infer` and for
            Online also `output_infer_1` (b · scan, modality); the imported model is compared with them.

    Raises:
        ConfigError: not a released checkpoint of that network, or one that does not fit, see `import_tf1`.
        InputError: the folder holds checkpoints already, cannot be written, or the recording is unusable.
    """
    network, output = _imported_network(network), Path(output)
    if iterations(output / "models"):
        raise InputError(
            f"{output} holds checkpoints already, and imported ones do not go with them: name a new folder"
        )
    released = read_tf1(prefix, network)
    model = build_fitting_model(released)
    arrays = fit(released, {variable.path: tuple(variable.shape) for variable in model.variables}, optimizer)
    # Iteration 0 would mean random weights to `starting_iter`.
    number = max(1, iteration or released.iteration or 1)
    state = new_state(model, "adam", _RELEASED_LR)
    variables = {variable.path: variable for variable in model.variables}
    optimizer_variables = ((variable.path, variable) for variable in state.optimizer.variables)
    # Keras numbers the optimisers of a process: adam, adam_1, …
    variables |= {f"optimizer/adam/{path.split('/', 1)[1]}": variable for path, variable in optimizer_variables}
    for name, array in arrays.items():
        variables[name].assign(array)
    forward = () if recorded is None else compare_forward(model, recorded)
    state.iteration.assign(number)
    checkpoints = Checkpoints(output / "models", model, state.optimizer, state.iteration)
    written = checkpoints.save()
    stored = load_arrays(written, {name: array.shape for name, array in arrays.items()})
    largest = max(float(np.abs(stored[name].astype(np.float64) - array).max()) for name, array in arrays.items())
    with replacing(output / "imported.ini") as temporary:
        temporary.write_text(_settings(released, model), encoding="utf-8")
    kinds = list(released.auxiliary.values())
    moments = [name for name in arrays if name.endswith(("_momentum", "_velocity"))]
    return ImportReport(
        network=network,
        checkpoint=written,
        num_modalities=model.num_modalities,
        num_classes=model.num_classes if model.attention is not None else None,
        num_used=len(released.weights),
        num_slots=len(moments),
        auxiliary=tuple((kind, kinds.count(kind)) for kind in dict.fromkeys(kinds)),
        num_unused=len(released.unknown),
        largest_difference=largest,
        forward=forward,
    )


def build_fitting_model(released: Released) -> PIMMS:
    """Returns a built model of preset niftynet2018 with the sizes of a released checkpoint.

    A size that the checkpoint does not show is the preset's, so that what is missing or odd can be named by comparison.
    """
    variant = _VARIANTS[released.graph.network]
    choices = _classifier_choices(released) if variant != "hemis" else {}
    if variant == "classifier":
        return build_classifier(_last(released, "classifier/head/bias", 3), _PRESET, **choices)
    backends = {int(match[1]) for path in released.weights if (match := re.match(r"backend_(\d+)/", path))}
    num_classes = _last(released, "frontend/conv_2/conv/kernel", 2)
    return build_model(variant, max(backends, default=2) + 1, num_classes, _PRESET, **choices)


def compare_forward(model: PIMMS, recorded: str | Path) -> tuple[Difference, ...]:
    """Returns the largest difference of each output of the model from a recording, see `import_checkpoint`.

    Recorded outputs may be probabilities or logits.

    Raises:
        InputError: the file is not there, holds no such arrays, or arrays of other shapes.
    """
    try:
        with np.load(recorded, allow_pickle=False) as file:
            arrays = {name: file[name] for name in ("input", "output_infer", "output_infer_1") if name in file}
    except (OSError, ValueError) as error:
        raise InputError(f"{recorded} cannot be read as .npz ({error})") from error
    if not {"input", "output_infer"} <= set(arrays):
        raise InputError(f"{recorded} holds no input and output_infer of the original")
    scans = arrays["input"].astype(np.float32)
    if scans.ndim != 4 or (model.needs_labels and scans.shape[-1] != model.num_modalities):
        raise InputError(
            f"{recorded}: input has shape {scans.shape}; give (subject, x, y, scan), for hemis with "
            f"{model.num_modalities} scans"
        )
    prediction = model(scans, np.ones((len(scans), scans.shape[-1]), bool))
    logits = [part for part in prediction if part is not None]
    differences = []
    for name, computed in zip(("output_infer", "output_infer_1"), logits, strict=False):
        expected = arrays.get(name)
        if expected is None:
            continue
        if name == "output_infer_1" or model.attention is None:  # scan after scan, subject after subject
            computed = ops.reshape(computed, (-1, model.num_modalities))
        if tuple(computed.shape) != expected.shape:
            raise InputError(
                f"{recorded}: {name} has shape {expected.shape}, but the model gives {tuple(computed.shape)} for input "
                f"{scans.shape}"
            )
        probabilities = (expected >= 0).all() and np.allclose(expected.sum(-1), 1.0, atol=1e-3)
        computed = ops.convert_to_numpy(ops.softmax(computed) if probabilities else computed)
        differences.append(Difference(name, float(np.abs(computed - expected).max())))
    return tuple(differences)


def _imported_network(name: str) -> str:
    network = resolve_network(name)
    if network not in _VARIANTS:
        raise ConfigError(
            f"{network} has no checkpoint of its own: import its segmenter as hemis and its classifier as "
            "modality_classifier, then name both folders in [PIMMS] segmenter and classifier"
        )
    return network


def _classifier_choices(released: Released) -> dict[str, object]:
    preset = preset_choices(_VARIANTS[released.graph.network], _PRESET)
    blocks = 0
    while f"classifier/resolution_1_block_{blocks}/convolve/conv/kernel" in released.weights:
        blocks += 1
    features = [_last(released, "classifier/stem/conv/kernel", preset["classifier_features"][0])]
    for resolution, default in enumerate(preset["classifier_features"][1:], start=1):
        features.append(_last(released, f"classifier/resolution_{resolution}_block_0/expand/conv/kernel", default))
    head = released.shape("classifier/head/kernel") or (1,)
    return {
        "classifier_blocks": blocks or preset["classifier_blocks"],
        "classifier_features": tuple(features),
        "classifier_pool": "spatial_and_channel" if head[0] == 1 else "spatial",
        "classifier_head_bn": released.graph.head.startswith("fc_bn"),
        "classifier_extra_bn": released.graph.extra_bn,
    }


def _last(released: Released, path: str, default: int) -> int:
    shape = released.shape(path)
    return shape[-1] if shape else default


def _settings(released: Released, model: PIMMS) -> str:
    """Returns the fragment of an INI file with which the imported model must be used."""
    network, segments = released.graph.network, model.attention is not None
    preset = preset_choices(_VARIANTS[network], _PRESET)
    count = model.num_modalities - model.null_class
    lines = [
        f"# Settings of the model imported from {released.prefix}; copy them into your configuration.",
        "[NETWORK]",
        f"name = {network}",
        "",
        "[TRAINING]",
        "# To go on training: starting_iter = -1. The learning rate is that of the released configurations.",
        "optimiser = adam",
        f"lr = {_RELEASED_LR:g}",
        "",
        f"[{'SEGMENTATION' if segments else 'CLASSIFICATION'}]",
        f"num_classes = {model.num_classes if segments else model.num_modalities}",
        "",
        "[PIMMS]",
        f"# The model knows {count} modalities{' and the empty slot' if model.null_class else ''}, not their names.",
        f"# modalities = the {count} names in the order of its training, unless the sections in image are just these",
        f"preset = {_PRESET}",
    ]
    if model.norm_scope == "slot":
        lines += [
            "# Slots are normalised one by one, so training needs their number; the released configurations had 9.",
            "max_slots = 9",
        ]
    if model.classifier is not None:
        for name, value in _classifier_choices(released).items():
            if value != preset[name]:
                lines.append(f"{name} = {', '.join(map(str, value)) if isinstance(value, tuple) else value}")
    return "\n".join(lines) + "\n"
