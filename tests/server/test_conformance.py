"""What any TensorFlow Serving must answer about an export of ours; see `conftest.py` for how to name one."""

import base64
import concurrent.futures
import http.client
import json
import urllib.parse

import numpy as np
import pytest
import tensorflow as tf

from pimms_tf.inference.loading import exported_version
from pimms_tf.serving import replay

grpc = pytest.importorskip("grpc", reason="needs pip install 'pimms-tf[serving]'")
apis = pytest.importorskip("tensorflow_serving.apis", reason="needs pip install 'pimms-tf[serving]'")
from tensorflow_serving.apis import (  # noqa: E402
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)

RNG = np.random.default_rng(11)


@pytest.fixture(scope="module")
def golden(server):
    return replay.read_golden(exported_version(server.export) / replay.EXTRA / replay.GOLDEN)


@pytest.fixture(scope="module")
def channel(server):
    options = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
    with grpc.insecure_channel(server.grpc, options) as channel:
        yield channel


@pytest.fixture(scope="module")
def name(server):
    return server.url.rsplit("/", 1)[1]


def as_json(value):
    value = np.asarray(value)
    if value.dtype.kind == "O":
        return [{"b64": base64.b64encode(each).decode()} for each in value]
    return value.tolist()


def columns(request):
    return {key: as_json(value) for key, value in request.items()}


def tensors(outputs, like):
    """Outputs of JSON with the types of the golden ones."""
    if len(like) == 1:
        outputs = {next(iter(like)): outputs}
    return {
        key: np.array(base64.b64decode(value["b64"]), object)
        if isinstance(value, dict)
        else np.array(value, like[key].dtype)
        for key, value in outputs.items()
    }


def message(name, signature, request):
    found = predict_pb2.PredictRequest()
    found.model_spec.name, found.model_spec.signature_name = name, signature
    for key, value in request.items():
        found.inputs[key].CopyFrom(tf.make_tensor_proto(value))
    return found


def windows(count=3):
    return RNG.normal(size=(1, count, 12, 10)).astype(np.float32)


def test_every_signature_answers_by_rest_as_it_did_when_it_was_exported(server, golden):
    for signature, request in golden[0].items():
        code, body = server.predict({"signature_name": signature, "inputs": columns(request)})
        expected = golden[1][signature]
        if "refusal" in expected:
            assert code == 400
            assert str(expected["refusal"]) in body["error"]
            continue
        assert code == 200, body
        assert replay.compared(expected, tensors(body["outputs"], expected)) <= 1e-5, signature


def test_every_signature_answers_by_grpc_as_it_did_when_it_was_exported(channel, name, golden):
    stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
    for signature, request in golden[0].items():
        expected = golden[1][signature]
        if "refusal" in expected:
            with pytest.raises(grpc.RpcError) as refused:
                stub.Predict(message(name, signature, request))
            assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT
            assert str(expected["refusal"]) in refused.value.details()
            continue
        response = stub.Predict(message(name, signature, request))
        found = {key: tf.make_ndarray(value) for key, value in response.outputs.items()}
        assert replay.compared(expected, found) <= 1e-5, signature
        assert (response.model_spec.name, response.model_spec.signature_name) == (name, signature)


def test_rows_are_answered_as_columns_are(server, golden):
    request, expected = golden[0]["serving_default"], golden[1]["serving_default"]
    code, body = server.predict({"instances": [{"scans": scans.tolist()} for scans in request["scans"]]})
    assert code == 200, body
    for row, prediction in enumerate(body["predictions"]):
        np.testing.assert_allclose(prediction["modality_scores"], expected["modality_scores"][row], rtol=0, atol=1e-5)


def test_only_the_outputs_that_are_asked_for_come_by_grpc(channel, name, golden):
    request = message(name, "serving_default", golden[0]["serving_default"])
    request.output_filter.append("modality_scores")
    response = prediction_service_pb2_grpc.PredictionServiceStub(channel).Predict(request)
    assert set(response.outputs) == {"modality_scores"}


SCANS = {"scans": np.ones((1, 2, 4, 4)).tolist()}


@pytest.mark.parametrize(
    ("body", "complaint"),
    [
        (b"{", "JSON|Parse|parse"),
        ({}, "inputs|instances"),
        ({"inputs": SCANS, "instances": [SCANS]}, "inputs|instances"),
        ({"signature_name": "nothing", "inputs": SCANS}, "nothing"),
        ({"inputs": {"scan": [1]}}, "scan"),
        ({"inputs": {"scans": ["a"]}}, ""),
        ({"inputs": {"scans": [[1, 2], [3]]}}, ""),
        ({"inputs": {"scans": [1.0, 2.0]}}, ""),
        ({"signature_name": "serving_nifti", "inputs": {"files": []}}, ""),
        ({"signature_name": "serving_nifti", "inputs": {"files": ["text"]}}, "file 1 is no NIfTI file"),
        ({"signature_name": "serving_volume", "inputs": {"scans": np.zeros((1, 3, 3, 3)).tolist()}}, "other than 0"),
    ],
)
def test_a_wrong_request_gets_400_and_a_reason(server, body, complaint):
    code, answer = server.predict(body)
    assert code == 400
    assert complaint == "" or any(each in answer["error"] for each in complaint.split("|"))


def test_models_versions_and_labels_that_are_not_there_get_404(server):
    for rest in ("x", "/versions/99", "/labels/none"):
        code, answer = server.predict({"inputs": SCANS}, rest)
        assert code in (400, 404)  # a label that is unknown is one or the other, from release to release
        assert answer["error"]


def test_state_and_signatures_can_be_asked_for_by_rest(server, golden):
    number = exported_version(server.export).name
    for rest in ("", f"/versions/{number}"):
        code, body = server.get(rest)
        (status,) = [each for each in body["model_version_status"] if each["version"] == number]
        assert (code, status["state"], status["status"]["error_code"]) == (200, "AVAILABLE", "OK")
    code, body = server.get("/metadata")
    signatures = body["metadata"]["signature_def"]["signature_def"]
    assert code == 200
    assert set(golden[0]) <= set(signatures)
    assert signatures["serving_nifti"]["inputs"]["files"]["dtype"] == "DT_STRING"


def test_state_and_signatures_can_be_asked_for_by_grpc(channel, name, golden):
    status = get_model_status_pb2.GetModelStatusRequest()
    status.model_spec.name = name
    found = model_service_pb2_grpc.ModelServiceStub(channel).GetModelStatus(status)
    assert get_model_status_pb2.ModelVersionStatus.State.AVAILABLE in {s.state for s in found.model_version_status}
    request = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
    request.model_spec.name = name
    found = prediction_service_pb2_grpc.PredictionServiceStub(channel).GetModelMetadata(request)
    table = get_model_metadata_pb2.SignatureDefMap()
    assert found.metadata["signature_def"].Unpack(table)
    assert set(golden[0]) <= set(table.signature_def)
    status.model_spec.name = "nobody"
    with pytest.raises(grpc.RpcError) as refused:
        model_service_pb2_grpc.ModelServiceStub(channel).GetModelStatus(status)
    assert refused.value.code() == grpc.StatusCode.NOT_FOUND


def test_no_answer_of_two_hundred_at_once_is_lost_or_mixed_up(server, channel, name):
    stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
    requests = [windows(1 + number % 3) for number in range(20)]
    expected = [server.predict({"inputs": {"scans": each.tolist()}})[1]["outputs"] for each in requests]

    def ask(number):
        request = requests[number % 20]
        if number % 2:
            answer = stub.Predict(message(name, "serving_default", {"scans": request}))
            return tf.make_ndarray(answer.outputs["probabilities"])
        code, body = server.predict({"instances": [{"scans": scans.tolist()} for scans in request]})
        assert code == 200, body
        return np.array([each["probabilities"] for each in body["predictions"]])

    with concurrent.futures.ThreadPoolExecutor(200) as pool:
        for number, found in enumerate(pool.map(ask, range(200))):
            np.testing.assert_allclose(found, expected[number % 20]["probabilities"], rtol=0, atol=1e-5)


def test_a_client_that_hangs_up_leaves_the_others_alone(server, golden):
    parts = urllib.parse.urlsplit(server.url)
    request = {"signature_name": "serving_volume", "inputs": columns(golden[0]["serving_volume"])}
    body = json.dumps(request).encode()
    for sent in (body, body[: len(body) // 2]):
        connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=60)
        connection.putrequest("POST", parts.path + ":predict")
        connection.putheader("Content-Length", str(len(body)))
        connection.endheaders(sent)
        connection.close()
    code, _ = server.predict(request)
    assert code == (400 if "refusal" in golden[1]["serving_volume"] else 200)


@pytest.mark.slow
def test_twenty_thousand_requests_leave_the_memory_as_it_was(server):
    if server.process is None:
        pytest.skip("the memory of a server elsewhere cannot be seen")
    bodies = [json.dumps({"inputs": {"scans": windows(1 + n % 3).tolist()}}).encode() for n in range(12)]
    parts = urllib.parse.urlsplit(server.url)

    def ask(numbers):
        connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=600)
        for number in numbers:
            connection.request("POST", parts.path + ":predict", bodies[number % 12])
            answer = connection.getresponse()
            assert answer.status == 200
            answer.read()
        connection.close()

    def round_of(count):
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            list(pool.map(ask, [range(first, count, 8) for first in range(8)]))
        return server.memory_mb()

    warm = round_of(2_000)
    # An allocator keeps some of what it was given; what leaks grows with every thousand requests.
    assert round_of(18_000) - warm < 60
