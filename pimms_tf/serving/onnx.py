"""An export's `serving_default` as an ONNX file, for machines without TensorFlow."""

import logging
from collections.abc import Callable
from pathlib import Path

from pimms_tf.errors import InputError
from pimms_tf.serving.replay import EXTRA, ONNX

_OPSET = 18


def write_onnx(folder: Path, function: Callable) -> None:
    """Writes `assets.extra/model.onnx`, with the names, and as many free axes, as the signature has.

    Raises:
        InputError: the converter is not installed, or the graph has something that ONNX lacks.
    """
    try:
        import onnx
        import tf2onnx
    except ImportError:
        raise InputError("--format onnx needs tf2onnx; pip install 'pimms-tf[onnx]' brings it") from None
    path = folder / EXTRA / ONNX
    path.parent.mkdir(exist_ok=True)
    # It reports optimisations that it gives up on as errors; what could not be converted is found below.
    logging.getLogger("tf2onnx").setLevel(logging.CRITICAL)
    try:
        tf2onnx.convert.from_function(
            function, input_signature=function.input_signature, opset=_OPSET, output_path=str(path)
        )
        onnx.checker.check_model(str(path))
    except (ValueError, onnx.checker.ValidationError) as error:
        raise InputError(f"this network cannot be written as ONNX: {error}") from error
