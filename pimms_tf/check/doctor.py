"""examine: is this installation whole, does it compute what it should, and what of the machine would slow it down?"""

import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

from packaging.requirements import Requirement

from pimms_tf import __version__
from pimms_tf.check import machine
from pimms_tf.clinic.provenance import installed_version, versions, weights_sha256
from pimms_tf.errors import InputError
from pimms_tf.pipeline.cache import default_folder
from pimms_tf.weights import bundled_arrays, bundled_preparation

State = Literal["fine", "note", "broken"]

LEAST_MEMORY_MB = 3000  # a patient's scans at 1 mm, and the network
_LEAST_DISK_MB = 1000
_OPTIONAL = 'extra == "'  # in a requirement that only some installations have
PAPER = (
    "Varsavsky T, Eaton-Rosen Z, Sudre CH, Nachev P, Cardoso MJ. PIMMS: Permutation Invariant Multi-Modal Segmentation."
    " arXiv:1807.06537, 2018"
)


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at. A note costs time or comfort; what is broken must be mended before use."""

    topic: str
    state: State
    text: str


@dataclass(frozen=True)
class Diagnosis:
    """All findings, in the order in which they were looked at."""

    findings: tuple[Finding, ...]
    seconds: float

    @property
    def exit_code(self) -> int:
        """0, or 1 if anything is broken."""
        return int(any(finding.state == "broken" for finding in self.findings))

    def text(self) -> str:
        """Returns the findings, a line each, and a last line that sums them up."""
        width = max(len(finding.topic) for finding in self.findings)
        lines = [f"{one.state:<6}  {one.topic:<{width}}  {one.text}" for one in self.findings]
        broken = [one.topic for one in self.findings if one.state == "broken"]
        verdict = f"broken: {', '.join(broken)}" if broken else "all is well"
        return "\n".join((*lines, f"\n{verdict} ({self.seconds:.0f} s)"))

    def json(self) -> str:
        """Returns the same as one JSON object."""
        record = {"findings": [asdict(one) for one in self.findings], "versions": dict(versions())}
        return json.dumps(record | {"seconds": round(self.seconds, 1), "is_well": not self.exit_code}, indent=2)


def examine(
    import_tensorflow: Callable[[], None],
    environ: Mapping[str, str] = os.environ,
    root: Path = Path("/"),
    folder: Path = Path("."),
) -> Diagnosis:
    """Returns what is found about the installation and the machine, after ten seconds and more, most for TensorFlow.

    `environ` and `root` stand for the machine, `folder` is where results would be written. Nothing is left behind.
    """
    began = time.perf_counter()
    findings = [
        *_libraries(),
        *_processor(root),
        *_threads(environ, root),
        *_memory(environ, root),
        *_disk(folder),
        *_weights(),
        *_tensorflow(import_tensorflow, root),
    ]
    return Diagnosis(tuple(findings), time.perf_counter() - began)


def citation() -> str:
    """Returns a paragraph for the methods of a paper, with the versions of this installation, and what it cites."""
    of = dict(versions())
    return (
        f"White matter lesions were segmented with pimms-tf {__version__} (Python {of['python']}, TensorFlow "
        f"{of['tensorflow']}, Keras {of['keras']}), an implementation of permutation invariant multi-modal "
        "segmentation [1] that takes any number of MR scans of a patient in any order without their names. The weights "
        f"were those that come with the package (SHA-256 {weights_sha256('bundled')}). Images were read with nibabel "
        f"{of['nibabel']}, and registered with SimpleITK {of['SimpleITK']}.\n\n[1] {PAPER}"
    )


def _libraries() -> Iterator[Finding]:
    yield Finding("pimms-tf", "fine", __version__)
    try:
        wanted = metadata.requires("pimms-tf") or []
    except metadata.PackageNotFoundError:
        yield Finding("libraries", "note", "pimms-tf is not installed but run from its sources: run pip install .")
        return
    said, wrong = [], []
    for line in wanted:
        requirement = Requirement(line)
        if _OPTIONAL in line or (requirement.marker and not requirement.marker.evaluate()):
            continue
        version = installed_version(requirement.name)
        said.append(f"{requirement.name} {version}")
        if version == "not installed" or not requirement.specifier.contains(version, prereleases=True):
            wrong.append(f"{requirement.name} {version}, but {requirement.specifier} is needed")
    if wrong:
        yield Finding("libraries", "broken", f"{'; '.join(wrong)}: run pip install pimms-tf again")
    else:
        yield Finding("libraries", "fine", ", ".join(said))


def _processor(root: Path) -> Iterator[Finding]:
    name, features = machine.processor_name(root), machine.processor_features(root)
    text = f"{name}, {', '.join(features) or 'no known instruction sets'}"
    if features and not {"avx2", "asimd"} & set(features):
        yield Finding("processor", "note", f"{text}; it lacks AVX2, which makes TensorFlow several times faster")
    else:
        yield Finding("processor", "fine", text)


def _threads(environ: Mapping[str, str], root: Path) -> Iterator[Finding]:
    seen, limit = machine.processors_seen(), machine.processor_limit(environ, root)
    threads = environ.get("TF_NUM_INTRAOP_THREADS", "")
    threads = int(threads) if threads.isdecimal() and int(threads) else seen
    text = f"TensorFlow computes with {threads}"
    if limit is None:
        yield Finding("threads", "fine", f"{text}; {seen} processors may be used")
    elif threads > max(limit.amount, 1):
        allowed = max(1, int(limit.amount))
        yield Finding(
            "threads",
            "note",
            f"{text}, but {limit.source} allows {limit.amount:g} of {seen} processors, so they wait for each other: "
            f"set TF_NUM_INTRAOP_THREADS={allowed} and OMP_NUM_THREADS={allowed}",
        )
    else:
        yield Finding("threads", "fine", f"{text}; {limit.source} allows {limit.amount:g} of {seen} processors")


def _memory(environ: Mapping[str, str], root: Path) -> Iterator[Finding]:
    limit = machine.memory_limit_mb(environ, root)
    if limit is None:
        yield Finding("memory", "fine", "no limit is known")
    elif limit.amount < LEAST_MEMORY_MB:
        text = f"{limit.amount:,.0f} MB by {limit.source}; large scans need up to {LEAST_MEMORY_MB:,} MB"
        yield Finding("memory", "note", text)
    else:
        yield Finding("memory", "fine", f"{limit.amount:,.0f} MB by {limit.source}")


def _disk(folder: Path) -> Iterator[Finding]:
    cache = default_folder()
    for topic, place in (("results", folder), ("temporary", Path(tempfile.gettempdir())), ("cache", cache)):
        there = next(each for each in (place, *place.absolute().parents) if each.exists())
        free_mb = shutil.disk_usage(there).free / 1e6
        text = f"{free_mb:,.0f} MB free in {place.absolute()}"
        if not os.access(there, os.W_OK | os.X_OK):
            state: State = "broken" if topic == "temporary" else "note"
            yield Finding(topic, state, f"{there.absolute()} cannot be written to; change its permissions")
        elif free_mb < _LEAST_DISK_MB:
            yield Finding(topic, "note", f"{text}; make room, or take another disk")
        else:
            yield Finding(topic, "fine", text)


def _weights() -> Iterator[Finding]:
    try:
        arrays, preparation = bundled_arrays(), bundled_preparation()
    except InputError as error:
        yield Finding("weights", "broken", str(error))
        return
    except (OSError, ValueError) as error:
        yield Finding("weights", "broken", f"the bundled weights cannot be read ({error}); install pimms-tf again")
        return
    numbers = sum(array.size for array in arrays.values())
    known = ", ".join(preparation.modalities)
    text = f"{numbers:,} numbers for {known}, as released: SHA-256 {weights_sha256('bundled')}"
    yield Finding("weights", "fine", text)


def _tensorflow(import_tensorflow: Callable[[], None], root: Path) -> Iterator[Finding]:
    try:
        import_tensorflow()
        import tensorflow as tf

        gpus = tf.config.list_physical_devices("GPU")
    except Exception as error:  # whatever a broken installation may raise, it is what the doctor is asked about
        yield Finding("tensorflow", "broken", f"it cannot be loaded: {_one_line(error)}")
        return
    named = [tf.config.experimental.get_device_details(gpu).get("device_name", gpu.name) for gpu in gpus]
    if gpus:
        yield Finding("gpu", "fine", ", ".join(named))
    elif (root / "proc/driver/nvidia/version").exists():
        yield Finding("gpu", "note", "there is one, but TensorFlow does not see it: run pip install 'pimms-tf[gpu]'")
    else:
        yield Finding("gpu", "fine", "none, so all is computed by the processor")
    from pimms_tf.check import self_test

    yield _tried("self-test: network", self_test.network_error, _near)
    if gpus:
        yield _tried("self-test: gpu", lambda: self_test.network_error("GPU"), _near)
    yield _tried("self-test: order", self_test.order_changes_nothing, _exact("the order of scans changes no bit"))
    yield _tried("self-test: files", self_test.files_keep_every_bit, _exact("images come back bit by bit"))


def _tried(topic: str, test: Callable[[], object], judge: Callable[[object], tuple[bool, str]]) -> Finding:
    try:
        passed, text = judge(test())
    except Exception as error:  # as above
        return Finding(topic, "broken", f"it failed: {_one_line(error)}")
    return Finding(topic, "fine" if passed else "broken", text)


def _near(found: tuple[float, float]) -> tuple[bool, str]:
    error, tolerance = found
    text = f"within {error:.1e} of the recorded answer; rounding explains {tolerance:.1e}"
    return error <= tolerance, text


def _exact(promise: str) -> Callable[[bool], tuple[bool, str]]:
    return lambda kept: (kept, promise if kept else f"not true here: {promise}; report it with this output")


def _one_line(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]
