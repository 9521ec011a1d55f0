"""What is remarked about masks: too much, too thick, on one side; and nothing about ordinary ones."""

import numpy as np
import pytest

from pimms_tf.data.images import Image
from pimms_tf.inference.plausibility import doubts

BRAIN = np.pad(np.ones((60, 60, 30), bool), 5)


def mask(*boxes, shape=BRAIN.shape, spacing_mm=(2.0, 2.0, 2.0)):
    data = np.zeros((*shape, 1), np.int32)
    for box in boxes:
        data[box] = 1
    return Image(data, np.diag([*spacing_mm, 1.0]))


LEFT, RIGHT = np.s_[20:24, 10:60, 20:24], np.s_[46:50, 10:60, 20:24]


@pytest.mark.parametrize(
    ("boxes", "says"),
    [
        ((), ()),
        ((LEFT, RIGHT), ()),
        ((LEFT,), ("100 % of what is marked lies in the left half",)),
        ((RIGHT,), ("100 % of what is marked lies in the right half",)),
        ((np.s_[20:24, 10:20, 20:24],), ()),  # 1.3 ml
        ((np.s_[30:40, 10:20, 15:25],), ("one lesion is 18 mm thick",)),
        ((np.s_[20:26, 5:65, 10:25], np.s_[44:50, 5:65, 10:25]), ("86 ml are marked",)),
    ],
)
def test_what_is_unlike_white_matter_lesions_is_said(boxes, says):
    found = doubts(mask(*boxes), BRAIN)
    assert len(found) == len(says)
    for sentence, words in zip(found, says, strict=True):
        assert words in sentence


def test_sides_follow_the_affine_and_not_the_array():
    turned = mask(LEFT)
    turned.affine[0, 0] = -2.0
    assert "in the right half" in doubts(turned, BRAIN)[0]


def test_without_a_brain_sides_are_not_told_apart():
    assert doubts(mask(LEFT), np.zeros_like(BRAIN)) == ()
