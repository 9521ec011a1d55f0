"""The modality classifier."""

import numpy as np
import pytest
from keras import ops

from pimms_tf.models import ModalityClassifier, build_classifier

SMALL = {"features": (4, 8, 16), "num_blocks": 2}


def count(layer, variables="trainable_variables"):
    return sum(int(np.prod(variable.shape)) for variable in getattr(layer, variables))


def built(classifier, *shape):
    classifier.build((None, *shape, 1))
    return classifier


@pytest.mark.parametrize(
    ("modalities", "preset", "choices", "expected"),
    [
        (3, "paper", {}, 866_547),
        (3, "paper", {"classifier_blocks": 4}, 402_867),
        (3, "niftynet2018", {}, 865_788),
    ],
)
def test_it_has_the_published_number_of_parameters(modalities, preset, choices, expected):
    assert count(build_classifier(modalities, preset, **choices)) == expected


@pytest.mark.parametrize("blocks", [1, 3])
def test_it_has_nine_normalisations_for_each_block_and_one(blocks):
    classifier = built(ModalityClassifier(3, num_blocks=blocks), None, None)
    assert sum(variable.path.endswith("/gamma") for variable in classifier.variables) == 9 * blocks + 1


def test_two_of_three_resolutions_halve_the_grid_rounding_up():
    classifier = built(ModalityClassifier(3, **SMALL | {"features": (4, 8, 16, 32)}), 25, 10)
    shape = (1, 25, 10, 4)
    for block in classifier.blocks:
        shape = block.compute_output_shape(shape)
    assert shape == (1, 7, 3, 32)


@pytest.mark.parametrize("pool", ["spatial", "spatial_and_channel"])
def test_it_answers_any_size_with_one_logit_per_modality(pool):
    classifier = built(ModalityClassifier(5, pool=pool, **SMALL), None, None)
    for size in (1, 7, 16):
        logits = classifier(np.ones((2, size, size + 3, 1), np.float32))
        assert logits.shape == (2, 5)
        assert np.isfinite(logits).all()


def test_pooling_channels_away_leaves_one_number_per_scan():
    classifier = built(ModalityClassifier(3, pool="spatial_and_channel", **SMALL), None, None)
    logits = np.asarray(classifier(np.random.default_rng(0).normal(size=(6, 9, 9, 1)).astype(np.float32)))
    assert classifier.head.kernel.shape == (1, 3)
    assert np.linalg.matrix_rank(logits - logits[0], tol=1e-5) <= 1


def test_volumes_are_classified_too():
    classifier = built(ModalityClassifier(3, spatial_rank=3, **SMALL), None, None, None)
    assert classifier(np.ones((2, 6, 5, 4, 1), np.float32), training=True).shape == (2, 3)


def test_a_scan_is_scored_by_itself_in_inference(rounding):
    classifier = built(ModalityClassifier(3, **SMALL), None, None)
    scans = np.random.default_rng(1).normal(size=(4, 12, 12, 1)).astype(np.float32)
    classifier(scans, training=True)  # statistics that are not the initial ones
    together, tolerance = classifier(scans), rounding(classifier, scans)
    assert tolerance < 1e-4
    for row in range(4):
        np.testing.assert_allclose(classifier(scans[row : row + 1])[0], together[row], rtol=0, atol=tolerance)


def test_rows_that_are_not_present_do_not_move_the_statistics():
    scans = np.random.default_rng(2).normal(size=(3, 12, 12, 1)).astype(np.float32)
    present = np.array([True, True, False])
    classifier = built(ModalityClassifier(3, head_bn=True, extra_bn=True, **SMALL), None, None)
    start, logits = classifier.get_weights(), []
    for last in (0.0, 7.0):
        classifier.set_weights(start)
        logits.append(classifier(np.concatenate([scans[:2], scans[2:] + last]), present=present, training=True)[:2])
        logits += [variable.numpy() for variable in classifier.non_trainable_variables]
    half = len(logits) // 2
    for one, other in zip(logits[:half], logits[half:], strict=True):
        np.testing.assert_array_equal(one, other)


def test_the_identity_blocks_start_from_the_shortcut():
    classifier = built(ModalityClassifier(3, **SMALL), None, None)
    block = classifier.blocks[1]
    block.expand.conv.kernel.assign(ops.zeros_like(block.expand.conv.kernel))
    x = np.random.default_rng(3).normal(size=(1, 6, 6, 8)).astype(np.float32)
    np.testing.assert_array_equal(block(x), x)
