"""What a subject costs: seconds and memory of its segmentation by whole slices, by windows, and by other libraries.

    python benchmarks/inference.py [--small] [--repeats N] [--only WAY …]

One synthetic subject of 181×217×181 voxels, three scans of an ellipsoid in air of one intensity, and the HeMIS network
of the paper with random weights, the same in all ways. Each way runs in a process of its own, which tells its peak of
memory; they take turns, and medians are told. On a machine that does other things, too, the seconds of all cores
together (CPU s) are the better measure. What is told is the second run of a way, so that nothing is compiled in it; of
the last way, the whole command from NIfTI files to NIfTI files, it is the first, from the start of Python to its end.
What it takes besides the network is told by its parts. Scans are read while TensorFlow is imported, so by the clock the
parts are more than the whole.

Other libraries (ONNX Runtime, OpenVINO, PyTorch) get whole slices cut as ours are, see `runtimes.py`. The last column
is the share of voxels that a way marks, which tells that all compute the same; with bfloat16, nearly.
"""

import argparse
import functools
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1])]

SHAPE = (181, 217, 181)
MODALITIES = ("T1", "T2", "FLAIR")
COMMAND = "the whole command, files to files"
AIR = (-0.7, -0.6, -0.5)  # what whitening makes of 0


def head(shape: Sequence[int]):
    """Returns scans (x, y, z, scan) float32: noise within an ellipsoid that nearly fills the volume, air around it."""
    import numpy as np

    rng = np.random.default_rng(0)
    axes = np.ogrid[tuple(slice(0, length) for length in shape)]
    radii = [0.41 * length for length in shape]
    inside = sum(((x - (n - 1) / 2) / r) ** 2 for x, n, r in zip(axes, shape, radii, strict=True)) <= 1
    stack = np.empty((len(AIR), *shape), np.float32)
    for scan, air in zip(stack, AIR, strict=True):
        scan[...] = air
        scan[inside] = rng.normal(0.5, 1, inside.sum())
    return np.moveaxis(stack, 0, -1)


def subject(shape: Sequence[int]):
    """Returns the head as a prepared subject."""
    import numpy as np

    from pimms_tf.data.grids import Grid
    from pimms_tf.data.subjects import Subject

    modality = np.arange(len(AIR), dtype=np.int32)
    return Subject("head", head(shape), np.ones(len(AIR), bool), modality, None, np.eye(4), Grid(shape, np.eye(4)))


def network():
    """Returns the HeMIS network of the paper with random weights."""
    import keras

    from pimms_tf.models import build_model

    keras.utils.set_random_seed(0)
    return build_model("hemis", len(MODALITIES), 2)


def our_slices(shape: Sequence[int], precision: str = "float32") -> Callable[[], object]:
    from pimms_tf.inference import label_scores
    from pimms_tf.inference.network import Network
    from pimms_tf.training import devices

    one, model = subject(shape), network()
    devices.set_precision(model, precision)
    ours = Network(model)
    return lambda: ours.segment_slices(one, label_scores(one, len(MODALITIES))).data


def our_windows(shape: Sequence[int]) -> Callable[[], object]:
    from pimms_tf.inference import label_scores, segment
    from pimms_tf.inference.network import Network

    one, ours = subject(shape), Network(network())
    window, border = _window(shape), (17, 17, 0)
    return lambda: segment(ours.predict, one, label_scores(one, len(MODALITIES)), window, border, batch_size=4).data


def plain_slices(shape: Sequence[int]) -> Callable[[], object]:
    import numpy as np

    one, plain = subject(shape), _plain()

    def run():
        padded = np.pad(one.scans, ((17, 17), (17, 17), (0, 0), (0, 0)), mode="edge")
        slices = np.moveaxis(padded, 2, 0)
        labels = [np.argmax(plain(np.ascontiguousarray(slices[z : z + 1])), axis=-1) for z in range(len(slices))]
        return np.concatenate(labels)[:, 17:-17, 17:-17]

    return run


def plain_windows(shape: Sequence[int]) -> Callable[[], object]:
    from pimms_tf.inference import segment

    one, plain = subject(shape), _plain()
    window, border = _window(shape), (17, 17, 0)
    return lambda: segment(lambda scans, scores, valid: plain(scans), one, None, window, border, batch_size=4).data


def other_slices(shape: Sequence[int], library: str, **form) -> Callable[[], object]:
    import runtimes

    from pimms_tf.inference import label_scores
    from pimms_tf.inference.slices import reach_of, segment_slices

    one, model = subject(shape), network()
    predict, reach = getattr(runtimes, library)(model, **form), reach_of(model)
    scores = label_scores(one, len(MODALITIES))
    return lambda: segment_slices(predict, reach, one, scores, max_voxels=2**16).data  # as ours


def _plain() -> Callable:
    import tensorflow as tf
    from plain_keras import copy_weights, plain_hemis

    plain = plain_hemis(len(MODALITIES), 2)
    copy_weights(network(), plain)
    compiled = tf.function(lambda scans: plain(scans, training=False), reduce_retracing=True)
    return lambda scans: compiled(tf.constant(scans)).numpy()


def _window(shape: Sequence[int]) -> tuple[int, int, int]:
    return min(100, shape[0] + 34), min(100, shape[1] + 34), 1


COMMAND = "the whole command, files to files"
NETWORK = "the network"


def run_command(folder: Path) -> None:
    """Runs the whole command on files of the head, with a cache of its own, and prints what its parts take."""
    from pimms_tf.commands import run_cli
    from pimms_tf.commands.cli import main

    os.environ["XDG_CACHE_HOME"] = str(folder / "cache")
    parts: dict[str, list[float]] = {}
    import_tensorflow = run_cli.import_tensorflow

    def imported() -> None:
        parts["Python, settings, files found"] = [time.time() - _BEGAN, time.process_time()]
        import_tensorflow()
        from pimms_tf.actions import inference
        from pimms_tf.inference.segmenter import Segmenter

        _timed(inference, "trained_model", "network built, weights read", parts)
        _timed(Segmenter, "__call__", NETWORK, parts)
        _timed(inference._Run, "write", "results written", parts)

    run_cli.import_tensorflow = imported
    _timed(run_cli, "import_tensorflow", "TensorFlow imported, scans read meanwhile", parts)
    if main(["inference", f"{folder}/x.ini"]) != 0:
        raise SystemExit("the command failed")
    print(json.dumps({"parts": parts, "peak_mb": _peak_mb()}))


_BEGAN = float(os.environ.get("PIMMS_BENCHMARK_BEGAN", time.time()))


def _timed(owner: object, name: str, part: str, parts: dict[str, list[float]]) -> None:
    """Lets a function note its seconds, by the clock and of all cores."""
    inner = getattr(owner, name)

    def outer(*arguments, **others):
        began, began_cpu = time.perf_counter(), time.process_time()
        try:
            return inner(*arguments, **others)
        finally:
            parts[part] = [time.perf_counter() - began, time.process_time() - began_cpu]

    setattr(owner, name, outer)


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def prepare(folder: Path, shape: Sequence[int]) -> None:
    """Writes the files of the head, a checkpoint and a configuration."""
    import nibabel as nib
    import numpy as np
    import tensorflow as tf

    from pimms_tf.training import Checkpoints

    (folder / "scans").mkdir()
    for scan, name in zip(np.moveaxis(head(shape), -1, 0), MODALITIES, strict=True):
        voxels = np.where(scan == scan[0, 0, 0], 0, np.clip(500 + 100 * scan, 1, 1000)).astype(np.int16)
        nib.save(nib.Nifti1Image(voxels, np.diag([-1, -1, 1, 1])), folder / "scans" / f"head_{name}.nii.gz")
    Checkpoints(folder / "model" / "models", network(), None, tf.Variable(1, dtype=tf.int64)).save()
    sections = {
        "SYSTEM": f"model_dir = {folder / 'model'}",
        "NETWORK": "name = hemis\nwhitening = True\nnormalise_foreground_only = True\nforeground_type = threshold_plus",
        "SEGMENTATION": f"image = {','.join(MODALITIES)}\nnum_classes = 2",
        "TRAINING": "",
        "INFERENCE": "",
    }
    for name in MODALITIES:
        sections[name] = f"path_to_search = {folder / 'scans'}\nfilename_contains = _{name}\n"
        sections[name] += "spatial_window_size = 100, 100, 1"
    text = "\n\n".join(f"[{name}]\n{keys}" for name, keys in sections.items())
    (folder / "x.ini").write_text(text + "\n", encoding="utf-8")


WAYS = {
    "our whole slices": our_slices,
    "our whole slices, bfloat16": functools.partial(our_slices, precision="mixed_bfloat16"),
    "our windows, 100×100 with border 17": our_windows,
    "plain Keras, whole slices": plain_slices,
    "plain Keras, windows": plain_windows,
    "ONNX Runtime": functools.partial(other_slices, library="onnx_runtime"),
    "OpenVINO": functools.partial(other_slices, library="open_vino", precision="f32"),
    "OpenVINO, bfloat16": functools.partial(other_slices, library="open_vino", precision="bf16"),
    **{
        f"PyTorch{name}": functools.partial(other_slices, library="pytorch", **form)
        for name, form in {
            "": {},
            ", channels last": {"channels_last": True},
            ", channels last, compiled": {"channels_last": True, "compiled": True},
            ", bfloat16": {"bfloat16": True},
            ", bfloat16, channels last, compiled": {"bfloat16": True, "channels_last": True, "compiled": True},
        }.items()
    },
}


def measured(way: str, shape: Sequence[int]) -> dict[str, float | str]:
    """Runs one way in a process of its own; returns its seconds, those of all cores together, its peak in MB and the
    share of voxels that it marks; or why it was skipped."""
    words = "--shape", ",".join(map(str, shape))
    if way != COMMAND:
        return json.loads(_call("--way", way, *words).splitlines()[-1])
    with tempfile.TemporaryDirectory(prefix="pimms-benchmark-") as folder:
        _call("--prepare", folder, *words)
        began, before = time.time(), resource.getrusage(resource.RUSAGE_CHILDREN)
        told = json.loads(_call("--command", folder).splitlines()[-1])
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        found = {"seconds": time.time() - began, "cpu_seconds": cpu, "peak_mb": told["peak_mb"]}
        for part, (seconds, cpu_seconds) in told["parts"].items():
            found |= {f"{part}: seconds": seconds, f"{part}: cpu_seconds": cpu_seconds}
        return found


def _call(*words: str) -> str:
    environment = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3", "PIMMS_BENCHMARK_BEGAN": str(time.time())}
    program = [sys.executable, __file__, *words]
    done = subprocess.run(program, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(done.stderr)
    return done.stdout


def run_way(way: str, shape: Sequence[int]) -> None:
    """Prints what `measured` reads."""
    try:
        run = WAYS[way](shape)
        run()
    except ImportError as error:
        print(json.dumps({"skipped": str(error)}))
        return
    began, began_cpu = time.perf_counter(), time.process_time()
    labels = run()
    told = {"seconds": time.perf_counter() - began, "cpu_seconds": time.process_time() - began_cpu}
    print(json.dumps(told | {"peak_mb": _peak_mb(), "marked": float((labels == 1).mean())}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--small", action="store_true", help="a subject of an eighth of the size")
    parser.add_argument("--repeats", type=int, default=1, help="turns that each way takes")
    parser.add_argument("--only", nargs="*", help="how the names begin of the ways to take")
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    parser.add_argument("--prepare", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--command", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--shape", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.command:
        return run_command(arguments.command)
    if arguments.shape:
        shape = tuple(map(int, arguments.shape.split(",")))
        return prepare(arguments.prepare, shape) if arguments.prepare else run_way(arguments.way, shape)
    shape = tuple(length // 2 for length in SHAPE) if arguments.small else SHAPE
    ways = [way for way in (*WAYS, COMMAND) if way.startswith(tuple(arguments.only or [""]))]
    found = {way: [] for way in ways}
    for _ in range(arguments.repeats):
        for way in list(found):
            told = measured(way, shape)
            if "skipped" in told:
                print(f"{way} is left out: {told['skipped']}", flush=True)
                del found[way]
            else:
                found[way].append(told)
    print(f"{'×'.join(map(str, shape))} voxels, {len(MODALITIES)} scans, {len(os.sched_getaffinity(0))} cores")
    print(f"{'':44}{'seconds':>9}{'ratio':>7}{'CPU s':>9}{'ratio':>7}{'peak MB':>9}{'marked':>9}")
    medians = {way: _medians(runs) for way, runs in found.items()}
    first = next(iter(medians.values()))
    for way, own in medians.items():
        ratios = [own[key] / first[key] for key in ("seconds", "cpu_seconds")]
        print(f"{way:44}{own['seconds']:9.2f}{ratios[0]:7.2f}{own['cpu_seconds']:9.2f}{ratios[1]:7.2f}", end="")
        print(f"{own['peak_mb']:9.0f}" + (f"{own['marked']:9.4f}" if "marked" in own else ""))
    if COMMAND in medians:
        _print_parts(medians[COMMAND])
    return None


def _print_parts(own: dict[str, float]) -> None:
    """Prints what the whole command takes besides the network, and what its parts do."""
    besides = [own[key] - own[f"{NETWORK}: {key}"] for key in ("seconds", "cpu_seconds")]
    rows = {"the whole command minus the network": besides}
    for key in own:
        part, colon, _ = key.partition(": ")
        if colon and part != NETWORK:
            rows[f"  {part}"] = [own[f"{part}: seconds"], own[f"{part}: cpu_seconds"]]
    for name, (seconds, cpu_seconds) in rows.items():
        print(f"{name:44}{seconds:9.2f}{'':7}{cpu_seconds:9.2f}")


def _medians(runs: list[dict[str, float]]) -> dict[str, float]:
    return {key: median(run[key] for run in runs) for key in runs[0]}


if __name__ == "__main__":
    main()
