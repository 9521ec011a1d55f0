"""The convolution for large kernels is the ordinary one, however it is computed."""

import functools
import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from pimms_tf.models.layers import Convolution
from pimms_tf.models.wide import WideConvolution, wide_convolution


def random(*shape):
    return tf.constant(np.random.default_rng(sum(shape)).normal(size=shape).astype(np.float32))


@pytest.mark.parametrize("method", ["fft", "rows"])
def test_an_impulse_is_answered_by_the_mirrored_kernel(method):
    image = np.zeros((1, 5, 5, 1), np.float32)
    image[0, 2, 2, 0] = 1
    kernel = np.arange(9, dtype=np.float32).reshape(3, 3, 1, 1)
    expected = [[0, 0, 0, 0, 0], [0, 8, 7, 6, 0], [0, 5, 4, 3, 0], [0, 2, 1, 0, 0], [0, 0, 0, 0, 0]]
    np.testing.assert_allclose(wide_convolution(image, kernel, method)[0, :, :, 0], expected, rtol=0, atol=8e-6)


PLANES = [(1, 1), (5, 7), (6, 4), (20, 33)]
KERNELS = [(1, 1), (2, 2), (3, 4), (4, 3), (11, 11), (21, 21)]
CASES = [
    *((method, *case) for method in ("fft", "rows") for case in itertools.product(PLANES, KERNELS)),
    *(("fft", *case) for case in itertools.product([(5, 7, 6), (1, 12, 9)], [(3, 3, 3), (2, 5, 4), (11, 11, 11)])),
]


@pytest.mark.parametrize(("method", "space", "kernel"), CASES)
def test_value_and_gradients_equal_those_of_keras(method, space, kernel):
    x, weights, cotangent = random(2, *space, 3), random(*kernel, 3, 2), random(2, *space, 2)
    results = []
    for function in (functools.partial(wide_convolution, method=method), lambda x, k: ops.conv(x, k, padding="same")):
        with tf.GradientTape() as tape:
            tape.watch([x, weights])
            y = function(x, weights)
        results.append([y, *tape.gradient(y, [x, weights], output_gradients=cotangent)])
    for ours, theirs in zip(*results, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5 * np.abs(theirs).max())


def test_sizes_may_be_unknown_while_tracing():
    weights = random(11, 11, 2, 3)

    @tf.function(input_signature=[tf.TensorSpec((None, None, None, 2))])
    def compute(x):
        return wide_convolution(x, weights)

    for shape in ((1, 9, 30, 2), (3, 14, 5, 2)):
        x = random(*shape)
        expected = ops.conv(x, weights, padding="same")
        np.testing.assert_allclose(compute(x), expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def test_the_layer_holds_the_weights_of_a_plain_convolution():
    wide, plain = WideConvolution(2, 21, use_bias=True), keras.layers.Conv2D(2, 21, padding="same")
    wide.build((None, None, None, 4))
    plain.build((None, None, None, 4))
    assert [(v.name, v.shape) for v in wide.variables] == [(v.name, v.shape) for v in plain.variables]
    wide.set_weights([w + 0.5 for w in plain.get_weights()])
    plain.set_weights(wide.get_weights())
    x = random(1, 24, 17, 4)
    np.testing.assert_allclose(wide(x), plain(x), rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize(
    ("size", "rank", "kind"),
    [(21, 2, WideConvolution), (21, 3, WideConvolution), (5, 2, keras.layers.Conv2D), (5, 3, keras.layers.Conv3D)],
)
def test_only_large_kernels_are_computed_otherwise(size, rank, kind):
    assert isinstance(Convolution(2, size, rank).conv, kind)


def test_three_axes_of_unknown_size_are_convolved_directly():
    weights = random(11, 11, 11, 2, 3)
    x = random(1, 6, 5, 4, 2)
    compute = tf.function(
        lambda x: wide_convolution(x, weights), input_signature=[tf.TensorSpec((None, None, None, None, 2))]
    )
    expected = ops.conv(x, weights, padding="same")
    np.testing.assert_allclose(compute(x), expected, rtol=0, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("method", ["fft", "rows"])
def test_half_precision_enters_and_leaves_but_is_not_computed_in(method):
    x, weights = (tf.cast(value, tf.bfloat16) for value in (random(1, 30, 25, 4), random(21, 21, 4, 2)))
    exact = ops.conv(*(tf.cast(value, tf.float32) for value in (x, weights)), padding="same")
    y = wide_convolution(x, weights, method)
    assert y.dtype == tf.bfloat16
    # Rounded once, at the end: half of the last of eight bits, and not the 1764 roundings of the sum.
    rounding = 2.0**-8 * np.abs(exact) + 1e-5 * np.abs(exact).max()
    assert (np.abs(tf.cast(y, tf.float32) - exact) <= rounding).all()
