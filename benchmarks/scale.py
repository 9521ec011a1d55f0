"""What a cohort costs: core-hours, time, memory and disk, from figures measured here on one subject.

    python benchmarks/scale.py                            # a national cohort of 100,000 subjects
    python benchmarks/scale.py --subjects 5000 --shards 1 10 50

Prepares, segments and writes a subject of three scans, 181 x 217 x 181 voxels, with the bundled weights, after a first
one for which TensorFlow compiles. Times are those of the processor, which do not depend on what else the machine does.
It prints the page `docs/scale.md`.
"""

import argparse
import os
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parent))

from windows import SCANS, SHAPE, write_subjects

from niftynet_compat import InputSection, find_subjects
from pimms_tf.data.images import write_image
from pimms_tf.inference.records import Record, Records

_NUM_NAMES = 5000  # files of the trial of finding them
_ROW_BYTES = 80  # of the lists, of which a subject has one in one and one for each scan in the other


class Costs(NamedTuple):
    """Of one subject, in seconds of a processor and bytes, unless said otherwise."""

    start: float  # of a process: imports, weights, compiling
    prepare: float
    segment: float
    write: float
    find: float  # to find a file by its name
    merge: float  # to read the record of a result and compare it
    memory: int  # of a process, at most
    scans: int  # files of three scans
    prepared: int
    result: int
    record: int


def spent(work: Callable[[], object]) -> float:
    """Seconds of the processor."""
    began = time.process_time()
    work()
    return time.process_time() - began


def measured(folder: Path) -> Costs:
    (files,) = write_subjects(folder, 1)
    paths = [files.images[name] for name in SCANS]
    began = time.process_time()
    from pimms_tf.weights.segmenter import bundled

    segmenter = bundled()
    imported = time.process_time() - began
    subjects, answers = [], []
    prepare = [spent(lambda: subjects.append(segmenter.prepare(paths))) for _ in range(2)][-1]
    first, segment = (spent(lambda: answers.append(segmenter(subjects[-1]))) for _ in range(2))
    result = folder / "results" / "s0_niftynet_out.nii.gz"
    result.parent.mkdir()
    write = spent(lambda: write_image(answers[-1].image, result))
    records = Records(result.parent, folder / "records")
    records.folder.mkdir()
    names = [f"subject{number:05}" for number in range(200)]
    for name in names:
        records.write(Record(name, "0" * 32, "0" * 64, result.name, scores=(("s0", *["0.333"] * len(SCANS)),)))
    merge = statistics.median(spent(lambda name=name: records.read(name)) for name in names)
    empty = folder / "names"
    empty.mkdir()
    for number in range(_NUM_NAMES):
        (empty / f"subject{number:05}_T1.nii.gz").touch()
    section = InputSection(path_to_search=str(empty), filename_contains=("T1",))
    find = spent(lambda: find_subjects({"T1": section})) / _NUM_NAMES
    return Costs(
        start=imported + max(first - segment, 0),
        prepare=prepare,
        segment=segment,
        write=write,
        find=find,
        merge=merge,
        memory=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        scans=sum(path.stat().st_size for path in paths),
        prepared=subjects[-1].scans.nbytes,
        result=result.stat().st_size,
        record=records.path(names[0]).stat().st_size,
    )


def page(costs: Costs, num: int, shards: list[int], cores: int, busy: float) -> str:
    """The Markdown of what ``num`` subjects cost, in tasks of ``cores`` that they keep busy to a share."""
    each = costs.prepare + costs.segment + costs.write
    per_shard = costs.start + costs.find * num * len(SCANS)
    rows = []
    for count in shards:
        part = -(-num // count)
        seconds = per_shard + part * each
        lists = part * part / 2 * _ROW_BYTES * (1 + len(SCANS))
        rows.append(
            f"| {count:,} | {part:,} | {hours(seconds / cores / busy)} | {count * seconds / 3600:,.0f} | "
            f"{count * cores:,} | {print_size(count * costs.memory)} | {print_size(count * lists)} |"
        )
    measured_rows = [
        f"| {what} | {value:.3g} s |"
        for what, value in (
            ("a process: imports, weights, compiling", costs.start),
            ("to read and prepare a subject: brain found, scans told apart", costs.prepare),
            ("to segment it, by whole slices", costs.segment),
            ("to write its mask", costs.write),
            ("to find one file by its name", costs.find),
            ("to read and compare one record, for the merge", costs.merge),
        )
    ]
    sizes = [
        f"| {what} | {print_size(value)} |"
        for what, value in (
            ("memory of a process", costs.memory),
            ("files of a subject's scans", costs.scans),
            ("a subject in the cache of prepared scans", costs.prepared),
            ("its mask", costs.result),
            ("its record", costs.record),
        )
    ]
    return f"""# Scale

What it costs to segment {num:,} subjects, each of {len(SCANS)} scans of {" x ".join(map(str, SHAPE))} voxels.
Written by `python benchmarks/scale.py`, from figures that it measured on one subject on this processor: {processor()}.
Your figures differ; run it on a node of your cluster, with `--subjects` and `--shards` of your own.

## Measured

Seconds of the processor, whatever else the machine did meanwhile:

| what | |
| --- | --: |
{chr(10).join(measured_rows + sizes)}

## Computed

Tasks of {cores} cores, which a shard is taken to keep busy to {100 * busy:.0f} %, all at once:

| shards | subjects in each | hours, all at once | core-hours of work | cores | memory | written to lists |
| --: | --: | --: | --: | --: | --: | --: |
{chr(10).join(rows)}

Disk: {print_size(num * costs.scans)} of scans are read once, {print_size(num * (costs.result + costs.record))} of
masks and records written. The merge takes {hours(num * costs.merge + costs.start)} of a core, and {num:,} small reads.

## What is met first, and what to set

- **The list of a shard is written anew after each of its subjects**, so that it is never behind; what that writes grows
  with the square of the shard. Take shards of a few hundred subjects, no more than a few thousand.
- **Slurm takes arrays of 1,000 tasks** unless `MaxArraySize` is raised. `--at-once` keeps a large array from taking the
  whole cluster, and the file system from being asked by all of it.
- **The cache of prepared scans** holds {int(32 * 2**30 / costs.prepared):,} such subjects in its 32 GiB, and a cohort
  is prepared once in any case: `--cache off`. For training, a cache on a local disk of each node
  (`--cache "$TMPDIR/cache"`) with `--cache_gib` for all training subjects: {print_size(1000 * costs.prepared)} for a
  thousand, more with a label, and twice as much with augmentation that interpolates, which keeps coefficients as well.
- **Every shard looks for all files by name**, {num * len(SCANS):,} of them: {hours(costs.find * num * len(SCANS))} of a
  core. A `csv_file` of subjects and paths in each input section asks the file system for nothing.
- **One folder of {num:,} masks** and one of as many records is much for some parallel file systems. Run the cohort in
  parts, each with a `save_seg_dir` of its own.
- **Hours of a task**: `--time` in the script is 8. A shard that is ended goes on where it was when it is sent again.
"""


def hours(seconds: float) -> str:
    """A duration that reads well."""
    return (
        f"{seconds:.1f} s"
        if seconds < 60
        else f"{seconds / 60:.1f} min"
        if seconds < 3600
        else f"{seconds / 3600:.1f} h"
    )


def print_size(size: float) -> str:
    """Bytes with a unit of three digits."""
    units = ("B", "kB", "MB", "GB", "TB", "PB")
    thousands = next(power for power in range(len(units)) if size < 1000 ** (power + 1) or power == len(units) - 1)
    return f"{size / 1000**thousands:.3g} {units[thousands]}"


def processor() -> str:
    """The name that the system gives the processor."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{len(names)} cores of {names[0]}" if names else "of unknown name"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--subjects", type=int, default=100_000)
    parser.add_argument("--shards", type=int, nargs="+", default=[1, 100, 250, 1000])
    parser.add_argument("--cores", type=int, default=4, help="of a task")
    parser.add_argument("--busy", type=float, default=0.8, help="share of the time that a task's cores work")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="pimms-scale-") as folder:
        costs = measured(Path(folder))
    print(page(costs, arguments.subjects, arguments.shards, arguments.cores, arguments.busy), end="")


if __name__ == "__main__":
    main()
