"""The segmenter of HeMIS: a back-end per modality, mean and variance across them, a front-end."""

from typing import Literal

import keras
from keras import ops

from pimms_tf.models.layers import Average, Convolution, Init, Norm

Missing = Literal["exclude", "zeros"]
FrontendKind = Literal["paper", "paper_5x5", "highres_1x1"]


class Backend(keras.layers.Layer):
    """Two 5×5 convolutions to 48 features and a 2×2 max pool of stride 1; the size is kept.

    Call: x (b, *space, 1), optional `present` (b,) bool for the statistics → (b, *space, 48).
    The pool pads at the far end only, as TensorFlow's SAME does. With `recompute` training keeps nothing of the way
    from x to the result, and goes it again for the gradient. Source: paper §2.1; niftynet/contrib/hemis/hemis.py.
    """

    features = 48

    def __init__(
        self,
        spatial_rank: int = 2,
        norm: Norm = "batch",
        init: Init = "he_normal",
        average: Average = "debiased",
        regularised: bool = True,
        recompute: bool = False,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.recompute = recompute
        options = {"norm": norm, "init": init, "average": average, "regularised": regularised}
        self.conv_1 = Convolution(self.features, 5, spatial_rank, name="conv_1", **options)
        self.conv_2 = Convolution(self.features, 5, spatial_rank, name="conv_2", **options)
        pool = {2: keras.layers.MaxPooling2D, 3: keras.layers.MaxPooling3D}[spatial_rank]
        self.pool = pool(2, strides=1, padding="same", name="pool")

    def build(self, input_shape):
        self.conv_1.build(input_shape)
        self.conv_2.build((*input_shape[:-1], self.features))

    def call(self, x, present=None, training=False):
        def compute(x):
            y, first = self.conv_1.compute(x, present, training)
            y, second = self.conv_2.compute(y, present, training)
            return self.pool(y), first, second

        y, first, second = (keras.remat(compute) if training and self.recompute else compute)(x)
        self.conv_1.update(first)
        self.conv_2.update(second)
        return y


def in_turn(before, x):
    """Returns both as they are; in training, the gradient of `before` waits until that of `x` has been computed.

    For features and the input of the next back-end: back-ends that are computed again for the gradient then do so one
    after the other, and not all at once, each with the memory that it takes. TensorFlow alone starts whatever can be
    started; on other backends this does nothing.
    """
    return _in_turn(before, x) if keras.backend.backend() == "tensorflow" else (before, x)


@ops.custom_gradient
def _in_turn(before, x):
    def gradient(of_before, of_x):
        # Always 0, which TensorFlow does not know beforehand.
        nothing = ops.minimum(ops.abs(ops.ravel(of_x)[:1]), 0)
        return of_before + ops.cast(nothing, of_before.dtype), of_x

    return (before, x), gradient


class Abstraction(keras.layers.Layer):
    """Mean and variance of the features across modalities, means first.

    Call: features (b, *space, feature, modality), or a list of (b, *space, feature), one of each modality; available
    (b, modality) bool → (b, *space, 2 · feature).
    Nothing available gives zeros; a single modality has variance zero.

    Args:
        missing: "exclude" leaves missing modalities out of both moments, per subject (HeMIS); "zeros" counts them as
            zeros (released code).
        ddof: 0 for the population variance, 1 for the unbiased one.
    """

    def __init__(self, missing: Missing = "exclude", ddof: int = 0, **kwargs):
        super().__init__(**kwargs)
        self.missing = missing
        self.ddof = ddof

    def call(self, features, available):
        maps = features if isinstance(features, list | tuple) else ops.unstack(features, axis=-1)
        moments = _mean_and_variance(self.missing, self.ddof)(ops.cast(available, "float32"), *maps)
        return ops.cast(moments, self.compute_dtype)


def _mean_and_variance(missing, ddof):
    """Returns the function of weights (b, modality) and maps, one (b, *space, feature) of each modality."""

    def deviation(weight, values, mean):
        values = ops.cast(values, "float32")
        return weight * (values - mean) if missing == "exclude" else weight * values - mean

    @ops.custom_gradient
    def moments(weights, *maps):
        space = (1,) * (len(maps[0].shape) - 2)
        each = [ops.reshape(weights[:, m], (-1, *space, 1)) for m in range(len(maps))]
        count = sum(each) if missing == "exclude" else ops.full_like(each[0], len(maps))
        num, free = ops.maximum(count, 1.0), ops.maximum(count - ddof, 1.0)
        mean = sum(weight * ops.cast(values, "float32") for weight, values in zip(each, maps, strict=True)) / num
        squares = sum(ops.square(deviation(*pair, mean)) for pair in zip(each, maps, strict=True))

        def gradient(*arguments, upstream=None):
            (upstream,) = arguments if upstream is None else (upstream,)
            of_mean, of_variance = ops.split(upstream, 2, axis=-1)
            # Deviations sum to zero, so the variance does not change with the mean. They are computed again, because
            # kept until here they would be the largest thing in memory.
            of_mean, of_variance = of_mean / num, of_variance * (2.0 / free)
            of_maps = (
                weight * (of_mean + of_variance * deviation(weight, values, mean))
                for weight, values in zip(each, maps, strict=True)
            )
            return ops.zeros_like(weights), *(ops.cast(each, maps[0].dtype) for each in of_maps)

        return ops.concatenate([mean, squares / free], axis=-1), gradient

    return moments


class Frontend(keras.layers.Layer):
    """Two convolutions from the abstraction to class logits; the last normalisation acts on the logits.

    Call: x (b, *space, 96) → (b, *space, num_classes), without softmax.

    Args:
        kind: "paper", 5×5 to 16 features, ReLU, then 21×21; "paper_5x5", the same with a second 5×5 kernel
            (`HeMISFrontendBlock`); "highres_1x1", 1×1 to 80 features, PReLU, then 1×1 (`HighRes3dFrontendBlock`, which
            is what the released code ran).
    """

    def __init__(
        self,
        num_classes: int,
        kind: FrontendKind = "paper",
        spatial_rank: int = 2,
        norm: Norm = "batch",
        init: Init = "he_normal",
        average: Average = "debiased",
        regularised: bool = True,
        **kwargs,
    ):
        super().__init__(**kwargs)
        features, first, second, activation = {
            "paper": (16, 5, 21, "relu"),
            "paper_5x5": (16, 5, 5, "relu"),
            "highres_1x1": (80, 1, 1, "prelu"),
        }[kind]
        options = {"norm": norm, "init": init, "average": average, "regularised": regularised}
        self.conv_1 = Convolution(features, first, spatial_rank, activation=activation, name="conv_1", **options)
        self.conv_2 = Convolution(num_classes, second, spatial_rank, activation="none", name="conv_2", **options)

    def build(self, input_shape):
        self.conv_1.build(input_shape)
        self.conv_2.build(self.conv_1.compute_output_shape(input_shape))

    def call(self, x, training=False):
        return self.conv_2(self.conv_1(x, training=training), training=training)
