"""A segmenter so small that a patient takes a second; what it marks means nothing, but any change of it shows.

And results of patients who were never scanned: small balls with bright spots, made without a network.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import keras
import nibabel as nib
import numpy as np
import pytest

from pimms_tf.clinic.intake import SetAside
from pimms_tf.clinic.registration import Registration
from pimms_tf.clinic.results import PatientResult, ScanResult
from pimms_tf.data.grids import Grid
from pimms_tf.data.images import Image
from pimms_tf.inference.preparation import Preparation
from pimms_tf.inference.segmenter import Segmenter
from pimms_tf.models import build_model

CHOICES = {"classifier_blocks": 1, "classifier_features": (4, 8), "frontend": "highres_1x1"}
_SPOTS = ((8, 9, 11, 0.95), (16, 14, 12, 0.7), (12, 16, 15, 0.4))  # of probabilities, in an otherwise dark ball


@pytest.fixture(scope="session")
def segmenter() -> Segmenter:
    keras.utils.set_random_seed(3)
    preparation = Preparation(
        variant="soft",
        choices=CHOICES,
        modalities=("T1", "T2", "FLAIR"),
        num_classes=2,
        class_names=("background", "lesion"),
        axcodes=("L", "P", "S"),
        foreground="threshold_plus",
        classifier_slices=3,
    )
    return Segmenter(build_model("soft", 3, 2, **CHOICES), preparation)


def _result(size: int = 24, spacing_mm=(7.0, 7.0, 7.0), name: str = "p 1", contrasts=("FLAIR", "T1")) -> PatientResult:
    """A patient with as many scans as contrasts and two lesions; the last scan was moved, and one more set aside."""
    affine = nib.affines.from_matvec(np.diag(spacing_mm), np.full(3, -size / 2) * spacing_mm)
    grid = Grid((size,) * 3, affine)
    places = np.indices(grid.shape)
    away = np.sqrt(((places - size / 2) ** 2).sum(axis=0))
    brain = away < 0.4 * size
    probability = np.zeros(grid.shape, np.float32)
    for *spot, height in _SPOTS:
        near = np.sqrt(((places - np.reshape(spot, (3, 1, 1, 1)) * size / 24) ** 2).sum(axis=0)) < size / 16
        probability[near] = height
    rng = np.random.default_rng(len(name))
    scans = []
    for number, contrast in enumerate(contrasts):
        voxels = (brain * 100 + probability * 80 + rng.normal(0, 3, grid.shape)).astype(np.float32)
        scores = tuple(0.9 if modality == contrast else 0.05 for modality in ("T1", "T2", "FLAIR"))
        is_last = number == len(contrasts) - 1 > 0
        scans.append(
            ScanResult(
                name=f"scan_{number}.nii.gz",
                files=(Path(f"scan_{number}.nii.gz"),),
                grid=grid,
                taken_for=contrast,
                scores=scores,
                used=True,
                warnings=("it covers 80 % of the brain",) if is_last else (),
                is_reference=number == 0,
                registration=Registration(np.eye(4), 0.4, 0.6, True) if is_last else None,
                contribution=0.4 if len(contrasts) > 1 else float("nan"),
                image=Image(voxels[..., np.newaxis], affine, grid),
            )
        )
    odd = replace(scans[0], name="odd.nii.gz", used=False, reason="is none of T1, T2, FLAIR", image=None)
    mask = probability >= 0.5
    voxel_ml = float(np.prod(spacing_mm)) / 1000
    return PatientResult(
        patient=name,
        scans=(*scans, replace(odd, is_reference=False, contribution=float("nan"))),
        set_aside=(SetAside("scout", "is a localiser"),),
        modalities=("T1", "T2", "FLAIR"),
        class_names=("background", "lesion"),
        mask=Image(mask[..., np.newaxis].astype(np.int32), affine, grid),
        probability=Image(probability[..., np.newaxis], affine, grid),
        brain=brain,
        reference="scan_0.nii.gz",
        reference_reason="it is a FLAIR scan",
        space_mm=None,
        volume_ml=float(mask.sum() * voxel_ml),
        volume_range_ml=tuple(float((probability >= least).sum() * voxel_ml) for least in (0.75, 0.25)),
        flags=("The volume is unusual.",),
        seconds=12.3,
    )


@pytest.fixture(scope="session")
def a_result() -> Callable[..., PatientResult]:
    """a_result(size, spacing_mm, name, contrasts) is a patient with lesions."""
    return _result


@pytest.fixture(scope="session")
def without_lesions() -> Callable[[PatientResult], PatientResult]:
    """without_lesions(result) is the same patient with an empty mask."""

    def emptied(result: PatientResult) -> PatientResult:
        mask, probability = (replace(image, data=0 * image.data) for image in (result.mask, result.probability))
        return replace(result, mask=mask, probability=probability, volume_ml=0.0, volume_range_ml=(0.0, 0.0))

    return emptied
