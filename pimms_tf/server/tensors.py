"""Tensors as TensorFlow Serving writes them in JSON: by rows (`instances`) or columns (`inputs`), bytes in base64."""

import base64
import binascii

import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import meta_graph_pb2

from pimms_tf.server.requests import RefusedError
from pimms_tf.server.versions import Tensors

_INPUTS = ("instances", "inputs")


def read_inputs(body: object, signature: meta_graph_pb2.SignatureDef) -> tuple[Tensors, bool]:
    """The tensors in the body of a request, and whether they came by rows.

    Raises:
        RefusedError: neither or both of the two forms, or values that are no tensors of the signature's types.
    """
    if not isinstance(body, dict):
        raise RefusedError("Request body is no JSON object; give instances or inputs")
    forms = [form for form in _INPUTS if form in body]
    if len(forms) != 1:
        raise RefusedError("Missing or ambiguous 'inputs' or 'instances' key; give one of the two")
    by_rows, values = forms == ["instances"], body[forms[0]]
    names = list(signature.inputs)
    if by_rows:
        if not isinstance(values, list) or not values:
            raise RefusedError("'instances' is no list, or an empty one; give one value for each row")
        values = _columns(values, names)
    elif not _is_by_name(values, names):
        if len(names) - len(signature.defaults) > 1:
            raise RefusedError(f"'inputs' is no object of {', '.join(names)}")
        values = {next(name for name in names if name not in signature.defaults): values}
    unknown = sorted(set(values) - set(names))
    if unknown:
        raise RefusedError(f"input {', '.join(unknown)} is unknown; there are {', '.join(names)}")
    return {name: _tensor(value, signature.inputs[name].dtype, name) for name, value in values.items()}, by_rows


def write_outputs(outputs: Tensors, by_rows: bool) -> dict[str, object]:
    """The body of an answer, in the form of its request; a single output goes without its name.

    Raises:
        RefusedError: by rows, but the outputs have no rows, or not the same number.
    """
    values = {name: _plain(value, name) for name, value in outputs.items()}
    if not by_rows:
        return {"outputs": next(iter(values.values())) if len(values) == 1 else values}
    counts = {np.shape(value)[0] if np.ndim(value) else None for value in outputs.values()}
    if len(counts) != 1 or None in counts:
        names = ", ".join(f"{name} {list(np.shape(value))}" for name, value in outputs.items())
        raise RefusedError(f"the answer has no common rows ({names}); send 'inputs' instead of 'instances'")
    if len(values) == 1:
        return {"predictions": next(iter(values.values()))}
    return {"predictions": [dict(zip(values, row, strict=True)) for row in zip(*values.values(), strict=True)]}


def _columns(rows: list, names: list[str]) -> dict[str, list]:
    named = [isinstance(row, dict) and not _is_base64(row) for row in rows]
    if not any(named):
        if len(names) > 1:
            raise RefusedError(f"each of 'instances' must be an object of {', '.join(names)}")
        return {names[0]: rows}
    keys = set(rows[0]) if named[0] else set()
    if not all(named) or any(set(row) != keys for row in rows):
        raise RefusedError("'instances' are not all objects with the same names")
    return {key: [row[key] for row in rows] for key in rows[0]}


def _is_by_name(values: object, names: list[str]) -> bool:
    return isinstance(values, dict) and not (_is_base64(values) and "b64" not in names)


def _is_base64(value: object) -> bool:
    return isinstance(value, dict) and set(value) == {"b64"}


def _tensor(value: object, dtype: int, name: str) -> np.ndarray:
    kind = tf.dtypes.as_dtype(dtype)
    if kind == tf.string:
        found = _texts(value, name)
        return np.array(found, object) if isinstance(found, bytes) else _objects(found, name)
    try:
        array = np.asarray(value)
        if array.dtype.kind not in "ifb" or (kind.is_integer and array.dtype.kind == "f"):
            raise ValueError(f"of {array.dtype}")
        with np.errstate(over="raise"):
            return array.astype(kind.as_numpy_dtype)
    except (ValueError, TypeError, FloatingPointError, OverflowError) as error:
        raise RefusedError(f"input {name} is no tensor of {kind.name}: its lists differ in length or kind") from error


def _texts(value: object, name: str) -> bytes | list:
    if isinstance(value, list):
        return [_texts(each, name) for each in value]
    if isinstance(value, str):
        return value.encode("utf-8")
    if _is_base64(value) and isinstance(value["b64"], str):
        try:
            return base64.b64decode(value["b64"], validate=True)
        except binascii.Error as error:
            raise RefusedError(f"input {name} has base64 that cannot be decoded: {error}") from error
    raise RefusedError(f'input {name} takes strings, or bytes as {{"b64": "…"}}')


def _objects(values: list, name: str) -> np.ndarray:
    shape, level = [], values
    while isinstance(level, list):
        shape.append(len(level))
        level = level[0] if level else None
    array = np.empty(shape, object)
    for place in np.ndindex(*shape):
        value = values
        for index in place:
            if not isinstance(value, list) or index >= len(value):
                raise RefusedError(f"input {name} has lists that differ in length")
            value = value[index]
        if not isinstance(value, bytes):
            raise RefusedError(f"input {name} has lists that differ in depth")
        array[place] = value
    return array


def _plain(value: np.ndarray, name: str) -> object:
    if isinstance(value, bytes) or np.asarray(value).dtype.kind in "OS":
        return _written(np.asarray(value, object).tolist(), name)
    return np.asarray(value).tolist()


def _written(value: bytes | list, name: str) -> object:
    if isinstance(value, list):
        return [_written(each, name) for each in value]
    if name.endswith("_bytes"):
        return {"b64": base64.b64encode(value).decode("ascii")}
    return value.decode("utf-8", errors="replace")
