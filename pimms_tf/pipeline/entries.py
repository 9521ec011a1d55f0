"""Prepared subjects on disk: what an entry is called, what its file holds, and which entries give way to new ones.

An entry is one file, `<key>.subject`. The key is a hash of all that decides how the prepared subject looks: the bytes
of its files, every setting of the loader, the code that prepares and the libraries below it. What could change without
changing the key is not stored.

    magic | length of header | header, JSON | blake2b of the header | 0 … | array | 0 … | array …

Arrays begin on pages. Volumes are stored slice by slice, so that an axial window is a short read.
"""

import errno
import functools
import hashlib
import importlib.resources
import json
import logging
import os
import shutil
import stat
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import NamedTuple

import nibabel as nib
import numpy as np
import scipy
import SimpleITK as sitk  # noqa: N813

import pimms_tf
from pimms_tf.data.grids import Grid
from pimms_tf.data.subjects import Subject
from pimms_tf.files import replacing, sweep
from pimms_tf.pipeline.visits import slices_first

try:
    import fcntl
except ImportError:  # Windows, which does not let mapped files be removed anyway
    fcntl = None

logger = logging.getLogger(__name__)

SUFFIX = ".subject"
RESERVED_BYTES = 2**30  # left free on the disk: a full one would cost checkpoints

# The modules of `pimms_tf.data` that decide what a prepared subject holds; a change of any other leaves entries good.
PREPARING = ("formats", "grids", "images", "intensity", "labels", "subjects")
_MAGIC = b"PIMMS\x00\x00\x01"  # the last byte is the version of the format
_PAGE = 4096
# Entries carry a time of modification from long ago, so that whoever writes into one afterwards gives himself away.
_STAMP_S = 2**30
_STORED_TYPES = {"Subject": Subject, "Grid": Grid}
_WHOLE_FILES = (".nii", ".nii.gz", ".mgh", ".mgz", ".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")
_PAIRS = (".hdr", ".img")


class DamagedEntry(ValueError):  # noqa: N818
    """A file that is no complete entry."""


class Warned(NamedTuple):
    """A warning that was logged while the subject was prepared, to be repeated where it is taken from the cache."""

    logger: str
    message: str


class Room(NamedTuple):
    """What a folder holds."""

    num_entries: int
    num_bytes: int


# ---- What an entry is called


def subject_key(loader: object, images: Mapping[str, Path], subject_id: str) -> str | None:
    """The name of the entry of a subject, 64 hexadecimal digits; None if its files name others that nobody can list.

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
    # The ending decides who reads the file.
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
    versions = [np.__version__, scipy.__version__, nib.__version__, sitk.Version.VersionString()]
    return [_MAGIC.hex(), pimms_tf.__version__, source.hexdigest(), *versions]


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


# ---- What its file holds


def write_entry(path: Path, key: str, subject: Subject, warned: list[Warned]) -> None:
    """Writes the file of an entry, for its owner only, complete or not at all.

    Raises:
        OSError: the folder cannot be written, or the disk is full.
    """
    arrays: list[np.ndarray] = []
    content = {"key": key, "subject": _packed(subject, arrays), "warned": [list(each) for each in warned]}
    stored = [slices_first(array) if array.ndim > 2 else array for array in arrays]
    layout, end = [], 0
    for array in stored:
        layout.append({"dtype": array.dtype.str, "shape": list(_in_memory(array).shape), "offset": end})
        end += -(-array.nbytes // _PAGE) * _PAGE
    header = json.dumps(content | {"arrays": layout, "bytes": end}).encode()
    begin = _begin_of_arrays(len(header))
    with replacing(path) as temporary:
        with open(temporary, "xb", opener=lambda name, flags: os.open(name, flags, 0o600)) as stream:
            stream.write(_MAGIC + len(header).to_bytes(8, "little") + header + _checksum(header))
            for array, each in zip(stored, layout, strict=True):
                stream.seek(begin + each["offset"])
                stream.write(_in_memory(array).data)
            stream.truncate(begin + end)
        os.utime(temporary, (time.time(), _STAMP_S))


def read_entry(path: Path, key: str) -> tuple[Subject, list[Warned]]:
    """The subject of an entry, its volumes read-only maps of the file, and the warnings there were.

    The file stays open, and marked as in use, as long as one of the volumes lives.

    Raises:
        FileNotFoundError: there is no such entry.
        OSError: it cannot be read.
        DamagedEntry: it is incomplete, or was changed since it was written.
    """
    with path.open("rb") as stream:
        # Before anything else, and only to be passed over when others make room. The map below holds on to it.
        if fcntl is not None:
            with suppress(OSError):  # some network disks have no locks
                fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
        found = os.fstat(stream.fileno())
        start = stream.read(len(_MAGIC) + 8)
        if start[: len(_MAGIC)] != _MAGIC or int(found.st_mtime) != _STAMP_S:
            raise DamagedEntry(f"{path} is no entry, or was changed after it was written")
        length = int.from_bytes(start[len(_MAGIC) :], "little")
        if length > found.st_size:
            raise DamagedEntry(f"{path} ends within its header")
        header, checksum = stream.read(length), stream.read(len(_checksum(b"")))
        if _checksum(header) != checksum:
            raise DamagedEntry(f"the header of {path} is damaged")
        content = json.loads(header)
        begin = _begin_of_arrays(length)
        if content["key"] != key or begin + content["bytes"] != found.st_size:
            raise DamagedEntry(f"{path} has {found.st_size} bytes, or is the entry of something else")
        mapped = np.memmap(stream, np.uint8, "r")
    arrays = []
    for each in content["arrays"]:
        shape, dtype = tuple(each["shape"]), np.dtype(each["dtype"])
        first = begin + each["offset"]
        array = mapped[first : first + dtype.itemsize * int(np.prod(shape))].view(dtype).reshape(shape)
        # Small arrays are given away as everybody's own.
        arrays.append(np.array(array) if array.ndim < 3 else _from_memory(array))
    return _unpacked(content["subject"], arrays), [Warned(*each) for each in content["warned"]]


def _begin_of_arrays(header_length: int) -> int:
    return -(-(len(_MAGIC) + 8 + header_length + len(_checksum(b""))) // _PAGE) * _PAGE


def _checksum(header: bytes) -> bytes:
    return hashlib.blake2b(header, digest_size=32).digest()


def _in_memory(array: np.ndarray) -> np.ndarray:
    """Of (x, y, z, …), (z, …, x, y), which is contiguous after `slices_first`; others as they are."""
    return np.ascontiguousarray(array) if array.ndim < 3 else np.moveaxis(array, (0, 1), (-2, -1))


def _from_memory(array: np.ndarray) -> np.ndarray:
    return np.moveaxis(array, (-2, -1), (0, 1))


def _packed(value: object, arrays: list[np.ndarray]) -> object:
    """The value in words of JSON, its arrays put aside."""
    if isinstance(value, np.ndarray):
        arrays.append(value)
        return {"array": len(arrays) - 1}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, tuple):
        return {"tuple": [_packed(each, arrays) for each in value]}
    name = type(value).__name__
    if _STORED_TYPES.get(name) is not type(value):
        raise TypeError(f"a subject with a field of type {name} cannot be stored")
    return {"type": name, "fields": {f.name: _packed(getattr(value, f.name), arrays) for f in fields(value)}}


def _unpacked(value: object, arrays: list[np.ndarray]) -> object:
    if not isinstance(value, dict):
        return value
    if "array" in value:
        return arrays[value["array"]]
    if "tuple" in value:
        return tuple(_unpacked(each, arrays) for each in value["tuple"])
    return _STORED_TYPES[value["type"]](**{name: _unpacked(each, arrays) for name, each in value["fields"].items()})


# ---- Which entries give way


class SubjectStore:
    """The entries of a folder, at most `limit_bytes` of them; several processes may share one.

    Entries that were used since `since_ns` stay, so that a run does not push out what it will need again in its next
    epoch; so do those that any process of this machine has mapped. Of the others the least recently used go first.
    (A mapped file that is removed all the same, by hand for instance, stays readable until the map is closed.)
    Processes that write at the same moment do not see each other's entry and may exceed the limit by it.
    """

    def __init__(self, folder: Path, limit_bytes: int, since_ns: int | None = None) -> None:
        self.folder, self.limit_bytes = Path(folder), limit_bytes
        self.since_ns = time.time_ns() if since_ns is None else since_ns

    def open(self) -> None:
        """Makes the folder, for its owner only, and clears away what killed processes left half written.

        Raises:
            OSError: it cannot be made.
        """
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        sweep(self.folder)

    def get(self, key: str) -> tuple[Subject, list[Warned]] | None:
        """The subject of an entry, see `read_entry`; None if there is none. A damaged one is removed."""
        path = self._path(key)
        try:
            found = read_entry(path, key)
        except FileNotFoundError:
            return None
        except (OSError, DamagedEntry) as error:
            logger.warning("%s; it is made again", error)
            with suppress(OSError):
                path.unlink()
            return None
        with suppress(OSError):  # somebody else's folder
            os.utime(path, ns=(time.time_ns(), _STAMP_S * 10**9))
        return found

    def put(self, key: str, subject: Subject, warned: list[Warned]) -> bool:
        """Whether the subject was stored: False if there is no room for it. Of two equal entries the last one stays.

        Raises:
            OSError: the folder cannot be written.
        """
        arrays: list[np.ndarray] = []
        _packed(subject, arrays)
        if not self._make_room(sum(array.nbytes for array in arrays) + _PAGE * (len(arrays) + 2)):
            return False
        path = self._path(key)
        try:
            write_entry(path, key, subject, warned)
        except PermissionError:
            if not path.exists():  # Windows does not replace a file that another process has mapped
                raise
        return True

    def room(self) -> Room:
        """How many entries there are, and their size."""
        sizes = [found.st_size for _, found in self._entries()]
        return Room(len(sizes), sum(sizes))

    def _path(self, key: str) -> Path:
        return self.folder / f"{key}{SUFFIX}"

    def _entries(self) -> list[tuple[Path, os.stat_result]]:
        entries = []
        for path in self.folder.glob(f"[!.]*{SUFFIX}"):
            with suppress(OSError):  # removed by another process
                entries.append((path, path.stat()))
        return entries

    def _make_room(self, num_bytes: int) -> bool:
        entries = self._entries()
        held = sum(found.st_size for _, found in entries)
        free = shutil.disk_usage(self.folder).free - RESERVED_BYTES
        missing = max(held + num_bytes - self.limit_bytes, num_bytes - free)
        old = sorted((each for each in entries if each[1].st_atime_ns < self.since_ns), key=lambda e: e[1].st_atime_ns)
        if missing > sum(found.st_size for _, found in old):
            return False
        for path, found in old:
            if missing <= 0:
                break
            if _remove_unused(path):
                missing -= found.st_size
        return missing <= 0


def _remove_unused(path: Path) -> bool:
    """Whether the file is gone: False if a process of this machine has it mapped."""
    try:
        with path.open("rb") as stream:
            if fcntl is not None:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True
