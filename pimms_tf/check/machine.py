"""What this machine gives a process: processors and memory, as schedulers and containers limit them, and its kind.

Limits are looked for where Linux, Slurm and control groups (both versions) write them; a file that is not there sets no
limit. `root` and `environ` stand for the machine, so that any can be described.
"""

import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

# Instruction sets that TensorFlow computes faster with; without the first its wheels do not run at all on x86-64.
FEATURES = ("avx", "avx2", "fma", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "asimd", "sve")
_UNLIMITED = 2**60  # what version 1 of control groups writes for no limit, and more


class Limit(NamedTuple):
    """How much a process may use, and who says so."""

    amount: float
    source: str


def processor_name(root: Path = Path("/")) -> str:
    """Returns the model of the processor, or its architecture where nothing says more."""
    return _cpuinfo(root).get("model name") or platform.processor() or platform.machine()


def processor_features(root: Path = Path("/")) -> tuple[str, ...]:
    """Returns which of FEATURES the processor has; none where it does not say."""
    info = _cpuinfo(root)
    has = set((info.get("flags") or info.get("Features") or "").split())
    return tuple(name for name in FEATURES if name in has)


def processors_seen() -> int:
    """Returns on how many processors this process may be scheduled, for which TensorFlow starts threads."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not Linux
        return os.cpu_count() or 1


def processor_limit(environ: Mapping[str, str] = os.environ, root: Path = Path("/")) -> Limit | None:
    """Returns how many processors may be used at a time by Slurm or a control group, the smaller; None for no limit."""
    limits = [
        Limit(float(environ[key]), key)
        for key in ("SLURM_CPUS_PER_TASK", "SLURM_CPUS_ON_NODE")
        if environ.get(key, "").isdecimal()
    ]
    for folder in _control_groups(root, "cpu"):
        words = _read(folder / "cpu.max").split()
        if not words:
            words = [_read(folder / "cpu.cfs_quota_us"), _read(folder / "cpu.cfs_period_us")]
        if len(words) == 2 and all(word.isdecimal() for word in words) and int(words[1]):
            limits.append(Limit(int(words[0]) / int(words[1]), "control group"))
    return min(limits, default=None)


def memory_limit_mb(environ: Mapping[str, str] = os.environ, root: Path = Path("/")) -> Limit | None:
    """Returns how many MB may be used: what is free, or what Slurm or a control group grants; None if nobody says."""
    limits = []
    for line in _read(root / "proc/meminfo").splitlines():
        name, _, rest = line.partition(":")
        if name == "MemAvailable":
            limits.append(Limit(int(rest.split()[0]) * 1024 / 1e6, "free memory"))
    if environ.get("SLURM_MEM_PER_NODE", "").isdecimal():
        limits.append(Limit(int(environ["SLURM_MEM_PER_NODE"]) * 2**20 / 1e6, "SLURM_MEM_PER_NODE"))
    for folder in _control_groups(root, "memory"):
        for name in ("memory.max", "memory.limit_in_bytes"):
            word = _read(folder / name)
            if word.isdecimal() and int(word) < _UNLIMITED:
                limits.append(Limit(int(word) / 1e6, "control group"))
    return min(limits, default=None)


def _control_groups(root: Path, controller: str) -> list[Path]:
    """The folders of the control groups that this process is in, from its own up; of a container the mounted one."""
    folders = []
    for line in _read(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        top = root / "sys/fs/cgroup" / (controller if controllers else "")
        own = top / path.lstrip("/")
        folders += [each for each in (own, *own.parents) if each == top or top in each.parents]
    return list(dict.fromkeys(folders))


def _cpuinfo(root: Path) -> dict[str, str]:
    """The first processor's lines."""
    lines = _read(root / "proc/cpuinfo").split("\n\n")[0].splitlines()
    return {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in lines)}


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""
