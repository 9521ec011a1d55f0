"""Dice of a segmenter on subjects of a pool, by the scans it is given and by threshold.

python benchmarks/weights/pool_scores.py WEIGHTS.npz POOL/real/ms3_106639.npz … [--thresholds 0.3,0.5]
"""

import argparse
from pathlib import Path

import numpy as np
import tensorflow as tf
from pool import MODALITIES, read_slices

from pimms_tf.models import build_model

ORDER = (("T1", "T2", "FLAIR"), ("T1", "FLAIR"), ("FLAIR",), ("T1",), ("T2",))


def segmenter(path: Path):
    model = build_model("hemis", 3, 2, attention_normalise="sum")
    with np.load(path, allow_pickle=False) as arrays:
        for v in model.variables:
            v.assign(arrays[v.path])

    @tf.function(reduce_retracing=True)
    def probability(scans, valid):
        return tf.nn.softmax(model.segment(scans, model.label_scores(scans), valid))[..., 1]

    return probability


def volume_probability(probability, slices, names) -> np.ndarray:
    used = slices.valid & np.array([m in names for m in MODALITIES])
    brain = slices.brain[..., None] > 0
    scans = np.where(brain & used, slices.scans, 0).astype(np.float32)
    size = [-(-n // 16) * 16 for n in scans.shape[1:3]]
    scans = np.pad(scans, ((0, 0), *((0, s - n) for s, n in zip(size, scans.shape[1:3], strict=True)), (0, 0)))
    groups = [scans[i : i + 4] for i in range(0, len(scans), 4)]
    parts = [np.asarray(probability(group, np.tile(used, (len(group), 1)))) for group in groups]
    return np.concatenate(parts)[:, : brain.shape[1], : brain.shape[2]] * brain[..., 0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", type=Path)
    parser.add_argument("subjects", type=Path, nargs="+")
    parser.add_argument("--thresholds", default="0.3,0.5,0.7")
    parser.add_argument("--every", type=int, default=1)
    a = parser.parse_args()
    thresholds = [float(t) for t in a.thresholds.split(",")]
    probability = segmenter(a.weights)
    for path in a.subjects:
        slices = read_slices(path)
        slices = slices._replace(**{k: getattr(slices, k)[:: a.every] for k in ("scans", "label", "brain")})
        truth = slices.label > 0
        line = []
        for names in ORDER:
            if not set(names) <= {m for m, v in zip(MODALITIES, slices.valid, strict=True) if v}:
                continue
            p = volume_probability(probability, slices, names)
            scores = [2 * ((p > t) & truth).sum() / max((p > t).sum() + truth.sum(), 1) for t in thresholds]
            sizes = [(p > t).sum() for t in thresholds]
            dice = "/".join(f"{score:.2f}" for score in scores)
            line.append(f"{'+'.join(names)} {dice} ({'/'.join(map(str, sizes))})")
        print(path.stem, truth.sum(), *line, sep=" | ", flush=True)


if __name__ == "__main__":
    main()
