"""An export proves itself to a process with TensorFlow alone, and a copy that was tampered with does not."""

import json
import re
import shutil
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from pimms_tf.errors import InputError
from pimms_tf.inference import load_segmenter
from pimms_tf.serving import replay, verified, verify_volumes
from pimms_tf.serving.proof import phantom, write_checksums

EXTRA = "assets.extra"


@pytest.fixture
def copy(small_export, tmp_path):
    return shutil.copytree(small_export, tmp_path / "1")


def test_an_export_is_proved_by_tensorflow_alone(small_export):
    report = verified(small_export.parent)
    assert {name for name, found in report.items() if isinstance(found, float)} == {
        "serving_default",
        "classify_windows",
        "segment_with_scores",
        "serving_volume",
        "serving_nifti",
        "classify",
        "classify_nifti",
    }
    assert max(found for found in report.values() if isinstance(found, float)) <= 1e-5


def test_its_volumes_are_those_of_inference(small_export, rounding):
    segmenter = load_segmenter(small_export)
    scans, _ = phantom(segmenter.preparation)
    slices = np.moveaxis(np.stack([(scan - scan.mean()) / scan.std() for scan in scans], axis=-1), 2, 0)
    # Crops of another size are computed otherwise, and weights that were drawn make much of the last digit.
    tolerance = rounding(lambda x: keras.ops.softmax(segmenter.model(x).segmentation_logits), slices.astype(np.float32))
    assert tolerance < 1e-4
    assert verify_volumes(small_export, segmenter.model, segmenter.preparation) <= max(1e-5, tolerance)


def test_what_belongs_to_it_lies_in_it(small_export):
    assert sorted(item.name for item in (small_export / EXTRA).iterdir()) == [
        "SHA256SUMS",
        "golden.npz",
        "operations.txt",
        "tf_serving_warmup_requests",
        "versions.json",
    ]
    card = (small_export / "model_card.md").read_text(encoding="utf-8")
    assert "`serving_nifti`" in card
    assert "Weights are drawn." in card
    assert json.loads((small_export / EXTRA / "versions.json").read_text())["tensorflow"] == tf.__version__
    command = ["sha256sum", "-c", f"{EXTRA}/SHA256SUMS"]
    done = subprocess.run(command, cwd=small_export, capture_output=True, check=False)
    assert done.returncode == 0


def test_the_requests_for_warming_up_are_records_that_tensorflow_serving_reads(small_export):
    logs = pytest.importorskip("tensorflow_serving.apis.prediction_log_pb2")
    records = tf.data.TFRecordDataset(str(small_export / EXTRA / "tf_serving_warmup_requests"))
    requests = [logs.PredictionLog.FromString(record.numpy()).predict_log.request for record in records]
    assert "serving_nifti" in {request.model_spec.signature_name for request in requests}
    signatures = tf.saved_model.load(str(small_export)).signatures
    for request in requests:
        inputs = signatures[request.model_spec.signature_name].structured_input_signature[1]
        assert set(request.inputs) == set(inputs)


def _other_weights(folder):
    (data,) = (folder / "variables").glob("*.data*")
    content = bytearray(data.read_bytes())
    content[len(content) // 2] ^= 1
    data.write_bytes(content)


def _other_answer(folder):
    path = folder / EXTRA / "golden.npz"
    requests, responses = replay.read_golden(path)
    responses["serving_volume"]["probability"] = responses["serving_volume"]["probability"] + np.float32(1e-3)
    path.unlink()
    replay.write_golden(path, requests, responses)


def _python(folder):
    @tf.function(input_signature=[tf.TensorSpec((None,), tf.float32, name="scans")])
    def call(scans):
        return {"probabilities": tf.numpy_function(lambda array: array, [scans], tf.float32)}

    module = tf.Module()
    module.call = call
    tf.saved_model.save(module, str(folder), signatures={"serving_default": call})


def _reads_a_file(folder):
    @tf.function(input_signature=[tf.TensorSpec((), tf.string, name="name")])
    def call(name):
        return {"content": tf.io.read_file(name)}

    module = tf.Module()
    module.call = call
    tf.saved_model.save(module, str(folder), signatures={"serving_default": call})


@pytest.mark.parametrize(
    ("tamper", "complaint"),
    [
        (_other_weights, "variables.data.* has changed"),
        (lambda folder: (folder / "preparation.json").unlink(), "preparation.json is missing"),
        (lambda folder: (folder / "variables" / "x").touch(), "variables/x was not there"),
        (lambda folder: (folder / EXTRA / "SHA256SUMS").unlink(), "has no assets.extra/SHA256SUMS"),
    ],
)
def test_a_changed_file_is_named(copy, tamper, complaint):
    tamper(copy)
    with pytest.raises(InputError, match=f"is not to be trusted: .*{complaint}"):
        verified(copy)


@pytest.mark.parametrize(
    ("tamper", "complaint"),
    [
        (_other_answer, "serving_volume answers 0.001 off"),
        (_python, "operations that no server should run: .*PyFunc"),
        (_reads_a_file, "operations that no server should run: ReadFile"),
        (lambda folder: (folder / EXTRA / "operations.txt").write_text("Add\n"), "operations.txt is not the list"),
    ],
)
def test_a_change_is_seen_although_the_checksums_were_made_to_fit(copy, tamper, complaint):
    tamper(copy)
    write_checksums(copy)
    assert not replay.damaged_files(copy)
    command = [sys.executable, "-I", replay.__file__, str(copy)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert re.search(complaint, "; ".join(json.loads(done.stdout.splitlines()[-1])["mistakes"]))
