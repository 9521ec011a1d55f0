"""What a second scan of a modality is worth, by how the two are weighed: Dice and volume next to the first scan alone.

python benchmarks/weights/second.py DATA --count 6 --seed 77

The patients of `foreign.py` with two scans each of T1 (one after contrast agent), T2 and FLAIR. The network is given
T1, T2 and FLAIR in their slots by label, one of them in turn replaced by the second scan or by a mixture of both: in
equal shares, as the network does, or weighed by how small the voxels were that the scanner took.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
from foreign import patients

from pimms_tf.data.images import Image
from pimms_tf.weights import bundled

FIRST = {"T1": 0, "T2": 1, "FLAIR": 2}
SECOND = {"T1": 10, "T2": 11, "FLAIR": 9}  # places in `foreign.CONTRASTS`


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--count", type=int, default=6)
    parser.add_argument("--seed", type=int, default=77)
    a = parser.parse_args()
    segmenter = bundled()
    gains: dict[str, list[float]] = {}
    for number, found in patients(a.data, a.count, a.seed):
        places = [*FIRST.values(), *SECOND.values()]
        images = [Image(found.scans[..., [place]].astype(np.float32), found.affine) for place in places]
        names = tuple(map(str, places))
        # One brain of all six, so that nothing but the mixture differs.
        loader = segmenter.preparation.subject_loader(names)
        subject = loader.load(dict(zip(names, images, strict=True)))
        scans = dict(zip(places, np.moveaxis(subject.scans, -1, 0), strict=True))

        def marked(chosen, subject=subject, truth=found.lesion):
            few = replace(subject, scans=np.stack(chosen, axis=-1), valid=np.ones(3, bool), modality=np.arange(3))
            mask = segmenter(few, scores=np.eye(3, dtype=np.float32)).image.data[..., 0] > 0
            return mask.sum(), 2 * (mask & truth).sum() / (mask.sum() + truth.sum())

        three = [scans[place] for place in FIRST.values()]
        volume, dice = marked(three)
        print(f"{number}: Dice {dice:.3f}", flush=True)
        for slot, name in enumerate(FIRST):
            sizes = [voxel_mm3(found.protocols[place]) for place in (FIRST[name], SECOND[name])]
            for way, share in (("second alone", 0.0), ("equal", 0.5), ("by voxel", sizes[1] / sum(sizes))):
                mixed = share * scans[FIRST[name]] + (1 - share) * scans[SECOND[name]]
                other, there = marked([*three[:slot], mixed, *three[slot + 1 :]])
                gains.setdefault(f"{name}, {way}", []).append(there - dice)
                told = f"{sizes[0]:.1f} and {sizes[1]:.1f} mm³, {way}"
                print(f"  {name}: {told}: {100 * (other / volume - 1):+.0f} %, Dice {there:.3f}", flush=True)
    for way, found in gains.items():
        print(f"{way}: Dice {np.mean(found):+.3f} in the mean of {len(found)}", flush=True)


def voxel_mm3(protocol) -> float:
    return protocol.resolution_mm**2 * (protocol.thickness_mm + protocol.gap_mm)


if __name__ == "__main__":
    main()
