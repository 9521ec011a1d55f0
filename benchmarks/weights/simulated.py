"""Simulated hospitals → pools.

python benchmarks/weights/simulated.py LABELMAPS POOL --masks LESION_MASKS --count 150 --held 12

Every subject is of a hospital of its own. POOL/sim holds T1, T2 and FLAIR, POOL/other what else the hospitals took,
POOL/held whole subjects of hospitals that no training sees; one in four of those is healthy. Subject n depends on the
seed and n alone, and subjects that lie there already are not made again.
"""

import argparse
from pathlib import Path

import numpy as np
from pool import MODALITIES, slices_of, write_slices

from pimms_tf.simulation.heads import read_head, read_lesion_masks
from pimms_tf.simulation.hospitals import draw_hospital
from pimms_tf.simulation.subjects import simulate

AS_MODALITY = {"T1": "T1", "T1ce": "T1", "T2": "T2", "FLAIR": "FLAIR"}
OTHERS = ("PD", "T2*", "DWI", "STIR", "DIR", "TOF")


def made(head, masks, rng: np.random.Generator, held: bool, healthy: bool):
    """A simulated subject as slices of the three modalities, and as slices of up to three others or None."""
    contrasts = None
    if not held and rng.random() < 0.25:
        contrasts = ("T1", "T2", "FLAIR", *rng.choice(OTHERS, 2, replace=False))
    hospital = draw_hospital(rng, contrasts=contrasts)
    thin = hospital.grid_mm[2] < 2
    load = {"load_ml": 0.0} if healthy else {}
    found = simulate(head, hospital, rng, masks=masks, num_slices=40 if thin and not held else None, **load)
    scans, others = {}, {}
    for number in rng.permutation(len(found.contrasts)):
        contrast, volume = found.contrasts[number], found.scans[::-1, ::-1, :, number]
        if contrast not in AS_MODALITY:
            if found.protocols[number].b_s_mm2 or contrast != "DWI":  # without diffusion weighting it is a T2 scan
                others[MODALITIES[len(others)]] = volume
            continue
        name = AS_MODALITY[contrast]
        # Half of those who have two scans of a modality have them averaged, as the network does with two.
        scans[name] = volume if name not in scans or rng.random() < 0.5 else (scans[name] + volume) / 2
    brain, label = found.brain[::-1, ::-1], found.lesion[::-1, ::-1]
    subject = slices_of(scans, brain, label)
    return subject, slices_of(others, brain, label) if others else None, found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("maps", type=Path)
    parser.add_argument("pool", type=Path)
    parser.add_argument("--masks", type=Path)
    parser.add_argument("--count", type=int, default=150)
    parser.add_argument("--part", type=int, default=0, help="of --parts, for several processes")
    parser.add_argument("--parts", type=int, default=1)
    parser.add_argument("--held", type=int, default=12)
    parser.add_argument("--seed", type=int, default=0)
    a = parser.parse_args()
    paths = sorted(a.maps.glob("*.nii.gz"))
    masks = read_lesion_masks(a.masks) if a.masks else []
    for place, path in enumerate(paths):  # head by head, since a head takes longer to read than a subject to make
        # The last two heads and masks are kept for the hospitals that are held out.
        held = place >= len(paths) - 2
        start, step, count = (place - len(paths) + 2, 2, a.held) if held else (place, len(paths) - 2, a.count)
        folder, prefix = (a.pool / "held", "held_") if held else (a.pool / "sim", "")
        wanted = [n for n in range(start, count, step) if not (folder / f"{prefix}{n:04d}.npz").exists()]
        if place % a.parts != a.part or not wanted:
            continue
        head = read_head(path, a.pool / "heads")
        for number in wanted:
            rng = np.random.default_rng((a.seed, held, number))
            some = masks[-2:] if held else masks[:-2]
            subject, others, found = made(head, some, rng, held, held and number % 4 == 3)
            write_slices(folder / f"{prefix}{number:04d}.npz", subject)
            if others is not None and not held:
                write_slices(a.pool / "other" / f"{number:04d}.npz", others)
            print(
                prefix + str(number),
                path.name,
                found.contrasts,
                found.hospital.head,
                found.hospital.grid_mm,
                subject.scans.shape,
                f"{found.lesion_ml:.1f} ml",
                flush=True,
            )


if __name__ == "__main__":
    main()
