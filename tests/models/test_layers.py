"""Batch normalisation, convolution blocks and initialisers, against NiftyNet's constants."""

from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from pimms_tf.models import build_classifier, build_model, regularised_variables
from pimms_tf.models.layers import BatchNorm, Convolution, kernel_initialiser, layers_of

GOLDEN = Path(__file__).parents[1] / "goldens" / "07_networks" / "bn_moving_statistics" / "io.npz"


def built(layer, *shape):
    layer.build(shape)
    return layer


def test_moving_means_are_debiased_from_the_first_update():
    norm = built(BatchNorm(), None, 1)
    means = []
    for value in (4.0, 2.0, 7.0):
        norm(np.full((3, 1), value, np.float32), training=True)
        means.append(norm.moving_mean.numpy()[0])
    np.testing.assert_allclose(means, [4.0, 2.947368, 4.442804], rtol=1e-6)


def test_plain_moving_averages_start_from_zero_mean_and_unit_variance():
    norm = built(BatchNorm("plain"), None, 1)
    norm(np.array([[3.0], [5.0]], np.float32), training=True)
    np.testing.assert_allclose([norm.moving_mean.numpy()[0], norm.moving_variance.numpy()[0]], [0.4, 1.0], rtol=1e-6)
    norm(np.array([[8.0], [10.0]], np.float32), training=True)
    np.testing.assert_allclose(norm.moving_mean.numpy()[0], 0.9 * 0.4 + 0.9, rtol=1e-6)


def test_moving_statistics_follow_the_recorded_sequence():
    norm = built(BatchNorm(), None, None, None, 2)
    with np.load(GOLDEN) as golden:
        for step in (1, 2, 3, 4):
            norm(golden[f"batch{step}"], training=True)
            for ours, name in ((norm.moving_mean, "moving_mean"), (norm.moving_variance, "moving_variance")):
                np.testing.assert_allclose(ours.numpy(), golden[f"step{step}/batch_norm/{name}"], rtol=2e-6)


def test_training_normalises_with_the_population_moments_of_the_batch():
    x = np.random.default_rng(0).normal(3, 2, (4, 5, 6, 3)).astype(np.float32)
    norm = built(BatchNorm(), None, None, None, 3)
    norm.gamma.assign([1.0, 2.0, 0.5])
    norm.beta.assign([0.0, 1.0, -1.0])
    expected = (x - x.mean((0, 1, 2))) / np.sqrt(x.var((0, 1, 2)) + 1e-5) * [1, 2, 0.5] + [0, 1, -1]
    np.testing.assert_allclose(norm(x, training=True), expected, rtol=1e-5, atol=1e-5)


def test_inference_uses_the_moving_statistics_and_moves_nothing():
    norm = built(BatchNorm(), None, 1)
    norm.moving_mean.assign([2.0])
    norm.moving_variance.assign([4.0])
    np.testing.assert_allclose(norm(np.array([[6.0]], np.float32)), [[2.0]], rtol=1e-5)
    assert [v.numpy().tolist() for v in norm.non_trainable_variables] == [[2.0], [4.0], 1.0]


def test_rows_that_are_not_present_do_not_enter_the_statistics():
    rng = np.random.default_rng(1)
    rows = rng.normal(size=(2, 4, 4, 3)).astype(np.float32)
    mixed = np.stack([rows[0], rng.normal(50, 9, rows[0].shape).astype(np.float32), rows[1]])
    alone, among = built(BatchNorm(), None, None, None, 3), built(BatchNorm(), None, None, None, 3)
    expected = alone(rows, training=True)
    got = among(mixed, present=np.array([True, False, True]), training=True)
    np.testing.assert_allclose(got[::2], expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(among.moving_mean.numpy(), alone.moving_mean.numpy(), rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(among.moving_variance.numpy(), alone.moving_variance.numpy(), rtol=1e-6)


def test_a_batch_without_any_present_row_is_finite_and_leaves_the_statistics():
    norm = built(BatchNorm(), None, 2)
    norm(np.array([[1.0, 5.0], [3.0, 1.0]], np.float32), training=True)
    before = [v.numpy().copy() for v in norm.variables]
    output = norm(np.array([[1e30, np.nan]], np.float32)[:, :1].repeat(2, 1), present=np.array([False]), training=True)
    assert np.isfinite(output).all()
    for variable, value in zip(norm.variables, before, strict=True):
        np.testing.assert_array_equal(variable.numpy(), value)


def test_moving_normalisation_reads_the_statistics_from_before_the_batch():
    norm = built(BatchNorm(statistics="moving"), None, 1)
    x = np.array([[10.0], [30.0]], np.float32)
    np.testing.assert_allclose(norm(x, training=True), x, rtol=1e-4)  # still mean 0, variance 1
    assert norm.moving_mean.numpy()[0] == pytest.approx(20.0)


def test_statistics_of_half_precision_input_are_taken_in_single_precision():
    x = np.random.default_rng(2).normal(300, 1, (4, 32, 32, 1)).astype(np.float16)
    norm = built(BatchNorm(dtype="mixed_float16"), None, None, None, 1)
    output = norm(x, training=True)
    assert output.dtype == tf.float16
    assert norm.moving_mean.numpy()[0] == pytest.approx(x.astype(np.float64).mean(), rel=1e-4)
    assert norm.moving_variance.numpy()[0] == pytest.approx(x.astype(np.float64).var(), rel=1e-2)


@pytest.mark.parametrize(("rank", "kernel", "stride"), [(2, 5, 1), (2, 3, 2), (2, 1, 2), (3, 3, 1)])
def test_normalisation_within_a_convolution_of_bfloat16_is_the_normalisation_after_it(rank, kernel, stride, bfloat16):
    rng = np.random.default_rng(5)
    x = rng.normal(size=(2, *(6,) * rank, 3)).astype(np.float32)
    whole, half = (built(Convolution(4, kernel, rank, stride), *x.shape) for _ in range(2))
    drawn = [
        rng.normal(0, 0.3, variable.shape) + (variable.path.endswith(("gamma", "variance")))
        for variable in whole.variables
    ]
    for layer in (whole, half):
        for variable, values in zip(layer.variables, drawn, strict=True):
            variable.assign(np.abs(values) if variable.path.endswith("variance") else values)
    for layer in layers_of(half):
        layer.dtype_policy = keras.dtype_policies.get("mixed_bfloat16")
    found, expected = half(x), np.asarray(whole(x))
    assert found.dtype == tf.bfloat16
    np.testing.assert_allclose(tf.cast(found, tf.float32), expected, atol=0.02 * expected.max())  # some units of 2⁻⁸


@pytest.mark.parametrize(("init", "ratio"), [("he_normal", 1.0), ("niftynet", 0.8796)])
def test_kernels_are_drawn_with_the_stated_deviation_and_cut(init, ratio):
    kernel = np.asarray(kernel_initialiser(init)((5, 5, 48, 400)))
    sigma = np.sqrt(2 / (5 * 5 * 48))
    assert kernel.std() == pytest.approx(ratio * sigma, rel=0.01)
    assert np.abs(kernel).max() <= 2 * sigma * (1 / 0.8796 if init == "he_normal" else 1) * 1.001


def test_layers_of_equal_shape_start_from_different_kernels():
    # The released code gave every initialiser the same seed.
    model = build_model("hemis", 3, 2)
    first, second = (backend.conv_2.conv.kernel.numpy() for backend in model.backends[:2])
    assert np.abs(first - second).max() > 0.01


@pytest.mark.parametrize("rank", [2, 3])
@pytest.mark.parametrize("size", [1, 2, 5, 8])
def test_a_strided_pointwise_convolution_equals_kerass_own(rank, size):
    x = np.random.default_rng(3).normal(size=(2, *(size,) * rank, 6)).astype(np.float32)
    layer = built(Convolution(4, 1, rank, 2, norm="none", activation="none"), *x.shape)
    expected = ops.conv(x, layer.conv.kernel, strides=2, padding="same")
    np.testing.assert_allclose(layer(x), expected, rtol=1e-5, atol=1e-6)
    assert layer.compute_output_shape(x.shape) == expected.shape


def test_the_order_of_normalisation_and_convolution_follows_preactivation():
    x = np.random.default_rng(4).normal(size=(2, 6, 6, 3)).astype(np.float32)
    after, before = Convolution(5, 3), Convolution(5, 3, preactivation=True)
    assert built(after, *x.shape).norm.gamma.shape == (5,)
    assert built(before, *x.shape).norm.gamma.shape == (3,)
    assert ops.min(after(x)) == 0
    assert ops.min(before(x)) < 0


def test_a_convolution_has_a_bias_only_without_normalisation():
    assert not built(Convolution(5, 3), None, 6, 6, 3).conv.use_bias
    assert built(Convolution(5, 3, norm="none"), None, 6, 6, 3).conv.use_bias


def test_prelu_has_half_its_slope_at_zero_as_in_niftynet():
    layer = built(Convolution(2, 1, norm="none", use_bias=False, activation="prelu"), None, None, None, 2)
    layer.conv.kernel.assign(np.eye(2, dtype=np.float32)[np.newaxis, np.newaxis])
    layer.prelu.alpha.assign([[[0.5, -0.25]]])
    x = tf.constant([[[[-2.0, -2.0], [0.0, 0.0], [3.0, 3.0]]]])
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = layer(x)
    np.testing.assert_array_equal(y[0, 0], [[-1, 0.5], [0, 0], [3, 3]])
    of_x, of_slope = tape.gradient(y, [x, layer.prelu.alpha.value])
    np.testing.assert_array_equal(of_x[0, 0], [[0.5, -0.25], [0.25, -0.125], [1, 1]])
    np.testing.assert_array_equal(of_slope, [[[-2, -2]]])


def test_prelu_starts_as_relu_with_one_slope_per_channel():
    layer = built(Convolution(5, 1, norm="none", activation="prelu"), None, 6, 6, 3)
    x = np.random.default_rng(5).normal(size=(1, 6, 6, 3)).astype(np.float32)
    assert layer.prelu.alpha.shape == (1, 1, 5)
    np.testing.assert_array_equal(layer(x), ops.relu(layer.conv(x)))


@pytest.mark.parametrize(
    ("model", "count"),
    [
        # Numbers of the released graphs: 0, 241 and 299 variables.
        (lambda: build_model("hemis", 3, 2, "niftynet2018"), 0),
        (lambda: build_classifier(3, "niftynet2018"), 241),
        (lambda: build_model("online", 4, 2, "niftynet2018"), 299),
        (lambda: build_model("hemis", 3, 2), 24),
        (lambda: build_model("hemis", 3, 2, norm="none"), 8),
    ],
)
def test_as_many_variables_are_regularised_as_in_the_released_graphs(model, count):
    assert len(regularised_variables(model())) == count


def test_neither_the_head_nor_a_normalisation_of_its_own_is_regularised():
    paths = {variable.path for variable in regularised_variables(build_classifier(3, classifier_blocks=2))}
    assert not any("/head/" in path or path.startswith("pimms/classifier/norm/") for path in paths)
    assert "pimms/classifier/resolution_1_block_1/reduce/norm/beta" in paths
    assert "pimms/classifier/resolution_1_block_0/norm/beta" not in paths


def test_every_variable_of_a_layer_is_found_by_keras():
    layer = built(Convolution(5, 3, activation="prelu"), None, 6, 6, 3)
    assert isinstance(layer, keras.layers.Layer)
    assert [v.path.rpartition("/")[2] for v in layer.trainable_variables] == ["kernel", "gamma", "beta", "alpha"]
