"""Re-assembly: scans and modality scores → one channel per modality."""

from typing import Literal

import keras
from keras import ops

from pimms_tf.models.order import by_content

Kind = Literal["label", "soft", "hard"]
Normalise = Literal["none", "sum", "count"]

# Summed in double precision and rounded once, so that in training, too, the order of the scans hardly ever shows. JAX
# has no double precision unless it is switched on.
_SUM_DTYPE = "float32" if keras.backend.backend() == "jax" else "float64"


class Attention(keras.layers.Layer):
    """Mixes the scans of each subject into modality slots by their scores.

    Call: scans (b, *space, scan), scores (b, scan, modality), valid (b, scan) bool → (b, *space, modality).
    Scans that are not valid have no weight. A modality that no scan claims is zero everywhere. Outside training sums
    run in the order of `by_content`, so that of the scans changes no bit.

    Args:
        kind: "soft" weighs by the scores (paper eq. 1); "hard" gives each scan wholly to its best modality, the first
            of equals (eq. 2); "label" takes the scores as one-hot labels (HeMIS).
        normalise: "none", the paper's sum, so that two scans of one modality add up; "sum" divides by the weights' sum
            (released code, niftynet/contrib/hemis_midl/hemis.py); "count" divides by the number of scans a modality
            got, which averages duplicates (hard and label only differ from "sum" in name).
    """

    # Keeps 0/0 from a NaN. A modality that all scans together claim with less fades to zero.
    epsilon = 1e-6

    def __init__(self, kind: Kind, normalise: Normalise = "none", **kwargs):
        super().__init__(**kwargs)
        self.kind = kind
        self.normalise = normalise

    def call(self, scans, scores, valid, training=False):
        axes = "b...n"
        if not training:
            scans, valid, scores, _ = by_content(scans, valid, scores)
            axes = "bn..."
        weights = scores
        if self.kind == "hard":
            # Of whole numbers, since Keras looks at the bits of floats for a -0 first, which ONNX cannot.
            is_best = ops.cast(ops.equal(scores, ops.max(scores, axis=-1, keepdims=True)), "int32")
            weights = ops.one_hot(ops.argmax(is_best, axis=-1), scores.shape[-1], dtype=scores.dtype)
        weights = ops.cast(weights, _SUM_DTYPE) * ops.cast(valid, _SUM_DTYPE)[..., None]
        mixed = ops.einsum(f"{axes},bnm->b...m", ops.cast(scans, _SUM_DTYPE), weights)
        if self.normalise != "none":
            total = ops.sum(weights if self.normalise == "sum" else ops.cast(weights > 0, _SUM_DTYPE), axis=1)
            shape = (-1,) + (1,) * (len(scans.shape) - 2) + (total.shape[-1],)
            mixed = mixed / ops.reshape(ops.maximum(total, self.epsilon), shape)  # (b, 1…, modality)
        return ops.cast(mixed, scans.dtype)
