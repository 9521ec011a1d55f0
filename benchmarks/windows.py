"""Windows a second: from files, from the cache of prepared scans, augmented, and what a training step asks for.

    python benchmarks/windows.py
    python benchmarks/windows.py --subjects 4 --rounds 3 --no-step
    python benchmarks/windows.py --augmented            # that part alone
    python benchmarks/windows.py --waits                # the share of training that waits for augmented windows

Makes subjects of three scans and a label, 181 x 217 x 181 voxels as compressed NIfTI, in a temporary folder, and cuts
windows of 100 x 100 out of them: scans hidden and permuted, batches in tensors. All ways are taken in turn in every
round, so that whatever else the machine does hits all of them; medians are printed, and their ratios.

Augmented windows are made from the warm cache; beside them stand NiftyNet's chain of whole volumes, and TorchIO's
transforms of the same kind and strength (if it is installed), which change whole volumes too. They are counted in
seconds and in seconds of a processor, which do not depend on what else the machine does.
"""

import argparse
import functools
import itertools
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import nibabel as nib
import numpy as np
from scipy import ndimage

from pimms_tf.data.augmentation import Augmentation, Elastic
from pimms_tf.data.loading import SubjectLoader
from pimms_tf.data.windows import crop, foreground_locations, uniform_locations
from pimms_tf.pipeline import keys
from pimms_tf.pipeline.cache import CachedLoader

SHAPE = (181, 217, 181)
WINDOW = (100, 100, 1)
SCANS = ("T1", "T2", "FLAIR")


class Files(NamedTuple):
    subject_id: str
    images: dict[str, Path]


def write_subjects(folder: Path, num: int) -> list[Files]:
    """Ellipsoids of smooth tissue with noise, and a lesion: as large and about as compressible as stripped brains."""
    rng = np.random.default_rng(0)
    coarse = rng.random([-(-length // 10) for length in SHAPE])
    tissue = ndimage.zoom(coarse, np.array(SHAPE) / coarse.shape, order=1)
    radius = sum(((np.arange(n) - n / 2) / (n / 2.3)).reshape([-1 if a == b else 1 for b in range(3)]) ** 2
                 for a, n in enumerate(SHAPE))  # fmt: skip
    subjects = []
    for number in range(num):
        images = {}
        for scale, name in enumerate((*SCANS, "label"), start=1):
            values = np.where(radius < 1, 300 * scale * tissue + rng.normal(100, 20, SHAPE), 0).astype(np.int16)
            if name == "label":
                values = (radius < 0.05).astype(np.uint8)
            images[name] = folder / f"s{number}_{name}.nii.gz"
            nib.save(nib.Nifti1Image(values, np.eye(4)), images[name])
        subjects.append(Files(f"s{number}", images))
    return subjects


def seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def windows_a_second(batches, batch_size: int, num_windows: int) -> float:
    """Of an endless dataset, after its queue has filled."""
    iterator = iter(batches)
    list(itertools.islice(iterator, -(-num_windows // (2 * batch_size))))
    count = -(-num_windows // batch_size)
    return count * batch_size / seconds(lambda: list(itertools.islice(iterator, count)))


class Pace(NamedTuple):
    """Windows a second, by the clock and by one processor's time."""

    clock: float
    processor: float


def pace(batches, batch_size: int, num_windows: int) -> Pace:
    """Of an endless dataset, its first queue included, which is what threads work at from the start."""
    count = -(-num_windows // batch_size)
    began, used = time.perf_counter(), time.process_time()
    list(itertools.islice(iter(batches), count))
    return Pace(*(count * batch_size / (now - then) for now, then in zip(
        (time.perf_counter(), time.process_time()), (began, used), strict=True)))  # fmt: skip


def whole_volume_pace(subject, augment, locate, num_visits: int, windows_per_visit: int) -> Pace:
    """Of visits to one subject, one after the other, without the pipeline around them."""
    began, used = time.perf_counter(), time.process_time()
    for visit in range(num_visits):
        rng = np.random.default_rng(visit)
        moved = augment(subject, rng)
        for location in locate(moved, rng, windows_per_visit):
            crop(moved.scans, location).copy()
            crop(moved.label, location).copy()
    num = num_visits * windows_per_visit
    return Pace(num / (time.perf_counter() - began), num / (time.process_time() - used))


def torchio_pace(subject, num_visits: int, elastic: bool, windows_per_visit: int) -> Pace | None:
    """Of TorchIO's transforms on the arrays of a prepared subject; None if it is not installed."""
    try:
        import torch
        import torchio
    except ImportError:
        return None
    torch.set_num_threads(1)
    images = {
        name: torchio.ScalarImage(tensor=torch.from_numpy(np.ascontiguousarray(subject.scans[..., slot]))[None])
        for slot, name in enumerate(SCANS)
    }
    label = torchio.LabelMap(tensor=torch.from_numpy(np.ascontiguousarray(subject.label))[None])
    whole = torchio.Subject(**images, label=label)
    changes = [
        torchio.RandomFlip(axes=0),
        torchio.RandomAffine(scales=0.1, degrees=10, image_interpolation="bspline"),
        *([torchio.RandomElasticDeformation(7, 15, 0, image_interpolation="bspline")] if elastic else []),
        torchio.RandomBiasField(0.5, 3),
    ]
    change, cut = torchio.Compose(changes), torchio.UniformSampler(WINDOW)
    began, used = time.perf_counter(), time.process_time()
    for _ in range(num_visits):
        list(itertools.islice(cut(change(whole)), windows_per_visit))
    num = num_visits * windows_per_visit
    return Pace(num / (time.perf_counter() - began), num / (time.process_time() - used))


def step_seconds(batches, num: int) -> list[float]:
    """Of the joint model with the paper's choices, on whatever device TensorFlow takes."""
    from pimms_tf.models import build_model
    from pimms_tf.training import exponential_decay, make_loss, make_train_step, new_state

    state = new_state(build_model("online", len(SCANS), 2), "adam", 1e-3)
    step = make_train_step(state, make_loss("DicePlusXEnt"), exponential_decay(1e-4))
    batches = list(itertools.islice(batches, num + 1))
    took = [seconds(lambda batch=batch: float(step(batch).total_loss)) for batch in batches]
    return took[1:]  # the first one compiles


class Waits(NamedTuple):
    """The median of training steps in seconds, and the share of them all that was spent on waiting for batches."""

    step: float
    share: float


def waits_of_training(batches, num: int) -> Waits:
    """Of HeMIS with the paper's choices, its queue filled, as the training loop takes batches and steps."""
    from pimms_tf.models import build_model
    from pimms_tf.training import exponential_decay, make_loss, make_train_step, new_state

    state = new_state(build_model("hemis", len(SCANS), 2), "adam", 1e-3)
    step = make_train_step(state, make_loss("DicePlusXEnt"), exponential_decay(1e-4))
    iterator, rows = iter(batches), []
    for _ in range(num + 2):
        began = time.perf_counter()
        batch = next(iterator)
        came = time.perf_counter()
        float(step(batch).total_loss)
        rows.append((time.perf_counter() - began, came - began))
    whole, waiting = zip(*rows[2:], strict=True)  # the first ones compile and find a queue that fills
    return Waits(statistics.median(whole), sum(waiting) / sum(whole))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--subjects", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--windows-per-visit", type=int, nargs="+", default=[2, 8], help="sample_per_volume")
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[8, 64])
    parser.add_argument("--num-windows", type=int, default=2048, help="that are timed of the cache, each time")
    parser.add_argument("--no-step", action="store_true", help="leave out the training step")
    parser.add_argument("--augmented", action="store_true", help="measure augmented windows alone")
    parser.add_argument("--waits", action="store_true", help="measure alone how long training waits for windows")
    parser.add_argument("--steps", type=int, default=20, help="of training, for --waits")
    parser.add_argument("--chained-visits", type=int, default=2, help="of whole volumes, each time")
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="pimms-windows-"))
    try:
        if arguments.waits:
            return measure_waits(arguments, folder)
        if not arguments.augmented:
            measure(arguments, folder)
        measure_augmented(arguments, folder)
    finally:
        shutil.rmtree(folder)


def measure(arguments: argparse.Namespace, folder: Path) -> None:
    from pimms_tf.pipeline.batches import training_batches

    subjects = write_subjects(folder, arguments.subjects)
    plain = SubjectLoader(foreground="threshold_plus")
    cached = CachedLoader(plain, folder / "cache", num_subjects=len(subjects))
    locate = {
        "whole volume": lambda num: lambda s, rng: uniform_locations(s.scans.shape[:3], WINDOW, num, rng),
        "slices with brain": lambda num: (
            lambda s, rng: foreground_locations(s.scans.shape[:3], WINDOW, num, s.scans, rng)
        ),
    }

    def batches(loader, area: str, num: int, batch_size: int, **options):
        return training_batches(
            subjects, loader, None, locate[area](num), batch_size, 0, arguments.threads, permute=True, **options
        )

    def load_all(loader) -> float:
        return seconds(lambda: [loader.load(files.images, files.subject_id) for files in subjects]) / len(subjects)

    first = load_all(cached)
    took: dict[str, list[float]] = {"files": [], "cache, new process": [], "cache": []}
    rates: dict[tuple, list[float]] = {}
    grid = list(itertools.product(locate, arguments.windows_per_visit, arguments.batch_sizes))
    for _ in range(arguments.rounds):
        took["files"].append(load_all(plain))
        keys._digests.clear()  # as if the files had not been looked at before
        took["cache, new process"].append(load_all(cached))
        took["cache"].append(load_all(cached))
        for area, num, batch_size in grid:
            rate = windows_a_second(batches(cached, area, num, batch_size), batch_size, arguments.num_windows)
            rates.setdefault((area, num, batch_size), []).append(rate)
    cold = {}
    for num in arguments.windows_per_visit:  # an epoch, every subject once, read by the threads
        whole = batches(plain, "whole volume", num, num, cache_bytes=0, repeat=False)
        cold[num] = arguments.subjects * num / seconds(lambda whole=whole: list(whole))

    medians = {name: statistics.median(values) for name, values in took.items()}
    print(
        f"seconds to get a subject of {len(SCANS)} scans {SHAPE}; prepared and stored for the first time: {first:.2f}"
    )
    for name, value in medians.items():
        print(f"  {name:20} {value:8.4f}   files : this = {medians['files'] / value:7.1f}")
    steps = [] if arguments.no_step else step_seconds(batches(cached, "slices with brain", 2, 8), 3)
    step = statistics.median(steps) if steps else None
    print(f"windows {WINDOW} a second, {arguments.threads} threads, hidden and permuted scans, not augmented")
    print(f"  {'drawn from':18} {'a visit':>7} {'batch':>6} {'cache':>8} {'files':>8} {'cache : files':>14}")
    for (area, num, batch_size), values in rates.items():
        rate = statistics.median(values)
        print(f"  {area:18} {num:7} {batch_size:6} {rate:8.0f} {cold[num]:8.1f} {rate / cold[num]:14.0f}")
    if step is not None:
        slowest = min(statistics.median(values) for values in rates.values())
        print(
            f"a training step with batches of 8 takes {step:.3f} s here and asks for {8 / step:.1f} windows a second:"
        )
        print(f"  the slowest of the above gives {slowest * step / 8:.0f} times as many")


_GEOMETRY = {
    "flipping_axes": (0,),
    "scaling_percentage": (-10, 10),
    "rotation_degrees": (-10, 10),
    "bias_field_range": (-0.5, 0.5),
}
KINDS = {
    "flip, bias": {name: _GEOMETRY[name] for name in ("flipping_axes", "bias_field_range")},
    "flip, scaling, rotation, bias": _GEOMETRY,
    "the same and elastic, each time": _GEOMETRY | {"elastic": Elastic(4, 15.0, 1.0)},
}


def measure_waits(arguments: argparse.Namespace, folder: Path) -> None:
    from pimms_tf.pipeline.batches import training_batches

    subjects = write_subjects(folder, arguments.subjects)
    loader = SubjectLoader(foreground="threshold_plus", coefficients=True)
    cached = CachedLoader(loader, folder / "cache of coefficients", num_subjects=len(subjects))
    for files in subjects:
        cached.load(files.images, files.subject_id)
    changes, num = KINDS["the same and elastic, each time"], arguments.windows_per_visit[0]

    def locate(subject, rng):
        return uniform_locations(subject.scans.shape[:3], WINDOW, num, rng)

    batches = training_batches(
        subjects, cached, Augmentation(**changes), locate, 8, 0, arguments.threads, permute=False
    )
    waits = waits_of_training(batches, arguments.steps)
    print(
        f"a step of HeMIS with 8 windows, each flipped, scaled, rotated, bent and with a bias field, {num} a visit, "
        f"{arguments.threads} threads:\n  {waits.step:.3f} s, of which it waits for them "
        f"{100 * waits.share:.2f} %"
    )


def measure_augmented(arguments: argparse.Namespace, folder: Path) -> None:
    from pimms_tf.pipeline.batches import training_batches

    subjects = write_subjects(folder, arguments.subjects)
    loader = SubjectLoader(foreground="threshold_plus", coefficients=True)
    cached = CachedLoader(loader, folder / "cache of coefficients", num_subjects=len(subjects))
    prepared = [cached.load(files.images, files.subject_id) for files in subjects]
    paces: dict[tuple[str, str, int], list[Pace]] = {}

    def note(kind: str, way: str, num: int, measured: Pace | None) -> None:
        if measured is not None:
            paces.setdefault((kind, way, num), []).append(measured)

    def locate(subject, rng, num):
        return uniform_locations(subject.scans.shape[:3], WINDOW, num, rng)

    for _ in range(arguments.rounds):
        for (kind, changes), num in itertools.product(KINDS.items(), arguments.windows_per_visit):
            batches = training_batches(
                subjects,
                cached,
                Augmentation(**changes),
                functools.partial(locate, num=num),
                8,
                0,
                arguments.threads,
                permute=True,
            )
            note(kind, "composed", num, pace(batches, 8, arguments.num_windows // 2))
            chained = Augmentation(**changes, reading="chained")
            note(kind, "chained", num, whole_volume_pace(prepared[0], chained, locate, arguments.chained_visits, num))
            if kind != "flip, bias":
                note(kind, "TorchIO", num, torchio_pace(prepared[0], 1, "elastic" in kind, num))
    print(f"augmented windows {WINDOW} a second, {arguments.threads} threads, from the cache")
    titles = ("by the clock", "by a processor", "composed : this")
    print(f"  {'changes':32} {'a visit':>7} {'':10} " + " ".join(f"{title:>15}" for title in titles))
    for (kind, way, num), measured in paces.items():
        clock, processor = (statistics.median(values) for values in zip(*measured, strict=True))
        ours = statistics.median(each.processor for each in paces[kind, "composed", num])
        print(f"  {kind:32} {num:7} {way:10} {clock:15.2f} {processor:15.2f} {ours / processor:15.1f}")


if __name__ == "__main__":
    main()
