"""How a result was made: which release, libraries and weights, by which command, how long, with how much memory."""

import hashlib
import platform
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path

from pimms_tf import __version__
from pimms_tf.weights.files import released_sha256

try:
    import resource
except ImportError:  # a system that keeps no such record
    resource = None

LIBRARIES = ("tensorflow", "keras", "numpy", "scipy", "nibabel", "SimpleITK", "pydicom", "highdicom")
BUNDLED = "bundled.npz"


@dataclass(frozen=True)
class Provenance:
    """What another person needs to make the same result again. Words are "" and numbers None where it is not known."""

    command: str
    weights: str  # "bundled", or the folder they came from
    weights_sha256: str
    versions: tuple[tuple[str, str], ...]  # of pimms-tf, Python and the libraries
    when: str  # UTC, to the second
    peak_memory_mb: float | None


def provenance(weights: Path | str | None = None, command: Sequence[str] | None = None) -> Provenance:
    """Returns how this process makes its results.

    `weights` is the model folder or export, "bundled" for those of the package, None where it is not known. `command`
    is by default that of the process.
    """
    return Provenance(
        command=shlex.join(command or [Path(sys.argv[0]).name, *sys.argv[1:]]),
        weights="" if weights is None else str(weights),
        weights_sha256="" if weights is None else weights_sha256(weights),
        versions=versions(),
        when=datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M:%S UTC"),
        peak_memory_mb=peak_memory_mb(),
    )


def versions() -> tuple[tuple[str, str], ...]:
    """Returns names and versions of pimms-tf, Python and the libraries; "not installed" for one that is not there."""
    return (
        ("pimms-tf", __version__),
        ("python", platform.python_version()),
        *((name, installed_version(name)) for name in LIBRARIES),
    )


def installed_version(library: str) -> str:
    """Returns the version of a library, without importing it."""
    try:
        return metadata.version(library)
    except metadata.PackageNotFoundError:
        return "not installed"


def weights_sha256(weights: Path | str) -> str:
    """Returns the SHA-256 of the file that holds the weights, as `sha256sum` prints it; "" where there is none.

    That is `bundled.npz` of the package, of a model folder the values of its latest checkpoint, of an export those of
    its newest version.
    """
    if str(weights) == "bundled":
        return released_sha256(BUNDLED)
    files = [*Path(weights).rglob("*.data-00000-of-00001")]
    if not files:
        return ""
    return hashlib.sha256(max(files, key=_number).read_bytes()).hexdigest()


def peak_memory_mb() -> float | None:
    """Returns the most memory that this process has held so far, in MB of a million bytes."""
    if resource is None:
        return None
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most * (1 if sys.platform == "darwin" else 1024) / 1e6


def _number(path: Path) -> tuple[int, str]:
    """The iteration of a checkpoint, or the version of an export, for which the folder above it is named."""
    words = [path.name.split(".")[1].removeprefix("ckpt-") if path.name.startswith("model.ckpt-") else ""]
    words += [parent.name for parent in path.parents[:2]]
    return next((int(word) for word in words if word.isdecimal()), 0), str(path)
