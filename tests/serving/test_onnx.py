"""The ONNX file answers as TensorFlow does, for any number and size of scans."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from pimms_tf.models import build_model
from pimms_tf.serving import replay
from pimms_tf.serving.endpoints import window_endpoints
from pimms_tf.serving.onnx import write_onnx

pytest.importorskip("tf2onnx", reason="needs pip install 'pimms-tf[onnx]'")


@pytest.fixture(scope="module", params=["hard", "hemis"])
def written(request, tmp_path_factory):
    keras.utils.set_random_seed(3)
    model = build_model(request.param, 3, 2, classifier_blocks=1, classifier_features=(4, 8), frontend="paper")
    endpoint, signature = window_endpoints(model)["serving_default"]
    function = tf.function(endpoint, input_signature=signature, autograph=False)
    folder = tmp_path_factory.mktemp("onnx")
    write_onnx(folder, function)
    return folder, function


@pytest.mark.parametrize(("runtime", "run"), [("onnxruntime", replay.by_onnxruntime), ("openvino", replay.by_openvino)])
def test_another_runtime_answers_as_tensorflow_does(written, runtime, run):
    pytest.importorskip(runtime)
    folder, function = written
    for num_scans, size in ((1, (20, 24)), (4, (13, 17))):
        request = {"scans": np.random.default_rng(0).normal(size=(2, num_scans, *size)).astype(np.float32)}
        if len(function.input_signature) > 1:
            request["modality"] = (np.arange(2 * num_scans, dtype=np.int32) % 3).reshape(2, num_scans)
        expected = {name: value.numpy() for name, value in function(**request).items()}
        assert replay.compared(expected, run(folder, request)) <= 1e-4
