"""What a prepared subject is called: a hash of all that decides how it looks, so that no other takes its place.

The bytes of its files, every setting of the loader, the code that prepares and the libraries below it. What could
change without changing the key is not stored.
"""

import errno
import functools
import hashlib
import importlib.metadata
import importlib.resources
import json
import os
import stat
import time
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import NamedTuple

import nibabel as nib
import numpy as np
import scipy

import pimms_tf
from pimms_tf.pipeline.entry import MAGIC

# The modules of `pimms_tf.data` that decide what a prepared subject holds; a change of any other leaves entries good.
PREPARING = (
    "brain",
    "formats",
    "grids",
    "images",
    "intensity",
    "labels",
    "loading",
    "normalising",
    "patient",
    "subjects",
)
_WHOLE_FILES = (".nii", ".nii.gz", ".mgh", ".mgz", ".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")
_PAIRS = (".hdr", ".img")


def subject_key(loader: object, images: Mapping[str, Path], subject_id: str) -> str | None:
    """The name of the entry of a subject, 64 hexadecimal digits; None if its files name others that cannot be listed.

    The loader is a dataclass whose fields are all its settings. Files of sections that it does not look at are left
    aside.

    Raises:
        OSError: a file cannot be read.
        TypeError: a setting of a kind that has no hash.
    """
    contents = []
    for name in _sections(loader, images):
        content = _content(Path(images[name]))
        if content is None:
            return None
        contents.append((name, content))
    settings = [(field.name, getattr(loader, field.name)) for field in fields(loader)]
    told = (type(loader).__qualname__, settings, contents, subject_id, _code())
    return hashlib.blake2b(json.dumps(_hashable(told)).encode(), digest_size=32).hexdigest()


def settings_key(loader: object) -> str:
    """A hash of a loader's settings and of the code that prepares, as they stand in the key of each of its subjects."""
    return subject_key(loader, {}, "")


def file_states(loader: object, images: Mapping[str, Path]) -> list[tuple]:
    """What the system says of the files of a subject; it differs after every change to one of them.

    Raises:
        OSError: a file is missing.
    """
    return [_state(os.stat(path)) for name in _sections(loader, images) for path in _companions(Path(images[name]))]


def _sections(loader: object, images: Mapping[str, Path]) -> list[str]:
    if getattr(loader, "scans", None) is None:
        return list(images)
    used = {*loader.scans, *(getattr(loader, role, None) for role in ("label", "weight", "modality_image"))}
    return [name for name in images if name in used | {getattr(loader, "reference", None)}]


def _content(path: Path) -> list[tuple[str, str]] | None:
    """(ending of the name, hash of the bytes) of a file and of those it cannot be read without."""
    if not path.name.lower().endswith((*_WHOLE_FILES, *_PAIRS, ".hdr.gz", ".img.gz")) and _names_others(path):
        return None
    # The ending decides which library reads the file.
    return [("".join(each.suffixes[-2:]).lower(), _digest(each)) for each in _companions(path)]


def _companions(path: Path) -> list[Path]:
    """The file, and the others of an Analyze or NIfTI pair."""
    zipped = path.suffix if path.suffix in (".gz", ".bz2") else ""
    plain = path.with_suffix("") if zipped else path
    if plain.suffix.lower() not in _PAIRS:
        return [path]
    endings = [ending + z for ending in (".hdr", ".img", ".mat", ".HDR", ".IMG") for z in dict.fromkeys((zipped, ""))]
    candidates = (plain.with_name(plain.stem + ending) for ending in endings)
    return [path, *(each for each in candidates if each != path and each.exists())]


def _names_others(path: Path) -> bool:
    """Whether the voxels lie in other files: MetaImage and NRRD may say so in their headers."""
    if not path.is_file():
        return False
    with path.open("rb") as stream:
        head = stream.read(1 << 16).lower()
    _, found, rest = head.partition(b"elementdatafile")
    if found:
        return rest.split(b"\n")[0].strip(b" \t\r=") != b"local"
    return b"data file:" in head or b"datafile:" in head


class _Known(NamedTuple):
    state: tuple
    digest: str


_digests: dict[Path, _Known] = {}


def _digest(path: Path) -> str:
    """The blake2b of a file's bytes, in hexadecimal digits.

    Within a process it is not taken again while the file's number, size and times stay, its time of change (ctime)
    among them, which no program can set back. A clock ticks every few milliseconds, on some disks every second or two,
    and two changes may share a tick; so a file that was changed just now is read again next time.
    """
    known, now = _digests.get(path), os.stat(path)
    if not stat.S_ISREG(now.st_mode):  # opening a pipe would wait for ever
        raise OSError(errno.EINVAL, "is no regular file", str(path))
    if known is not None and known.state == _state(now):
        return known.digest
    content, buffer = hashlib.blake2b(digest_size=32), memoryview(bytearray(1 << 20))
    with path.open("rb", buffering=0) as stream:
        found = os.fstat(stream.fileno())
        settled = time.time_ns() - max(found.st_ctime_ns, found.st_mtime_ns) > 3_000_000_000
        while count := stream.readinto(buffer):
            content.update(buffer[:count])
    if settled and os.name == "posix":  # elsewhere ctime is when the file was made
        _digests[path] = _Known(_state(found), content.hexdigest())
    return content.hexdigest()


def _state(found: os.stat_result) -> tuple:
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


@functools.lru_cache(maxsize=1)
def _code() -> list[str]:
    """What prepares: the code that does, whether or not the version was raised, and the libraries it calls."""
    source = hashlib.blake2b(digest_size=32)
    for module in PREPARING:
        source.update((importlib.resources.files("pimms_tf.data") / f"{module}.py").read_bytes())
    source.update((importlib.resources.files("pimms_tf.data") / "assets" / "brain.npz").read_bytes())
    versions = [np.__version__, scipy.__version__, nib.__version__, importlib.metadata.version("SimpleITK")]
    return [MAGIC.hex(), pimms_tf.__version__, source.hexdigest(), *versions]


def _hashable(value: object) -> object:
    """The value in words of JSON, different for values that differ in anything, type included."""
    if isinstance(value, np.ndarray):
        return ["array", value.dtype.str, value.shape, hashlib.blake2b(np.ascontiguousarray(value)).hexdigest()]
    if isinstance(value, np.generic):
        return ["number", value.dtype.str, value.tobytes().hex()]
    if isinstance(value, float):
        return ["float", value.hex()]
    if value is None or isinstance(value, bool | int | str):
        return [type(value).__name__, value]
    if isinstance(value, Path):
        return ["path", str(value)]
    if isinstance(value, Mapping):
        return ["mapping", sorted(([_hashable(key), _hashable(each)] for key, each in value.items()), key=json.dumps)]
    if isinstance(value, tuple | list):
        return ["sequence", [_hashable(each) for each in value]]
    if is_dataclass(value) and not isinstance(value, type):
        return [type(value).__qualname__, [[f.name, _hashable(getattr(value, f.name))] for f in fields(value)]]
    raise TypeError(f"a setting of type {type(value).__name__} has no place in the key of a cache")
