"""The whole model: variants, presets, what may and may not change the segmentation."""

import importlib.util
import itertools
import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from pimms_tf.models import PRESETS, VARIANTS, build_classifier, build_model, preset_choices

PATHS = Path(__file__).parents[1] / "goldens" / "variable_paths"
# A classifier small enough to be built in every test.
SMALL = {"classifier_features": (4, 8, 16), "classifier_blocks": 1}
UNLABELLED = ["hard", "soft", "online"]


def small(variant, num_modalities=3, preset="paper", **choices):
    return build_model(variant, num_modalities, 2, preset, **SMALL | choices)


def random_scans(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def count(variables):
    return sum(int(np.prod(variable.shape)) for variable in variables)


def warmed(model, num_scans=3):
    """The model after one training pass, so that its statistics are not the initial ones."""
    model(random_scans(2, *(12,) * model.spatial_rank, num_scans, seed=9), training=True)
    return model


def traced(model):
    """The model as one function of scans, valid and labels → segmentation logits, modality logits, modality scores."""
    space, slots = (None,) * model.spatial_rank, (None, None)
    given = [tf.TensorSpec((None, *space, None)), tf.TensorSpec(slots, tf.bool), tf.TensorSpec(slots, tf.int64)]

    @tf.function(input_signature=given)
    def answers(scans, valid, labels):
        segmentation, modality = model(scans, valid, labels)
        return (segmentation,) if modality is None else (segmentation, modality, model.classify(scans, valid))

    return answers


@pytest.mark.parametrize(
    ("variant", "modalities", "preset", "choices", "parameters", "tensors"),
    [
        ("hemis", 3, "paper", {}, 229_524, 24),
        ("hemis", 3, "paper", {"norm": "none"}, 229_218, 16),
        ("hemis", 3, "niftynet2018", {}, 185_060, 25),
        ("online", 3, "paper", {}, 1_096_071, 275),
        ("soft", 3, "niftynet2018", {}, 185_060 + 865_788, 25 + 253),
        ("online", 4, "niftynet2018", {}, 1_202_572, 309),
        ("online", 4, "niftynet2018", {"classifier_pool": "spatial"}, 244_052 + 959_540, 309),
    ],
)
def test_a_variant_has_the_published_number_of_parameters(variant, modalities, preset, choices, parameters, tensors):
    model = build_model(variant, modalities, 2, preset, **choices)
    assert count(model.trainable_variables) == parameters
    assert len(model.trainable_variables) == tensors


@pytest.mark.parametrize("variant", ["hemis", "online"])
def test_the_variable_paths_are_those_of_earlier_checkpoints(variant):
    # Checkpoints are keyed by these paths: a change here makes every trained model unreadable.
    paths = "\n".join(sorted(f"{v.path} {tuple(v.shape)}" for v in build_model(variant, 3, 2).variables)) + "\n"
    assert paths == (PATHS / f"{variant}.txt").read_text(encoding="utf-8")


def test_hard_and_soft_have_the_variables_of_hemis_and_of_a_classifier():
    parts = {v.path for v in small("hemis").variables} | {v.path for v in build_classifier(3, **SMALL).variables}
    for variant in UNLABELLED:
        assert {v.path for v in small(variant).variables} == parts


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("rank", [2, 3])
def test_logits_have_the_shape_of_the_scans_and_one_score_per_scan(variant, rank):
    model = small(variant, spatial_rank=rank)
    space = (7, 6, 5)[:rank]
    segmentation, modality = model(random_scans(2, *space, 3))
    assert segmentation.shape == (2, *space, 2)
    assert modality is None if variant == "hemis" else modality.shape == (2, 3, 3)
    np.testing.assert_allclose(np.sum(ops.softmax(segmentation), -1), 1, rtol=1e-6)


@pytest.mark.parametrize(
    ("variant", "choices"),
    [
        ("hemis", {}),
        ("soft", {}),
        ("soft", {"spatial_rank": 3}),
        ("hard", {}),
        ("hard", {"attention_normalise": "count"}),
        ("online", {}),
        ("online", {"attention_normalise": "sum"}),
        ("online", {"preset": "niftynet2018"}),
    ],
)
def test_the_order_of_scans_changes_no_bit(variant, choices):
    model = small(variant, **choices)
    answers = traced(model)
    rng = np.random.default_rng(1)
    for num_scans in range(2, 7):
        scans = random_scans(2, *(11,) * model.spatial_rank, num_scans)
        scans[..., -1] = scans[..., 0]  # the same scan twice
        scans[1, ..., 1] = 0
        valid = np.ones((2, num_scans), bool)
        valid[0, num_scans // 2] = num_scans < 3
        labels = rng.integers(0, 3, (2, num_scans))
        labels[:, -1] = labels[:, 0]
        segmentation, *by_scan = answers(scans, valid, labels)
        orders = [range(num_scans)[::-1], np.roll(range(num_scans), 1), *(rng.permutation(num_scans) for _ in range(2))]
        for order in map(list, orders):
            permuted, *by_permuted_scan = answers(scans[..., order], valid[:, order], labels[:, order])
            np.testing.assert_array_equal(permuted, segmentation)
            for got, expected in zip(by_permuted_scan, by_scan, strict=True):
                np.testing.assert_array_equal(got, expected.numpy()[:, order])


def test_the_order_of_windows_changes_no_bit_of_a_segmentation_with_scores_given():
    # As in inference: scores are those of whole scans, while two different scans may show the same in one window.
    model = warmed(small("soft", 2))
    scans, scores = random_scans(1, 9, 9, 4), np.random.default_rng(2).uniform(size=(1, 4, 2)).astype(np.float32)
    scans[..., 1] = scans[..., 3] = scans[..., 0]
    segment = tf.function(model.segment)
    expected = segment(scans, scores)
    for order in map(list, itertools.permutations(range(4))):
        np.testing.assert_array_equal(segment(scans[..., order], scores[:, order]), expected)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_half_precision_is_no_less_blind_to_the_order(policy, request):
    if policy == "mixed_bfloat16":
        request.getfixturevalue("bfloat16")
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        model = small("online")
    finally:
        keras.config.set_dtype_policy(before)
    scans, order = random_scans(2, 12, 12, 4), [2, 0, 3, 1]
    expected, permuted = model(scans), model(scans[..., order])
    np.testing.assert_array_equal(permuted.segmentation_logits, expected.segmentation_logits)
    np.testing.assert_array_equal(permuted.modality_logits, ops.take(expected.modality_logits, order, axis=1))


def test_with_perfect_scores_soft_hard_and_hemis_are_the_same():
    hemis, soft, hard = small("hemis"), small("soft"), small("hard")
    warmed(hemis)
    for model in (soft, hard):
        for ours, theirs in zip(model.backends, hemis.backends, strict=True):
            ours.set_weights(theirs.get_weights())
        model.frontend.set_weights(hemis.frontend.get_weights())
    scans = random_scans(2, 12, 12, 3)
    expected = hemis(scans).segmentation_logits
    for order in map(list, itertools.permutations(range(3))):
        scores = np.eye(3, dtype=np.float32)[None, order].repeat(2, 0)
        for model in (soft, hard, hemis):
            np.testing.assert_array_equal(model.segment(scans[..., order], scores), expected)
        labelled = hemis(scans[..., order], modality=np.array([order] * 2))
        np.testing.assert_array_equal(labelled.segmentation_logits, expected)


@pytest.mark.parametrize("variant", UNLABELLED)
def test_empty_slots_change_nothing(variant):
    model = warmed(small(variant))
    scans, valid = random_scans(2, 10, 10, 2), np.ones((2, 2), bool)
    expected = model(scans, valid)
    padding = random_scans(2, 10, 10, 3, seed=1)  # what an invalid slot holds is not looked at
    padding[0, 0, 0] = np.nan
    got = model(np.concatenate([scans, padding], -1), np.concatenate([valid, np.zeros((2, 3), bool)], 1))
    np.testing.assert_array_equal(got.segmentation_logits, expected.segmentation_logits)
    np.testing.assert_array_equal(got.modality_logits[:, :2], expected.modality_logits)
    assert not np.any(got.modality_logits[:, 2:])
    zeros = np.zeros((2, 10, 10, 3), np.float32)  # and without flags, zeros are an empty slot
    without_flags = model(np.concatenate([scans, zeros], -1))
    np.testing.assert_array_equal(without_flags.segmentation_logits, expected.segmentation_logits)


def test_empty_slots_change_nothing_while_training():
    model = small("online")
    scans, start = random_scans(2, 10, 10, 2), model.get_weights()
    results = []
    for x in (scans, np.concatenate([scans, np.zeros_like(scans)], -1)):
        model.set_weights(start)
        results.append([model(x, training=True).segmentation_logits, *model.get_weights()])
    # Nothing is computed for empty slots; only the sums over slots, in double precision, have more terms.
    for plain, padded in zip(*results, strict=True):
        np.testing.assert_allclose(padded, plain, rtol=1e-5, atol=1e-5)


def test_the_released_online_network_counts_empty_slots():
    model = warmed(small("online", 4, "niftynet2018"))
    scans = random_scans(1, 10, 10, 2)
    padded = np.concatenate([scans, np.zeros_like(scans)], -1)
    scores = np.asarray(model.classify(padded))
    np.testing.assert_allclose(scores.sum(-1), 1, rtol=1e-5)
    expected = np.einsum("bxyn,bnm->bxym", padded, scores) / scores.sum(1)[:, None, None]
    mixed = model.attention(padded, scores, np.ones((1, 4), bool))
    np.testing.assert_allclose(mixed, expected, rtol=1e-4, atol=1e-5)
    assert np.abs(model(padded).segmentation_logits - model(scans).segmentation_logits).max() > 1e-3


def test_a_missing_modality_is_the_same_as_zeros_or_fewer_scans():
    model = warmed(small("hemis"))
    scans = random_scans(2, 10, 10, 3)
    expected = model(scans, np.array([[True, False, True]] * 2)).segmentation_logits
    zeros = scans * np.array([1, 0, 1], np.float32)
    np.testing.assert_array_equal(model(zeros).segmentation_logits, expected)
    fewer = model(scans[..., [2, 0]], modality=np.array([[2, 0]] * 2))
    np.testing.assert_array_equal(fewer.segmentation_logits, expected)


def test_one_subjects_missing_scan_does_not_touch_another_subject(rounding):
    model = warmed(small("hemis"))
    scans = random_scans(2, 10, 10, 3)
    valid = np.array([[True, True, True], [False, True, False]])
    together = model(scans, valid).segmentation_logits
    tolerance = rounding(lambda scans: model(scans, valid).segmentation_logits, scans)
    assert tolerance < 1e-4
    for row in (0, 1):
        alone = model(scans[row : row + 1], valid[row : row + 1]).segmentation_logits
        np.testing.assert_allclose(together[row], alone[0], rtol=0, atol=tolerance)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("preset", PRESETS)
def test_no_scan_at_all_gives_finite_logits_gradients_and_statistics(variant, preset):
    model = small(variant, preset=preset)
    with tf.GradientTape() as tape:
        segmentation, modality = model(np.zeros((2, 9, 9, 3), np.float32), training=True)
        loss = tf.reduce_sum(tf.square(segmentation)) + (0 if modality is None else tf.reduce_sum(modality))
    gradients = tape.gradient(loss, [v.value for v in model.trainable_variables], unconnected_gradients="zero")
    for array in [segmentation, *gradients, *model.get_weights(), model(np.zeros((1, 9, 9, 3))).segmentation_logits]:
        assert np.isfinite(array).all()


@pytest.mark.parametrize("variant", UNLABELLED)
@pytest.mark.parametrize("num_scans", [1, 2, 7])
def test_any_number_of_scans_is_segmented(variant, num_scans):
    segmentation, modality = warmed(small(variant))(random_scans(1, 9, 8, num_scans))
    assert segmentation.shape == (1, 9, 8, 2)
    assert modality.shape == (1, num_scans, 3)
    assert np.isfinite(segmentation).all()


def test_two_scans_of_one_modality_add_up(rounding):
    model = warmed(small("hemis"))
    scans = random_scans(1, 9, 9, 2)
    twice = model(scans, modality=np.array([[1, 1]])).segmentation_logits
    once = model(scans.sum(-1, keepdims=True), modality=np.array([[1]])).segmentation_logits
    tolerance = rounding(lambda scans: model(scans, modality=np.array([[1, 1]])).segmentation_logits, scans)
    assert tolerance < 1e-4
    np.testing.assert_allclose(twice, once, rtol=0, atol=tolerance)


def test_a_scan_of_unknown_modality_is_no_input_to_hemis():
    model = warmed(small("hemis"))
    scans = random_scans(1, 9, 9, 3)
    got = model(scans, modality=np.array([[0, -1, 2]])).segmentation_logits
    np.testing.assert_array_equal(got, model(scans * np.array([1, 0, 1], np.float32)).segmentation_logits)


@pytest.mark.parametrize("variant", UNLABELLED)
@pytest.mark.parametrize("preset", PRESETS)
def test_the_segmentation_teaches_the_classifier_only_in_online(variant, preset):
    model = small(variant, preset=preset, classifier_pool="spatial")
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(tf.square(model(random_scans(2, 12, 12, 3), training=True).segmentation_logits[..., 0]))
    gradients = tape.gradient(loss, [v.value for v in model.classifier.trainable_variables])
    if variant == "online":
        assert all(np.abs(gradient).max() > 0 for gradient in gradients[:1])
        assert sum(float(np.abs(gradient).max()) for gradient in gradients) > 1e-4
    else:
        assert gradients == [None] * len(gradients)


@pytest.mark.parametrize("variant", ["hard", "soft"])
def test_a_held_classifier_keeps_its_statistics(variant):
    model = small(variant)
    before = model.classifier.get_weights()
    model(random_scans(2, 12, 12, 3), training=True)
    for old, new in zip(before, model.classifier.get_weights(), strict=True):
        np.testing.assert_array_equal(new, old)


def test_classify_gives_probabilities_and_zeros_for_empty_slots():
    model = warmed(small("online"))
    scores = np.asarray(model.classify(random_scans(2, 9, 9, 3), np.array([[True, True, False]] * 2)))
    np.testing.assert_allclose(scores.sum(-1), [[1, 1, 0]] * 2, rtol=1e-6)


def test_a_call_is_classify_and_segment():
    model = warmed(small("online"))
    scans = random_scans(2, 9, 9, 4)
    np.testing.assert_array_equal(model.segment(scans, model.classify(scans)), model(scans).segmentation_logits)


def test_a_classifier_alone_classifies_and_segments_nothing():
    model = build_classifier(3, **SMALL)
    segmentation, modality = model(random_scans(2, 9, 9, 4), training=True)
    assert segmentation is None
    assert modality.shape == (2, 4, 3)


def test_volumes_are_learned_from():
    model = small("online", spatial_rank=3, frontend="paper_5x5")
    scans = random_scans(1, 6, 6, 6, 2)
    label = (scans[..., 0] > 0.5).astype(np.int32)
    losses = []
    for _ in range(6):
        with tf.GradientTape() as tape:
            logits = model(scans, training=True).segmentation_logits
            loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(label, logits))
        variables = [v.value for v in model.trainable_variables]
        for variable, gradient in zip(variables, tape.gradient(loss, variables), strict=True):
            variable.assign_sub(0.05 * gradient)
        losses.append(float(loss))
    assert losses[-1] < losses[0]


def test_a_traced_model_takes_any_batch_size_and_number_of_scans(rounding):
    model = warmed(small("online"))

    @tf.function(input_signature=[tf.TensorSpec((None, None, None, None)), tf.TensorSpec((None, None), tf.bool)])
    def traced(scans, valid):
        return model(scans, valid)

    for shape in ((1, 8, 9, 1), (3, 10, 7, 5)):
        scans, valid = random_scans(*shape), np.ones((shape[0], shape[-1]), bool)
        tolerance = rounding(lambda scans, valid=valid: model(scans, valid).segmentation_logits, scans)
        assert tolerance < 1e-4
        for got, expected in zip(traced(scans, valid), model(scans, valid), strict=True):
            np.testing.assert_allclose(got, expected, rtol=0, atol=tolerance)


def test_statistics_by_slot_are_those_of_a_classifier_called_slot_by_slot():
    model = small("online", norm_scope="slot")
    start, scans = model.classifier.get_weights(), random_scans(3, 9, 9, 2)
    got = [model(scans, training=True).modality_logits, *model.classifier.get_weights()]
    model.classifier.set_weights(start)
    expected = [model.classifier(scans[..., n : n + 1], training=True) for n in range(2)]
    for one, other in zip(got, [np.stack(expected, 1), *model.classifier.get_weights()], strict=True):
        np.testing.assert_array_equal(one, other)


def test_presets_set_the_same_arguments_and_online_of_2018_differs():
    paper, released = (set(preset_choices("hemis", preset)) for preset in PRESETS)
    assert paper == released
    assert preset_choices("online", "niftynet2018") != preset_choices("soft", "niftynet2018")
    assert preset_choices("online", "paper") == preset_choices("soft", "paper")


def test_a_choice_overrides_its_preset():
    assert small("hemis", preset="niftynet2018", frontend="paper_5x5").frontend.conv_2.conv.kernel.shape == (
        5,
        5,
        16,
        2,
    )


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: build_model("hemmis", 3, 2), "variant is one of hemis, hard, soft, online, got 'hemmis'"),
        (lambda: build_model("hemis", 3, 2, "papr"), "preset is one of paper, niftynet2018, got 'papr'"),
        (lambda: small("hemis")(random_scans(1, 8, 8, 2)), "3 scans are expected, got 2"),
        (lambda: build_model("online", 3, 2, norm="layer"), "norm is one of batch, none, got 'layer'"),
        (
            lambda: build_model("hemis", 3, 2, attention_normalise="mean"),
            "attention_normalise is one of none, sum, count",
        ),
        (lambda: build_model("hemis", 3, 2, spatial_rank=4), "spatial_rank is one of 2, 3, got 4"),
        (lambda: build_model("hemis", 0, 2), "num_modalities counts from 1, got 0"),
        (lambda: build_model("hemis", 3, 2.0), "num_classes counts from 1, got 2.0"),
        (lambda: build_model("online", 3, 2, classifier_features=(16,)), "classifier_features are those of the stem"),
        (lambda: build_model("online", 3, 2, classifier_features=(16, 0)), "classifier_features counts from 1, got 0"),
    ],
)
def test_a_mistake_is_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_choice_that_does_not_exist_is_named():
    with pytest.raises(TypeError, match="classifier_block'"):
        build_model("online", 3, 2, classifier_block=3)


@pytest.mark.skipif(importlib.util.find_spec("jax") is None, reason="needs JAX, which is not installed")
def test_the_model_runs_on_jax():
    program = (
        "import numpy as np; from pimms_tf.models import build_model;"
        "m = build_model('online', 3, 2, classifier_features=(4, 8, 16), classifier_blocks=1);"
        "x = np.random.default_rng(0).normal(size=(2, 9, 9, 4)).astype('float32'); x[0, ..., 1] = 0;"
        "a, b = m(x), m(x[..., ::-1]);"
        "assert np.array_equal(a.segmentation_logits, b.segmentation_logits);"
        "assert np.array_equal(a.modality_logits, np.asarray(b.modality_logits)[:, ::-1])"
    )
    environment = os.environ | {"KERAS_BACKEND": "jax"}
    subprocess.run([sys.executable, "-c", program], check=True, env=environment, cwd=Path(__file__).parents[2])
