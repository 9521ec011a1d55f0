"""What one more scan does to the volume: of another contrast, of the same scan again, of a modality that is there.

python benchmarks/weights/foreign.py DATA --count 3

Simulated patients of the two heads and lesion masks that no training saw (12 ml, slices of 5 mm, with and without
skull in turn), of a hospital that takes ten scans, are segmented from T1, T2 and FLAIR, without names; then once more
with each further scan.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
from scipy import ndimage

from pimms_tf.data.images import Image
from pimms_tf.simulation.heads import read_head, read_lesion_masks
from pimms_tf.simulation.hospitals import draw_hospital
from pimms_tf.simulation.subjects import simulate
from pimms_tf.weights import bundled

SEED = 101
CONTRASTS = ("T1", "T2", "FLAIR", "PD", "T2*", "DWI", "STIR", "DIR", "TOF", "FLAIR", "T1ce", "T2")


def patients(data: Path, count: int):
    masks = read_lesion_masks(data / "lesion_masks_mni")[-2:]
    paths = sorted((data / "labelmaps_synthseg").glob("*.nii.gz"))[-2:]
    heads = [read_head(path) for path in paths[:count]]
    for number in range(count):
        rng = np.random.default_rng((SEED, number))
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
    a = parser.parse_args()
    segmenter = bundled()
    changes: dict[str, list[float]] = {}
    for number, found in patients(a.data, a.count):
        scans, truth = found.scans.astype(np.float32), found.lesion

        def marked(volumes, affine=found.affine):
            subject = segmenter.prepare([Image(np.ascontiguousarray(v[..., np.newaxis]), affine) for v in volumes])
            scores, image = segmenter(subject)
            return image.data[..., 0] > 0, scores

        def dice(mask, truth=truth):
            return 2 * (mask & truth).sum() / (mask.sum() + truth.sum())

        three = [scans[..., place] for place in range(3)]
        base, scores = marked(three)
        print(number, found.hospital.head, f"{dice(base):.3f}", scores.max(axis=1).round(2), flush=True)
        rng = np.random.default_rng(number)
        more = [(f"{found.contrasts[place]} too", scans[..., place]) for place in range(3, len(CONTRASTS))]
        more += [
            (f"{name} again, {kind}", again(three[place], kind, rng))
            for place, name in ((0, "T1"), (2, "FLAIR"))
            for kind in ("other units, rounded", "0.1 % noise", "resampled there and back")
        ]
        for name, scan in more:
            mask, scores = marked([*three, scan])
            change = mask.sum() / base.sum() - 1
            changes.setdefault(name, []).append(change)
            left_out = "" if segmenter.preparation.belonging(scores)[3] else ", left out"
            print(f"  {name}: {100 * change:+.2f} %, Dice {dice(mask):.3f}, {scores[3].round(2)}{left_out}", flush=True)
    for name, found in changes.items():
        print(f"{name}: {100 * np.abs(found).max():.2f} % at most of {len(found)}", flush=True)


if __name__ == "__main__":
    main()
