"""Which scans belong to no modality, and why; which may be of another patient."""

from dataclasses import replace

import numpy as np
import pytest

from pimms_tf.clinic.judging import flags_on, foreign
from pimms_tf.inference.preparation import Preparation

RECORD = Preparation(modalities=("T1", "FLAIR"), least_score=0.6, least_share=0.8)


@pytest.fixture(scope="module")
def brightness():
    """Of a brain, (x, y, z)."""
    return np.random.default_rng(0).normal(size=(6, 6, 6))


def reasons(scans, scores):
    names = [f"{place}.nii" for place in range(len(scores))]
    return foreign(np.stack(scans, axis=-1), np.array(scores, np.float32), names, RECORD)


def test_a_second_scan_of_a_modality_stays_with_a_lower_score_and_other_noise(brightness):
    noise = np.random.default_rng(1).normal(size=brightness.shape)
    assert reasons([brightness, 0.7 * brightness + noise], [[0.05, 0.95], [0.2, 0.8]]) == {}


def test_a_guess_stays_where_nothing_is_surer(brightness):
    assert reasons([brightness, -brightness], [[0.65, 0.35], [0.05, 0.95]]) == {}


def test_a_guess_beside_a_sure_scan_is_foreign_and_so_is_what_no_score_speaks_for(brightness):
    found = reasons([brightness] * 3, [[0.05, 0.95], [0.35, 0.65], [0.45, 0.55]])
    assert found == {
        1: "is a guess, with a score of 0.65, beside 0.nii, a surer FLAIR scan with 0.95",
        2: "is none of T1, FLAIR: the best score is 0.55",
    }


def test_a_scan_unlike_the_surest_of_its_modality_is_foreign_however_sure(brightness):
    found = reasons([brightness, -brightness], [[0.05, 0.94], [0.05, 0.95]])
    assert found == {0: "does not look like 1.nii, the surest FLAIR scan"}


def test_a_scan_that_resembles_the_reference_as_little_as_another_head_is_asked_about(a_result):
    first, moved, *_ = a_result().scans

    def flags(similarity, brain_ml=1500.0):
        registered = replace(moved, registration=replace(moved.registration, after=similarity))
        return flags_on((), (first, registered), ("T1", "FLAIR"), brain_ml, is_marked=True)

    (said,) = flags(0.17)
    assert said == "scan_1.nii.gz resembles the reference no more than another head would; is it of this patient?"
    assert flags(0.25) == ()
    assert flags(0.17, brain_ml=0.0) == ("No brain was found in the scans.",)  # similarity is then of more than a brain
