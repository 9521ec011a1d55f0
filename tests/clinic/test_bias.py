"""Bias correction: a field that is known is taken out again, and nothing else changes."""

import numpy as np
import pytest

from pimms_tf.clinic.bias import without_bias
from pimms_tf.data.images import Image
from pimms_tf.simulation.phantom import TISSUES, WHITE_MATTER, draw_phantom


@pytest.fixture(scope="module")
def head():
    """A T1 scan (x, y, z), its affine, where its white matter and its brain are."""
    phantom = draw_phantom(np.random.default_rng(3), (5.0, 5.0, 5.0), (-50.0, 70.0))
    white = phantom.fractions[..., TISSUES.index(WHITE_MATTER)] > 0.9
    return phantom.t1, phantom.affine, white, phantom.t1 > 0


def variation(volume, mask):
    return float(volume[mask].std() / volume[mask].mean())


def test_white_matter_is_even_again_after_a_field_of_40_per_cent(head):
    volume, affine, white, brain = head
    x, y, z = (axis / length - 0.5 for axis, length in zip(np.indices(volume.shape), volume.shape, strict=True))
    spoiled = (volume * np.exp(0.8 * x - 0.5 * y + 0.6 * z)).astype(np.float32)
    found = without_bias(Image(spoiled[..., np.newaxis], affine), brain)
    assert variation(spoiled, white) > 2 * variation(volume, white)
    assert variation(found.data[..., 0], white) < 1.25 * variation(volume, white)
    assert found.data[brain].mean() == pytest.approx(spoiled[brain].mean(), rel=0.1)
    np.testing.assert_array_equal(found.data[..., 0][~brain], 0)
    np.testing.assert_array_equal(found.affine, affine)


def test_a_scan_without_a_brain_stays_as_it_is(head):
    volume, affine, _, brain = head
    image = Image(volume[..., np.newaxis].astype(np.float32), affine)
    assert without_bias(image, np.zeros_like(brain)) is image
