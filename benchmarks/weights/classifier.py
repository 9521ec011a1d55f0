"""Trains the classifier of the bundled weights: T1, T2 or FLAIR, and for anything else no preference.

python benchmarks/weights/classifier.py OUT --pool POOL/sim:0.6 --pool POOL/real:0.4 --other POOL/other

Folders given as --other hold contrasts that are none of the three (proton density and the like), in whichever slots; on
these, and on contrasts that no scanner has, mixed from the scans of a subject, the classifier is taught to give equal
scores, so that a low best score says "none of these". calibrate.py then gives the scores their scale.
"""

import argparse
import json
import time
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from pool import CLIP, read_slices
from scipy import ndimage
from segmenter import HELD_OUT as SEGMENTER_HELD_OUT
from segmenter import loaded, saved

from pimms_tf.models import build_classifier

FEATURES, BLOCKS = (8, 32, 64, 128), 2
SIZE = 72
FEWEST = 5  # slices of a subject
LEAST_BRAIN = 0.2  # of a plane
# Real patients on whom scores are calibrated, three protocols of them; those of the segmenter and two more.
HELD_OUT = (*SEGMENTER_HELD_OUT, "ms_native_p03", "ms_native_p20")


def drawn_place(slices, modality: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A piece (SIZE, SIZE) out of the middle of a scan, turned and zoomed at random, and the brain in it, bool."""
    count = len(slices.scans)
    z = int(np.clip(count * rng.uniform(0.2, 0.85), 0, count - 1))
    plane, brain = slices.scans[z, ..., modality].astype(np.float32), slices.brain[z].astype(np.float32)
    # Up to the whole field of view, most of which is empty: what the network averages over in use.
    angle, zoom = rng.uniform(-0.3, 0.3), np.exp(rng.uniform(-0.1, 1.0))
    matrix = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) * zoom
    matrix[:, 0] *= rng.choice([-1, 1])
    offset = np.array(plane.shape) / 2 + rng.uniform(-40, 40, 2) - matrix @ np.full(2, (SIZE - 1) / 2)
    plane, brain = (ndimage.affine_transform(a, matrix, offset, (SIZE, SIZE), order=1) for a in (plane, brain))
    return plane, brain > 0.5


def drawn_plane(slices, modality: int, rng: np.random.Generator) -> np.ndarray:
    """A plane (SIZE, SIZE) of a scan as another scanner might have made it."""
    for _ in range(20):
        plane, brain = drawn_place(slices, modality, rng)
        if brain.mean() > LEAST_BRAIN:
            break
    if rng.random() < 0.5:
        change = ndimage.binary_dilation if rng.random() < 0.6 else ndimage.binary_erosion
        brain = change(brain, iterations=int(rng.integers(1, 5)))
    if rng.random() < 0.4:
        plane = ndimage.gaussian_filter(plane, rng.uniform(0.3, 1.5))
    if rng.random() < 0.5:
        x, y = np.meshgrid(*[np.linspace(-1, 1, SIZE, dtype=np.float32)] * 2, indexing="ij")
        a, b, c, d, e = rng.normal(0, 0.15, 5)
        plane = plane + (a * x + b * y + c * x * y + d * x * x + e * y * y) * (plane + 3.5)
    plane = plane * np.exp(rng.normal(0, 0.12)) + rng.normal(0, 0.12)
    if rng.random() < 0.5:
        plane = plane + rng.normal(0, rng.uniform(0.03, 0.3), plane.shape)
    return np.where(brain, np.clip(plane, -CLIP, CLIP), 0).astype(np.float32)


MOST_ALIKE = 0.6  # correlation in the brain of a mixture with each scan that it was mixed from


def mixture(slices, rng: np.random.Generator):
    """A subject that has all three, with another contrast in slot 0; None if that came too near one of the three."""
    z = slice(len(slices.scans) // 5, -(len(slices.scans) // 8) or None)
    scans, brain = slices.scans[z].astype(np.float32), slices.brain[z]
    mixed = scans @ rng.normal(0, 1, scans.shape[-1]).astype(np.float32)
    if rng.random() < 0.4:  # tissues of medium brightness become the darkest or brightest
        mixed = np.abs(mixed - np.float32(rng.normal(0, 1))) * rng.choice([-1, 1])
    inside = brain > 0
    values = mixed[inside]
    if any(np.corrcoef(values, scans[..., m][inside])[0, 1] > MOST_ALIKE for m in range(scans.shape[-1])):
        return None
    scans = ((mixed - values.mean()) / max(values.std(), 1e-3))[..., None]
    return slices._replace(scans=np.clip(scans, -CLIP, CLIP).astype(np.float16), brain=brain)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--pool", action="append", required=True)
    parser.add_argument("--other", type=Path, action="append", default=[])
    parser.add_argument("--other-share", type=float, default=0.3, help="of scans that are none of the three")
    parser.add_argument("--steps", type=int, default=1200)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--start", type=Path, help="weights to begin with")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--half", action="store_true", help="compute in bfloat16")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    if arguments.half:
        keras.config.set_dtype_policy("mixed_bfloat16")
    keras.utils.set_random_seed(arguments.seed)
    subjects, weights = [], []
    for text in arguments.pool:
        folder, share = text.rsplit(":", 1)
        paths = [p for p in sorted(Path(folder).glob("*.npz")) if not p.stem.startswith(("held_", *HELD_OUT))]
        for path in paths:
            slices = read_slices(path)
            if len(slices.scans) >= FEWEST:
                subjects.append(slices)
                weights.append(float(share) / len(paths))
    others = [read_slices(p) for folder in arguments.other for p in sorted(folder.glob("*.npz"))]
    others = [slices for slices in others if len(slices.scans) >= FEWEST]
    weights = np.array(weights) / sum(weights)
    rng = np.random.default_rng(arguments.seed)

    mixtures: list = []

    def stranger():
        """A subject and the slot of a scan that is none of the three."""
        if others and (rng.random() < 0.6 or not mixtures):
            slices = others[rng.integers(len(others))]
            return slices, rng.choice(np.flatnonzero(slices.valid))
        return mixtures[rng.integers(len(mixtures))], 0

    def example():
        if (others or mixtures) and rng.random() < arguments.other_share:
            return drawn_plane(*stranger(), rng), np.full(3, 1 / 3, np.float32)
        modality = rng.integers(3)
        while True:
            slices = subjects[rng.choice(len(subjects), p=weights)]
            if slices.valid[modality]:
                return drawn_plane(slices, modality, rng), np.eye(3, dtype=np.float32)[modality]

    for place in rng.permutation(len(subjects)) if arguments.other_share > 0 else ():
        draws = 3 if subjects[place].valid.all() else 0
        mixtures += [mixed for _ in range(draws) if (mixed := mixture(subjects[place], rng)) is not None]
        if len(mixtures) >= 150:
            break

    model = build_classifier(3, classifier_features=FEATURES, classifier_blocks=BLOCKS)
    if arguments.start:
        loaded(arguments.start, model.variables)
    optimizer = keras.optimizers.Adam(arguments.lr)
    optimizer.build(model.trainable_variables)

    @tf.function
    def step(planes, targets):
        with tf.GradientTape() as tape:
            logits = model(planes[..., None], tf.ones((len(planes), 1), bool), training=True).modality_logits[:, 0]
            logits = tf.cast(logits, tf.float32)
            value = tf.reduce_mean(tf.nn.softmax_cross_entropy_with_logits(targets * 0.97 + 0.01, logits))
        gradients = tape.gradient(value, [v.value for v in model.trainable_variables])
        optimizer.apply(gradients, model.trainable_variables)
        known = tf.reduce_max(targets, 1) > 0.5
        right = tf.argmax(logits, 1) == tf.argmax(targets, 1)
        return value, tf.reduce_mean(tf.cast(tf.boolean_mask(right, known), tf.float32))

    averages, recent, begun = {}, [], time.time()
    for number in range(arguments.steps):
        fallen = max(0.0, number / arguments.steps - 0.4) / 0.6
        optimizer.learning_rate.assign(arguments.lr * (0.02 + 0.49 * (1 + np.cos(np.pi * fallen))))
        planes, targets = map(np.stack, zip(*(example() for _ in range(arguments.batch)), strict=True))
        recent.append([float(v) for v in step(tf.constant(planes), tf.constant(targets))])
        decay = min(0.99, (1 + number) / (10 + number))
        for v in model.variables:
            averages[v.path] = decay * averages.get(v.path, 0) + (1 - decay) * v.numpy()
        if (number + 1) % 50 == 0:
            value, right = np.mean(recent[-50:], axis=0)
            print(
                json.dumps(
                    {
                        "step": number + 1,
                        "loss": round(value, 4),
                        "right": round(right, 4),
                        "s": round((time.time() - begun) / len(recent), 3),
                    }
                ),
                flush=True,
            )
        if (number + 1) % 200 == 0 or number + 1 == arguments.steps:
            saved(arguments.out / "average.npz", averages)


if __name__ == "__main__":
    main()
