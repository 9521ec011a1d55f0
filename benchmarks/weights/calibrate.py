"""Gives the scores of a trained classifier their scale, and shows what a least score would leave out.

python benchmarks/weights/calibrate.py IN/average.npz OUT.npz POOL/real POOL/native POOL/held --other POOL/strange_held

Logits are divided by one number, written into the last layer, for which the cross-entropy of the scans' scores is least
on scans that no training of the classifier saw: real ones, simulated ones of the three modalities, and simulated ones
that are none of them, whose scores should be equal; each group with the same weight. Of strangers, those of hospitals
with an even number are used for that; the others show how well it holds.
"""

import argparse
from pathlib import Path

import numpy as np
import tensorflow as tf
from classifier import BLOCKS, FEATURES, FEWEST, HELD_OUT
from pool import MODALITIES, read_slices
from segmenter import loaded, saved

from pimms_tf.models import build_classifier

SLICES = 11  # as inference takes
LEAST = (0.4, 0.45, 0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8)


def logits_of(model, slices, slot: int) -> np.ndarray:
    """(slice, modality) of the central half of a scan."""
    count = len(slices.scans)
    places = np.unique(np.linspace(count / 4, 3 * count / 4 - 1, SLICES).round().astype(int))
    planes = np.where(slices.brain[places] > 0, slices.scans[places, ..., slot], 0).astype(np.float32)
    return np.asarray(model(planes[..., np.newaxis]))


def scores_of(logits: np.ndarray, temperature: float) -> np.ndarray:
    odds = np.exp((logits - logits.max(axis=-1, keepdims=True)) / temperature)
    return (odds / odds.sum(axis=-1, keepdims=True)).mean(axis=0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("pools", type=Path, nargs="+", help="those called held are of simulated subjects")
    parser.add_argument("--other", type=Path, required=True)
    parser.add_argument("--temperature", type=float, help="instead of the best")
    a = parser.parse_args()
    model = build_classifier(3, classifier_features=FEATURES, classifier_blocks=BLOCKS)
    loaded(a.weights, model.variables)

    @tf.function(input_signature=[tf.TensorSpec((None, None, None, 1))])
    def network(planes):
        return model(planes, tf.ones((tf.shape(planes)[0], 1), bool), training=False).modality_logits[:, 0]

    scans = []  # (group, name, modality or -1, logits)
    for pool in (*a.pools, a.other):
        for path in sorted(pool.glob("*.npz")):
            slices = read_slices(path)
            for slot in np.flatnonzero(slices.valid) if len(slices.scans) >= FEWEST else ():
                if pool == a.other:
                    group = "stranger" if int(path.stem[:4]) % 2 == 0 else "other stranger"
                elif pool.name.startswith("held"):
                    group = "simulated"
                else:
                    group = "real" if path.stem.startswith(HELD_OUT) else "learnt"
                target = -1 if pool == a.other else slot
                scans.append((group, path.stem, target, logits_of(network, slices, slot)))

    def loss(temperature: float) -> float:
        each = {"real": [], "simulated": [], "stranger": []}
        for group, _, target, logits in scans:
            if group in each:
                told = np.log(scores_of(logits, temperature))
                each[group].append(-told.mean() if target < 0 else -told[target])
        return float(np.mean([np.mean(values) for values in each.values()]))

    grid = np.exp(np.linspace(np.log(0.1), np.log(3), 100))
    temperature = a.temperature or float(grid[np.argmin([loss(t) for t in grid])])
    print(f"temperature {temperature:.3f}: cross-entropy {loss(temperature):.3f}, before {loss(1.0):.3f}")
    found = [(group, name, target, scores_of(logits, temperature)) for group, name, target, logits in scans]
    for group in ("real", "simulated", "learnt", "stranger", "other stranger"):
        of_group = [(target, scores) for g, _, target, scores in found if g == group]
        best = np.array([scores.max() for _, scores in of_group])
        right = sum(scores.argmax() == target for target, scores in of_group)
        below = ", ".join(f"{least:g}: {(best < least).sum()}" for least in LEAST)
        print(f"{group}: {len(best)} scans, {right} right, best score {best.min():.2f} and more; below {below}")
    for low, high in zip((0.33, 0.5, 0.6, 0.7, 0.8, 0.9), (0.5, 0.6, 0.7, 0.8, 0.9, 1.01), strict=True):
        inside = [s.argmax() == t for g, _, t, s in found if g != "learnt" and low <= s.max() < high]
        print(f"best score {low} to {min(high, 1)}: {len(inside)} scans, {sum(inside)} right")
    for group, name, target, scores in found:
        known = "none" if target < 0 else MODALITIES[target]
        print(f"  {group} {name} {known}: {scores.round(2)}" + ("" if target in (-1, scores.argmax()) else "  WRONG"))
    with np.load(a.weights, allow_pickle=False) as arrays:
        scaled = {
            path: arrays[path] / np.float32(temperature) if "/head/" in path else arrays[path] for path in arrays.files
        }
    saved(a.out, scaled)


if __name__ == "__main__":
    main()
