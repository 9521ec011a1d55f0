"""A self-test of seconds: does this machine compute what it should?

A network with weights from a formula has a recorded answer, `answer.json`, which any processor must come near to; how
near follows from what rounding can do. That the order of scans changes no bit, and that files keep every bit, is
promised and held to exactly.
"""

import json
import tempfile
from collections.abc import Callable, Sequence
from importlib import resources
from pathlib import Path
from typing import Literal

import numpy as np
import tensorflow as tf

from pimms_tf.data.images import Image, read_image, write_image
from pimms_tf.models import PIMMS, build_model
from pimms_tf.simulation.phantom import draw_phantom

ANSWER = "answer.json"

_SIZE, _SCANS, _CLASSES = 24, 3, 2
_SHOWN = (slice(None), slice(None, None, 5), slice(None, None, 5))  # of the answer
_CHOICES = {"classifier_blocks": 1, "classifier_features": (8, 16)}  # of the published network, but in half the time
_PERTURBED = 3
# GPUs multiply numbers that are rounded to the 10 bits of TensorFloat-32 unless they are told not to.
_ROUNDING = {"CPU": float(np.finfo(np.float32).eps), "GPU": 2.0**-10}
_SAFETY = 5  # times what inputs that are off by a rounding change; sums in other orders changed up to 1.7 times that


def network_error(device: Literal["CPU", "GPU"] = "CPU") -> tuple[float, float]:
    """Returns how far the network's answer on a device is from the recorded one, and how far it may be."""
    compute, scans = formula_network(device), formula_scans()
    answer, rng = compute(scans), np.random.default_rng(0)
    moved = 0.0
    for _ in range(_PERTURBED):
        near = scans * (1 + rng.choice([-1, 1], scans.shape) * _ROUNDING[device])
        moved = max(moved, float(np.abs(compute(near.astype(np.float32)) - answer).max()))
    return float(np.abs(answer - recorded_answer()).max()), _SAFETY * moved


def formula_network(device: str = "CPU") -> Callable[[np.ndarray], np.ndarray]:
    """Returns the network that the record is of: from scans (batch, x, y, scan) to a part of its logits."""
    with tf.device(device):
        model = build_model("soft", _SCANS, _CLASSES, **_CHOICES)
        _fill(model)

    def compute(scans: np.ndarray) -> np.ndarray:
        valid = np.ones((len(scans), _SCANS), bool)
        with tf.device(device):
            return np.asarray(model.segment(scans, model.classify(scans, valid), valid))[_SHOWN]

    return compute


def formula_scans() -> np.ndarray:
    """Returns the scans that it is asked about, (1, x, y, scan) float32, made of whole numbers alone."""
    x, y, scan = np.indices((_SIZE, _SIZE, _SCANS))
    return (((x * x + 3 * x * y + 7 * y + 5 * scan * x) % 17 - 8) / 8).astype(np.float32)[np.newaxis]


def recorded_answer() -> np.ndarray:
    """Returns the answer on record, float32, in the shape of `formula_network`'s."""
    text = resources.files("pimms_tf.check").joinpath(ANSWER).read_text(encoding="utf-8")
    return np.array(json.loads(text)["logits"], np.float32)


def order_changes_nothing() -> bool:
    """Returns whether the bundled segmenter says the same of a patient, to the last bit, in two orders of the scans."""
    from pimms_tf.weights import bundled

    subject = draw_phantom(np.random.default_rng(0), (6.0, 6.0, 6.0), (-20.0, 40.0))
    scans = [
        Image(volume[..., np.newaxis].astype(np.float32), subject.affine)
        for volume in (subject.t1, subject.t2, subject.flair)
    ]
    segmenter = bundled()

    def answer(order: Sequence[int]) -> np.ndarray:
        prepared = segmenter.prepare([scans[place] for place in order])
        return segmenter(prepared, probabilities=True).image.data

    return np.array_equal(answer((0, 1, 2)), answer((2, 0, 1)))


def files_keep_every_bit() -> bool:
    """Returns whether an image comes back from a compressed file as it was written, in the folder for such files."""
    rng = np.random.default_rng(0)
    data = rng.standard_normal((7, 6, 5, 1)).astype(np.float32)
    affine = np.array([[-1, 0, 0, 10], [0, 0.5, 0, -3], [0, 0, 2, 4], [0, 0, 0, 1]], float)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "image.nii.gz"
        write_image(Image(data, affine), path)
        back = read_image(path)
    return np.array_equal(back.data, data) and np.array_equal(back.affine, affine)


def _fill(model: PIMMS) -> None:
    """Gives a network weights by a formula of whole numbers, scaled so that signals neither fade nor grow."""
    for number, variable in enumerate(sorted(model.variables, key=lambda each: each.path)):
        shape = tuple(variable.shape)
        wave = ((np.arange(np.prod(shape, dtype=int)) * 7919 + number * 104_729) % 1009).reshape(shape) / 1009 - 0.5
        if not shape:  # counters of training
            values = np.zeros(())
        elif variable.path.endswith("variance"):
            values = 1 + 0.2 * wave
        elif len(shape) > 1:
            values = wave * np.sqrt(24 / np.prod(shape[:-1]))
        elif variable.path.endswith(("gamma", "scale")):
            values = 1 + 0.2 * wave
        else:
            values = 0.1 * wave
        variable.assign(values.astype(variable.dtype))
