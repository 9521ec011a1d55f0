"""Back-end, abstraction and front-end: the segmenter of HeMIS."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from pimms_tf.models import Abstraction, Backend, Frontend, build_model
from pimms_tf.models.layers import Convolution
from pimms_tf.models.pimms import _on_present_rows


def count(layer):
    return sum(int(np.prod(variable.shape)) for variable in layer.trainable_variables)


def built(layer, *shape):
    layer.build(shape)
    return layer


@pytest.mark.parametrize(("norm", "expected"), [("batch", 58_992), ("none", 58_896)])
def test_a_backend_has_the_published_number_of_parameters(norm, expected):
    assert count(built(Backend(norm=norm), None, None, None, 1)) == expected


@pytest.mark.parametrize(
    ("kind", "norm", "expected"),
    [
        ("paper", "batch", 52_548),
        ("paper", "none", 52_530),
        ("paper_5x5", "batch", 38_400 + 32 + 800 + 4),
        ("highres_1x1", "batch", 8_084),
    ],
)
def test_a_frontend_has_the_published_number_of_parameters(kind, norm, expected):
    assert count(built(Frontend(2, kind, norm=norm), None, None, None, 96)) == expected


def test_the_backends_pool_looks_right_and_down_only():
    ramp = np.arange(9, dtype=np.float32).reshape(1, 3, 3, 1)
    np.testing.assert_array_equal(Backend().pool(ramp)[0, ..., 0], [[4, 5, 5], [7, 8, 8], [7, 8, 8]])


def test_the_worked_example_of_the_abstraction():
    features = np.array([2.0, 5.0, 99.0], np.float32).reshape(1, 1, 1, 1, 3)
    available = np.array([[True, True, False]])
    for missing, ddof, expected in [
        ("zeros", 0, (2.3333, 4.2222)),
        ("exclude", 0, (3.5, 2.25)),
        ("exclude", 1, (3.5, 4.5)),
    ]:
        moments = Abstraction(missing, ddof)(features, available)
        np.testing.assert_allclose(ops.reshape(moments, (2,)), expected, rtol=1e-4)


def test_the_abstraction_puts_all_means_before_all_variances():
    features = np.random.default_rng(0).normal(size=(2, 3, 4, 48, 3)).astype(np.float32)
    moments = Abstraction()(features, np.ones((2, 3), bool))
    np.testing.assert_allclose(moments[..., :48], features.mean(-1), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(moments[..., 48:], features.var(-1), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("ddof", [0, 1])
def test_one_modality_has_no_variance(ddof):
    features = np.random.default_rng(1).normal(size=(1, 3, 3, 4, 3)).astype(np.float32)
    moments = Abstraction(ddof=ddof)(features, np.array([[False, True, False]]))
    np.testing.assert_array_equal(moments[..., :4], features[..., 1])
    np.testing.assert_array_equal(moments[..., 4:], np.zeros((1, 3, 3, 4)))


@pytest.mark.parametrize("missing", ["exclude", "zeros"])
@pytest.mark.parametrize("ddof", [0, 1])
def test_no_modality_at_all_gives_zeros(missing, ddof):
    features = np.ones((1, 3, 3, 4, 3), np.float32)
    moments = Abstraction(missing, ddof)(features, np.zeros((1, 3), bool))
    np.testing.assert_array_equal(moments, np.zeros((1, 3, 3, 8)))


def test_each_subject_has_its_own_set_of_modalities():
    features = np.random.default_rng(2).normal(size=(2, 3, 3, 4, 3)).astype(np.float32)
    available = np.array([[True, False, True], [False, True, True]])
    together = Abstraction()(features, available)
    for row in (0, 1):
        alone = Abstraction()(features[row : row + 1][..., available[row]], np.ones((1, 2), bool))
        np.testing.assert_allclose(together[row], alone[0], rtol=1e-6, atol=1e-7)


def test_the_abstraction_has_finite_gradients_for_every_set():
    features = tf.constant(np.random.default_rng(3).normal(size=(3, 2, 2, 4, 3)).astype(np.float32))
    available = np.array([[True, True, True], [False, True, False], [False, False, False]])
    with tf.GradientTape() as tape:
        tape.watch(features)
        total = tf.reduce_sum(Abstraction(ddof=1)(features, available) ** 2)
    gradient = tape.gradient(total, features).numpy()
    assert np.isfinite(gradient).all()
    assert not gradient[2].any()
    assert not gradient[1][..., [0, 2]].any()


@pytest.mark.parametrize(
    ("frontend", "before", "after"),
    # The pool makes it one more voxel towards the end, where a voxel's influence reaches one less.
    [("paper", 17, 16), ("paper_5x5", 9, 8), ("highres_1x1", 5, 4)],
)
def test_a_voxel_influences_exactly_its_receptive_field(frontend, before, after):
    keras.utils.set_random_seed(0)
    model = build_model("hemis", 3, 2, frontend=frontend)
    size, centre = 44, 20
    scans = np.random.default_rng(4).normal(size=(1, size, size, 3)).astype(np.float32)
    # Positive weights and all features awake: nothing a voxel changes can cancel.
    for variable in model.trainable_variables:
        if variable.path.endswith("kernel"):
            variable.assign(np.abs(variable.numpy()) + 1e-3)
    touched = scans.copy()
    touched[0, centre, centre, 1] += 50
    outputs = [model(np.abs(x)).segmentation_logits.numpy() for x in (scans, touched)]
    rows, columns = np.nonzero(np.any(outputs[0] != outputs[1], axis=(0, 3)))
    for axis in (rows, columns):
        assert (axis.min() - centre, axis.max() - centre) == (-before, after)


def rows_and_layers():
    rng = np.random.default_rng(5)
    backend = Backend(name="layer")
    backend.build((None, None, None, 1))
    convolution = Convolution(6, 3, activation="prelu", preactivation=True, name="layer")
    convolution.build((None, None, None, 1))
    x = rng.normal(1, 2, (5, 8, 7, 1)).astype(np.float32)
    return [(layer, x) for layer in (backend, convolution)]


@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize("present", ["10110", "11111", "00001", "00000"])
@pytest.mark.parametrize("training", [True, False])
def test_gathering_the_present_rows_equals_masking_the_others(which, present, training):
    layer, x = rows_and_layers()[which]
    present = np.array([digit == "1" for digit in present])
    cotangent = np.random.default_rng(6).normal(size=layer(x).shape).astype(np.float32)
    cotangent *= present[:, None, None, None]  # what absent rows hold is not read
    start = layer.get_weights()
    results = []
    for compute in (
        lambda x: _on_present_rows(layer, x, present, training),
        lambda x: layer(x, present=present, training=training),
    ):
        layer.set_weights(start)
        with tf.GradientTape() as tape:
            inputs = tf.constant(x)
            tape.watch(inputs)
            y = compute(inputs)
        gradients = tape.gradient(
            y, [inputs, *(v.value for v in layer.trainable_variables)], cotangent, unconnected_gradients="zero"
        )
        gradients = [tf.convert_to_tensor(gradient) for gradient in gradients]
        results.append([y * present[:, None, None, None], *gradients, *layer.get_weights()])
    for gathered, masked in zip(*results, strict=True):
        scale = max(1.0, np.abs(masked).max())
        np.testing.assert_allclose(gathered, masked, rtol=0, atol=2e-5 * scale)


def test_gathering_computes_nothing_for_absent_rows():
    seen = []

    def layer(x, present, training):
        seen.append(x.shape[0])
        return x

    x = tf.ones((4, 2, 2, 1))
    for present in ([True, False, False, True], [False] * 4):
        y = _on_present_rows(layer, x, tf.constant(present), False)
        np.testing.assert_array_equal(np.any(y, axis=(1, 2, 3))[np.array(present)], True)
    assert seen == [2, 1]


@pytest.mark.parametrize("missing", [False, True])
def test_computing_back_ends_twice_changes_nothing(missing):
    rng = np.random.default_rng(6)
    scans = rng.normal(size=(2, 12, 10, 3)).astype(np.float32)
    if missing:
        scans[1, ..., 0] = 0
    cotangent = tf.constant(rng.normal(size=(2, 12, 10, 2)).astype(np.float32))
    results = []
    for recompute in (False, True):
        keras.utils.set_random_seed(0)
        model = build_model("hemis", 3, 2, recompute=recompute)

        @tf.function
        def step(model=model):
            with tf.GradientTape() as tape:
                logits = model(scans, training=True).segmentation_logits
            variables = [variable.value for variable in model.trainable_variables]
            return logits, tape.gradient(logits, variables, output_gradients=cotangent)

        logits, gradients = step()
        results.append([logits, *gradients, *(variable.value for variable in model.non_trainable_variables)])
    for once, twice in zip(*results, strict=True):
        np.testing.assert_array_equal(once, twice)
