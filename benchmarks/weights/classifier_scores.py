"""How often a classifier is right on pools, and how many scans a least score leaves out.

python benchmarks/weights/classifier_scores.py CLASSIFIER/average.npz POOL/real POOL/native POOL/held --other POOL/other
"""

import argparse
from pathlib import Path

import numpy as np
import tensorflow as tf
from classifier import BLOCKS, FEATURES, FEWEST
from pool import read_slices
from segmenter import loaded

from pimms_tf.models import build_classifier

LEAST = (0.4, 0.45, 0.5, 0.55, 0.6)


def scores_of(classify, slices, slot: int) -> np.ndarray:
    """Mean probabilities (modality,) of six slices of the central half of a scan."""
    count = len(slices.scans)
    places = np.unique(np.linspace(count / 4, 3 * count / 4 - 1, 6).round().astype(int))
    planes = np.where(slices.brain[places] > 0, slices.scans[places, ..., slot], 0).astype(np.float32)
    return np.asarray(classify(planes[..., np.newaxis])).mean(axis=0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", type=Path)
    parser.add_argument("pools", type=Path, nargs="+")
    parser.add_argument("--other", type=Path)
    a = parser.parse_args()
    model = build_classifier(3, classifier_features=FEATURES, classifier_blocks=BLOCKS)
    loaded(a.weights, model.variables)

    @tf.function(input_signature=[tf.TensorSpec((None, None, None, 1))])
    def classify(planes):
        return model.classify(planes, tf.ones((tf.shape(planes)[0], 1), bool))[:, 0]

    for pool in (*a.pools, *([a.other] if a.other else [])):
        best, right = [], 0
        for path in sorted(pool.glob("*.npz")):
            slices = read_slices(path)
            for slot in np.flatnonzero(slices.valid) if len(slices.scans) >= FEWEST else ():
                scores = scores_of(classify, slices, slot)
                best.append(scores.max())
                right += int(scores.argmax() == slot)
        left_out = ", ".join(f"{(np.array(best) < least).sum()} below {least}" for least in LEAST)
        told = "none of the three" if pool == a.other else f"{right} right, least best score {min(best):.2f}"
        print(f"{pool.name}: {len(best)} scans, {told}; {left_out}", flush=True)


if __name__ == "__main__":
    main()
