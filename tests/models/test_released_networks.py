"""The preset "niftynet2018" against arrays that the released TensorFlow 1.3 code computed (goldens/07_networks)."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from pimms_tf.models import ModalityClassifier, build_model

GOLDENS = Path(__file__).parents[1] / "goldens" / "07_networks"
ALL_VALID = np.ones((2, 3), bool)

# Our leaf and its name below a NiftyNet layer.
_LEAVES = {
    "kernel": "conv_/w",
    "alpha": "prelu_acti_/alpha",
    "gamma": "bn_/{norm}gamma",
    "beta": "bn_/{norm}beta",
    "moving_mean": "bn_/{norm}moving_mean",
    "moving_variance": "bn_/{norm}moving_variance",
}
_CONTRIB = "BatchNorm/"  # the classifier's normalisation is tf.contrib's
_FRONTEND = {"conv_1": "conv_1_bn_prelu", "conv_2": "conv_2_bn_softmax"}
_BLOCK = {
    True: {"reduce": "conv{bn}", "shortcut": "conv{bn}_1", "convolve": "conv_bn_relu", "expand": "conv_bn_relu_1"},
    False: {"reduce": "conv_bn_relu", "convolve": "conv_bn_relu_1", "expand": "conv_bn_relu_2"},
}


def arrays(case, name="io"):
    with np.load(GOLDENS / case / f"{name}.npz") as file:
        return dict(file)


def released_name(path, with_bn=False):
    """Name in the released graph of our variable path; None for what the released graph stores otherwise."""
    *parts, leaf = path.split("/")
    if leaf == "unseen":
        return None
    if parts[0] == "pimms":
        parts = parts[1:]
    if parts[0].startswith("backend_"):
        return f"HeMIS/HeMISBackendBlock_{parts[0][8:]}/backend_{parts[1]}_bn_relu/" + _LEAVES[leaf].format(norm="")
    if parts[0] == "frontend":
        return f"HeMIS/HighRes3DNet/{_FRONTEND[parts[1]]}/" + _LEAVES[leaf].format(norm="")
    root, parts = ("HeMIS/modality_classifier/ResNet/" if path.startswith("pimms/") else "ResNet/"), parts[1:]
    bn = "_bn" if with_bn else ""
    if parts[0] == "stem":
        return f"{root}conv{bn}/" + _LEAVES[leaf].format(norm=_CONTRIB)
    if parts[0] == "norm":
        return f"{root}batch_norm/{_CONTRIB}{leaf}"
    if parts[0] == "head":
        return f"{root}fc{bn}/fc_/" + {"kernel": "w", "bias": "b"}[leaf]
    if parts[0] == "head_norm":
        return f"{root}fc{bn}/bn_/{leaf}"
    resolution, block = map(int, re.fullmatch(r"resolution_(\d)_block_(\d+)", parts[0]).groups())
    scope = f"{root}downres" + (f"_{resolution - 1}" if resolution > 1 else "")
    scope += "/bottleneck" + (f"_{block}" if block else "") + "/"
    if parts[1] == "norm":
        return f"{scope}batch_norm/{_CONTRIB}{leaf}"
    return scope + _BLOCK[block == 0][parts[1]].format(bn=bn) + "/" + _LEAVES[leaf].format(norm=_CONTRIB)


def fill(model, weights, with_bn=False):
    """Assigns the released weights; every stored variable but the helpers of the moving averages must be used once."""
    names = {released_name(variable.path, with_bn): variable for variable in model.variables}
    names.pop(None, None)
    stored = {name for name in weights if not re.search(r"/(biased|local_step)$", name)}
    assert set(names) == stored
    for name, variable in names.items():
        variable.assign(weights[name].reshape(variable.shape))  # Keras keeps PReLU slopes as (1, 1, channel)
    return names


def segmentation(model, scans, training=False):
    return ops.softmax(model(scans, ALL_VALID, training=training).segmentation_logits).numpy()


def segmentation_and_scores(model, scans, training=False):
    prediction = model(scans, ALL_VALID, training=training)
    rows = ops.reshape(prediction.modality_logits, (6, 4))  # subject by subject
    return ops.softmax(prediction.segmentation_logits), ops.softmax(rows)


@pytest.fixture
def hemis():
    model = build_model("hemis", 3, 2, "niftynet2018")
    names = fill(model, arrays("hemis_3mod_2d", "weights"))
    return model, names


@pytest.fixture(scope="module")
def built_online():
    return build_model("online", 4, 2, "niftynet2018"), arrays("hemis_midl_soft_2d", "weights")


@pytest.fixture
def online(built_online):
    model, weights = built_online
    for variable in model.variables:
        if variable.path.endswith("/unseen"):
            variable.assign(1.0)
    return model, fill(model, weights)


@pytest.fixture(params=[0, 1], ids=["bn0", "bn1"])
def classifier(request):
    case = f"resnet_plugin_2d_small_bn{request.param}"
    model = ModalityClassifier(
        3,
        (4, 8, 16, 32),
        3,
        pool="spatial_and_channel",
        head_bn=bool(request.param),
        extra_bn=bool(request.param),
        average="plain",
        name="classifier",
    )
    model.build((None, None, None, 1))
    return case, model, fill(model, arrays(case, "weights"), bool(request.param))


def gradients(tape, outputs, cotangents, x, names):
    """Gradient of Σ output · cotangent with respect to the input and every trained variable, by released name."""
    trained = {name: variable.value for name, variable in names.items() if variable.trainable}
    return tape.gradient(outputs, {"input": x, **trained}, output_gradients=cotangents)


def assert_gradients_equal(got, case, tolerance):
    """The input's gradient voxel by voxel, every variable's in norm, relative to the largest value or norm."""
    expected = arrays(case)["grad_train/input"]
    assert np.abs(got["input"] - expected).max() <= tolerance * np.abs(expected).max()
    norms = json.loads((GOLDENS / case / "grad_norms_train.json").read_text(encoding="utf-8"))
    assert set(got) == set(norms)
    # A gradient that is nothing but rounding (of a bias in front of a normalisation, say) has no relative error.
    floor = 1e-2 * max(norms.values())
    for name, norm in norms.items():
        assert float(tf.norm(got[name])) == pytest.approx(norm, rel=tolerance, abs=tolerance * floor), name


def assert_statistics_equal(names, case, part=""):
    after = {name: array for name, array in arrays(case).items() if name.startswith("after_1_update/") and part in name}
    assert after
    for name, expected in after.items():
        got = names[name.removeprefix("after_1_update/")].numpy()
        np.testing.assert_allclose(got, expected, rtol=2e-5, atol=2e-5, err_msg=name)


def test_hemis_segments_as_released(hemis):
    io = arrays("hemis_3mod_2d")
    np.testing.assert_allclose(segmentation(hemis[0], io["input"]), io["output_infer"], rtol=0, atol=1e-5)


def test_a_training_pass_of_hemis_gives_the_released_output_gradients_and_statistics(hemis):
    model, names = hemis
    io = arrays("hemis_3mod_2d")
    x = tf.constant(io["input"])
    with tf.GradientTape() as tape:
        tape.watch(x)
        output = ops.softmax(model(x, ALL_VALID, training=True).segmentation_logits)
    np.testing.assert_allclose(output, io["output_train"], rtol=0, atol=1e-5)
    # 2e-6 without oneDNN. With it, rounding flips a max pool between two near-equal neighbours, and where a gradient
    # goes is all or nothing.
    assert_gradients_equal(gradients(tape, [output], [io["cotangent"]], x, names), "hemis_3mod_2d", 5e-2)
    assert_statistics_equal(names, "hemis_3mod_2d")


@pytest.mark.parametrize("case", ["mod1_all_zero", "mod2_zero_in_sample0", "all_zero"])
def test_hemis_treats_a_missing_modality_as_released(hemis, case):
    model, _ = hemis
    io = arrays("hemis_3mod_2d_missing")
    scans = io[f"input_{case}"]
    np.testing.assert_allclose(segmentation(model, scans), io[f"output_{case}_infer"], rtol=0, atol=1e-5)
    # Without any input the front-end normalises a constant, which divides rounding by √ε = 0.003.
    tolerance = 1e-3 if case == "all_zero" else 1e-5
    np.testing.assert_allclose(segmentation(model, scans, True), io[f"output_{case}_train"], rtol=0, atol=tolerance)


def test_online_segments_and_scores_as_released(online):
    model, _ = online
    io = arrays("hemis_midl_soft_2d")
    output, scores = segmentation_and_scores(model, io["input"])
    np.testing.assert_allclose(output, io["output_infer"], rtol=0, atol=1e-5)
    np.testing.assert_allclose(scores, io["output_infer_1"], rtol=0, atol=1e-6)
    mixed = model.attention(io["input"], io["output_infer_1"].reshape(2, 3, 4), ALL_VALID)
    np.testing.assert_allclose(mixed, io["attention_tensor_infer"], rtol=0, atol=1e-5)


def test_a_training_pass_of_online_gives_the_released_outputs_gradients_and_statistics(online):
    model, names = online
    io = arrays("hemis_midl_soft_2d")
    x = tf.constant(io["input"])
    with tf.GradientTape() as tape:
        tape.watch(x)
        output, scores = segmentation_and_scores(model, x, training=True)
    np.testing.assert_allclose(output, io["output_train"], rtol=0, atol=1e-5)
    np.testing.assert_allclose(scores, io["output_train_1"], rtol=0, atol=1e-5)
    cotangents = [io["cotangent"], io["cotangent_1"]]
    # The gradient through 91 normalisations over two subjects is ill-conditioned: noise of 1e-6 on the input moves it
    # by up to 0.17 (its largest value is 2.05), and the recording is as far from our float64 gradient as from this one.
    assert_gradients_equal(gradients(tape, [output, scores], cotangents, x, names), "hemis_midl_soft_2d", 0.15)
    for part in ("HeMISBackendBlock", "HighRes3DNet"):
        assert_statistics_equal(names, "hemis_midl_soft_2d", part)


def test_the_classifier_of_online_learns_its_statistics_slot_by_slot(online):
    # The released graph leaves the order of its three updates open; the recorded run took the last slot first.
    model, names = online
    model(arrays("hemis_midl_soft_2d")["input"][..., ::-1], ALL_VALID, training=True)
    assert_statistics_equal(names, "hemis_midl_soft_2d", "modality_classifier")


@pytest.mark.parametrize("case", ["permuted_201", "image2_zero"])
def test_online_treats_another_order_and_an_empty_slot_as_released(online, case):
    model, _ = online
    io = arrays("hemis_midl_soft_2d_variants")
    output, scores = segmentation_and_scores(model, io[f"input_{case}"])
    np.testing.assert_allclose(output, io[f"output_{case}_infer"], rtol=0, atol=1e-5)
    np.testing.assert_allclose(scores, io[f"output_{case}_infer_1"], rtol=0, atol=1e-6)
    output, scores = segmentation_and_scores(model, io[f"input_{case}"], training=True)
    np.testing.assert_allclose(output, io[f"output_{case}_train"], rtol=0, atol=1e-5)
    np.testing.assert_allclose(scores, io[f"output_{case}_train_1"], rtol=0, atol=1e-4)


def test_the_classifier_scores_as_released(classifier):
    case, model, _ = classifier
    io = arrays(case)
    np.testing.assert_allclose(ops.softmax(model(io["input"])), io["output_infer"], rtol=0, atol=1e-6)


def test_a_training_pass_of_the_classifier_gives_the_released_output_gradients_and_statistics(classifier):
    case, model, names = classifier
    io = arrays(case)
    x = tf.constant(io["input"])
    with tf.GradientTape() as tape:
        tape.watch(x)
        output = ops.softmax(model(x, training=True))
    np.testing.assert_allclose(output, io["output_train"], rtol=0, atol=1e-5)
    assert_gradients_equal(gradients(tape, [output], [io["cotangent"]], x, names), case, 1e-3)
    assert_statistics_equal(names, case)
