"""What training minimises: NiftyNet's segmentation losses, the modality cross-entropy and the weight penalty.

Every loss is a function `(logits, label, weight=None) -> scalar`. As in NiftyNet each subject of the batch is scored on
its own voxels and the batch averaged afterwards, so a large lesion in one subject does not hide a small one in another.

    logits  (b, *space, class)                 float
    label   (b, *space) or (b, *space, 1)      class numbers; the `_Dense` losses take (b, *space, class) shares instead
    weight  (b, *space) or (b, *space, 1)      importance of each voxel, at least 0; None means equal importance

The default `softmax=True` turns logits into probabilities first. For a network that already ends in a softmax pass
`softmax=False`; the cross-entropies, which need logits, then want `ops.log(probabilities)`. The 2018 code gave
probabilities to losses that apply a softmax of their own: `make_loss(..., double_softmax=True)`.
"""

from collections.abc import Iterable
from functools import partial
from typing import Any, Literal, Protocol

from keras import ops

from pimms_tf.errors import InputError

Tensor = Any  # a backend tensor; Keras exports no common type
Epsilon = Literal["both", "denominator"]

_EPSILON = 1e-5
_SPECIFICITY_SHARE = 0.05

# Distance between the five BRATS classes on their tree (background; four tumour tissues), Fidon et al. 2017.
_CLASS_DISTANCE = (
    (0.0, 1.0, 1.0, 1.0, 1.0),
    (1.0, 0.0, 0.6, 0.2, 0.5),
    (1.0, 0.6, 0.0, 0.6, 0.7),
    (1.0, 0.2, 0.6, 0.0, 0.5),
    (1.0, 0.5, 0.7, 0.5, 0.0),
)


class Loss(Protocol):
    """Scalar float32 loss of `logits` against `label`; shapes in the module's first lines."""

    def __call__(self, logits: Tensor, label: Tensor, weight: Tensor | None = None) -> Tensor: ...


def cross_entropy(logits: Tensor, label: Tensor, weight: Tensor | None = None, *, softmax: bool = True) -> Tensor:
    """Mean of -log p(true class) over voxels, weighted if asked; at least 0, and 0 where all weights are 0.

    `softmax` is accepted for the sake of one signature and changes nothing: NiftyNet's cross-entropies always apply it.

    Source: niftynet/layer/loss_segmentation.py `cross_entropy`.
    """
    values = _voxels(logits)
    entropy = ops.sparse_categorical_crossentropy(_class_numbers(label, values), values, from_logits=True)
    if weight is None:
        return ops.mean(entropy)
    weight = _voxel_weights(weight, entropy)
    total = ops.maximum(ops.sum(weight, axis=1), 1e-6)
    return ops.mean(ops.einsum("bv,bv->b", entropy, weight) / total)


def cross_entropy_dense(logits: Tensor, label: Tensor, weight: Tensor | None = None, *, softmax: bool = True) -> Tensor:
    """Mean of -Σ_c label_c log p_c over voxels, for labels that are shares of classes (b, *space, class).

    `softmax` changes nothing, as in `cross_entropy`.

    Raises:
        ValueError: a weight map was given, which this loss does not define.
    Source: niftynet/layer/loss_segmentation.py `cross_entropy_dense`.
    """
    _refuse_weight(weight, "CrossEntropy_Dense")
    values = _voxels(logits)
    return ops.mean(ops.categorical_crossentropy(_shares(label, values), values, from_logits=True))


def dice(
    logits: Tensor,
    label: Tensor,
    weight: Tensor | None = None,
    *,
    softmax: bool = True,
    eps: Epsilon = "both",
    squared: bool = True,
) -> Tensor:
    """One minus the mean Dice over classes, background included; between 0 (perfect) and 1.

    dice_c = 2 Σ p g / (Σ p² + Σ g), with p instead of p² unless `squared`. ε = 1e-5 keeps 0/0 finite: in numerator and
    denominator ("both", NiftyNet since 0.5) a class absent from label and prediction scores 1; in the denominator alone
    ("denominator", the 2018 code) it scores 0, so a window without lesion costs at least 0.5 and teaches nothing.

    Source: niftynet/layer/loss_segmentation.py `dice`, `dice_nosquare`; Milletari et al. 2016.
    """
    p = _probabilities(logits, softmax)
    g = _one_hot(label, p)
    w = _voxel_weights(weight, p)
    return 1.0 - ops.mean(_dice_per_class(p, g, w, eps, squared))


def dice_dense(
    logits: Tensor,
    label: Tensor,
    weight: Tensor | None = None,
    *,
    softmax: bool = True,
    eps: Epsilon = "both",
    squared: bool = True,
) -> Tensor:
    """One minus the mean Dice over classes, for labels that are shares of classes (b, *space, class).

    As `dice`, but `squared` squares the label too.

    Raises:
        ValueError: a weight map was given, which this loss does not define.
    Source: niftynet/layer/loss_segmentation.py `dice_dense`, `dice_dense_nosquare`.
    """
    _refuse_weight(weight, "Dice_Dense")
    p = _probabilities(logits, softmax)
    g = _shares(label, p)
    sizes = ops.sum(p * p + g * g if squared else p + g, axis=1)
    return 1.0 - ops.mean(_ratio(2.0 * ops.einsum("bvc,bvc->bc", p, g), sizes, eps))


def dice_plus_cross_entropy(
    logits: Tensor,
    label: Tensor,
    weight: Tensor | None = None,
    *,
    softmax: bool = True,
    eps: Epsilon = "both",
) -> Tensor:
    """Cross-entropy minus the mean Dice over classes (no square); from -1 (perfect) upwards.

    `softmax` changes nothing, as in `cross_entropy`.

    Source: niftynet/layer/loss_segmentation.py `dice_plus_xent_loss`; Isensee et al. 2018, arXiv 1809.10486.
    """
    return cross_entropy(logits, label, weight) + dice(logits, label, weight, eps=eps, squared=False) - 1.0


def generalised_dice(
    logits: Tensor, label: Tensor, weight: Tensor | None = None, *, softmax: bool = True, eps: Epsilon = "both"
) -> Tensor:
    """One minus the Dice of all classes together, each weighted by 1/volume² of its label; between 0 and 1.

    A class absent from the label gets the largest weight of the others. Summed volumes below one voxel count as one,
    which the 2018 code (`eps="denominator"`) does not do yet. Where every weight is 0 the loss is 0.

    Source: niftynet/layer/loss_segmentation.py `generalised_dice_loss`; Sudre et al. 2017.
    """
    p = _probabilities(logits, softmax)
    g = _one_hot(label, p)
    w = _voxel_weights(weight, p)
    label_volume = ops.einsum("bv,bvc->bc", w, g)
    overlap = ops.einsum("bv,bvc,bvc->bc", w, g, p)
    volume = label_volume + ops.einsum("bv,bvc->bc", w, p)
    if _both(eps):
        volume = ops.maximum(volume, 1.0)
    square = label_volume * label_volume
    class_weight = ops.where(square > 0, 1.0 / ops.where(square > 0, square, 1.0), 0.0)
    class_weight = ops.where(square > 0, class_weight, ops.max(class_weight, axis=1, keepdims=True))
    denominator = ops.einsum("bc,bc->b", class_weight, volume)
    score = 2.0 * ops.einsum("bc,bc->b", class_weight, overlap) / ops.where(denominator > 0, denominator, 1.0)
    return 1.0 - ops.mean(ops.where(denominator > 0, score, 1.0))


def tversky(logits: Tensor, label: Tensor, weight: Tensor | None = None, *, softmax: bool = True) -> Tensor:
    """One minus TP / (TP + FP/2 + FN/2), summed over voxels and classes together; between 0 and 1.

    Source: niftynet/layer/loss_segmentation.py `tversky` with its α = β = 0.5; Sadegh et al. 2017.
    """
    p = _probabilities(logits, softmax)
    g = _one_hot(label, p)
    w = _voxel_weights(weight, p)
    true_positive = ops.einsum("bv,bvc,bvc->b", w, p, g)
    false_positive = ops.einsum("bv,bvc,bvc->b", w, p, 1.0 - g)
    false_negative = ops.einsum("bv,bvc,bvc->b", w, 1.0 - p, g)
    return 1.0 - ops.mean(true_positive / (true_positive + 0.5 * (false_positive + false_negative) + _EPSILON))


def sensitivity_specificity(
    logits: Tensor, label: Tensor, weight: Tensor | None = None, *, softmax: bool = True
) -> Tensor:
    """Σ_c 0.05 · mean squared error inside class c + 0.95 · mean squared error outside it.

    `weight` is not used, as in NiftyNet.

    Source: niftynet/layer/loss_segmentation.py `sensitivity_specificity_loss`; Brosch et al. 2015.
    """
    p = _probabilities(logits, softmax)
    inside = _one_hot(label, p)
    outside = 1.0 - inside
    error = ops.square(inside - p)
    missed = ops.einsum("bvc,bvc->bc", error, inside) / (ops.sum(inside, axis=1) + _EPSILON)
    false_alarm = ops.einsum("bvc,bvc->bc", error, outside) / (ops.sum(outside, axis=1) + _EPSILON)
    share = _SPECIFICITY_SHARE
    return ops.mean(ops.sum(share * missed + (1.0 - share) * false_alarm, axis=1))


def generalised_wasserstein_dice(
    logits: Tensor, label: Tensor, weight: Tensor | None = None, *, softmax: bool = True
) -> Tensor:
    """One minus a Dice in which a mistake costs the distance between the two classes on the BRATS tree.

    `weight` is not used, as in NiftyNet. A label without foreground costs 1, unless the prediction is perfect: then 0.

    Raises:
        ValueError: more than the five classes of the tree.
    Source: niftynet/layer/loss_segmentation.py `generalised_wasserstein_dice_loss`; Fidon et al. 2017.
    """
    num_classes = logits.shape[-1]
    if num_classes > len(_CLASS_DISTANCE):
        raise ValueError(f"WGDL knows {len(_CLASS_DISTANCE)} classes, the prediction has {num_classes}")
    p = _probabilities(logits, softmax)
    g = _one_hot(label, p)
    distance = ops.convert_to_tensor([row[:num_classes] for row in _CLASS_DISTANCE[:num_classes]], dtype=p.dtype)
    mistake = ops.einsum("bvi,ij,bvj->bv", p, distance, g)
    true_positive = ops.einsum("bvj,j,bv->b", g, distance[0], 1.0 - mistake)
    denominator = 2.0 * true_positive + ops.sum(mistake, axis=1)
    score = 2.0 * true_positive / ops.where(denominator > 0, denominator, 1.0)
    return 1.0 - ops.mean(ops.where(denominator > 0, score, 1.0))


def volume_enforcement(logits: Tensor, label: Tensor, weight: Tensor | None = None, *, softmax: bool = True) -> Tensor:
    """Mean over classes of |V/P - P/V|, V and P the volumes of label and prediction; 0 when they agree, else unbounded.

    0.001 voxel is added to both volumes; a class absent from the label therefore costs about 1000 per predicted voxel.

    Source: niftynet/layer/loss_segmentation.py `volume_enforcement`.
    """
    p = _probabilities(logits, softmax)
    w = _voxel_weights(weight, p)
    label_volume = ops.einsum("bv,bvc->bc", w, _one_hot(label, p)) + 1e-3
    volume = ops.einsum("bv,bvc->bc", w, p) + 1e-3
    return ops.mean(ops.absolute(label_volume / volume - volume / label_volume))


LOSSES: dict[str, Loss] = {
    "CrossEntropy": cross_entropy,
    "CrossEntropy_Dense": cross_entropy_dense,
    "Dice": dice,
    "Dice_NS": partial(dice, squared=False),
    "Dice_Dense": dice_dense,
    "Dice_Dense_NS": partial(dice_dense, squared=False),
    "DicePlusXEnt": dice_plus_cross_entropy,
    "GDSC": generalised_dice,
    "Tversky": tversky,
    "SensSpec": sensitivity_specificity,
    "WGDL": generalised_wasserstein_dice,
    "VolEnforcement": volume_enforcement,
}
_WITH_EPSILON = ("Dice", "Dice_NS", "Dice_Dense", "Dice_Dense_NS", "DicePlusXEnt", "GDSC")


def make_loss(name: str, softmax: bool = True, eps: Epsilon = "both", double_softmax: bool = False) -> Loss:
    """The loss of that NiftyNet name with its settings bound.

    `eps` concerns the Dice losses and leaves the others as they are. `double_softmax` applies one more softmax to the
    logits first, which is what the 2018 networks did; a Dice can then not fall below about 0.1 to 0.5.

    Raises:
        InputError: no loss of that name.
    """
    if name not in LOSSES:
        raise InputError(f'loss_type = "{name}" is not a segmentation loss; choose one of {", ".join(LOSSES)}')
    settings = {"softmax": softmax, "eps": eps} if name in _WITH_EPSILON else {"softmax": softmax}
    loss = partial(LOSSES[name], **settings)
    if not double_softmax:
        return loss
    return lambda logits, label, weight=None: loss(ops.softmax(_float(logits), axis=-1), label, weight)


def modality_cross_entropy(
    logits: Tensor,
    modality: Tensor,
    valid: Tensor,
    double_softmax: bool = False,
    count_empty: bool = False,
) -> Tensor:
    """Mean of -log p(true modality) over the scans that are present and whose modality is known.

    logits (b, scan, modality); modality (b, scan), -1 = unknown; valid (b, scan) bool. No such scan gives 0.
    The 2018 code is `double_softmax=True` (scores are softmaxed twice, so the mean stays above 0.55 for three
    modalities) and `count_empty=True` (every slot counts; an empty or unknown one is asked for modality 0).

    Source: paper, section on the modality loss; niftynet/layer/loss_classification.py `cross_entropy`.
    """
    logits = _voxels(ops.softmax(_float(logits), axis=-1) if double_softmax else logits)
    modality = ops.cast(modality, "int32")
    entropy = ops.sparse_categorical_crossentropy(ops.maximum(modality, 0), logits, from_logits=True)
    if count_empty:
        return ops.mean(entropy)
    counted = ops.cast(ops.logical_and(ops.cast(valid, "bool"), modality >= 0), logits.dtype)
    return ops.sum(entropy * counted) / ops.maximum(ops.sum(counted), 1.0)


def mean_weight_penalty(
    variables: Iterable[Tensor],
    decay: float,
    kind: Literal["L1", "L2"] = "L2",
    reduction: Literal["mean", "sum"] = "mean",
) -> Tensor:
    """decay · ½ Σ w² ("L2") or decay · Σ |w| ("L1") of each variable, averaged or added over the variables.

    NiftyNet averages, so the pull on one weight is decay divided by the number of variables; "sum" is the textbook
    form. No variables, or a decay of 0, give 0.

    Raises:
        ValueError: an unknown kind or reduction.
    Source: niftynet/application/segmentation_application.py `connect_data_and_network`.
    """
    if kind not in ("L1", "L2") or reduction not in ("mean", "sum"):
        raise ValueError(f'weight penalty is of kind L1 or L2, reduced by mean or sum; got "{kind}" and "{reduction}"')
    weights = [_float(variable) for variable in variables]
    if not weights or decay == 0:
        return ops.zeros(())
    measure = (lambda w: 0.5 * ops.sum(w * w)) if kind == "L2" else (lambda w: ops.sum(ops.absolute(w)))
    total = decay * sum(measure(w) for w in weights)
    return total / len(weights) if reduction == "mean" else total


def _float(values: Tensor) -> Tensor:
    # Mixed precision hands over float16; sums over a volume need float32.
    return ops.cast(values, "float32")


def _voxels(values: Tensor) -> Tensor:
    # (b, *space, class) -> (b, voxel, class). The reshape also hides where the values come from: the cross-entropies of
    # Keras look for a softmax behind their input and quietly return to its logits, which undoes the second softmax.
    return ops.reshape(_float(values), (ops.shape(values)[0], -1, values.shape[-1]))


def _probabilities(logits: Tensor, softmax: bool) -> Tensor:
    values = _voxels(logits)
    return ops.softmax(values, axis=-1) if softmax else values


def _class_numbers(label: Tensor, like: Tensor) -> Tensor:
    # (b, *space[, 1]) -> (b, voxel)
    return ops.reshape(ops.cast(label, "int32"), (ops.shape(like)[0], -1))


def _one_hot(label: Tensor, like: Tensor) -> Tensor:
    # (b, *space[, 1]) -> (b, voxel, class)
    return ops.one_hot(_class_numbers(label, like), like.shape[-1], dtype=like.dtype)


def _shares(label: Tensor, like: Tensor) -> Tensor:
    return ops.reshape(_float(label), ops.shape(like))


def _voxel_weights(weight: Tensor | None, like: Tensor) -> Tensor:
    # (b, *space[, 1]) -> (b, voxel); ones if there is no weight map
    if weight is None:
        return ops.ones(ops.shape(like)[:2], dtype=like.dtype)
    return ops.reshape(_float(weight), (ops.shape(like)[0], -1))


def _refuse_weight(weight: Tensor | None, name: str) -> None:
    if weight is not None:
        raise ValueError(f"{name} has no weighted form; leave the weight map out or choose a loss without _Dense")


def _dice_per_class(p: Tensor, g: Tensor, w: Tensor, eps: Epsilon, squared: bool) -> Tensor:
    # (b, class)
    # Two factors at a time: an einsum of three that keeps b and c becomes a matrix product of 1×1 matrices.
    overlap = ops.einsum("bv,bvc->bc", w, p * g)
    sizes = ops.einsum("bv,bvc->bc", w, (p * p if squared else p) + g)
    return _ratio(2.0 * overlap, sizes, eps)


def _ratio(numerator: Tensor, denominator: Tensor, eps: Epsilon) -> Tensor:
    return (numerator + (_EPSILON if _both(eps) else 0.0)) / (denominator + _EPSILON)


def _both(eps: Epsilon) -> bool:
    if eps not in ("both", "denominator"):
        raise ValueError(f'eps is "both" or "denominator", not "{eps}"')
    return eps == "both"
