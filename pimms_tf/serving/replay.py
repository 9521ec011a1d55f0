"""Replays what an export says of itself with TensorFlow alone: `python -I replay.py FOLDER` prints one JSON object.

Run as a program it uses nothing but TensorFlow and NumPy, and makes sure of it: neither this package nor Keras can be
imported. ONNX Runtime and OpenVINO are tried where they are installed and the export has an ONNX file.
"""

import hashlib
import json
import re
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

EXTRA = "assets.extra"
CHECKSUMS, GOLDEN, OPERATIONS, ONNX = "SHA256SUMS", "golden.npz", "operations.txt", "model.onnx"

# What runs Python, touches files or the network, prints, or ends the process.
_FORBIDDEN = re.compile(
    r"(Eager)?PyFunc.*|ReadFile|WriteFile|MatchingFiles|.*Reader.*|.*Dataset.*|.*Summary.*|Print.*|Abort|Rpc.*|Remote.*"
    r"|_?(Host)?(Send|Recv).*|Collective.*|Save.*|Restore.*|MergeV2Checkpoints|ShardedFilename|.*TextFile.*|.*Debug.*"
    r"|LoadAndRemap.*|GcsConfigure.*|.*TPU.*|Xla(Launch|Compile|Run).*"
)
_OF_THE_SAVER = {"SaveV2", "RestoreV2", "MergeV2Checkpoints", "ShardedFilename"}
_TOLERANCE, _TOLERANCE_ONNX = 1e-5, 1e-4

Tensors = dict[str, np.ndarray]  # by name; strings are arrays of objects


def replay(folder: Path) -> dict[str, object]:
    """What was found, by subject; `mistakes` is empty if the export is what it says."""
    mistakes = damaged_files(folder)
    report: dict[str, object] = {"folder": str(folder), "mistakes": mistakes}
    if mistakes:
        return report
    operations, foreign = operations_of(folder)
    mistakes += [f"the graph has operations that no server should run: {', '.join(foreign)}"] if foreign else []
    listed = (folder / EXTRA / OPERATIONS).read_text(encoding="utf-8").split()
    mistakes += [] if listed == list(operations) else [f"{OPERATIONS} is not the list of the graph's operations"]
    report["operations"] = len(operations)
    if mistakes:
        return report
    requests, responses = read_golden(folder / EXTRA / GOLDEN)
    for name, found in answers(folder, requests).items():
        difference = compared(responses[name], found)
        report[name] = difference
        if not difference <= _TOLERANCE:
            mistakes.append(f"{name} answers {difference:.2g} off what it answered when it was exported")
    for runtime, run in (("onnxruntime", by_onnxruntime), ("openvino", by_openvino)):
        if (folder / EXTRA / ONNX).is_file():
            try:
                difference = compared(responses["serving_default"], run(folder, requests["serving_default"]))
            except ImportError:
                report[runtime] = "not installed"
                continue
            report[runtime] = difference
            if not difference <= _TOLERANCE_ONNX:
                mistakes.append(f"{runtime} answers {difference:.2g} off TensorFlow")
    return report


def damaged_files(folder: Path) -> list[str]:
    """A sentence for each file that is missing, changed or not listed in the checksums of an export."""
    sums = folder / EXTRA / CHECKSUMS
    if not sums.is_file():
        return [f"{folder} has no {EXTRA}/{CHECKSUMS}; export it anew"]
    listed = dict(line.split("  ", 1)[::-1] for line in sums.read_text(encoding="utf-8").splitlines() if "  " in line)
    there = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    there.discard(f"{EXTRA}/{CHECKSUMS}")
    mistakes = [f"{name} is missing" for name in sorted(set(listed) - there)]
    mistakes += [f"{name} was not there when the export was made" for name in sorted(there - set(listed))]
    for name in sorted(there & set(listed)):
        if hashlib.sha256((folder / name).read_bytes()).hexdigest() != listed[name]:
            mistakes.append(f"{name} has changed since the export was made")
    return mistakes


def checksums(folder: Path) -> str:
    """The lines of `SHA256SUMS` for all files below a folder but itself, as `sha256sum -c` reads them there."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != CHECKSUMS)
    return "".join(f"{hashlib.sha256(p.read_bytes()).hexdigest()}  {p.relative_to(folder).as_posix()}\n" for p in files)


def operations_of(folder: Path) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Sorted names of all operations of a SavedModel, and those among them that are not stock or not harmless.

    Operations that read and write weights are harmless only where nothing that a client can call leads to them.
    """
    import tensorflow as tf
    from tensorflow.core.protobuf import saved_model_pb2

    loaded = saved_model_pb2.SavedModel.FromString((folder / "saved_model.pb").read_bytes())
    graph = loaded.meta_graphs[0].graph_def
    library = {function.signature.name: function for function in graph.library.function}
    everything = [*graph.node, *(node for function in library.values() for node in function.node_def)]
    names = {node.op for node in everything} - set(library)
    foreign = {name for name in names if not hasattr(tf.raw_ops, name) or _FORBIDDEN.fullmatch(name)} - _OF_THE_SAVER
    foreign |= {node.op for node in _reachable(loaded.meta_graphs[0], library)} & _OF_THE_SAVER
    return tuple(sorted(names)), tuple(sorted(foreign))


def _reachable(meta_graph, library: Mapping) -> Iterable:
    """The nodes that the signatures lead to, in the graph and in its functions."""
    nodes = {node.name: node for node in meta_graph.graph_def.node}
    waiting = [
        output.name.partition(":")[0] for s in meta_graph.signature_def.values() for output in s.outputs.values()
    ]
    found, functions = {}, []
    while waiting:
        name = waiting.pop().lstrip("^").partition(":")[0]
        if name in nodes and name not in found:
            found[name] = nodes[name]
            waiting += nodes[name].input
    seen, waiting = set(), list(found.values())
    while waiting:
        node = waiting.pop()
        functions.append(node)
        called = [node.op] if node.op in library else []
        for value in node.attr.values():
            called += [f.name for f in (value.func, *value.list.func) if f.name]
        for name in called:
            if name in library and name not in seen:
                seen.add(name)
                waiting += library[name].node_def
    return functions


def answers(folder: Path, requests: Mapping[str, Tensors]) -> dict[str, Tensors]:
    """What each signature answers; `{"refusal": text}` where it refuses, the text being the complaint alone."""
    import tensorflow as tf

    model = tf.saved_model.load(str(folder))
    found = {}
    for name, request in requests.items():
        try:
            answer = model.signatures[name](**{key: tf.constant(value) for key, value in request.items()})
            found[name] = {key: _array(value.numpy()) for key, value in answer.items()}
        except tf.errors.InvalidArgumentError as error:
            found[name] = {"refusal": np.array(complaint(str(error)))}
    return found


def complaint(text: str) -> str:
    """What a check inside the graph says, without TensorFlow's words about where."""
    found = re.search(r"assertion failed: \[(.*?)\]\s*(\[\[|\[Op:|$|\n|\t)", text, re.DOTALL)
    return found[1] if found else text.partition("\n")[0]


def _array(value: np.ndarray | bytes) -> np.ndarray:
    """An array; of bytes as an object, since NumPy's own strings lose zeros at their ends."""
    return np.array(value, object) if isinstance(value, bytes) else np.asarray(value)


def compared(expected: Tensors, found: Tensors) -> float:
    """The largest difference of two answers; infinite where they are not of one kind."""
    if set(expected) != set(found):
        return float("inf")
    largest = 0.0
    for name, wanted in expected.items():
        got = _array(found[name])
        if wanted.dtype.kind == "f" and wanted.shape == got.shape:
            with np.errstate(invalid="ignore"):
                largest = max(largest, float(np.abs(wanted - got).max(initial=0)))
        elif wanted.shape != got.shape or not np.array_equal(wanted, got):
            return float("inf")
    return largest if largest == largest else float("inf")


def write_golden(path: Path, requests: Mapping[str, Tensors], responses: Mapping[str, Tensors]) -> None:
    """Writes requests and responses by signature; strings as bytes, since NumPy would need pickle for them."""
    arrays = {}
    for what, tensors in (("request", requests), ("response", responses)):
        for signature, named in tensors.items():
            for name, value in named.items():
                key = f"{signature}/{what}/{name}"
                if value.dtype.kind == "O" and not value.ndim:
                    arrays[key + "[]"] = np.frombuffer(value.item(), np.uint8)
                elif value.dtype.kind == "O":
                    for place, each in enumerate(value):
                        arrays[f"{key}[{place}]"] = np.frombuffer(each, np.uint8)
                else:
                    arrays[key] = value
    np.savez_compressed(path, **arrays)


def read_golden(path: Path) -> tuple[dict[str, Tensors], dict[str, Tensors]]:
    """The requests and the responses that `write_golden` wrote."""
    tensors: dict[str, dict[str, Tensors]] = {"request": {}, "response": {}}
    with np.load(path, allow_pickle=False) as arrays:
        for key in arrays.files:
            signature, what, name = key.split("/")
            name, is_text, place = name.partition("[")
            named = tensors[what].setdefault(signature, {})
            if not is_text:
                named[name] = arrays[key]
            elif place == "]":
                named[name] = np.array(arrays[key].tobytes(), object)
            else:
                named[name] = np.array([*named.get(name, ()), arrays[key].tobytes()], object)
    return tensors["request"], tensors["response"]


def by_onnxruntime(folder: Path, request: Tensors) -> Tensors:
    """What the ONNX file in an export answers by ONNX Runtime."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(folder / EXTRA / ONNX), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, request), strict=True))


def by_openvino(folder: Path, request: Tensors) -> Tensors:
    """What the ONNX file in an export answers by OpenVINO."""
    import openvino

    core = openvino.Core()
    model = core.read_model(str(folder / EXTRA / ONNX))
    # With open sizes 2026.4 refuses some networks ("overflow while multiplying dim and stride").
    model.reshape({name: list(value.shape) for name, value in request.items()})
    compiled = core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})  # some processors would take less
    answer = compiled(request)
    return {output.get_any_name(): answer[output] for output in compiled.outputs}


if __name__ == "__main__":
    sys.modules["keras"] = sys.modules["pimms_tf"] = None
    sys.stdout.write(json.dumps(replay(Path(sys.argv[1]))) + "\n")
