"""TensorFlow Serving's gRPC services: PredictionService (predict and metadata) and ModelService (status)."""

import logging

import grpc
import tensorflow as tf
from google.protobuf import wrappers_pb2
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)

from pimms_tf.server.requests import RefusedError, Runner
from pimms_tf.server.versions import NoSuchVersionError, Version, Versions

log = logging.getLogger(__name__)


class _Model:
    """What both services have in common: one model, found by its specification."""

    def __init__(self, name: str, versions: Versions, runner: Runner) -> None:
        self.name, self.versions, self.runner = name, versions, runner

    async def find(self, spec: model_pb2.ModelSpec, context: grpc.aio.ServicerContext) -> Version:
        if spec.name != self.name:
            await context.abort(grpc.StatusCode.NOT_FOUND, f"Servable not found for request: {spec.name}")
        number = spec.version.value if spec.HasField("version") else None
        label = spec.version_label if spec.WhichOneof("version_choice") == "version_label" else None
        try:
            return self.versions.find(number, label)
        except NoSuchVersionError as error:
            await context.abort(grpc.StatusCode.NOT_FOUND, str(error))


class PredictionService(prediction_service_pb2_grpc.PredictionServiceServicer):
    """Predict and GetModelMetadata; the others need examples as tf.Example has them, and are not implemented."""

    def __init__(self, model: _Model) -> None:
        self._model = model

    async def Predict(self, request, context):  # noqa: N802
        """The outputs of a signature, all or those in `output_filter`."""
        version = await self._model.find(request.model_spec, context)
        signature = request.model_spec.signature_name or "serving_default"
        try:
            inputs = {name: _array(name, value) for name, value in request.inputs.items()}
            found = await self._model.runner.run(version, signature, inputs, tuple(request.output_filter), "grpc")
        except RefusedError as error:
            await context.abort(grpc.StatusCode[error.code], str(error))
        response = predict_pb2.PredictResponse(model_spec=_spec(self._model.name, version, signature))
        for name, value in found.items():
            response.outputs[name].CopyFrom(tf.make_tensor_proto(value))
        return response

    async def GetModelMetadata(self, request, context):  # noqa: N802
        """The signatures of a version."""
        version = await self._model.find(request.model_spec, context)
        if list(request.metadata_field) != ["signature_def"]:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "metadata_field must be signature_def")
        response = get_model_metadata_pb2.GetModelMetadataResponse(model_spec=_spec(self._model.name, version, ""))
        table = get_model_metadata_pb2.SignatureDefMap(signature_def=version.signatures)
        response.metadata["signature_def"].Pack(table)
        return response


class ModelService(model_service_pb2_grpc.ModelServiceServicer):
    """GetModelStatus; which models there are is said when the server is started."""

    def __init__(self, model: _Model) -> None:
        self._model = model

    async def GetModelStatus(self, request, context):  # noqa: N802
        """What has become of each version, or of the one that is asked for."""
        spec, listed = request.model_spec, self._model.versions.status()
        if spec.WhichOneof("version_choice"):
            number = spec.version.value
            if spec.version_label:
                number = (await self._model.find(spec, context)).number
            listed = [each for each in listed if each.number == number]
        if spec.name != self._model.name or not listed:
            await context.abort(grpc.StatusCode.NOT_FOUND, f"Could not find any versions of model {spec.name}")
        response = get_model_status_pb2.GetModelStatusResponse()
        states = get_model_status_pb2.ModelVersionStatus.State
        for each in listed:
            status = response.model_version_status.add(version=each.number, state=states.Value(each.state))
            status.status.error_message = each.error
            status.status.error_code = 2 if each.error else 0
        return response


def add_services(server: grpc.aio.Server, name: str, versions: Versions, runner: Runner) -> None:
    """Lets a server answer for a model."""
    model = _Model(name, versions, runner)
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(PredictionService(model), server)
    model_service_pb2_grpc.add_ModelServiceServicer_to_server(ModelService(model), server)


def _array(name: str, value):
    try:
        return tf.make_ndarray(value)
    except (ValueError, TypeError) as error:
        raise RefusedError(f"input {name} is a damaged tensor: {error}") from error


def _spec(name: str, version: Version, signature: str) -> model_pb2.ModelSpec:
    number = wrappers_pb2.Int64Value(value=version.number)
    return model_pb2.ModelSpec(name=name, version=number, signature_name=signature)
