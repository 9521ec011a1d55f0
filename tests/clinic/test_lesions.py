"""Lesions of a mask: numbers, places and volumes that can be checked by hand, and what must not depend on storage."""

import csv

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from pimms_tf.clinic.lesions import COLUMNS, measure_lesions, number_lesions, write_lesions

AFFINE = nib.affines.from_matvec(np.diag([2.0, 1.0, 5.0]), (-20, -30, 7))  # voxels of 0.01 ml


def two_lesions():
    mask = np.zeros((12, 12, 6), bool)
    mask[1, 1, 1] = True
    mask[5:7, 5, 2] = mask[7, 6, 3] = True  # the last touches by a corner alone
    return mask


masks = hnp.arrays(bool, st.tuples(*[st.integers(1, 5)] * 3))


def test_lesions_have_their_places_sizes_and_probabilities():
    mask = two_lesions()
    probability = np.where(mask, 0.6, 0.0)
    probability[5, 5, 2] = 0.96
    found = measure_lesions(mask, probability, AFFINE)
    first, second = found
    assert (first.number, first.voxels, second.number, second.voxels) == (1, 3, 2, 1)
    np.testing.assert_allclose(first.centre_mm, (2 * 6 - 20, 16 / 3 - 30, 5 * 7 / 3 + 7))
    np.testing.assert_allclose(second.centre_mm, (-18, -29, 12))
    assert first.volume_ml == pytest.approx(0.03)
    assert first.peak_probability == pytest.approx(0.96)
    assert first.mean_probability == pytest.approx(0.72)
    assert first.site is None
    assert first.ventricle_mm is None


def test_a_lesion_within_three_millimetres_of_the_ventricles_is_periventricular():
    mask, ventricles = two_lesions(), np.zeros((12, 12, 6), bool)
    ventricles[5, 8, 2] = True  # 3 mm from the larger lesion
    near, far = measure_lesions(mask, mask * 0.9, AFFINE, ventricles)
    assert (near.site, near.ventricle_mm) == ("periventricular", 3.0)
    assert far.site == "deep"
    assert far.ventricle_mm == pytest.approx(np.sqrt(8**2 + 7**2 + 5**2))
    assert measure_lesions(mask, mask * 0.9, AFFINE, ventricles & False)[0].site is None


def test_an_empty_mask_has_no_lesions(tmp_path):
    found = measure_lesions(np.zeros((3, 3, 3)), np.full((3, 3, 3), 0.05), AFFINE)
    assert found == ()
    assert write_lesions(found, tmp_path / "lesions.tsv").read_text() == "\t".join(COLUMNS) + "\n"


@settings(max_examples=40, deadline=None)
@given(masks, st.randoms(use_true_random=False))
def test_nothing_depends_on_how_the_voxels_are_stored(mask, random):
    probability = np.random.default_rng(random.randrange(2**32)).uniform(0.5, 1, mask.shape) * mask
    change = np.array([[axis, random.choice([-1, 1])] for axis in random.sample(range(3), 3)])
    turned = [nib.orientations.apply_orientation(array, change) for array in (mask, probability)]
    affine = AFFINE @ nib.orientations.inv_ornt_aff(change, mask.shape)
    before, after = measure_lesions(mask, probability, AFFINE), measure_lesions(*turned, affine)
    for one, other in zip(before, after, strict=True):
        assert (one.number, one.voxels) == (other.number, other.voxels)
        np.testing.assert_allclose(one.centre_mm, other.centre_mm, atol=1e-9)
        assert one.mean_probability == pytest.approx(other.mean_probability)


@settings(max_examples=40, deadline=None)
@given(masks)
def test_numbers_cover_the_mask_and_fall_in_size(mask):
    numbers = number_lesions(mask, AFFINE)
    np.testing.assert_array_equal(numbers > 0, mask)
    sizes = np.bincount(numbers.ravel())[1:]
    assert (sizes > 0).all()
    assert (np.diff(sizes) <= 0).all()
    found = measure_lesions(mask, mask * 0.7, AFFINE)
    assert sum(row.voxels for row in found) == mask.sum()


def test_the_table_reads_back(tmp_path):
    mask = two_lesions()
    path = write_lesions(measure_lesions(mask, mask * 0.75, AFFINE), tmp_path / "new" / "lesions.tsv")
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    assert [row["lesion"] for row in rows] == ["1", "2"]
    assert float(rows[1]["x_mm"]) == -18
    assert rows[1]["volume_ml"] == "0.0100"
    assert rows[1]["site"] == "n/a"


def test_arrays_of_different_shapes_are_refused():
    with pytest.raises(ValueError, match=r"mask \(2, 2, 2\) and probability \(2, 2, 3\)"):
        measure_lesions(np.zeros((2, 2, 2)), np.zeros((2, 2, 3)), AFFINE)
