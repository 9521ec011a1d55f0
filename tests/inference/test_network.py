"""The network inside `segment`: compiled once, and blind to where windows were cut."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from pimms_tf.data.grids import Grid
from pimms_tf.data.subjects import Subject
from pimms_tf.inference import label_scores, modality_scores, segment
from pimms_tf.models import build_model


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(11)
    return build_model("soft", 3, 2, classifier_blocks=1, classifier_features=(4, 8, 8))


def subject_of(*shape, seed=0):
    scans = np.random.default_rng(seed).normal(size=shape).astype(np.float32)
    valid, affine = np.ones(shape[3], bool), np.eye(4)
    return Subject("s1", scans, valid, np.arange(shape[3], dtype=np.int32), None, affine, Grid(shape[:3], affine))


def probabilities(model, subject, scores, window, border, batch_size=2):
    return segment(model.segment, subject, scores, window, border, batch_size, probabilities=True).data


def test_a_border_of_17_hides_the_seams_of_the_paper_front_end_and_16_does_not(model, rounding):
    subject = subject_of(76, 70, 1, 2)
    scores = label_scores(subject, 3)
    inside = np.s_[17:-17, 17:-17]  # further out the whole slice sees zeros beyond the edge, windows the edge repeated
    whole = probabilities(model, subject, scores, (0, 0, 1), (0, 0, 0))[inside]
    tiled = probabilities(model, subject, scores, (56, 50, 1), (17, 17, 0))[inside]
    slices, given = subject.scans[np.newaxis, :, :, 0], scores[np.newaxis]
    tolerance = rounding(lambda slices: tf.nn.softmax(model.segment(slices, given)), slices)
    assert tolerance < 1e-4
    np.testing.assert_allclose(tiled, whole, rtol=0, atol=tolerance)
    narrow = probabilities(model, subject, scores, (54, 48, 1), (16, 16, 0))[inside]
    assert np.abs(narrow - whole).max() > 1e-3


def test_a_compiled_network_is_traced_once_for_subjects_of_all_sizes(model):
    traced = []

    @tf.function
    def predict(windows, scores, valid):
        traced.append(windows.shape)
        return model.segment(windows, scores, valid)

    for shape in [(30, 25, 3, 2), (17, 40, 2, 2), (10, 10, 1, 2)]:
        subject = subject_of(*shape)
        image = segment(predict, subject, label_scores(subject, 3), (20, 20, 1), (4, 4, 0), batch_size=5)
        assert image.data.shape == (*shape[:3], 1)
    assert traced == [(5, 20, 20, 2)]


def test_scans_in_another_order_give_the_same_segmentation_and_reordered_scores(model):
    subject, order = subject_of(20, 22, 4, 3), [2, 0, 1]
    scans = subject.scans[..., order]
    shuffled = Subject("s1", scans, subject.valid, subject.modality, None, subject.affine, subject.original)
    scores, shuffled_scores = (modality_scores(model.classify, one, num_slices=3) for one in (subject, shuffled))
    np.testing.assert_array_equal(shuffled_scores, scores[order])
    expected = probabilities(model, subject, scores, (16, 16, 1), (2, 2, 0))
    found = probabilities(model, shuffled, shuffled_scores, (16, 16, 1), (2, 2, 0))
    np.testing.assert_array_equal(found, expected)


def test_windows_that_are_scored_on_their_own_need_no_scores(model):
    def predict(windows, scores, valid):
        assert scores is None
        return model(windows, valid).segmentation_logits

    image = segment(predict, subject_of(20, 20, 1, 2), None, (12, 12, 1), (2, 2, 0), batch_size=2)
    assert set(np.unique(image.data)) <= {0, 1}
