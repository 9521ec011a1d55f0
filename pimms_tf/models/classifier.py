"""The modality classifier: a pre-activation bottleneck ResNet that sees one scan at a time."""

from typing import Literal

import keras
from keras import ops

from pimms_tf.models.layers import Average, BatchNorm, Convolution, Init, kernel_initialiser

Pool = Literal["spatial", "spatial_and_channel"]


class Bottleneck(keras.layers.Layer):
    """Block of 1×1, 3×3, 1×1 convolutions with a shortcut; the first of a resolution projects and may halve the grid.

    Call: x (b, *space, in), optional `present` (b,) → (b, *space / stride, filters).
    Source: niftynet/network/resnet.py (`BottleneckBlock`), after He et al. 2016, identity mappings.
    """

    def __init__(self, filters, project, stride, spatial_rank, init, average, extra_bn, **kwargs):
        super().__init__(**kwargs)
        self.project = project

        def convolution(name, filters, kernel_size, stride=1, norm="batch", activation="relu"):
            return Convolution(
                filters,
                kernel_size,
                spatial_rank,
                stride,
                norm,
                activation,
                preactivation=True,
                init=init,
                average=average,
                use_bias=False,
                name=name,
            )

        width = filters // 4
        if project:
            norm = "batch" if extra_bn else "none"
            self.norm = BatchNorm(average, name="norm")
            self.reduce = convolution("reduce", width, 1, stride, norm, "none")
            self.shortcut = convolution("shortcut", filters, 1, stride, norm, "none")
        else:
            self.reduce = convolution("reduce", width, 1)
        self.convolve = convolution("convolve", width, 3)
        self.expand = convolution("expand", filters, 1)

    def build(self, input_shape):
        if self.project:
            self.norm.build(input_shape)
            self.shortcut.build(input_shape)
        for layer in (self.reduce, self.convolve, self.expand):
            layer.build(input_shape)
            input_shape = layer.compute_output_shape(input_shape)

    def call(self, x, present=None, training=False):
        state = {"present": present, "training": training}
        if self.project:
            x = ops.relu(self.norm(x, **state))
            shortcut = self.shortcut(x, **state)
        else:
            shortcut = x
        return shortcut + self.expand(self.convolve(self.reduce(x, **state), **state), **state)

    def compute_output_shape(self, input_shape):
        for layer in (self.reduce, self.convolve, self.expand):
            input_shape = layer.compute_output_shape(input_shape)
        return input_shape


class ModalityClassifier(keras.layers.Layer):
    """Scores one scan's modality.

    Call: x (b, *space, 1), optional `present` (b,) bool (rows that are False do not enter the normalisation statistics)
    → logits (b, modality), without softmax.

    Args:
        num_modalities: classes M, the null class included if there is one.
        features: widths of the stem and of the three resolutions.
        num_blocks: blocks per resolution; the paper and the offline classifier of the released code have 9, its online
            one 10.
        pool: "spatial" is the usual global average; "spatial_and_channel" averages channels away too and leaves one
            number per scan, as the 2-D code that produced the paper's numbers does.
        head_bn: batch normalisation of the logits, always with moving statistics (released offline classifier).
        extra_bn: normalisation of the input and before the two strided 1×1 convolutions of a projection block (released
            code with `with_bn=True`).
        average: see `BatchNorm`; the logits' is NiftyNet's in any case.
    Source: paper §2.2; niftynet/contrib/midl/resnet_plugin.py and niftynet/contrib/hemis_midl/resnet_plugin.py.
    """

    def __init__(
        self,
        num_modalities: int,
        features: tuple[int, ...] = (16, 64, 128, 256),
        num_blocks: int = 9,
        spatial_rank: int = 2,
        pool: Pool = "spatial",
        head_bn: bool = False,
        extra_bn: bool = False,
        init: Init = "he_normal",
        average: Average = "debiased",
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.spatial_rank = spatial_rank
        self.pool = pool
        self.stem = Convolution(
            features[0],
            3,
            spatial_rank,
            norm="batch" if extra_bn else "none",
            activation="none",
            preactivation=True,
            init=init,
            average=average,
            use_bias=False,
            name="stem",
        )
        self.blocks = []
        widths = zip(features, features[1:], strict=False)
        for resolution, (num_in, num_out) in enumerate(widths, start=1):
            for block in range(num_blocks):
                stride = 2 if resolution > 1 and block == 0 else 1
                project = block == 0 and num_in != num_out
                name = f"resolution_{resolution}_block_{block}"
                self.blocks.append(
                    Bottleneck(num_out, project, stride, spatial_rank, init, average, extra_bn, name=name)
                )
        self.norm = BatchNorm(average, name="norm")
        self.head = keras.layers.Dense(num_modalities, kernel_initializer=kernel_initialiser(init), name="head")
        self.head_norm = BatchNorm(statistics="moving", name="head_norm") if head_bn else None

    def build(self, input_shape):
        for layer in (self.stem, *self.blocks):
            layer.build(input_shape)
            input_shape = layer.compute_output_shape(input_shape)
        self.norm.build(input_shape)
        self.head.build((None, input_shape[-1] if self.pool == "spatial" else 1))
        if self.head_norm is not None:
            self.head_norm.build((None, self.head.units))

    def call(self, x, present=None, training=False):
        state = {"present": present, "training": training}
        x = self.stem(x, **state)
        for block in self.blocks:
            x = block(x, **state)
        x = ops.relu(self.norm(x, **state))
        space = tuple(range(1, self.spatial_rank + 1))
        x = ops.mean(x, space) if self.pool == "spatial" else ops.mean(x, (*space, -1))[:, None]
        logits = self.head(x)
        return logits if self.head_norm is None else self.head_norm(logits, **state)
