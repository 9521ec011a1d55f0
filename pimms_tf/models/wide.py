"""Convolution with a large kernel and few output channels, as the paper's 21×21 front-end has."""

import keras
from keras import ops


def wide_convolution(x, kernel):
    """Returns the zero-padded (SAME) convolution of `x` (b, x, y, in) with `kernel` (kx, ky, in, out): (b, x, y, out).

    The products are those of `keras.ops.conv`, grouped otherwise: one convolution along y yields the partial sums of
    all kx kernel rows as channels, which are then shifted along x and added. With two output channels a direct
    convolution leaves most of the vector unit idle, in its kernel gradient above all; here the matrix products are kx ·
    out wide.
    """
    kx, ky, num_in, num_out = kernel.shape
    rows = ops.reshape(ops.transpose(kernel, (1, 2, 3, 0)), (1, ky, num_in, num_out * kx))
    partial = ops.conv(x, rows, padding="same")
    batch, size_x, size_y = ops.shape(partial)[:3]
    partial = ops.reshape(partial, (batch, size_x, size_y, num_out, kx))
    partial = ops.transpose(partial, (0, 2, 3, 4, 1))  # (b, y, out, kx, x)
    # Kernel row i contributes at x - i + (kx - 1) // 2. Reading rows of length w + 1 out of memory laid out in rows of
    # length w moves row i by i places, so the shift costs one copy instead of kx slices (and kx pads in the gradient).
    before = (kx - 1) // 2
    partial = ops.pad(partial, ((0, 0), (0, 0), (0, 0), (0, 0), (before, kx - before)))
    width = size_x + kx
    partial = ops.reshape(partial, (batch, size_y, num_out, kx * width))
    partial = ops.pad(partial, ((0, 0), (0, 0), (0, 0), (0, kx)))
    partial = ops.reshape(partial, (batch, size_y, num_out, kx, width + 1))
    summed = ops.sum(partial[..., :size_x], axis=3)  # (b, y, out, x)
    return ops.transpose(summed, (0, 3, 1, 2))


class WideConvolution(keras.layers.Layer):
    """Stride-1 zero-padded 2-D convolution for large kernels; its weights are those of `keras.layers.Conv2D`.

    Call: (b, x, y, in) → (b, x, y, filters).
    """

    def __init__(self, filters, kernel_size, kernel_initializer="he_normal", use_bias=False, **kwargs):
        super().__init__(**kwargs)
        self.filters = filters
        self.kernel_size = kernel_size
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.use_bias = use_bias

    def build(self, input_shape):
        shape = (self.kernel_size, self.kernel_size, input_shape[-1], self.filters)
        self.kernel = self.add_weight(name="kernel", shape=shape, initializer=self.kernel_initializer)
        self.bias = self.add_weight(name="bias", shape=(self.filters,), initializer="zeros") if self.use_bias else None

    def call(self, inputs):
        outputs = wide_convolution(inputs, ops.convert_to_tensor(self.kernel))
        return outputs if self.bias is None else outputs + self.bias

    def compute_output_shape(self, input_shape):
        return (*input_shape[:-1], self.filters)
