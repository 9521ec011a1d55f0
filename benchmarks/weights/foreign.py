"""What one more scan does to the volume: of another contrast, of a modality that is there, of the same scan again.

python benchmarks/weights/foreign.py DATA --count 3
python benchmarks/weights/foreign.py DATA --count 3 --again

Simulated patients of the two heads and lesion masks that no training saw (12 ml, slices of 5 mm, with and without
skull in turn), of a hospital that takes twelve scans, go through `pimms-tf segment --no-register` with T1, T2 and
FLAIR, as nameless files on one grid; then once more with each further scan, or with a copy of one of the three.
"""

import argparse
import tempfile
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
from scipy import ndimage

from pimms_tf.clinic.patient import segment_patient
from pimms_tf.simulation.heads import read_head, read_lesion_masks
from pimms_tf.simulation.hospitals import draw_hospital
from pimms_tf.simulation.subjects import simulate
from pimms_tf.weights import bundled

SEED = 101
CONTRASTS = ("T1", "T2", "FLAIR", "PD", "T2*", "DWI", "STIR", "DIR", "TOF", "FLAIR", "T1ce", "T2")


def patients(data: Path, count: int, seed: int):
    masks = read_lesion_masks(data / "lesion_masks_mni")[-2:]
    paths = sorted((data / "labelmaps_synthseg").glob("*.nii.gz"))[-2:]
    heads = [read_head(path) for path in paths[:count]]
    for number in range(count):
        rng = np.random.default_rng((seed, number))
        hospital = draw_hospital(rng, contrasts=CONTRASTS)
        # A scan without diffusion weighting is a T2 scan.
        protocols = tuple(replace(p, b_s_mm2=1000.0) if p.contrast == "DWI" else p for p in hospital.protocols)
        skull = ("kept", "stripped")[number % 2]
        hospital = replace(hospital, protocols=protocols, grid_mm=(1.2, 1.2, 5.0), head=skull)
        yield number, simulate(heads[number % len(heads)], hospital, rng, masks=masks, load_ml=12.0)


def again(scan: np.ndarray, kind: str, rng: np.random.Generator) -> np.ndarray:
    """A scan (x, y, z) as it comes back from another archive."""
    if kind == "other units, rounded":
        return np.rint(scan * np.float32(731.7 / scan.max()) + (scan > 0) * 3).astype(np.float32)
    if kind == "0.1 % noise":
        return scan + rng.normal(0, 1e-3 * scan.max(), scan.shape).astype(np.float32) * (scan > 0)
    there = ndimage.shift(scan, (0.4, 0.3, 0), order=3, mode="nearest")  # onto another grid, and back
    back = ndimage.shift(there, (-0.4, -0.3, 0), order=3, mode="nearest")
    return np.where(scan == 0, 0, back).astype(np.float32)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--count", type=int, default=3)
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--again", action="store_true", help="copies of the three scans instead of further ones")
    a = parser.parse_args()
    segmenter = bundled()
    changes: dict[str, list[float]] = {}
    for number, found in patients(a.data, a.count, a.seed):
        truth = found.lesion

        def segmented(volumes, affine=found.affine):
            with tempfile.TemporaryDirectory() as folder:
                paths = [Path(folder) / f"{place}.nii" for place in range(len(volumes))]
                for path, volume in zip(paths, volumes, strict=True):
                    nib.save(nib.Nifti1Image(volume, affine), path)
                result = segment_patient(paths, segmenter, register=False, contributions=False)
            scans = {scan.name: scan for scan in result.scans}
            return result.mask.data[..., 0] > 0, [scans.get(path.name) for path in paths]

        def dice(mask, truth=truth):
            return 2 * (mask & truth).sum() / (mask.sum() + truth.sum())

        scans = [np.ascontiguousarray(scan) for scan in np.moveaxis(found.scans.astype(np.float32), -1, 0)]
        base, three = segmented(scans[:3])
        print(number, found.hospital.head, f"{dice(base):.3f}", [max(scan.scores) for scan in three], flush=True)
        more = [(f"{found.contrasts[place]} too", scans[place]) for place in range(3, len(CONTRASTS))]
        if a.again:
            rng = np.random.default_rng(number)
            more = [
                (f"{name} again, {kind}", again(scans[place], kind, rng))
                for place, name in ((0, "T1"), (2, "FLAIR"))
                for kind in ("other units, rounded", "0.1 % noise", "resampled there and back")
            ]
        for name, scan in more:
            mask, (*_, last) = segmented([*scans[:3], scan])
            change = mask.sum() / base.sum() - 1
            changes.setdefault(name, []).append(change)
            became = "a copy" if last is None else last.reason or f"used as {last.taken_for}, {max(last.scores):.2f}"
            alike = np.corrcoef([each[found.brain > 0] for each in (scan, *scans[:3])])[0, 1:].round(2).tolist()
            told = f"{100 * change:+.2f} %, Dice {dice(mask):.3f}, {became}; like the three {alike}"
            print(f"  {name}: {told}", flush=True)
    for name, found in changes.items():
        print(f"{name}: {100 * np.abs(found).max():.2f} % at most of {len(found)}", flush=True)


if __name__ == "__main__":
    main()
