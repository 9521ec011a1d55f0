"""Our network of whole slices (`slices.logits_beyond`) as other libraries compute it, at their best.

Each function takes a built HeMIS network and returns what `slices.segment_slices` asks: from crops, scores and valid to
logits. Whatever skips work, such as air and slices that repeat, is therefore done for all of them alike. A library that
is not installed raises ImportError.
"""

import tempfile
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import numpy as np

Predict = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]


def onnx_runtime(model) -> Predict:
    """By ONNX Runtime, whose kernels for this processor know no bfloat16."""
    import onnxruntime

    session = onnxruntime.InferenceSession(_onnx(model), providers=["CPUExecutionProvider"])
    return lambda scans, scores, valid: session.run(["logits"], {"scans": scans, "scores": scores, "valid": valid})[0]


def open_vino(model, precision: str) -> Predict:
    """By OpenVINO in "f32" or "bf16", compiled once for each shape, as it prefers."""
    import openvino

    file, compiled = _onnx(model), {}

    def predict(scans: np.ndarray, scores: np.ndarray, valid: np.ndarray) -> np.ndarray:
        request = {"scans": scans, "scores": scores, "valid": valid}
        if scans.shape not in compiled:
            core = openvino.Core()
            network = core.read_model(file)
            network.reshape({name: list(value.shape) for name, value in request.items()})
            compiled[scans.shape] = core.compile_model(network, "CPU", {"INFERENCE_PRECISION_HINT": precision})
        return compiled[scans.shape](request)["logits"]

    return predict


def pytorch(model, channels_last: bool = False, compiled: bool = False, bfloat16: bool = False) -> Predict:
    """By the network of `plain_torch.py` with our weights, laid out for whole slices as ours is.

    Compiled for all sizes at once, which PyTorch 2.13 can do only with channels last, and not with frozen weights.
    """
    import torch
    from plain_torch import PlainHemis, check_compiler, copy_weights

    plain = PlainHemis(model.num_modalities, model.num_classes)
    copy_weights(model, plain)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    plain = plain.eval().to(memory_format=layout)
    beyond = plain.beyond
    if compiled:
        check_compiler()
        beyond = torch.compile(beyond, dynamic=True)

    @torch.no_grad()
    def predict(scans: np.ndarray, scores: np.ndarray, valid: np.ndarray) -> np.ndarray:
        images = torch.from_numpy(scans).permute(0, 3, 1, 2).contiguous(memory_format=layout)
        with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
            logits = beyond(images)
        return logits.float().permute(0, 2, 3, 1).numpy()

    return predict


def _onnx(model) -> bytes:
    """The network as the package writes it, for crops of any size."""
    import tensorflow as tf

    from pimms_tf.errors import InputError
    from pimms_tf.inference import slices
    from pimms_tf.serving import replay
    from pimms_tf.serving.onnx import write_onnx

    count = model.num_modalities
    specs = [
        tf.TensorSpec((None, None, None, count), tf.float32, name="scans"),
        tf.TensorSpec((None, count, count), tf.float32, name="scores"),
        tf.TensorSpec((None, count), tf.bool, name="valid"),
    ]
    function = tf.function(
        lambda scans, scores, valid: {"logits": slices.logits_beyond(model, scans, scores, valid)},
        input_signature=specs,
        autograph=False,
    )
    # The converter cannot write a convolution within a condition. Here every scan is there, so that none is needed.
    unconditional = mock.patch.object(slices, "_unless_absent", lambda backend, x, is_there: backend(x))
    with unconditional, tempfile.TemporaryDirectory(prefix="pimms-benchmark-") as folder:
        try:
            write_onnx(Path(folder), function)
        except InputError as error:
            if isinstance(error.__context__, ImportError):
                raise error.__context__ from None
            raise
        return (Path(folder) / replay.EXTRA / replay.ONNX).read_bytes()
