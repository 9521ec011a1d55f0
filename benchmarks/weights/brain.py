"""Trains the network that finds the brain (pimms_tf/data/brain.py) on heads of random contrast and a few real ones.

python benchmarks/weights/brain.py draw LABELMAPS POOL/brain --count 360
python benchmarks/weights/brain.py real DATA POOL/brain_real
python benchmarks/weights/brain.py train OUT POOL/brain POOL/brain_real --steps 900
"""

import argparse
import time
from pathlib import Path

import numpy as np
from pool import MODALITIES
from scipy import ndimage

from pimms_tf.data import read_image, reorient
from pimms_tf.data.brain import LEVELS, averaging, scaled, separable

SIZE = (56, 64, 56)
CONTRASTS = 4
NOT_BRAIN = (24,)


def tissue_class(code: int) -> str:
    if code in (2, 41, 7, 46, 16, 28, 60, 85, 30, 62):
        return "white"
    if code in (4, 5, 14, 15, 24, 43, 44, 72, 25, 57):
        return "csf"
    if code < 100:
        return "grey"
    return "outside"


def brightness(codes, rng) -> dict[int, float]:
    """A mean for each code: at random, or with tissues ordered as on T1, T2 or FLAIR."""
    kind = rng.choice(["random", "t1", "t2", "flair"], p=[0.4, 0.2, 0.2, 0.2])
    draw = {code: rng.uniform(0, 1) for code in codes}
    if kind != "random":
        low, middle, high = np.sort(rng.uniform(0.05, 0.9, 3))
        white, grey, csf = {"t1": (high, middle, low), "t2": (low, middle, high), "flair": (middle, high, low)}[kind]
        means = {"white": white, "grey": grey, "csf": csf}
        for code in codes:
            if (name := tissue_class(code)) != "outside":
                draw[code] = means[name] + rng.normal(0, 0.03)
    draw[0] = 0.0 if rng.random() < 0.8 else rng.uniform(0, 0.3)
    return draw


def drawn(labels: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Images (contrast, x, y, z) float16 and a brain mask (x, y, z) at 4 mm of a bent and turned head (1 mm labels)."""
    fine = tuple(2 * n for n in SIZE)
    angles = rng.normal(0, 0.13, 3)
    turn = np.eye(3)
    for axis, angle in enumerate(angles):
        i, j = [a for a in range(3) if a != axis]
        one = np.eye(3)
        one[[i, j, i, j], [i, j, j, i]] = np.cos(angle), np.cos(angle), -np.sin(angle), np.sin(angle)
        turn = turn @ one
    matrix = turn * np.exp(rng.normal(0, 0.08, 3)) * 2  # 2 mm voxels → 1 mm labels
    centre = np.array(labels.shape) / 2 + rng.uniform(-22, 22, 3)
    bend = [ndimage.zoom(rng.normal(0, 4, (4, 4, 4)), np.array(fine) / 4, order=1) for _ in range(3)]
    where = np.stack(np.meshgrid(*[np.arange(n) - n / 2 for n in fine], indexing="ij"))
    where = np.tensordot(matrix, where, 1) + centre[:, None, None, None] + np.stack(bend)
    bent = ndimage.map_coordinates(labels, where, order=0, mode="constant")
    tissue = (bent > 0) & (bent < 100) & (bent != 24)
    brain = ndimage.binary_closing(np.pad(tissue, 6), iterations=3)[6:-6, 6:-6, 6:-6]
    brain = ndimage.binary_fill_holes(brain)
    parts, _ = ndimage.label(brain)
    brain = parts == 1 + np.argmax(np.bincount(parts.ravel())[1:]) if parts.any() else brain
    codes, index = np.unique(bent, return_inverse=True)
    index = index.reshape(bent.shape)
    images = []
    for _ in range(CONTRASTS):
        means = brightness(codes.tolist(), rng)
        spread = rng.uniform(0, 0.06, len(codes))
        image = np.array([means[c] for c in codes], np.float32)[index]
        texture = rng.normal(0, 1, bent.shape).astype(np.float32) * spread.astype(np.float32)[index]
        image = np.maximum(image + texture, 0)
        if rng.random() < 0.35:  # stripped, well or badly
            mask = brain
            if rng.random() < 0.5:
                mask = ndimage.binary_dilation(brain, iterations=int(rng.integers(1, 4)))
            if rng.random() < 0.3:
                rough = ndimage.gaussian_filter(rng.normal(0, 1, fine), 4)
                mask = mask | (ndimage.binary_dilation(brain, iterations=6) & (rough > 1.2 * rough.std()))
            image = np.where(mask, image, 0)
        elif rng.random() < 0.2:  # defaced: the front lower corner is missing
            y, z = np.meshgrid(np.linspace(0, 1, fine[1]), np.linspace(0, 1, fine[2]), indexing="ij")
            image = np.where((y + z)[None] < rng.uniform(0.35, 0.7), 0, image)
        if rng.random() < 0.5:  # thick slices
            axis, thick = rng.choice(3, p=[0.15, 0.15, 0.7]), rng.uniform(1, 4)
            image = ndimage.uniform_filter1d(image, int(round(thick)), axis=axis)
        field = ndimage.zoom(rng.normal(0, rng.uniform(0, 0.35), (3, 3, 3)), np.array(fine) / 3, order=1)
        image = image * np.exp(field)
        image = image.reshape(SIZE[0], 2, SIZE[1], 2, SIZE[2], 2).mean(axis=(1, 3, 5))
        if rng.random() < 0.3:
            image = ndimage.gaussian_filter(image, rng.uniform(0.2, 0.7))
        image = np.abs(image + rng.normal(0, rng.uniform(0, 0.03), image.shape))
        if rng.random() < 0.3:  # few slices: the rest of the head is not in the picture
            below, above = rng.integers(0, 16), rng.integers(0, 10)
            image[:, :, :below] = 0
            image[:, :, SIZE[2] - above :] = 0
        images.append(scaled(image).astype(np.float16))
    share = brain.astype(np.float32).reshape(SIZE[0], 2, SIZE[1], 2, SIZE[2], 2).mean(axis=(1, 3, 5))
    return np.stack(images), share >= 0.5


def draw(maps: Path, out: Path, count: int, seed: int, first: int = 0) -> None:
    out.mkdir(parents=True, exist_ok=True)
    paths = sorted(maps.glob("training_seg_*.nii.gz"))
    labels = [reorient(read_image(path), ("L", "P", "S")).data[..., 0].astype(np.int16) for path in paths]
    for number in range(first, count):
        path = out / f"{'held_' if number % 18 == 17 else ''}{number:04d}.npz"
        if not path.exists():
            images, brain = drawn(labels[number % len(labels)], np.random.default_rng((seed, number)))
            np.savez(path, images=images, brain=brain)


def real(data: Path, out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    for folder in sorted(data.glob("ms3_*")) + [data / "ms_long_p01"]:
        if not (folder / "brainmask.nii.gz").exists():
            continue
        known = [f"{name}.nii.gz" for name in MODALITIES]
        files = [file for file in sorted(folder.glob("*.nii.gz")) if file.name.split("_")[-1] in known]
        images = []
        mask = reorient(read_image(folder / "brainmask.nii.gz"), ("L", "P", "S"))
        down = averaging(mask.shape, mask.spacing_mm)
        for file in files:
            image = reorient(read_image(file), ("L", "P", "S"))
            images.append(scaled(separable(image.data[..., 0], down)).astype(np.float16))
        share = separable(mask.data[..., 0].astype(np.float32), down)
        name = folder.name
        prefix = "held_" if name == "ms3_106639" else ""
        np.savez(out / f"{prefix}{name}.npz", images=np.stack(images), brain=share >= 0.5)
        print(name, np.stack(images).shape, (share >= 0.5).mean())


def boxed(image, brain, rng):
    """Cut or padded at random to SIZE."""
    for axis, size in enumerate(SIZE):
        length = image.shape[axis]
        if length > size:
            start = rng.integers(0, length - size + 1)
            cut = [slice(None)] * 3
            cut[axis] = slice(start, start + size)
            image, brain = image[tuple(cut)], brain[tuple(cut)]
        elif length < size:
            before = rng.integers(0, size - length + 1)
            pads = [(0, 0)] * 3
            pads[axis] = (before, size - length - before)
            image, brain = np.pad(image, pads), np.pad(brain, pads)
    return image, brain


def network():
    import keras
    from keras import layers

    def block(x, filters, name):
        x = layers.Conv3D(filters, 3, padding="same", use_bias=False, name=name)(x)
        x = layers.BatchNormalization(momentum=0.9, epsilon=1e-5, name=name + "_norm")(x)
        return layers.ReLU()(x)

    inputs = x = layers.Input((*SIZE, 1))
    kept = []
    for level in range(LEVELS):
        width = 8 * 2**level
        x = block(block(x, width, f"down_{level}_0"), width, f"down_{level}_1")
        kept.append(x)
        x = layers.MaxPooling3D(2)(x)
    x = block(block(x, 32, "bottom_0"), 32, "bottom_1")
    for level in reversed(range(LEVELS)):
        x = layers.Concatenate()([layers.UpSampling3D(2)(x), kept[level]])
        x = block(x, 8 * 2**level, f"up_{level}")
    return keras.Model(inputs, layers.Conv3D(1, 1, name="head")(x))


def folded(model) -> dict[str, np.ndarray]:
    """Convolutions with their normalisation folded in, as `pimms_tf.data.brain` reads them."""
    arrays = {}
    for layer in model.layers:
        if layer.name.endswith("_norm"):
            name = layer.name.removesuffix("_norm")
            gamma, beta, mean, variance = layer.get_weights()
            scale = gamma / np.sqrt(variance + layer.epsilon)
            arrays[name + "/kernel"] = model.get_layer(name).get_weights()[0] * scale
            arrays[name + "/bias"] = beta - mean * scale
    kernel, bias = model.get_layer("head").get_weights()
    arrays["head/kernel"], arrays["head/bias"] = kernel[0, 0, 0], bias
    return arrays


def train(out: Path, pools: list[Path], steps: int, batch: int = 3, lr: float = 2e-3) -> None:
    import keras
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(2)
    keras.utils.set_random_seed(0)
    out.mkdir(parents=True, exist_ok=True)
    groups, held = [], []
    for pool in pools:
        group = []
        for path in sorted(pool.glob("*.npz")):
            with np.load(path) as arrays:
                (held if path.stem.startswith("held_") else group).append((arrays["images"], arrays["brain"]))
        groups.append(group)
    model = network()
    optimizer = keras.optimizers.Adam(lr)
    optimizer.build(model.trainable_variables)
    rng = np.random.default_rng(1)

    def example():
        group = groups[0] if len(groups) == 1 or rng.random() < 0.75 else groups[1 + rng.integers(len(groups) - 1)]
        images, brain = group[rng.integers(len(group))]
        image = images[rng.integers(len(images))].astype(np.float32)
        image, brain = boxed(
            image, brain & (image.std(axis=(0, 1)) > 1e-3), rng
        )  # no brain in slices that are not there
        if rng.random() < 0.5:
            image, brain = image[::-1], brain[::-1]
        if group is not groups[0] and rng.random() < 0.3:  # stripped
            mask = ndimage.binary_dilation(brain, iterations=int(rng.integers(0, 2))) if rng.random() < 0.5 else brain
            image = np.where(mask, image, 0)
        shift = rng.integers(-2, 3, 3)
        image, brain = np.roll(image, shift, (0, 1, 2)), np.roll(brain, shift, (0, 1, 2))
        image = np.clip(image, 0, None) ** np.exp(rng.normal(0, 0.3))
        image = image * np.exp(rng.normal(0, 0.15)) + rng.normal(0, 0.03)
        image = image + rng.normal(0, rng.uniform(0, 0.04), image.shape)
        return image.astype(np.float32)[..., None], brain.astype(np.float32)[..., None]

    @tf.function
    def step(x, y):
        with tf.GradientTape() as tape:
            z = model(x, training=True)
            p = tf.sigmoid(z)
            overlap = 1 - 2 * tf.reduce_sum(p * y) / (tf.reduce_sum(p + y) + 1)
            value = overlap + tf.reduce_mean(tf.nn.sigmoid_cross_entropy_with_logits(y, z))
        gradients = tape.gradient(value, [v.value for v in model.trainable_variables])
        optimizer.apply(gradients, model.trainable_variables)
        return overlap

    @tf.function
    def answer(x):
        return model(x, training=False)

    recent, begun, averages = [], time.time(), {}
    for number in range(steps):
        fall = max(0.0, number / steps - 0.4) / 0.6
        rise = min(1, (number + 1) / 50)
        optimizer.learning_rate.assign(lr * rise * (0.02 + 0.49 * (1 + np.cos(np.pi * fall))))
        x, y = map(np.stack, zip(*(example() for _ in range(batch)), strict=True))
        recent.append(1 - float(step(tf.constant(x), tf.constant(y))))
        for v in model.variables:
            d = min(0.98, (1 + number) / (10 + number))
            averages[v.path] = d * averages.get(v.path, 0) + (1 - d) * v.numpy()
        if (number + 1) % 50 == 0:
            seconds = (time.time() - begun) / (number + 1)
            print(f"{number + 1} dice {np.mean(recent[-50:]):.4f} {seconds:.2f} s", flush=True)
        if (number + 1) % 150 == 0 or number + 1 == steps:
            now = [v.numpy() for v in model.variables]
            for v in model.variables:
                v.assign(averages[v.path])
            scores = []
            for images, brain in held:
                for image in images:
                    image = image.astype(np.float32)
                    a, b = boxed(image, brain & (image.std(axis=(0, 1)) > 1e-3), np.random.default_rng(0))
                    p = answer(tf.constant(a[None, ..., None])).numpy()[0, ..., 0] > 0
                    scores.append(2 * (p & b).sum() / max((p.sum() + b.sum()), 1))
            tenth = np.percentile(scores, 10)
            print(f"held out: mean {np.mean(scores):.4f}, 10th {tenth:.4f}, least {min(scores):.4f}", flush=True)
            np.savez(out / "brain.npz", **{k: v.astype(np.float16) for k, v in folded(model).items()})
            for v, value in zip(model.variables, now, strict=True):
                v.assign(value)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("draw")
    one.add_argument("maps", type=Path)
    one.add_argument("out", type=Path)
    one.add_argument("--count", type=int, default=360)
    one.add_argument("--first", type=int, default=0)
    one.add_argument("--seed", type=int, default=0)
    one = commands.add_parser("real")
    one.add_argument("data", type=Path)
    one.add_argument("out", type=Path)
    one = commands.add_parser("train")
    one.add_argument("out", type=Path)
    one.add_argument("pools", type=Path, nargs="+")
    one.add_argument("--steps", type=int, default=900)
    one.add_argument("--batch", type=int, default=3)
    a = parser.parse_args()
    if a.command == "draw":
        draw(a.maps, a.out, a.count, a.seed, a.first)
    elif a.command == "real":
        real(a.data, a.out)
    else:
        train(a.out, a.pools, a.steps, a.batch)


if __name__ == "__main__":
    main()
