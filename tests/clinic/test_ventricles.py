"""Ventricles: found in a phantom whose ventricles are known, and owned not to be found where they cannot be."""

import numpy as np
import pytest
from scipy import ndimage

from pimms_tf.clinic.ventricles import find_ventricles
from pimms_tf.simulation.atlas import tissue_maps
from pimms_tf.simulation.phantom import draw_phantom


@pytest.fixture(scope="module")
def phantom():
    return draw_phantom(np.random.default_rng(7), (3.0, 3.0, 3.0))


def found_in(phantom, *names):
    brain = phantom.fractions.sum(axis=-1) > 0.5
    return find_ventricles([getattr(phantom, name.lower()) for name in names], names, brain, phantom.affine)


@pytest.mark.parametrize("names", [("T1",), ("T2",), ("FLAIR",), ("T1", "T2", "FLAIR")], ids="+".join)
def test_most_of_what_is_found_is_deep_fluid(phantom, names):
    found = found_in(phantom, *names)
    fluid = phantom.fractions[..., 2]
    depth = ndimage.distance_transform_edt(phantom.fractions.sum(axis=-1) > 0.5, sampling=3.0)
    deep = (fluid > 0.5) & (depth > 25)
    assert found[deep].mean() > 0.5
    assert fluid[found].mean() > 0.5
    assert 5 < found.sum() * 0.027 < 80


def test_a_part_of_a_brain_an_empty_one_and_unknown_contrasts_have_none(phantom):
    brain = phantom.fractions.sum(axis=-1) > 0.5
    assert find_ventricles([phantom.t1], ["T1"], np.zeros_like(brain), phantom.affine) is None
    slab = brain & (np.arange(brain.shape[2]) < 12)
    assert find_ventricles([phantom.t1], ["T1"], slab, phantom.affine) is None
    assert find_ventricles([phantom.t1], ["PD"], brain, phantom.affine) is None


def test_scans_without_fluid_have_none():
    maps = tissue_maps()
    brain = np.einsum("xyzt->xyz", maps.probability)[::4, ::4, ::4] > 0.5
    affine = maps.affine @ np.diag([4.0, 4.0, 4.0, 1.0])
    assert find_ventricles([np.ones(brain.shape, np.float32)], ["T1"], brain, affine) is None
