"""Seconds of one training step: ours, the same network of plain Keras layers, PyTorch, and bare matrix products.

PyTorch takes part as it is commonly written and with each of what makes it faster on processors: images with channels
last, torch.compile (which needs a C++ compiler), bfloat16, and all of these.

python benchmarks/training_step.py                                        # HeMIS, batch 8, float32
python benchmarks/training_step.py --only ours PyTorch                    # of all that take part, those that begin so
python benchmarks/training_step.py --precision                            # ours alone: float32, recompute, bfloat16
python benchmarks/training_step.py --preset niftynet2018 --batch 64
python benchmarks/training_step.py --scaling                              # over slots, windows and batches
"""

import argparse
import functools
from collections.abc import Callable

import numpy as np
from taking_turns import Timing, take_turns

MODALITIES, CLASSES = 3, 2


def windows(batch: int, size: int, modalities: int) -> tuple[np.ndarray, np.ndarray]:
    """Scans (b, x, y, modality) and labels (b, x, y) of noise."""
    rng = np.random.default_rng(0)
    scans = rng.normal(size=(batch, size, size, modalities)).astype(np.float32)
    return scans, (scans.mean(axis=-1) > 0.8).astype(np.int32)


def ours(
    preset: str, batch: int, size: int, modalities: int, precision: str = "float32", recompute: bool = False
) -> Callable[[], float]:
    import tensorflow as tf

    from pimms_tf.models import build_model
    from pimms_tf.pipeline.trays import Batch
    from pimms_tf.training import devices, exponential_decay, make_loss, make_train_step, new_state

    model = build_model("hemis", modalities, CLASSES, preset, recompute=recompute)
    devices.set_precision(model, precision)
    state = new_state(model, "adam", 1e-3)
    step = make_train_step(state, make_loss("DicePlusXEnt"), exponential_decay(0.0, 1.0))
    scans, label = windows(batch, size, modalities)
    modality = np.tile(np.arange(modalities, dtype=np.int32), (batch, 1))
    arrays = Batch(*map(tf.constant, (scans, np.ones((batch, modalities), bool), modality, label)))
    return lambda: float(step(arrays).total_loss)


def plain(batch: int, size: int, modalities: int) -> Callable[[], float]:
    import keras
    import tensorflow as tf
    from plain_keras import plain_hemis

    from pimms_tf.training import make_loss

    model, optimizer, loss = plain_hemis(modalities, CLASSES), keras.optimizers.Adam(1e-3), make_loss("DicePlusXEnt")
    scans, label = map(tf.constant, windows(batch, size, modalities))

    @tf.function
    def step():
        with tf.GradientTape() as tape:
            value = loss(model(scans, training=True), label)
        optimizer.apply(tape.gradient(value, model.trainable_variables), model.trainable_variables)
        return value

    return lambda: float(step())


def pytorch(
    batch: int, size: int, modalities: int, channels_last: bool = False, compiled: bool = False, bfloat16: bool = False
) -> Callable[[], float]:
    import torch
    from plain_torch import PlainHemis, check_compiler, dice_plus_cross_entropy

    torch.manual_seed(0)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    model = PlainHemis(modalities, CLASSES).to(memory_format=layout)
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    scans, label = map(torch.from_numpy, windows(batch, size, modalities))
    scans, label = scans.permute(0, 3, 1, 2).contiguous(memory_format=layout), label.long()

    def forward(scans: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
            logits = model(scans)
        return dice_plus_cross_entropy(logits.float(), label)

    if compiled:
        check_compiler()
        forward = torch.compile(forward)

    def step() -> float:
        optimizer.zero_grad()
        loss = forward(scans, label)
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


PYTORCH = {
    "PyTorch": {},
    "PyTorch, channels last": {"channels_last": True},
    "PyTorch, compiled": {"compiled": True},
    "PyTorch, channels last, compiled": {"channels_last": True, "compiled": True},
    "PyTorch, bfloat16": {"bfloat16": True},
    "PyTorch, bfloat16, channels last, compiled": {"bfloat16": True, "channels_last": True, "compiled": True},
}


def multiply_adds(size: int, modalities: int, preset: str) -> float:
    """Multiply-adds of the forward pass of one window."""
    backend = 25 * 48 + 25 * 48 * 48
    front = 25 * 96 * 16 + 441 * 16 * CLASSES if preset == "paper" else 96 * 80 + 80 * CLASSES
    return size**2 * (modalities * backend + front)


def square_products(total: float) -> Callable[[], float]:
    """Products of square matrices that need as many multiply-adds: the most that the processor gives."""
    import tensorflow as tf

    side = 4096
    matrix = tf.random.normal((side, side))
    multiply = tf.function(lambda: tf.matmul(matrix, matrix))
    whole, rest = divmod(total, side**3)
    part = tf.random.normal((max(int(rest / side**2), 1), side))
    multiply_part = tf.function(lambda: tf.matmul(part, matrix))

    def step() -> float:
        for _ in range(int(whole)):
            multiply()[0, 0].numpy()
        return float(multiply_part()[0, 0])

    return step


def shaped_products(batch: int, size: int, modalities: int) -> Callable[[], float]:
    """The matrix products that the paper's convolutions are: voxels × (taps · in) × out, forward and twice backward."""
    import tensorflow as tf

    voxels = batch * size**2
    shapes = [*[(25, 48), (25 * 48, 48)] * modalities, (25 * 96, 16), (441 * 16, CLASSES)]
    # A tile of rows at a time, as a convolution would take them: the whole matrix of patches would not fit.
    rows = min(voxels, 10_000)
    tiles = -(-voxels // rows)
    operands = [tuple(tf.random.normal(shape) for shape in ((rows, k), (k, n), (rows, n))) for k, n in shapes]

    @tf.function
    def multiply():
        total = 0.0
        for patches, kernel, upstream in operands:
            forward = tf.matmul(patches, kernel)
            of_kernel = tf.matmul(patches, upstream, transpose_a=True)
            of_patches = tf.matmul(upstream, kernel, transpose_b=True)
            total += forward[0, 0] + of_kernel[0, 0] + of_patches[0, 0]
        return total

    return lambda: sum(float(multiply()) for _ in range(tiles))


def table(timings: dict[str, Timing], batch: int) -> None:
    reference = next(iter(timings.values()))
    print(f"{'':42s}{'seconds':>9s}{'ratio':>8s}{'CPU s':>9s}{'ratio':>8s}{'windows/s':>11s}{'peak GiB':>10s}")
    for name, timing in timings.items():
        ratio = timing.median / reference.median
        of_processor = timing.median_of_processor / reference.median_of_processor
        print(f"{name:42s}{timing.median:9.3f}{ratio:8.2f}{timing.median_of_processor:9.3f}{of_processor:8.2f}", end="")
        print(f"{batch / timing.median:11.1f}{timing.peak_gib:10.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="paper", choices=("paper", "niftynet2018"))
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--window", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--only", nargs="*", help="how the names begin of those who take part")
    parser.add_argument("--precision", action="store_true", help="ours alone: float32, recompute, bfloat16")
    parser.add_argument("--scaling", action="store_true", help="ours alone, over slots, windows and batches")
    arguments = parser.parse_args()
    case = arguments.batch, arguments.window, MODALITIES
    total = 3 * arguments.batch * multiply_adds(arguments.window, MODALITIES, arguments.preset)
    if arguments.scaling:
        return _scaling(arguments.rounds)
    own = functools.partial(ours, arguments.preset, *case)
    contestants = {
        "ours": own,
        "ours, recompute": functools.partial(own, recompute=True),
        "ours, bfloat16": functools.partial(own, "mixed_bfloat16"),
    }
    if not arguments.precision:
        if arguments.preset == "paper":
            contestants["plain Keras"] = functools.partial(plain, *case)
            contestants |= {name: functools.partial(pytorch, *case, **form) for name, form in PYTORCH.items()}
            contestants["matrix products, as shaped"] = functools.partial(shaped_products, *case)
        contestants["matrix products, square"] = functools.partial(square_products, total)
    if arguments.only:
        chosen = tuple(arguments.only)
        contestants = {name: start for name, start in contestants.items() if name.startswith(chosen)}
    print(
        f"{arguments.preset} HeMIS, batch {arguments.batch}, windows {arguments.window}², {total / 1e9:.1f} GMAC a step"
    )
    table(take_turns(contestants, arguments.rounds), arguments.batch)
    return None


def _scaling(rounds: int) -> None:
    cases = {f"{slots} modalities": (8, 100, slots) for slots in (1, 2, 3, 5, 9)}
    cases |= {f"windows of {size}²": (8, size, 3) for size in (50, 200)}
    cases |= {f"batch {batch}": (batch, 100, 3) for batch in (1, 2, 4, 16, 32)}
    print(f"{'':20s}{'seconds':>9s}{'ns a voxel and modality':>25s}{'peak GiB':>10s}")
    for name, (batch, size, slots) in cases.items():
        timing = take_turns({name: functools.partial(ours, "paper", batch, size, slots)}, rounds)[name]
        each = timing.median / (batch * size**2 * slots) * 1e9
        print(f"{name:20s}{timing.median:9.3f}{each:25.0f}{timing.peak_gib:10.2f}")


if __name__ == "__main__":
    main()
