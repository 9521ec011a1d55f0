"""A patient's scans in, a mask out: what of it depends on what."""

import shutil

import numpy as np
import pytest

import pimms_tf
from pimms_tf.data.images import read_image
from pimms_tf.errors import InputError


@pytest.fixture(scope="module")
def patient(scans, tmp_path_factory):
    """A folder with the three scans of one simulated patient, nameless."""
    folder = tmp_path_factory.mktemp("patient")
    for number, name in enumerate(("T2", "FLAIR", "T1")):
        shutil.copy(scans / f"sub04_{name}.nii.gz", folder / f"{number}.nii.gz")
    return folder


@pytest.fixture(scope="module")
def result(patient, segmenter):
    return pimms_tf.segment_patient(patient, segmenter, patient="sub04", register=False)


def test_the_mask_lies_on_the_grid_of_the_reference(patient, result):
    reference = read_image(patient / result.reference)
    assert result.mask.shape == reference.shape
    assert result.mask.data.dtype == np.int32
    np.testing.assert_allclose(result.mask.affine, reference.affine, rtol=0, atol=1e-6)
    assert result.probability.data.min() >= 0
    assert result.probability.data.max() <= 1
    low, high = result.volume_range_ml
    assert low <= result.volume_ml <= high


def test_names_and_order_change_no_voxel(patient, result, segmenter, tmp_path):
    renamed = [tmp_path / f"{name}.nii.gz" for name in "cab"]
    for number, path in enumerate(renamed):
        shutil.copy(patient / f"{number}.nii.gz", path)
    again = pimms_tf.segment_patient(renamed[::-1], segmenter, register=False)
    np.testing.assert_array_equal(again.probability.data, result.probability.data)
    assert [scan.scores for scan in again.scans] == [scan.scores for scan in result.scans]
    assert [scan.contribution for scan in again.scans] == [scan.contribution for scan in result.scans]


def test_the_result_is_what_the_segmenter_says_of_the_same_files(patient, result, segmenter):
    subject = segmenter.prepare(sorted(patient.iterdir()))
    probabilities = segmenter(subject, probabilities=True).image
    np.testing.assert_allclose(result.probability.data[..., 0], probabilities.data[..., 1], rtol=0, atol=1e-6)


def test_a_reference_that_is_none_of_the_scans_is_refused_with_their_names(patient, segmenter):
    with pytest.raises(InputError, match="reference 7.nii.gz is none of the scans .* 0.nii.gz"):
        pimms_tf.segment_patient(patient, segmenter, reference="7.nii.gz")
