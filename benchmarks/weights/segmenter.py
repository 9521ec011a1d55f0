"""Trains the segmenter of the bundled weights, HeMIS with scans put into their slots by label, on pools of slices.

python benchmarks/weights/segmenter.py OUT --pool POOL/real:0.4 --pool POOL/sim:0.6 --steps 4000

Resumes from what lies in OUT. `OUT/average.npz` holds the averaged weights, `OUT/state.npz` all that training needs.
"""

import argparse
import json
import math
import queue
import threading
import time
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from pool import SUBSETS, WINDOW, Pool

from pimms_tf.files import replacing
from pimms_tf.models import build_model
from pimms_tf.training import make_loss

HELD_OUT = ("ms3_106639", "simvent_105465")
DECAY = 0.999


def saved(path: Path, arrays) -> None:
    with replacing(path) as temporary, open(temporary, "wb") as file:
        np.savez(file, **arrays)


def loaded(path: Path, variables) -> None:
    """Sets variables from a file, by name and shape alone."""
    with np.load(path, allow_pickle=False) as arrays:
        for variable in variables:
            variable.assign(arrays[variable.path])


def batches(pool: Pool, size: int, seed: int, ahead: int = 6):
    """Endless batches, drawn by a thread of its own."""
    ready: queue.Queue = queue.Queue(ahead)

    def draw() -> None:
        windows = pool.windows(seed, SUBSETS)
        while True:
            ready.put([np.stack(part) for part in zip(*(next(windows) for _ in range(size)), strict=True)])

    threading.Thread(target=draw, daemon=True).start()
    while True:
        yield ready.get()


def rate(step: int, steps: int, peak: float, hold: float) -> float:
    """Rises for 60 steps, stays, and from the share `hold` of all steps on falls along a cosine to 2 %."""
    start = hold * steps
    fallen = 0.0 if step < start else (step - start) / max(steps - start, 1)
    return peak * min(1.0, (step + 1) / 60) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * min(fallen, 1.0))))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--pool", action="append", required=True, help="FOLDER:SHARE")
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--hold", type=float, default=0.5)
    parser.add_argument("--start", type=Path, help="weights to begin with")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--save-every", type=int, default=200)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--half", action="store_true", help="compute in bfloat16, in two thirds of the time")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    tf.config.threading.set_intra_op_parallelism_threads(arguments.threads)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    if arguments.half:
        keras.config.set_dtype_policy("mixed_bfloat16")
    keras.utils.set_random_seed(arguments.seed)

    groups = {}
    for text in arguments.pool:
        folder, share = text.rsplit(":", 1)
        groups[Path(folder)] = float(share)
    pool = Pool(groups, HELD_OUT)

    model = build_model("hemis", 3, 2, attention_normalise="sum")
    optimizer = keras.optimizers.Adam(arguments.lr, epsilon=1e-8, global_clipnorm=5.0)
    optimizer.build(model.trainable_variables)
    state = arguments.out / "state.npz"
    first = 0
    if state.exists():
        loaded(state, [*model.variables, *optimizer.variables])
        with np.load(state, allow_pickle=False) as arrays:
            first = int(arrays["step"])
            averages = {v.path: arrays["average/" + v.path] for v in model.variables}
    else:
        if arguments.start:
            loaded(arguments.start, model.variables)
        averages = {v.path: v.numpy() for v in model.variables}
    loss = make_loss("DicePlusXEnt")

    @tf.function(reduce_retracing=True)
    def step(scans, valid, label):
        with tf.GradientTape() as tape:
            logits = tf.cast(model.segment(scans, model.label_scores(scans), valid, training=True), tf.float32)
            # One Dice of many windows: that of a single one with three lesion voxels is a coin toss. Windows without
            # FLAIR, and those of T1 alone, have their own, or they would not count beside those in which lesions are
            # easily seen.
            flair, t2 = valid[:, 2], valid[:, 1]
            flat, classes, value = tf.reshape(logits, (1, -1, WINDOW, 2)), tf.reshape(label, (1, -1, WINDOW)), 0.0
            for group in (flair, ~flair & t2, ~flair & ~t2):
                weight = tf.repeat(tf.cast(group, tf.float32), WINDOW * WINDOW)
                share = tf.reduce_mean(tf.cast(group, tf.float32))
                value += share * loss(flat, classes, tf.reshape(weight, (1, -1, WINDOW)))
        gradients = tape.gradient(value, [v.value for v in model.trainable_variables])
        optimizer.apply(gradients, model.trainable_variables)
        p = tf.cast(logits[..., 1] > logits[..., 0], tf.float32)
        g = tf.cast(label, tf.float32)
        return value, 2 * tf.reduce_sum(p * g) / tf.maximum(tf.reduce_sum(p + g), 1.0)

    drawn = batches(pool, arguments.batch, arguments.seed * 1000 + first)
    recent, begun = [], time.time()
    for number in range(first, arguments.steps):
        optimizer.learning_rate.assign(rate(number, arguments.steps, arguments.lr, arguments.hold))
        recent.append([float(v) for v in step(*map(tf.constant, next(drawn)))])
        decay = min(DECAY, (1 + number) / (10 + number))
        for v in model.variables:
            averages[v.path] = decay * averages[v.path] + (1 - decay) * v.numpy()
        if (number + 1) % 100 == 0:
            value, dice = np.mean(recent[-100:], axis=0)
            seconds = (time.time() - begun) / len(recent)
            print(
                json.dumps(
                    {
                        "step": number + 1,
                        "loss": round(value, 4),
                        "dice": round(dice, 4),
                        "s": round(seconds, 3),
                        "subjects": len(pool.subjects),
                    }
                ),
                flush=True,
            )
        if (number + 1) % arguments.save_every == 0 or number + 1 == arguments.steps:
            saved(arguments.out / "average.npz", averages)
            everything = {v.path: v.numpy() for v in [*model.variables, *optimizer.variables]}
            everything |= {"average/" + path: array for path, array in averages.items()}
            saved(state, everything | {"step": np.array(number + 1)})
            pool.refresh()


if __name__ == "__main__":
    main()
