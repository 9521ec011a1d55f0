"""PIMMS: scans without labels → modality scores → one channel per modality → segmentation. One class, four variants.

Varsavsky et al. 2018, PIMMS: permutation invariant multi-modal segmentation.
"""

import numbers
from collections.abc import Sequence
from typing import Literal, NamedTuple, get_args

import keras
from keras import KerasTensor, ops

from pimms_tf.models.attention import Attention, Kind, Normalise
from pimms_tf.models.classifier import ModalityClassifier, Pool
from pimms_tf.models.hemis import Abstraction, Backend, Frontend, FrontendKind, Missing, in_turn
from pimms_tf.models.layers import Average, Init, Norm, gather_over_replicas, layers_of
from pimms_tf.models.order import by_content, rows_at
from pimms_tf.presets import VARIANTS, preset_choices

MaskScope = Literal["sample", "batch"]
NormScope = Literal["present", "all", "slot"]
Regularise = Literal["all", "classifier", "none"]


class Prediction(NamedTuple):
    """What one forward pass computes; a part that the model does not have is None."""

    segmentation_logits: KerasTensor | None  # (b, *space, class)
    modality_logits: KerasTensor | None  # (b, scan, modality); zeros for empty slots


class PIMMS(keras.Model):
    """Segments subjects from any number of scans in any order.

    Outside training the order changes no bit of the answer: the classifier and the re-assembly take scans in that of
    their content (`order.by_content`), and the scores are put back in the order of the scans.

    Call: scans (b, *space, scan) float, `valid` (b, scan) bool (default: slots that are not all zero), `modality`
    (b, scan) int (only for attention "label"; default: slot n is modality n) → `Prediction`. Any number of scans from
    1. Slots that are not valid have no effect. A subject without any valid scan gets finite logits.

    Args:
        num_modalities: modality classes M, which is the number of back-ends; with `null_class` the null class counts.
        num_classes: segmentation classes.
        attention: how scores weigh scans ("label", "soft", "hard"), or None for a model that only classifies scans.
        joint: the segmentation loss reaches the classifier (Online); otherwise the classifier was trained before and
            its scores are constants.
        null_class: class 0 means an empty slot; empty slots are classified and mixed like the others (released Online
            code). By default they are neither.
        abstraction_missing, abstraction_ddof: see `Abstraction`.
        mask_scope: a modality is missing "sample": where a subject's mixed channel is zero everywhere; "batch": only
            where that holds for every subject of the batch, and otherwise its zeros go through the back-end (released
            code).
        norm, init, average: see `layers`. norm_scope: "present" keeps missing modalities and empty slots out of the
            batch statistics (and does not compute them); "all" counts them (released code); "slot" does so too and
            trains the classifier on one slot after the other, each normalised by itself (released Online code).
        classifier_average: as `average`, for the classifier (the released one uses tf.contrib's, which has no debias).
        regularise: which convolutions weight decay may reach; see `layers.regularised_variables`.
        recompute: training computes the back-ends twice and keeps less of them in between: the same numbers in less
            memory.
    """

    def __init__(
        self,
        num_modalities: int,
        num_classes: int,
        *,
        attention: Kind | None = "soft",
        joint: bool = True,
        spatial_rank: int = 2,
        null_class: bool = False,
        attention_normalise: Normalise = "none",
        abstraction_missing: Missing = "exclude",
        abstraction_ddof: int = 0,
        mask_scope: MaskScope = "sample",
        frontend: FrontendKind = "paper",
        norm: Norm = "batch",
        norm_scope: NormScope = "present",
        init: Init = "he_normal",
        average: Average = "debiased",
        classifier_features: tuple[int, ...] = (16, 64, 128, 256),
        classifier_blocks: int = 9,
        classifier_pool: Pool = "spatial",
        classifier_head_bn: bool = False,
        classifier_extra_bn: bool = False,
        classifier_average: Average = "debiased",
        regularise: Regularise = "all",
        recompute: bool = False,
        name: str = "pimms",
    ):
        super().__init__(name=name)
        _check_choices(
            attention=(attention, (None, *get_args(Kind))),
            spatial_rank=(spatial_rank, (2, 3)),
            attention_normalise=(attention_normalise, get_args(Normalise)),
            abstraction_missing=(abstraction_missing, get_args(Missing)),
            abstraction_ddof=(abstraction_ddof, (0, 1)),
            mask_scope=(mask_scope, get_args(MaskScope)),
            frontend=(frontend, get_args(FrontendKind)),
            norm=(norm, get_args(Norm)),
            norm_scope=(norm_scope, get_args(NormScope)),
            init=(init, get_args(Init)),
            average=(average, get_args(Average)),
            classifier_pool=(classifier_pool, get_args(Pool)),
            classifier_average=(classifier_average, get_args(Average)),
            regularise=(regularise, get_args(Regularise)),
        )
        _check_counts(
            num_modalities=num_modalities,
            num_classes=num_classes,
            classifier_blocks=classifier_blocks,
            classifier_features=classifier_features,
        )
        self.num_modalities = num_modalities
        self.num_classes = num_classes
        self.spatial_rank = spatial_rank
        self.null_class = null_class
        self.joint = joint
        self.mask_scope = mask_scope
        self.norm_scope = norm_scope
        self.attention = None if attention is None else Attention(attention, attention_normalise, name="attention")
        self.needs_labels = attention == "label"
        self.classifier = None
        if not self.needs_labels:
            self.classifier = ModalityClassifier(
                num_modalities,
                features=tuple(classifier_features),
                num_blocks=classifier_blocks,
                spatial_rank=spatial_rank,
                pool=classifier_pool,
                head_bn=classifier_head_bn,
                extra_bn=classifier_extra_bn,
                init=init,
                average=classifier_average,
                name="classifier",
            )
        self.backends = []
        if attention is not None:
            options = {"norm": norm, "init": init, "average": average, "regularised": regularise == "all"}
            self.backends = [
                Backend(spatial_rank, recompute=recompute, name=f"backend_{m}", **options)
                for m in range(num_modalities)
            ]
            self.abstraction = Abstraction(abstraction_missing, abstraction_ddof, name="abstraction")
            self.frontend = Frontend(num_classes, frontend, spatial_rank, name="frontend", **options)
        if self.classifier is not None and regularise == "none":
            for layer in layers_of(self.classifier):
                if hasattr(layer, "regularised"):
                    layer.regularised = False

    def build(self, input_shape=None):
        one_scan = (None, *(None,) * self.spatial_rank, 1)
        if self.classifier is not None:
            self.classifier.build(one_scan)
        for backend in self.backends:
            backend.build(one_scan)
        if self.attention is not None:
            self.frontend.build((*one_scan[:-1], 2 * Backend.features))

    def call(self, scans, valid=None, modality=None, training=False) -> Prediction:
        valid = self.present_slots(scans) if valid is None else valid
        if self.needs_labels:
            return Prediction(self.segment(scans, self.label_scores(scans, modality), valid, training), None)
        # Hard and Soft come with a classifier that was trained on its own: here it neither learns nor adapts.
        frozen = self.attention is not None and not self.joint
        logits, scores = self._classified(scans, valid, training and not frozen)
        if self.attention is None:
            return Prediction(None, logits)
        if frozen:
            logits, scores = ops.stop_gradient(logits), ops.stop_gradient(scores)
        return Prediction(self.segment(scans, scores, valid, training), logits)

    def classify(self, scans, valid=None):
        """Returns modality probabilities (b, scan, modality) of scans (b, *space, scan); zeros for empty slots."""
        return self._classified(scans, self.present_slots(scans) if valid is None else valid)[1]

    def _classified(self, scans, valid, training=False):
        """Returns logits and probabilities (b, scan, modality) of scans (b, *space, scan); zeros for empty slots."""
        if training:
            logits = self._training_logits(scans, valid)
            answers = logits, ops.softmax(logits, axis=-1)
        else:
            slots = by_content(scans, ops.ones_like(valid) if self.null_class else valid)
            logits = self._logits_by_row(slots.scans, slots.valid)
            # A softmax, too, rounds by the place of a row among the others.
            answers = (rows_at(answer, slots.place) for answer in (logits, ops.softmax(logits, axis=-1)))
        if self.null_class:
            return tuple(answers)
        return tuple(ops.where(valid[..., None], answer, ops.zeros_like(answer)) for answer in answers)

    def _training_logits(self, scans, valid):
        if self.norm_scope == "slot":
            if scans.shape[-1] is None:
                raise ValueError('norm_scope "slot" trains on a fixed number of slots: set max_slots')
            slots = range(scans.shape[-1])
            return ops.stack([self.classifier(scans[..., n : n + 1], training=True) for n in slots], axis=1)
        rank = self.spatial_rank
        return self._logits_by_row(ops.transpose(scans, (0, rank + 1, *range(1, rank + 1))), valid, training=True)

    def _logits_by_row(self, scans, valid, training=False):
        """Returns logits (b, scan, modality) of scans (b, scan, *space), which are rows to the classifier."""
        batch, num_scans, *space = ops.shape(scans)
        rows = ops.reshape(scans, (batch * num_scans, *space, 1))
        classify_all = self.null_class or self.norm_scope != "present"
        present = None if classify_all else ops.reshape(valid, (batch * num_scans,))
        logits = _on_present_rows(self.classifier, rows, present, training)
        return ops.reshape(logits, (batch, num_scans, self.num_modalities))

    def segment(self, scans, scores, valid=None, training=False):
        """Returns class logits (b, *space, class) of scans (b, *space, scan) mixed by scores (b, scan, modality)."""
        valid = self.present_slots(scans) if valid is None else valid
        mixed = self.attention(scans, scores, ops.ones_like(valid) if self.null_class else valid, training=training)
        space = tuple(range(1, self.spatial_rank + 1))
        available = ops.any(ops.not_equal(mixed, 0), axis=space)  # (b, modality)
        if self.mask_scope == "batch":
            anywhere = ops.any(available, axis=0, keepdims=True)
            if training and (gather := gather_over_replicas()) is not None:
                anywhere = ops.any(gather(ops.cast(anywhere, "float32")) > 0, axis=0)
            available = ops.logical_or(ops.zeros_like(available), anywhere)
        features = []
        for m, backend in enumerate(self.backends):
            present, x = available[:, m] if self.norm_scope == "present" else None, mixed[..., m : m + 1]
            if training and backend.recompute and features:
                features[-1], x = in_turn(features[-1], x)
            features.append(_on_present_rows(backend, x, present, training))
        return self.frontend(self.abstraction(features, available), training=training)

    def label_scores(self, scans, modality=None):
        """Returns one-hot scores (b, scan, modality) of labels (b, scan); by default slot n is modality n."""
        if modality is None:
            if scans.shape[-1] != self.num_modalities:
                raise ValueError(
                    f"without modality labels slot n is modality n, so {self.num_modalities} scans are expected, "
                    f"got {scans.shape[-1]}"
                )
            modality = ops.broadcast_to(ops.arange(self.num_modalities), (ops.shape(scans)[0], self.num_modalities))
        return ops.one_hot(modality, self.num_modalities, dtype=scans.dtype)

    def present_slots(self, scans):
        """Returns which slots hold anything but zeros, (b, scan) bool."""
        return ops.any(ops.not_equal(scans, 0), axis=tuple(range(1, self.spatial_rank + 1)))


def _check_choices(**choices: tuple[object, tuple[object, ...]]) -> None:
    """Refuses a word that no layer knows; layers compare words, so a misspelt one would pass for another choice."""
    for name, (value, known) in choices.items():
        if value not in known:
            raise ValueError(f"{name} is one of {', '.join(map(str, known))}, got {value!r}")


def _check_counts(classifier_features: Sequence[int], **counts: int) -> None:
    """Refuses sizes that are not whole numbers from 1 upwards."""
    if len(classifier_features) < 2:
        raise ValueError(
            f"classifier_features are those of the stem and of each resolution, got {classifier_features!r}"
        )
    for name, value in [*counts.items(), *(("classifier_features", size) for size in classifier_features)]:
        if not isinstance(value, numbers.Integral) or value < 1:
            raise ValueError(f"{name} counts from 1, got {value!r}")


def _on_present_rows(layer, x, present, training):
    """Returns layer(x) for the rows of x (row, …) that are present (row,) bool; other rows hold anything.

    TensorFlow gathers the present rows, so that nothing is computed for the others. Backends without dynamic shapes
    compute all rows and keep the absent ones out of the statistics: the same numbers, more work.
    """
    if present is None or keras.backend.backend() != "tensorflow":
        return layer(x, present=present, training=training)
    # TensorFlow's convolution gives wrong shapes for no row at all, so the first one then stands in.
    first = ops.equal(ops.cumsum(ops.ones_like(present, dtype="int32")), 1)
    (rows,) = ops.nonzero(ops.logical_or(present, ops.logical_and(first, ops.logical_not(ops.any(present)))))
    y = layer(ops.take(x, rows, axis=0), present=ops.take(present, rows), training=training)
    return ops.scatter(ops.cast(rows, "int32")[:, None], y, (ops.shape(x)[0], *ops.shape(y)[1:]))


def build_model(variant: str, num_modalities: int, num_classes: int, preset: str = "paper", **choices) -> PIMMS:
    """Returns a built PIMMS of a variant ("hemis", "hard", "soft", "online"), with weights drawn.

    `preset` is "paper" or "niftynet2018"; `choices` override single arguments of `PIMMS`.

    Raises:
        ValueError: unknown variant or preset.
        TypeError: a choice that is no argument of `PIMMS`.
    """
    if variant not in VARIANTS:
        raise ValueError(f"variant is one of {', '.join(VARIANTS)}, got {variant!r}")
    arguments = preset_choices(variant, preset) | VARIANTS[variant] | choices
    model = PIMMS(num_modalities, num_classes, **arguments)
    model.build()
    return model


def build_classifier(num_modalities: int, preset: str = "paper", **choices) -> PIMMS:
    """Returns a built PIMMS that only classifies scans; its variables are named as in the others."""
    arguments = preset_choices("classifier", preset) | {"attention": None} | choices
    model = PIMMS(num_modalities, 1, **arguments)
    model.build()
    return model
