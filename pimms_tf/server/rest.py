"""TensorFlow Serving's REST API: predict, status and metadata of a model, and figures for Prometheus."""

import asyncio
import json
import logging

import numpy as np
from aiohttp import web
from google.protobuf import json_format
from tensorflow_serving.apis import get_model_metadata_pb2

from pimms_tf.server.requests import RefusedError, Runner
from pimms_tf.server.tensors import read_inputs, write_outputs
from pimms_tf.server.versions import NoSuchVersionError, Version, Versions

log = logging.getLogger(__name__)

_HTTP = {"INVALID_ARGUMENT": 400, "FAILED_PRECONDITION": 400, "NOT_FOUND": 404, "RESOURCE_EXHAUSTED": 429}
_PLACE = r"/v1/models/{name:[^/:]+}{version:(/versions/\d+|/labels/[^/:]+)?}"
_AT_ONCE = 2**16  # bytes of a body, from which on it is read and written beside the loop


def application(name: str, versions: Versions, runner: Runner, most_bytes: int) -> web.Application:
    """The API of one model."""

    def find(request: web.Request) -> Version:
        if request.match_info["name"] != name:
            raise NoSuchVersionError(f"Servable not found for request: {request.match_info['name']}")
        _, kind, value = (request.match_info["version"] or "//").split("/", 2)
        return versions.find(int(value) if kind == "versions" else None, value if kind == "labels" else None)

    async def predict(request: web.Request) -> web.Response:
        version = find(request)
        read = await request.read()
        try:
            body = await _beside(json.loads, read, size=len(read))
        except (ValueError, RecursionError) as error:
            raise RefusedError(f"JSON Parse error: {error}") from error
        signature = body.get("signature_name", "serving_default") if isinstance(body, dict) else "serving_default"
        if signature not in version.signatures:
            known = ", ".join(sorted(version.signatures))
            raise RefusedError(f'Serving signature name: "{signature}" not found in signature def; there are {known}')
        inputs, by_rows = await _beside(read_inputs, body, version.signatures[signature], size=len(read))
        found = await runner.run(version, signature, inputs, (), "rest")
        size = sum(np.asarray(value).nbytes for value in found.values())
        text = await _beside(lambda: json.dumps(write_outputs(found, by_rows)), size=size)
        return web.Response(text=text, content_type="application/json")

    async def status(request: web.Request) -> web.Response:
        if request.match_info["name"] != name:
            raise NoSuchVersionError(f"Could not find any versions of model {request.match_info['name']}")
        listed = versions.status()
        if request.match_info["version"]:
            _, kind, value = request.match_info["version"].split("/", 2)
            number = versions.find(None, value).number if kind == "labels" else int(value)
            listed = [each for each in listed if each.number == number]
        if not listed:
            raise NoSuchVersionError(f"Could not find version of model {name}")
        return web.json_response(
            {
                "model_version_status": [
                    {
                        "version": str(each.number),
                        "state": each.state,
                        "status": {"error_code": "UNKNOWN" if each.error else "OK", "error_message": each.error},
                    }
                    for each in listed
                ]
            }
        )

    async def metadata(request: web.Request) -> web.Response:
        version = find(request)
        table = get_model_metadata_pb2.SignatureDefMap(signature_def=version.signatures)
        written = json_format.MessageToDict(
            table, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
        )
        spec = {"name": name, "signature_name": "", "version": str(version.number)}
        return web.json_response({"model_spec": spec, "metadata": {"signature_def": written}})

    async def figures(_: web.Request) -> web.Response:
        return web.Response(body=runner.metrics.text(), content_type="text/plain")

    app = web.Application(middlewares=[_errors], client_max_size=most_bytes)
    app.router.add_post(_PLACE + ":predict", predict)
    app.router.add_get(_PLACE + "/metadata", metadata)
    app.router.add_get(_PLACE, status)
    app.router.add_get("/monitoring/prometheus/metrics", figures)
    return app


@web.middleware
async def _errors(request: web.Request, handler) -> web.StreamResponse:
    """Every complaint as an object with an `error`."""
    try:
        return await handler(request)
    except RefusedError as error:
        return web.json_response({"error": str(error)}, status=_HTTP.get(error.code, 500))
    except NoSuchVersionError as error:
        return web.json_response({"error": str(error)}, status=404)
    except web.HTTPRequestEntityTooLarge:
        text = f"the request is larger than the {request.client_max_size:,} bytes that are taken here"
        return web.json_response({"error": text}, status=413)
    except web.HTTPException as error:
        return web.json_response({"error": f"Malformed request: {request.method} {request.path}"}, status=error.status)
    except Exception:
        log.exception("a request failed")
        return web.json_response({"error": "the server failed; its log says why"}, status=500)


async def _beside(function, *arguments: object, size: int) -> object:
    """The function's result, from a thread if there is much to do, so that others are answered meanwhile."""
    if size < _AT_ONCE:
        return function(*arguments)
    return await asyncio.get_running_loop().run_in_executor(None, function, *arguments)
