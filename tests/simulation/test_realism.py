"""Simulated scans beside real ones, by numbers that are printed: run with `pytest -m slow -s`."""

from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from pimms_tf.simulation import draw_hospital, read_head, read_lesion_masks, simulate

REAL = Path(__file__).parents[2].parent / "shared" / "data" / "real"
PATIENTS = (*(f"ms3_{n}" for n in (101627, 104670, 104899, 106639, 111008)), "mslesseg_p14_visit2")
CONTRASTS = ("T1", "T2", "FLAIR")
QUANTILES = (10, 50, 90)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not REAL.is_dir(), reason="the real scans are not beside the repository"),
]


def whitened(scans: dict[str, np.ndarray], brain: np.ndarray, lesion: np.ndarray) -> dict[str, list[float]]:
    """For each contrast quantiles of lesions in deviations of the brain; the 5th, 50th and 95th of the brain."""
    found = {}
    for name, scan in scans.items():
        value = (scan - scan[brain].mean()) / scan[brain].std()
        found[name] = [*np.percentile(value[lesion & brain], QUANTILES), *np.percentile(value[brain], (5, 50, 95))]
    return found


def sizes_of(lesion: np.ndarray, voxel_mm3: float = 1.0) -> tuple[float, int, float, float]:
    """Load in ml, number of lesions, their median size in mm³ and the share of the largest."""
    sizes = np.bincount(ndimage.label(lesion)[0].ravel())[1:] * voxel_mm3
    return sizes.sum() / 1000, len(sizes), float(np.median(sizes)), float(sizes.max() / sizes.sum())


def volume(path: Path) -> np.ndarray:
    return np.asarray(nib.load(path).dataobj).astype(np.float32)


@pytest.fixture(scope="module")
def simulated():
    head = read_head(REAL / "labelmaps_synthseg" / "training_seg_09.nii.gz")
    masks = read_lesion_masks(REAL / "lesion_masks_mni")
    found = []
    for number in range(6):
        rng = np.random.default_rng((11, number))
        hospital = draw_hospital(rng, contrasts=CONTRASTS)
        hospital = replace(hospital, head="stripped", grid_mm=(1.0, 1.0, 1.0))
        found.append(simulate(head, hospital, rng, masks=masks, load_ml=float((2, 5, 10, 15, 20, 30)[number])))
    return found


def test_whitened_lesions_and_brains_are_where_real_ones_are(simulated):
    rows: dict[str, dict[str, list[list[float]]]] = {name: {"real": [], "simulated": []} for name in CONTRASTS}
    for patient in PATIENTS:
        scans = {name: volume(REAL / patient / f"{name}.nii.gz") for name in CONTRASTS}
        mask = REAL / patient / "brainmask.nii.gz"
        brain = volume(mask) > 0 if mask.exists() else scans["T1"] > 0
        lesion = volume(REAL / patient / "lesion.nii.gz") > 0
        for name, numbers in whitened(scans, brain, lesion).items():
            rows[name]["real"].append(numbers)
    for one in simulated:
        scans = {name: one.scans[..., number] for number, name in enumerate(CONTRASTS)}
        for name, numbers in whitened(scans, one.scans.min(-1) > 0, one.lesion).items():
            rows[name]["simulated"].append(numbers)
    print("\n                       lesions 10 %   50 %   90 %     brain 5 %   50 %   95 %")
    for name, kinds in rows.items():
        middle = {kind: np.median(numbers, axis=0) for kind, numbers in kinds.items()}
        for kind, numbers in kinds.items():
            for one in numbers:
                print(f"{name:6s} {kind:10s}      " + " ".join(f"{value:7.2f}" for value in one))
            print(f"{name:6s} {kind:10s} median" + " ".join(f"{value:7.2f}" for value in middle[kind]))
        # Patients differ by about one deviation; medians over six of each may not.
        np.testing.assert_allclose(middle["simulated"], middle["real"], atol=0.8, err_msg=name)
        low, high = np.min(kinds["real"], axis=0) - 1, np.max(kinds["real"], axis=0) + 1
        assert np.mean((kinds["simulated"] >= low) & (kinds["simulated"] <= high)) > 0.9


def test_lesions_are_as_many_and_as_small_as_real_ones(simulated):
    masks = read_lesion_masks(REAL / "lesion_masks_mni")
    real = np.array([sizes_of(mask.mask) for mask in masks])
    made = np.array([sizes_of(one.lesion) for one in simulated])
    print("\n             ml  number  median mm³  share of the largest")
    for kind, rows in (("real", real), ("simulated", made)):
        for load_ml, number, median_mm3, largest in rows:
            print(f"{kind:10s} {load_ml:5.1f} {number:6.0f} {median_mm3:9.1f} {largest:10.2f}")
    assert real[:, 1].min() / 2 < np.median(made[:, 1]) < real[:, 1].max()
    assert real[:, 2].min() / 2 <= np.median(made[:, 2]) <= real[:, 2].max()
    assert real[:, 3].min() / 2 < np.median(made[:, 3]) <= 1
