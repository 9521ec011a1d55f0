"""NiftyNet's building blocks: batch normalisation, convolution + normalisation + activation, its initialiser."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Literal

import keras
from keras import ops

from pimms_tf.models.wide import WideConvolution

Init = Literal["he_normal", "niftynet"]
Norm = Literal["batch", "none"]
Activation = Literal["relu", "prelu", "none"]
Average = Literal["debiased", "plain"]
Statistics = Literal["batch", "moving"]

# Kernels at least this wide are regrouped (see wide.py); below, the direct convolution is as fast.
_WIDE = 11

_PLAIN = (keras.layers.Conv2D, keras.layers.Conv3D)

_gather: ContextVar[Callable | None] = ContextVar("gather", default=None)  # see `sharing_statistics`


def kernel_initialiser(init: Init) -> keras.initializers.Initializer:
    """Returns a truncated normal with standard deviation √(2 / fan_in), "he_normal", or NiftyNet's narrower one.

    "niftynet" draws from a normal of σ = √(2 / fan_in) cut at 2σ without correcting for the cut, so its standard
    deviation is 0.8796 of the other. Source: niftynet/layer/convolution.py (`default_w_initializer`).
    """
    scale = {"he_normal": 2.0, "niftynet": 2.0 * 0.87962566103423978**2}[init]
    return keras.initializers.VarianceScaling(scale=scale, mode="fan_in", distribution="truncated_normal")


class BatchNorm(keras.layers.Layer):
    """Batch normalisation over all axes but the last, with NiftyNet's constants (ε 1e-5, decay 0.9).

    Call: x (b, *space, channel), optional `present` (b,) bool: rows that are False do not enter the statistics;
    training without any present row leaves the moving statistics as they are.

    Args:
        average: "debiased" divides the moving averages by 1 - decayᵗ (TF1's zero debias, NiftyNet's `BNLayer`; after
            one update they equal the batch's moments); "plain" is tf.contrib's (and Keras's) average.
        statistics: "moving" normalises with the moving statistics even in training, while still updating them;
            NiftyNet's `FullyConnectedLayer` called without `is_training` does so.
    Source: niftynet/layer/bn.py.
    """

    decay = 0.9
    epsilon = 1e-5

    def __init__(self, average: Average = "debiased", statistics: Statistics = "batch", **kwargs):
        super().__init__(**kwargs)
        self.average = average
        self.statistics = statistics

    def build(self, input_shape):
        shape = (input_shape[-1],)
        self.gamma = self.add_weight(name="gamma", shape=shape, initializer="ones", autocast=False)
        self.beta = self.add_weight(name="beta", shape=shape, initializer="zeros", autocast=False)
        frozen = {"shape": shape, "trainable": False, "dtype": "float32", "autocast": False}
        self.moving_mean = self.add_weight(name="moving_mean", initializer="zeros", **frozen)
        self.moving_variance = self.add_weight(name="moving_variance", initializer="ones", **frozen)
        if self.average == "debiased":
            # The weight that the starting values still carry: decayᵗ after t updates, so 1 before the first.
            self.unseen = self.add_weight(
                name="unseen", shape=(), initializer="ones", trainable=False, dtype="float32", autocast=False
            )

    def call(self, x, present=None, training=False):
        y, moments = self.compute(x, present, training)
        self.update(moments)
        return y

    def compute(self, x, present, training):
        """Returns the normalised x and what `update` wants to know, () outside training."""
        # In float32 also where x is half as precise: the shift may be many times what is left of x.
        x = ops.cast(x, "float32")
        if not training:
            scale, shift = self.scale_and_shift()
            return ops.cast(x * scale + shift, self.compute_dtype), ()
        (gamma, beta), moving = self._trained(), self._moving()
        by_itself = gather_over_replicas() is None and self.statistics == "batch"
        weight, count = _rows(x, present)
        mean, variance, some_row = self._moments(ops.stop_gradient(x) if by_itself else x, weight, count, moving)
        moments = tuple(map(ops.stop_gradient, (mean, variance, some_row)))
        seen = self._mean_and_inverse(moving if self.statistics == "moving" else (mean, variance))
        if by_itself:
            y = _normalised(x, gamma, beta, *seen, ops.reshape(weight / count, (-1, *(1,) * (x.ndim - 1))))
        else:
            y = _scaled(x, gamma, beta, *seen)
        return ops.cast(y, self.compute_dtype), moments

    def scale_and_shift(self):
        """What inference multiplies x by, and adds to that: (channel,) float32 each."""
        return _scale_and_shift(*self._trained(), *self._mean_and_inverse(self._moving()))

    def _trained(self):
        return tuple(ops.cast(ops.convert_to_tensor(weight), "float32") for weight in (self.gamma, self.beta))

    def _moving(self):
        return ops.convert_to_tensor(self.moving_mean), ops.convert_to_tensor(self.moving_variance)

    def _mean_and_inverse(self, moments):
        mean, variance = moments
        return mean, ops.rsqrt(variance + self.epsilon)

    def update(self, moments):
        """Moves the moving statistics towards those of a training step."""
        if not moments:
            return
        mean, variance, some_row = moments
        rate = 1.0 - self.decay
        if self.average == "debiased":
            before = ops.convert_to_tensor(self.unseen)
            after = self.decay * before
            rate = rate / (1.0 - after)
            self.unseen.assign(ops.where(some_row > 0, after, before))
        rate = ops.where(some_row > 0, rate, 0.0)
        for moving, value in ((self.moving_mean, mean), (self.moving_variance, variance)):
            moving.assign(moving + rate * (value - moving))

    def _moments(self, x, weight, count, moving):
        space = tuple(range(1, x.ndim - 1))
        mean = ops.matmul(weight, ops.sum(x, space) if space else x) / count
        squares = ops.square(x - mean)
        variance = ops.matmul(weight, ops.sum(squares, space) if space else squares) / count
        num_rows = ops.sum(weight)
        if (gather := gather_over_replicas()) is not None:
            count = num_rows * count / ops.maximum(num_rows, 1.0)
            mean, variance, num_rows = self._pooled(gather, mean, variance, count)
        # No row at all: moments of nothing are undefined, and must neither reach the output nor the averages.
        any_row = num_rows > 0
        mean, variance = ops.where(any_row, mean, moving[0]), ops.where(any_row, variance, moving[1])
        return mean, variance, ops.cast(any_row, "float32")

    def _pooled(self, gather, mean, variance, count):
        # Variance within the replicas plus variance of their means; sums of squares would lose what the mean outweighs.
        parts = gather(ops.concatenate([mean, variance, ops.reshape(count, (1,))]))  # (replica, 2 · channel + 1)
        channels = mean.shape[0]
        means, variances, counts = parts[:, :channels], parts[:, channels:-1], parts[:, -1:]
        share = counts / ops.maximum(ops.sum(counts), 1.0)
        mean = ops.sum(share * means, axis=0)
        variance = ops.sum(share * (variances + ops.square(means - mean)), axis=0)
        return mean, variance, ops.sum(counts)

    def compute_output_shape(self, input_shape):
        return input_shape


def _rows(x, present):
    """The weight of each row (b,) in the statistics, and how many numbers of a channel these are made of."""
    weight = ops.ones_like(x[(slice(None), *(0,) * (x.ndim - 1))]) if present is None else ops.cast(present, "float32")
    per_row = 1
    for axis in range(1, x.ndim - 1):
        per_row = per_row * ops.shape(x)[axis]
    return weight, ops.maximum(ops.sum(weight), 1.0) * ops.cast(per_row, "float32")


def _scale_and_shift(gamma, beta, mean, inverse):
    scale = gamma * inverse
    return scale, beta - mean * scale


def _scaled(x, gamma, beta, mean, inverse):
    scale, shift = _scale_and_shift(gamma, beta, mean, inverse)
    return x * scale + shift


@ops.custom_gradient
def _normalised(x, gamma, beta, mean, inverse, share):
    """Returns `_scaled`, where the rows of x (b, …) made mean and inverse, 1 / deviation, by their share (b, 1…).

    The gradient knows that they did. Left to automatic differentiation it takes three times the passes over memory.
    """

    def gradient(*arguments, upstream=None):
        (upstream,) = arguments if upstream is None else (upstream,)
        axes = tuple(range(x.ndim - 1))
        centred = x - mean
        of_beta = ops.sum(upstream, axes)
        of_gamma = ops.sum(upstream * centred, axes) * inverse
        of_x = gamma * inverse * (upstream - share * (of_beta + centred * (of_gamma * inverse)))
        return of_x, of_gamma, of_beta, *(ops.zeros_like(constant) for constant in (mean, inverse, share))

    return _scaled(x, gamma, beta, mean, inverse), gradient


class PReLU(keras.layers.PReLU):
    """x where it is positive and slope · x elsewhere, one slope for each channel; at 0 the derivative is slope / 2.

    Call: x (b, *space, channel) → the same shape.
    Source: niftynet/layer/activation.py (`prelu`), relu(x) + slope · (x - |x|) / 2, where TensorFlow derives |x| by 0.
    """

    def __init__(self, spatial_rank: int = 2, **kwargs):
        super().__init__(shared_axes=list(range(1, spatial_rank + 1)), **kwargs)

    def call(self, inputs):
        return _prelu(inputs, ops.cast(ops.convert_to_tensor(self.alpha), inputs.dtype))


@ops.custom_gradient
def _prelu(x, slope):
    """Returns what `PReLU` does, slope being (1…, channel); keeps x alone for the gradient."""

    def gradient(*arguments, upstream=None):
        (upstream,) = arguments if upstream is None else (upstream,)
        of_slope = ops.sum(upstream * ops.minimum(x, 0), tuple(range(x.ndim - 1)), keepdims=True)
        # Adds 0, for the rest to begin when the products above, as large as x, are gone from memory.
        after = slope + ops.minimum(ops.abs(of_slope), 0)
        below = after * ops.where(x < 0, ops.ones_like(slope), ops.full_like(slope, 0.5))
        of_x = upstream * ops.where(x > 0, ops.ones_like(slope), below)
        return of_x, ops.reshape(of_slope, ops.shape(slope))

    return ops.where(x > 0, x, slope * x), gradient


class Convolution(keras.layers.Layer):
    """Zero-padded convolution, then normalisation, then activation; in the opposite order with `preactivation`.

    Call: x (b, *space, in), optional `present` (b,) bool for the statistics → (b, *space, filters).

    Args:
        norm: "none" gives the convolution a bias instead.
        regularised: whether `regularised_variables` lists this layer's kernel, γ, β and PReLU slopes, as NiftyNet does
            for a layer that was handed a regulariser.
    Source: niftynet/layer/convolution.py (`ConvolutionalLayer`).
    """

    def __init__(
        self,
        filters: int,
        kernel_size: int,
        spatial_rank: int = 2,
        stride: int = 1,
        norm: Norm = "batch",
        activation: Activation = "relu",
        preactivation: bool = False,
        init: Init = "he_normal",
        average: Average = "debiased",
        use_bias: bool | None = None,
        regularised: bool = True,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.filters = filters
        self.preactivation = preactivation
        self.activation = activation
        self.regularised = regularised
        use_bias = norm == "none" if use_bias is None else use_bias
        # A strided 1×1 convolution reads one voxel in `stride` per axis. Taking those first is the same and keeps clear
        # of TensorFlow 2.21's AVX-512 kernel gradient, which overruns its memory unless the input channels are a
        # multiple of 16.
        self.step, stride = (stride, 1) if kernel_size == 1 else (1, stride)
        if kernel_size >= _WIDE and stride == 1:
            initialiser = kernel_initialiser(init)
            self.conv = WideConvolution(filters, kernel_size, spatial_rank, initialiser, use_bias, name="conv")
        else:
            conv = {2: keras.layers.Conv2D, 3: keras.layers.Conv3D}[spatial_rank]
            self.conv = conv(
                filters,
                kernel_size,
                strides=stride,
                padding="same",
                use_bias=use_bias,
                kernel_initializer=kernel_initialiser(init),
                name="conv",
            )
        self.norm = BatchNorm(average, name="norm") if norm == "batch" else None
        self.prelu = None
        if activation == "prelu":
            self.prelu = PReLU(spatial_rank, name="prelu")

    def build(self, input_shape):
        self.conv.build(input_shape)
        normalised = input_shape if self.preactivation else self.compute_output_shape(input_shape)
        for layer in (self.norm, self.prelu):
            if layer is not None:
                layer.build(normalised)

    def call(self, x, present=None, training=False):
        y, moments = self.compute(x, present, training)
        self.update(moments)
        return y

    def compute(self, x, present, training):
        """Returns what `call` does and what `update` wants to know, () if nothing."""
        moments = ()
        if self._folds(training):
            x = self._convolve_and_normalise(x)
        else:
            x = x if self.preactivation else self._convolve(x)
            if self.norm is not None:
                x, moments = self.norm.compute(x, present, training)
        if self.prelu is not None:
            x = self.prelu(x)
        elif self.activation == "relu":
            x = ops.relu(x)
        return self._convolve(x) if self.preactivation else x, moments

    def update(self, moments):
        if self.norm is not None:
            self.norm.update(moments)

    def _folds(self, training):
        """Whether normalisation is part of the convolution: at inference in bfloat16, where passes over memory of their
        own take a seventh of the time. Float32 keeps to the order of operations of training."""
        if training or self.preactivation or self.norm is None or not isinstance(self.conv, _PLAIN):
            return False
        return self.conv.compute_dtype == self.norm.compute_dtype == "bfloat16" and not self.conv.use_bias

    def _convolve_and_normalise(self, x):
        scale, shift = self.norm.scale_and_shift()
        dtype = self.conv.compute_dtype
        # Within the layer's autocast the kernel is rounded before it is scaled, and once more after.
        kernel = ops.cast(ops.cast(ops.convert_to_tensor(self.conv.kernel), "float32") * scale, dtype)
        y = ops.conv(self._stepped(ops.cast(x, dtype)), kernel, strides=self.conv.strides, padding="same")
        return y + ops.cast(shift, dtype)

    def _stepped(self, x):
        if self.step > 1:
            x = x[(slice(None), *(slice(None, None, self.step),) * (x.ndim - 2))]
        return x

    def _convolve(self, x):
        return self.conv(self._stepped(x))

    def compute_output_shape(self, input_shape):
        batch, *space, num_in = input_shape
        space = [None if size is None else -(-size // self.step) for size in space]
        return self.conv.compute_output_shape((batch, *space, num_in))


def layers_of(layer: keras.layers.Layer) -> list[keras.layers.Layer]:
    """Returns a layer and all layers inside it, at whatever depth.

    Keras lists the layers of a model, but not those of a layer, under a public name; this is the one place that asks
    for them by the other.
    """
    return list(layer._flatten_layers())


def regularised_variables(model: keras.layers.Layer) -> list[keras.Variable]:
    """Returns the variables under weight decay: kernels, γ, β and PReLU slopes of every `regularised` Convolution.

    Stand-alone normalisations, fully connected layers and biases are not among them. Source: training.md §3 of the
    specification, after NiftyNet's `ConvolutionalLayer`, which hands its regulariser to these four and to nothing else.
    """
    found = []
    for layer in layers_of(model):
        if isinstance(layer, Convolution) and layer.regularised:
            found.append(layer.conv.kernel)
            if layer.norm is not None:
                found += [layer.norm.gamma, layer.norm.beta]
            if layer.prelu is not None:
                found.append(layer.prelu.alpha)
    return found


@contextmanager
def sharing_statistics(gather: Callable | None) -> Iterator[None]:
    """Inside, the statistics of a training step are those of all replicas' rows together.

    `gather` takes a float32 tensor, one on each replica, and returns all of them, stacked (replica, …), with gradients;
    None: this one sees the whole batch, as it does outside.
    """
    before = _gather.set(gather)
    try:
        yield
    finally:
        _gather.reset(before)


def gather_over_replicas() -> Callable | None:
    """What `sharing_statistics` was given, None outside."""
    return _gather.get()
