"""Tensors in JSON: rows and columns as TensorFlow Serving documents them, and what is wrong with what is none."""

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.protobuf import meta_graph_pb2

pytest.importorskip("tensorflow_serving.apis", reason="needs pip install 'pimms-tf[serving]'")
from pimms_tf.server.requests import RefusedError
from pimms_tf.server.tensors import read_inputs, write_outputs


def signature(**inputs):
    found = meta_graph_pb2.SignatureDef()
    for name, dtype in inputs.items():
        found.inputs[name].dtype = tf.dtypes.as_dtype(dtype).as_datatype_enum
    return found


ONE, TWO, TEXT = signature(x="float32"), signature(x="float32", n="int32"), signature(files="string")


@pytest.mark.parametrize(
    ("body", "kind", "expected"),
    [
        ({"instances": [1, 2.5]}, ONE, {"x": [1, 2.5]}),
        ({"instances": [[1, 2], [3, 4]]}, ONE, {"x": [[1, 2], [3, 4]]}),
        ({"instances": [{"x": 1}, {"x": 2}]}, ONE, {"x": [1, 2]}),
        ({"instances": [{"x": [1], "n": 3}, {"x": [2], "n": 4}]}, TWO, {"x": [[1], [2]], "n": [3, 4]}),
        ({"inputs": [1, 2]}, ONE, {"x": [1, 2]}),
        ({"inputs": {"x": [[1]], "n": 2}}, TWO, {"x": [[1]], "n": 2}),
        ({"inputs": {"files": [{"b64": "AP8="}, "text"]}}, TEXT, {"files": [b"\x00\xff", b"text"]}),
        ({"instances": [{"b64": "AP8="}]}, TEXT, {"files": [b"\x00\xff"]}),
        ({"inputs": {"b64": "AP8="}}, TEXT, {"files": b"\x00\xff"}),
    ],
)
def test_rows_and_columns_become_tensors(body, kind, expected):
    found, by_rows = read_inputs(body, kind)
    assert by_rows == ("instances" in body)
    assert {name: value.tolist() for name, value in found.items()} == expected
    assert all(value.dtype in (np.float32, np.int32, object) for value in found.values())


@pytest.mark.parametrize(
    ("body", "kind", "complaint"),
    [
        ([1], ONE, "no JSON object"),
        ({}, ONE, "give one of the two"),
        ({"instances": [1], "inputs": [1]}, ONE, "give one of the two"),
        ({"instances": []}, ONE, "an empty one"),
        ({"instances": [1, {"x": 2}]}, ONE, "not all objects with the same names"),
        ({"instances": [1]}, TWO, "must be an object of"),
        ({"inputs": [1]}, TWO, "no object of"),
        ({"inputs": {"y": [1]}}, ONE, "input y is unknown; there are x"),
        ({"inputs": {"x": [[1], [2, 3]]}}, ONE, "input x is no tensor of float32"),
        ({"inputs": {"x": ["a"]}}, ONE, "input x is no tensor of float32"),
        ({"inputs": {"x": [1], "n": 1.5}}, TWO, "input n is no tensor of int32"),
        ({"inputs": {"files": [{"b64": "?"}]}}, TEXT, "base64 that cannot be decoded"),
        ({"inputs": {"files": [1]}}, TEXT, "takes strings"),
        ({"inputs": {"files": ["a", ["b"]]}}, TEXT, "differ in depth"),
    ],
)
def test_what_is_no_tensor_is_refused_in_words(body, kind, complaint):
    with pytest.raises(RefusedError, match=complaint):
        read_inputs(body, kind)


def test_answers_have_the_form_of_their_request():
    two = {"a": np.array([[1, 2], [3, 4]]), "b": np.array([5, 6])}
    assert write_outputs({"a": two["a"]}, by_rows=False) == {"outputs": [[1, 2], [3, 4]]}
    assert write_outputs({"a": two["a"]}, by_rows=True) == {"predictions": [[1, 2], [3, 4]]}
    assert write_outputs(two, by_rows=False) == {"outputs": {"a": [[1, 2], [3, 4]], "b": [5, 6]}}
    assert write_outputs(two, by_rows=True) == {"predictions": [{"a": [1, 2], "b": 5}, {"a": [3, 4], "b": 6}]}


def test_bytes_go_in_base64_where_the_name_says_bytes():
    assert write_outputs({"mask_bytes": b"\x00\xff"}, by_rows=False) == {"outputs": {"b64": "AP8="}}
    assert write_outputs({"text": np.array([b"a"], object)}, by_rows=False) == {"outputs": ["a"]}


def test_outputs_without_common_rows_want_columns():
    with pytest.raises(RefusedError, match="send 'inputs' instead of 'instances'"):
        write_outputs({"mask_bytes": b"a", "scores": np.zeros((2, 3))}, by_rows=True)
