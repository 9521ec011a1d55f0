"""The segmenter of HeMIS as it is commonly written: stock Keras layers, nothing regrouped, nothing left out.

What the benchmarks compare with. The structure is that of `pimms_tf.models.build_model("hemis", …)` with the preset
"paper": the same kernels, the same normalisation, the same moments across modalities, so weights can be copied.
"""

import keras
from keras import layers, ops


def _convolution(x, filters: int, kernel_size: int, name: str, relu: bool = True):
    x = layers.Conv2D(filters, kernel_size, padding="same", use_bias=False, name=f"{name}_conv")(x)
    x = layers.BatchNormalization(momentum=0.9, epsilon=1e-5, name=f"{name}_norm")(x)
    return layers.ReLU(name=f"{name}_relu")(x) if relu else x


def plain_hemis(num_modalities: int, num_classes: int) -> keras.Model:
    """Returns a model from scans (b, x, y, modality) to logits (b, x, y, class), of plain Keras layers.

    Per modality two 5×5 convolutions to 48 features and a 2×2 max pool of stride 1; mean and population variance across
    the modalities, all of which are taken to be there; a 5×5 convolution to 16 features and a 21×21 one to the classes.
    Each convolution is followed by batch normalisation, all but the last by ReLU.
    """
    scans = keras.Input((None, None, num_modalities), name="scans")
    features = []
    for modality in range(num_modalities):
        x = scans[..., modality : modality + 1]
        x = _convolution(x, 48, 5, f"backend_{modality}_conv_1")
        x = _convolution(x, 48, 5, f"backend_{modality}_conv_2")
        features.append(layers.MaxPooling2D(2, strides=1, padding="same", name=f"backend_{modality}_pool")(x))
    stacked = ops.stack(features, axis=-1)  # (b, x, y, feature, modality)
    moments = ops.concatenate([ops.mean(stacked, axis=-1), ops.var(stacked, axis=-1)], axis=-1)
    x = _convolution(moments, 16, 5, "frontend_conv_1")
    logits = _convolution(x, num_classes, 21, "frontend_conv_2", relu=False)
    return keras.Model(scans, logits, name="plain_hemis")


def copy_weights(model: keras.Model, plain: keras.Model) -> None:
    """Gives a plain model the weights of a built `pimms_tf.models.PIMMS` of the same structure.

    Raises:
        ValueError: a weight that the other model has no equal for, by name and shape.
    """
    ours = {variable.path: variable for variable in model.variables}
    taken = set()
    for variable in plain.variables:
        layer, name = variable.path.split("/")[-2:]
        part, conv, number, kind = layer.rsplit("_", 3)  # backend_0, conv, 1, norm
        path = next((path for path in ours if path.endswith(f"{part}/{conv}_{number}/{kind}/{name}")), None)
        if path is None or ours[path].shape != variable.shape:
            raise ValueError(f"{variable.path} {variable.shape} has no equal in {model.name}")
        variable.assign(ours[path])
        taken.add(path)
    left = [path for path in ours if path not in taken and not path.endswith("/unseen")]
    if left:
        raise ValueError(f"{plain.name} has no place for {', '.join(left)}")
