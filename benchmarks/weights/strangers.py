"""Simulated scans that are none of T1, T2 and FLAIR → pools: what the classifier learns to doubt.

python benchmarks/weights/strangers.py LABELMAPS POOL --count 64 --held 16

Each hospital takes all of `CONTRASTS` of one head, 12 axial slices. POOL/strange holds a file a scan, in the slot of
T1, named after hospital and contrast; POOL/strange_held those of the two heads that no training sees. Scan n depends on
the seed and n alone, and what lies there already is not made again.
"""

import argparse
from pathlib import Path

import numpy as np
from pool import slices_of, write_slices

from pimms_tf.simulation.heads import read_head, read_lesion_masks
from pimms_tf.simulation.hospitals import draw_hospital
from pimms_tf.simulation.subjects import simulate

# STIR shows a brain as T2 does, the fat around it aside, and is not taught.
CONTRASTS = ("PD", "T2*", "DWI", "DIR", "TOF")
SLICES = 12


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("maps", type=Path)
    parser.add_argument("pool", type=Path)
    parser.add_argument("--masks", type=Path)
    parser.add_argument("--count", type=int, default=64)
    parser.add_argument("--held", type=int, default=16)
    parser.add_argument("--seed", type=int, default=0)
    a = parser.parse_args()
    paths = sorted(a.maps.glob("*.nii.gz"))
    masks = read_lesion_masks(a.masks) if a.masks else []
    for place, path in enumerate(paths):
        held = place >= len(paths) - 2
        start, step, count = (place - len(paths) + 2, 2, a.held) if held else (place, len(paths) - 2, a.count)
        folder = a.pool / ("strange_held" if held else "strange")
        wanted = [n for n in range(start, count, step) if not list(folder.glob(f"{n:04d}_*.npz"))]
        if not wanted:
            continue
        head = read_head(path, a.pool / "heads")
        for number in wanted:
            rng = np.random.default_rng((a.seed, 2 + held, number))
            hospital = draw_hospital(rng, contrasts=CONTRASTS)
            found = simulate(head, hospital, rng, masks=masks[-2:] if held else masks[:-2], num_slices=SLICES)
            brain, label = (volume[::-1, ::-1] for volume in (found.brain, found.lesion))
            for scan, protocol in enumerate(found.protocols):
                if protocol.contrast == "DWI" and not protocol.b_s_mm2:  # which is a T2 scan
                    continue
                slices = slices_of({"T1": found.scans[::-1, ::-1, :, scan]}, brain, label)
                write_slices(folder / f"{number:04d}_{protocol.contrast.replace('*', 'star')}.npz", slices)
            print(folder.name, number, path.name, hospital.head, hospital.grid_mm, slices.scans.shape, flush=True)


if __name__ == "__main__":
    main()
