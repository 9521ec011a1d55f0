"""What lies in an export beside its graph, so that it can be trusted without the one who made it.

    model_card.md                            what it is, what it answers, what it is not for
    assets.extra/golden.npz                  a request and its response for each signature
    assets.extra/tf_serving_warmup_requests  the same requests, which TensorFlow Serving sends itself before clients do
    assets.extra/operations.txt              all operations of the graph
    assets.extra/versions.json               of what made it
    assets.extra/SHA256SUMS                  of all other files, as `sha256sum -c` reads them
"""

import json
import logging
import platform
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

import keras
import nibabel as nib
import numpy as np
import tensorflow as tf

import pimms_tf
from pimms_tf.errors import InputError
from pimms_tf.inference.loading import version_folder
from pimms_tf.inference.preparation import Preparation
from pimms_tf.serving import replay
from pimms_tf.serving.replay import CHECKSUMS, EXTRA, GOLDEN, OPERATIONS, Tensors

log = logging.getLogger(__name__)

CARD = "model_card.md"
_WARMUP = "tf_serving_warmup_requests"
_PATIENCE_S = 3600


def write_proof(
    folder: Path, model: keras.Model, preparation: Preparation, signatures: Iterable[str], card: str
) -> None:
    """Completes an export that has just been written, and is not visible yet."""
    extra = folder / EXTRA
    extra.mkdir(exist_ok=True)
    everything = _requests(model, preparation)
    requests = {name: everything[name] for name in signatures}
    responses = replay.answers(folder, requests)
    replay.write_golden(extra / GOLDEN, requests, responses)
    answered = {name: request for name, request in requests.items() if "refusal" not in responses[name]}
    _write_warmup(extra / _WARMUP, answered)
    operations, _ = replay.operations_of(folder)
    (extra / OPERATIONS).write_text("\n".join(operations) + "\n", encoding="utf-8")
    versions = {"pimms-tf": pimms_tf.__version__, "tensorflow": tf.__version__, "keras": keras.__version__}
    versions |= {"numpy": np.__version__, "python": platform.python_version()}
    (extra / "versions.json").write_text(json.dumps(versions, indent=2) + "\n", encoding="utf-8")
    (folder / CARD).write_text(_card(preparation, requests, responses, card), encoding="utf-8")
    write_checksums(folder)


def write_checksums(folder: Path) -> None:
    """Writes the checksums of all files in an export, once nothing more is added."""
    (folder / EXTRA / CHECKSUMS).write_text(replay.checksums(folder), encoding="utf-8")


def verified(directory: Path) -> dict[str, object]:
    """What `replay.replay` reports of an export, the newest of several, from a process that has TensorFlow alone.

    Raises:
        InputError: there is no export, or it is not what it says.
    """
    folder = version_folder(directory)
    damaged = replay.damaged_files(folder)
    report = {"mistakes": damaged}
    if not damaged:
        # Isolated: neither the folder it is called in nor the user's packages take part.
        command = [sys.executable, "-I", replay.__file__, str(folder)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=_PATIENCE_S, check=False)
        try:
            report = json.loads(done.stdout.splitlines()[-1])
        except (ValueError, IndexError):
            last = (done.stderr.strip().splitlines() or ["nothing was said"])[-1]
            report = {"mistakes": [f"it cannot be loaded by TensorFlow alone ({last[:300]})"]}
    if report["mistakes"]:
        raise InputError(f"{folder} is not to be trusted: {'; '.join(report['mistakes'])}; export the model anew")
    return report


def phantom(preparation: Preparation) -> tuple[list[np.ndarray], np.ndarray]:
    """Up to three small scans (x, y, z) int16 of an egg with a yolk, and their affine, which lies askew of the record.

    They are no scans of anybody; what they are good for is to be answered the same everywhere.
    """
    rng = np.random.default_rng(0)
    shape, steps_mm = (36, 44, 5), np.array([1.25, 1.25, 5.0])
    affine = np.diag([-steps_mm[0], steps_mm[1], steps_mm[2], 1.0])
    affine[:3, 3] = (20.0, -30.0, 5.0)
    place = np.stack(np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij"))
    distance = np.sqrt(np.einsum("axyz,a->xyz", np.square(place), [1.6, 1.4, 0.3]))
    scans = []
    for number in range(max(1, min(3, len(preparation.modalities)))):
        egg = 200.0 * (distance < 1) + (150.0 + 120.0 * number) * (distance < 0.55)
        spot = np.square(place - np.array([0.2, 0.3, 0.1])[:, None, None, None]).sum(axis=0) < 0.02
        scan = egg + 400.0 * spot + rng.normal(0, 12, shape)
        scans.append(np.where(distance < 1.05, np.maximum(scan, 0), 0).astype(np.int16))
    return scans, affine


def _requests(model: keras.Model, preparation: Preparation) -> dict[str, Tensors]:
    """A small request for each signature that there may be."""
    rng = np.random.default_rng(1)
    size = (24, 20) if model.spatial_rank == 2 else (12, 10, 8)
    windows = {"scans": rng.normal(size=(2, 3, *size)).astype(np.float32)}
    labels = {"modality": np.array([[0, 1, -1]] * 2, np.int32) % model.num_modalities}
    scores = rng.dirichlet(np.ones(model.num_modalities), (2, 3)).astype(np.float32)
    scans, affine = phantom(preparation)
    stack = np.stack([scan.astype(np.float32).transpose() for scan in scans])
    volume = {"scans": stack, "affine": affine.astype(np.float32)}
    files = {"files": np.array([nib.Nifti1Image(scan, affine).to_bytes() for scan in scans], object)}
    named = {}
    if preparation.variant == "hemis" or preparation.standardises:
        known = [slot.name for slot in preparation.scans] or list(preparation.modalities)
        named = {"names": np.array([name.encode() for name in known[: len(scans)]], object)}
    return {
        "serving_default": windows | (labels if model.needs_labels else {}),
        "classify_windows": windows,
        "segment_with_scores": windows | {"scores": scores},
        "serving_volume": volume | named,
        "serving_nifti": files | named,
        "classify": volume,
        "classify_nifti": files,
    }


def _write_warmup(path: Path, requests: Mapping[str, Tensors]) -> None:
    try:
        from tensorflow_serving.apis import predict_pb2, prediction_log_pb2
    except ImportError:
        log.warning(
            "tensorflow-serving-api is not installed, so the export has no requests to warm a server up; "
            "pip install 'pimms-tf[serving]' brings it"
        )
        return
    with tf.io.TFRecordWriter(str(path)) as writer:
        for signature, request in requests.items():
            message = predict_pb2.PredictRequest()
            message.model_spec.name, message.model_spec.signature_name = "pimms", signature
            for name, value in request.items():
                message.inputs[name].CopyFrom(tf.make_tensor_proto(value))
            record = prediction_log_pb2.PredictionLog(
                predict_log=prediction_log_pb2.PredictLog(request=message)
            )
            writer.write(record.SerializeToString())


def _card(
    preparation: Preparation, requests: Mapping[str, Tensors], responses: Mapping[str, Tensors], card: str
) -> str:
    lines = [
        "# Exported model",
        "",
        f"PIMMS, variant {preparation.variant}, preset {preparation.preset}. It segments "
        f"{', '.join(preparation.class_names) or f'{preparation.num_classes} classes'} in any number of scans of one "
        f"person: {', '.join(preparation.modalities) or 'modalities by number'}. For research, not for diagnosis.",
        "",
        "`preparation.json` says how scans are prepared. Signatures:",
        "",
        "| signature | inputs | outputs |",
        "| --- | --- | --- |",
    ]
    for name, request in requests.items():
        refused = "refusal" in responses[name]
        answer = "see saved_model_cli; the golden request is refused" if refused else ", ".join(responses[name])
        lines.append(f"| `{name}` | {', '.join(request)} | {answer} |")
    lines += ["", f"`pimms-tf verify` replays the golden requests, `sha256sum -c {EXTRA}/{CHECKSUMS}` checks files."]
    return "\n".join([*lines, "", card]).rstrip() + "\n"
