"""Losses: what they mean, the worked numbers of the specification, then every case recorded from NiftyNet."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from pimms_tf.errors import InputError
from pimms_tf.training.losses import LOSSES, make_loss, mean_weight_penalty, modality_cross_entropy

GOLDENS = Path(__file__).parents[1] / "goldens" / "06_losses"
DENSE = [name for name in LOSSES if "Dense" in name]
SPARSE = [name for name in LOSSES if "Dense" not in name]

FOUR_PIXELS_P1 = np.array([0.9, 0.6, 0.2, 0.1], np.float32)
FOUR_PIXELS = np.stack([1 - FOUR_PIXELS_P1, FOUR_PIXELS_P1], axis=-1)[np.newaxis]  # (1, 4, class)
FOUR_LABELS = np.array([[1, 1, 0, 0]], np.int32)


def some_logits(shape=(2, 3, 4, 2), seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def some_labels(shape=(2, 3, 4), num_classes=2, seed=1):
    return np.random.default_rng(seed).integers(num_classes, size=shape).astype(np.int32)


def label_for(name, label, num_classes=2):
    return np.eye(num_classes, dtype=np.float32)[label] if name in DENSE else label


def confident(label, num_classes=2):
    return 60.0 * np.eye(num_classes, dtype=np.float32)[label] - 30.0


# Properties


@pytest.mark.parametrize("name", LOSSES)
def test_a_confident_right_answer_costs_nothing_and_a_wrong_one_much(name):
    label = some_labels()
    floor = -1.0 if name == "DicePlusXEnt" else 0.0
    right = float(LOSSES[name](confident(label), label_for(name, label)))
    wrong = float(LOSSES[name](confident(1 - label), label_for(name, label)))
    assert right == pytest.approx(floor, abs=1e-4)
    assert wrong > floor + 0.1


@pytest.mark.parametrize("name", LOSSES)
def test_the_loss_is_the_mean_of_the_losses_of_single_subjects(name):
    logits, label = some_logits(), some_labels()
    together = float(LOSSES[name](logits, label_for(name, label)))
    apart = [float(LOSSES[name](logits[[i]], label_for(name, label[[i]]))) for i in range(2)]
    assert together == pytest.approx(np.mean(apart), rel=1e-6)


@pytest.mark.parametrize("name", LOSSES)
def test_the_order_of_voxels_does_not_matter(name):
    logits, label = some_logits(), some_labels()
    expected = float(LOSSES[name](logits, label_for(name, label)))
    flipped = float(LOSSES[name](logits[:, ::-1], label_for(name, label[:, ::-1])))
    assert flipped == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("name", SPARSE)
def test_a_label_may_carry_a_trailing_channel_and_be_of_any_number_type(name):
    logits, label = some_logits(), some_labels()
    expected = float(LOSSES[name](logits, label))
    assert float(LOSSES[name](logits, label[..., np.newaxis].astype(np.float32))) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("name", SPARSE)
def test_equal_weights_are_no_weights_and_voxels_of_weight_zero_do_not_count(name):
    logits, label = some_logits(), some_labels()
    expected = float(LOSSES[name](logits, label))
    assert float(LOSSES[name](logits, label, np.ones((2, 3, 4, 1), np.float32))) == pytest.approx(expected, rel=1e-5)
    if name not in ("SensSpec", "WGDL"):  # these two ignore weights
        weight = np.zeros((2, 3, 4), np.float32)
        weight[:, :2] = 1
        cut = float(LOSSES[name](logits[:, :2], label[:, :2]))
        assert float(LOSSES[name](logits, label, weight)) == pytest.approx(cut, rel=1e-5)


@pytest.mark.parametrize("name", SPARSE)
def test_weights_of_zero_everywhere_give_a_finite_loss_and_gradient(name):
    logits, label = tf.constant(some_logits()), some_labels()
    with tf.GradientTape() as tape:
        tape.watch(logits)
        loss = LOSSES[name](logits, label, np.zeros((2, 3, 4), np.float32))
    assert np.isfinite(float(loss))
    assert np.all(np.isfinite(tape.gradient(loss, logits)))


@pytest.mark.parametrize("name", SPARSE)
def test_a_label_without_foreground_gives_a_finite_loss_and_gradient(name):
    logits, label = tf.constant(some_logits()), np.zeros((2, 3, 4), np.int32)
    with tf.GradientTape() as tape:
        tape.watch(logits)
        loss = LOSSES[name](logits, label)
    assert np.isfinite(float(loss))
    assert np.all(np.isfinite(tape.gradient(loss, logits)))


@pytest.mark.parametrize("name", LOSSES)
def test_float16_logits_are_summed_in_float32(name):
    logits, label = some_logits().astype(np.float16), some_labels()
    loss = LOSSES[name](logits, label_for(name, label))
    assert loss.dtype == tf.float32
    expected = float(LOSSES[name](logits.astype(np.float32), label_for(name, label)))
    assert float(loss) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("name", LOSSES)
def test_batches_of_unknown_size_work_inside_a_graph(name):
    logits, label = some_logits(), label_for(name, some_labels())
    signature = [tf.TensorSpec([None, None, None, 2]), tf.TensorSpec([None] * label.ndim, tf.as_dtype(label.dtype))]
    compiled = tf.function(lambda x, y: LOSSES[name](x, y), input_signature=signature)
    assert float(compiled(logits, label)) == pytest.approx(float(LOSSES[name](logits, label)), rel=1e-6)


@pytest.mark.parametrize("name", ["Dice", "Dice_NS", "GDSC", "Tversky", "SensSpec", "WGDL", "VolEnforcement"])
def test_probabilities_without_softmax_equal_logits_with_it(name):
    logits, label = some_logits(), some_labels()
    on_probabilities = float(LOSSES[name](ops.softmax(logits), label, softmax=False))
    assert on_probabilities == pytest.approx(float(LOSSES[name](logits, label)), rel=1e-5)


@pytest.mark.parametrize("name", ["CrossEntropy", "CrossEntropy_Dense", "DicePlusXEnt"])
def test_cross_entropies_take_the_logarithm_of_probabilities_as_logits(name):
    logits, label = some_logits(), label_for(name, some_labels())
    on_logarithms = float(LOSSES[name](ops.log(ops.softmax(logits)), label))
    assert on_logarithms == pytest.approx(float(LOSSES[name](logits, label)), rel=1e-5)


@pytest.mark.parametrize("name", LOSSES)
def test_a_second_softmax_is_not_undone_inside_a_graph(name):
    logits, label = some_logits(), label_for(name, some_labels())
    twice = make_loss(name, double_softmax=True)
    expected = float(LOSSES[name](ops.softmax(logits).numpy(), label))
    assert float(twice(logits, label)) == pytest.approx(expected, rel=1e-6)
    assert float(tf.function(twice)(tf.constant(logits), label)) == pytest.approx(expected, rel=1e-6)
    assert float(twice(logits, label)) != pytest.approx(float(LOSSES[name](logits, label)), rel=1e-3)


def test_a_second_softmax_of_modality_scores_is_not_undone_inside_a_graph():
    logits, modality, valid = some_logits((2, 3, 4)), np.array([[0, 1, 2], [3, 0, 1]]), np.ones((2, 3), bool)
    expected = float(modality_cross_entropy(ops.softmax(logits).numpy(), modality, valid))
    compiled = tf.function(lambda x: modality_cross_entropy(x, modality, valid, double_softmax=True))
    assert float(compiled(logits)) == pytest.approx(expected, rel=1e-6)


# Worked numbers


def test_dice_of_four_pixels():
    for name, expected in [("Dice", 0.064551), ("Dice_NS", 0.200503)]:
        on_probabilities = make_loss(name, softmax=False, eps="denominator")
        on_logits = make_loss(name, eps="denominator")
        assert float(on_probabilities(FOUR_PIXELS, FOUR_LABELS)) == pytest.approx(expected, abs=1e-6)
        assert float(on_logits(np.log(FOUR_PIXELS), FOUR_LABELS)) == pytest.approx(expected, abs=1e-6)


def test_dice_of_four_pixels_after_a_second_softmax():
    doubled = make_loss("Dice", eps="denominator", double_softmax=True)
    assert float(doubled(np.log(FOUR_PIXELS), FOUR_LABELS)) == pytest.approx(0.168271, abs=1e-6)
    on_probabilities = make_loss("Dice", eps="denominator")
    assert float(on_probabilities(FOUR_PIXELS, FOUR_LABELS)) == pytest.approx(0.168271, abs=1e-6)


def test_dice_where_no_lesion_is_present_depends_on_the_place_of_epsilon():
    none = np.zeros((1, 4), np.int32)
    background = np.eye(2, dtype=np.float32)[none]
    old = make_loss("Dice", softmax=False, eps="denominator")
    new = make_loss("Dice", softmax=False)
    assert float(old(FOUR_PIXELS, none)) == pytest.approx(0.608542, abs=2e-6)
    assert float(old(background, none)) == pytest.approx(0.500001, abs=2e-6)
    assert float(new(background, none)) == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize(("lesion_pixels", "floor"), [(10, 0.5137), (100, 0.4397), (1000, 0.1915), (5000, 0.0900)])
def test_the_second_softmax_keeps_a_perfect_prediction_above_a_floor(lesion_pixels, floor):
    label = (np.arange(10_000) < lesion_pixels).astype(np.int32)[np.newaxis]
    loss = make_loss("Dice", eps="denominator", double_softmax=True)
    # The floor has four digits. The loss is 1 less a ratio of sums over 10,000 voxels, and such a sum in float32 may be
    # off by as many roundings: with the instructions of some processors it was by 1e-4.
    rounding = 10_000 * 2.0**-24 * (1 - floor)
    assert float(loss(confident(label), label)) == pytest.approx(floor, abs=5e-5 + rounding)


def test_modality_cross_entropy_of_one_scan():
    score = np.array([[[0.7, 0.2, 0.1]]], np.float32)
    modality, valid = np.array([[0]]), np.array([[True]])
    once = modality_cross_entropy(np.log(score), modality, valid)
    twice = modality_cross_entropy(np.log(score), modality, valid, double_softmax=True)
    assert float(once) == pytest.approx(0.356675, abs=1e-6)
    assert float(twice) == pytest.approx(0.767950, abs=1e-6)


@pytest.mark.parametrize(("num_modalities", "floor", "chance"), [(3, 0.5514, 1.0986), (4, 0.7437, 1.3863)])
def test_modality_cross_entropy_has_a_floor_after_a_second_softmax(num_modalities, floor, chance):
    modality = np.arange(num_modalities)[np.newaxis]
    valid = np.ones_like(modality, bool)
    perfect = modality_cross_entropy(confident(modality, num_modalities), modality, valid, double_softmax=True)
    ignorant = modality_cross_entropy(np.zeros((1, num_modalities, num_modalities)), modality, valid)
    assert float(perfect) == pytest.approx(floor, abs=5e-5)
    assert float(ignorant) == pytest.approx(chance, abs=5e-5)


def test_only_present_scans_of_known_modality_count():
    logits = some_logits((2, 3, 4))
    modality = np.array([[1, -1, 2], [0, 3, 3]])
    valid = np.array([[True, True, False], [True, False, True]])
    kept = [(0, 0), (1, 0), (1, 2)]
    expected = np.mean([-ops.log_softmax(logits[b, n])[modality[b, n]] for b, n in kept])
    assert float(modality_cross_entropy(logits, modality, valid)) == pytest.approx(expected, rel=1e-6)


def test_counting_empty_slots_asks_them_for_modality_zero():
    logits = some_logits((1, 3, 4))
    modality, valid = np.array([[2, -1, 1]]), np.array([[True, False, False]])
    expected = np.mean([-ops.log_softmax(logits[0, n])[m] for n, m in [(0, 2), (1, 0), (2, 1)]])
    assert float(modality_cross_entropy(logits, modality, valid, count_empty=True)) == pytest.approx(expected, rel=1e-6)


def test_a_batch_without_any_scan_has_no_modality_loss_and_no_gradient():
    logits = tf.constant(some_logits((2, 3, 4)))
    with tf.GradientTape() as tape:
        tape.watch(logits)
        loss = modality_cross_entropy(logits, np.full((2, 3), -1), np.zeros((2, 3), bool))
    assert float(loss) == 0.0
    assert np.all(tape.gradient(loss, logits).numpy() == 0)


def test_the_weight_penalty_is_a_mean_over_variables_or_their_sum():
    variables = [np.array([3.0, 4.0]), np.array([[-1.0], [1.0]])]
    assert float(mean_weight_penalty(variables, 0.1)) == pytest.approx(0.1 * (12.5 + 1.0) / 2)
    assert float(mean_weight_penalty(variables, 0.1, reduction="sum")) == pytest.approx(0.1 * (12.5 + 1.0))
    assert float(mean_weight_penalty(variables, 0.1, kind="L1")) == pytest.approx(0.1 * (7.0 + 2.0) / 2)


@pytest.mark.parametrize(("variables", "decay"), [([], 0.1), ([np.ones(3)], 0.0)])
def test_no_variables_or_no_decay_give_no_penalty(variables, decay):
    assert float(mean_weight_penalty(variables, decay)) == 0.0


# Bad input


def test_an_unknown_loss_is_refused_with_the_legal_names():
    with pytest.raises(InputError, match=r'loss_type = "dice".*CrossEntropy, .*VolEnforcement'):
        make_loss("dice")


@pytest.mark.parametrize("name", DENSE)
def test_dense_losses_refuse_a_weight_map(name):
    label = label_for(name, some_labels())
    with pytest.raises(ValueError, match="has no weighted form"):
        LOSSES[name](some_logits(), label, np.ones((2, 3, 4), np.float32))


def test_wgdl_refuses_more_classes_than_its_tree_has():
    with pytest.raises(ValueError, match="WGDL knows 5 classes, the prediction has 6"):
        LOSSES["WGDL"](some_logits((1, 4, 6)), some_labels((1, 4), 6))


def test_an_unknown_place_for_epsilon_is_refused():
    with pytest.raises(ValueError, match='eps is "both" or "denominator", not "numerator"'):
        LOSSES["Dice"](some_logits(), some_labels(), eps="numerator")


@pytest.mark.parametrize("wrong", [{"kind": "L3"}, {"reduction": "max"}])
def test_an_unknown_weight_penalty_is_refused(wrong):
    with pytest.raises(ValueError, match="L1 or L2, reduced by mean or sum"):
        mean_weight_penalty([np.ones(2)], 0.1, **wrong)


# Recorded from NiftyNet


def recorded(file, cases, module):
    entries = json.loads((GOLDENS / cases).read_text())
    arrays = np.load(GOLDENS / file)
    return [
        pytest.param(case, arrays, id=case["case"])
        for case in entries
        if case.get("module") == module and "list_of_two" not in case["case"]
    ]


def assert_value_and_gradient_equal(loss, case, arrays):
    name = case["case"]
    prediction = tf.constant(arrays[f"{name}/prediction"])
    weight = arrays.get(f"{name}/weight_map")
    with tf.GradientTape() as tape:
        tape.watch(prediction)
        value = loss(prediction, arrays[f"{name}/ground_truth"], weight)
    gradient, expected = tape.gradient(value, prediction).numpy(), arrays[f"{name}/gradient"]
    np.testing.assert_allclose(value, arrays[f"{name}/loss"], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(gradient, expected, rtol=1e-3, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize(("case", "arrays"), recorded("losses.npz", "cases.json", "loss_segmentation"))
def test_segmentation_losses_and_gradients_equal_the_recorded_ones(case, arrays):
    loss = make_loss(case["loss_type"], softmax=case["softmax"])
    assert_value_and_gradient_equal(loss, case, arrays)


@pytest.mark.parametrize(("case", "arrays"), recorded("fork_losses.npz", "fork_cases.json", "loss_segmentation"))
def test_segmentation_losses_of_2018_equal_the_recorded_ones(case, arrays):
    loss = make_loss(case["loss_type"], softmax=case["softmax"], eps="denominator")
    assert_value_and_gradient_equal(loss, case, arrays)


@pytest.mark.parametrize(
    ("case", "arrays"),
    recorded("losses.npz", "cases.json", "loss_classification")
    + recorded("fork_losses.npz", "fork_cases.json", "loss_classification"),
)
def test_the_modality_loss_equals_the_recorded_classification_loss(case, arrays):
    def loss(logits, label, weight):
        scans = ops.reshape(logits, (1, *logits.shape))
        modality = np.reshape(label, (1, -1))
        return modality_cross_entropy(scans, modality, np.ones(modality.shape, bool))

    assert_value_and_gradient_equal(loss, case, arrays)


def test_every_recorded_segmentation_loss_is_offered():
    names = {
        case["loss_type"]
        for file in ("cases.json", "fork_cases.json")
        for case in json.loads((GOLDENS / file).read_text())
        if case.get("module") == "loss_segmentation"
    }
    assert names == set(LOSSES)


def test_predictions_at_two_scales_are_averaged_by_their_caller():
    arrays, name = np.load(GOLDENS / "losses.npz"), "seg_Dice_list_of_two"
    label = arrays[f"{name}/ground_truth"]
    scales = [float(LOSSES["Dice"](arrays[f"{name}/prediction_{i}"], label)) for i in range(2)]
    assert np.mean(scales) == pytest.approx(float(arrays[f"{name}/loss"]), rel=1e-5)


@pytest.mark.parametrize("kind", ["L1", "L2"])
def test_the_weight_penalty_equals_the_recorded_regularisers(kind):
    arrays, name = np.load(GOLDENS / "losses.npz"), f"total_{kind.lower()}_decay0.01"
    suffixes = ("/w", "/b", "/beta", "/gamma")
    keys = [key for key in arrays if key.startswith(f"{name}/var/") and key.endswith(suffixes)]
    each = [float(mean_weight_penalty([arrays[key]], 0.01, kind)) for key in keys]
    np.testing.assert_allclose(sorted(each), np.sort(arrays[f"{name}/reg_losses"]), rtol=1e-6)
    together = float(mean_weight_penalty([arrays[key] for key in keys], 0.01, kind))
    assert together == pytest.approx(float(arrays[f"{name}/reg_mean"]), rel=1e-6)
    total = together + float(arrays[f"{name}/data_loss"])
    assert total == pytest.approx(float(arrays[f"{name}/total"]), rel=1e-6)


def test_the_weight_penalty_pulls_a_weight_by_decay_over_the_number_of_variables():
    variables = [tf.constant([3.0, -4.0]), tf.constant([1.0])]
    with tf.GradientTape() as tape:
        tape.watch(variables)
        penalty = mean_weight_penalty(variables, 0.1)
    np.testing.assert_allclose(tape.gradient(penalty, variables)[0], [0.15, -0.2], rtol=1e-6)
    assert math.isclose(float(penalty), 0.1 * 13 / 2, rel_tol=1e-6)
