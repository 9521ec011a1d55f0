"""Convolution with a large kernel and few output channels, as the paper's 21×21 front-end has."""

from typing import Literal

import keras
from keras import ops

Method = Literal["auto", "fft", "rows", "direct"]


def wide_convolution(x, kernel, method: Method = "auto"):
    """Returns the zero-padded (SAME) convolution (b, *space, out) of `x` (b, *space, in) by `kernel` (*size, in, out).

    The values are those of `keras.ops.conv` up to rounding (a relative 1e-6), computed in float32 whatever the inputs
    are. A direct convolution with few output channels leaves most of a vector unit idle, in its kernel gradient above
    all, so the work is laid out otherwise:

    - "fft": as a product of spectra. Needs a known size of `space`.
    - "rows": as a convolution along the last axes whose output channels are the rows of the kernel, which are then
      shifted along the first axis and added. For two axes and any size.
    - "direct": as `keras.ops.conv` does it.
    - "auto": "fft" if the size is known, on processors the fastest (benchmarks/wide_convolution.py), else "rows", or
      for three axes "direct".
    """
    dtype = x.dtype
    x, kernel = ops.cast(x, "float32"), ops.cast(kernel, "float32")
    sizes = x.shape[1:-1]
    if method == "auto":
        method = "fft" if None not in sizes else "rows" if len(sizes) == 2 else "direct"
    compute = {"fft": _by_spectra, "rows": _by_rows, "direct": lambda x, k: ops.conv(x, k, padding="same")}[method]
    return ops.cast(compute(x, kernel), dtype)


def _by_rows(x, kernel):
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
    summed = ops.sum(partial, axis=3)[..., :size_x]  # (b, y, out, x)
    return ops.transpose(summed, (0, 3, 1, 2))


def _by_spectra(x, kernel):
    sizes, widths = x.shape[1:-1], kernel.shape[:-2]
    rank, num_out = len(sizes), kernel.shape[-1]
    lengths = [_smooth(size + width - 1) for size, width in zip(sizes, widths, strict=True)]
    channels_first = (0, rank + 1, *range(1, rank + 1))
    re, im = _spectrum(ops.transpose(x, channels_first), lengths)  # (b, in, *frequency)
    kernel = ops.flip(kernel, axis=tuple(range(rank)))
    kernel_re, kernel_im = _spectrum(ops.transpose(kernel, (rank, rank + 1, *range(rank))), lengths)
    # A complex product as a real one: (re, im) of x times the blocks (re, im; -im, re) of the kernel.
    scans = ops.concatenate([re, im], axis=1)
    blocks = ops.concatenate(
        [ops.concatenate([kernel_re, kernel_im], axis=1), ops.concatenate([-kernel_im, kernel_re], axis=1)], axis=0
    )
    product = ops.einsum("bi...,io...->bo...", scans, blocks)
    re, im = product[:, :num_out], product[:, num_out:]
    windows = [(width // 2, size) for size, width in zip(sizes, widths, strict=True)]
    y = _signal(re, im, lengths, windows)
    return ops.transpose(y, (0, *range(2, rank + 2), 1))


def _spectrum(x, lengths):
    """(…, *space) → real and imaginary parts of its spectrum; the axes of frequency are in reverse order."""
    re, im = ops.rfft(x, lengths[-1])
    first = x.ndim - len(lengths)
    for length in reversed(lengths[:-1]):
        re, im = (ops.moveaxis(part, -1, first) for part in (re, im))  # the next axis of space comes last
        missing = [(0, 0)] * (re.ndim - 1) + [(0, length - re.shape[-1])]
        re, im = ops.fft((ops.pad(re, missing), ops.pad(im, missing)))
    return re, im


def _signal(re, im, lengths, windows):
    """The inverse of `_spectrum`, of which only `windows`, (start, size) along each axis of space, are returned."""
    first = re.ndim - len(lengths)
    for length, (start, size) in zip(lengths[:-1], windows[:-1], strict=True):
        re, im = ops.fft((re, -im))  # conjugate before and after: the inverse transform
        re, im = re[..., start : start + size] / length, im[..., start : start + size] / -length
        re, im = (ops.moveaxis(part, first, -1) for part in (re, im))
    start, size = windows[-1]
    return ops.irfft((re, im), lengths[-1])[..., start : start + size]


def _smooth(length: int) -> int:
    """The next length that is a product of 2, 3 and 5, for which fast transforms are fast."""
    while True:
        rest = length
        for factor in (2, 3, 5):
            while rest % factor == 0:
                rest //= factor
        if rest == 1:
            return length
        length += 1


class WideConvolution(keras.layers.Layer):
    """Stride-1 zero-padded convolution for large kernels; its weights are those of `keras.layers.Conv2D` or `Conv3D`.

    Call: (b, *space, in) → (b, *space, filters). `method` as in `wide_convolution`; outside training "auto" is "rows"
    for two axes.
    """

    def __init__(
        self,
        filters: int,
        kernel_size: int,
        spatial_rank: int = 2,
        kernel_initializer="he_normal",
        use_bias: bool = False,
        method: Method = "auto",
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.filters = filters
        self.kernel_size = (kernel_size,) * spatial_rank
        self.method = method
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.use_bias = use_bias

    def build(self, input_shape):
        shape = (*self.kernel_size, input_shape[-1], self.filters)
        self.kernel = self.add_weight(name="kernel", shape=shape, initializer=self.kernel_initializer)
        self.bias = self.add_weight(name="bias", shape=(self.filters,), initializer="zeros") if self.use_bias else None

    def call(self, inputs, training=False):
        method = self.method
        if method == "auto" and not training and len(self.kernel_size) == 2:
            method = "rows"  # as an export with open sizes computes it, so that both give the same
        outputs = wide_convolution(inputs, ops.convert_to_tensor(self.kernel), method)
        return outputs if self.bias is None else outputs + self.bias

    def compute_output_shape(self, input_shape):
        return (*input_shape[:-1], self.filters)
