"""The file of a prepared subject: a header that says what it holds, and its volumes as they lie in memory.

    magic | length of header | header, JSON | blake2b of the header | 0 … | array | 0 … | array …

Arrays begin on pages. Volumes are stored slice by slice, so that an axial window is a short read.
"""

import hashlib
import json
import os
import time
from contextlib import suppress
from dataclasses import fields
from pathlib import Path
from typing import NamedTuple

import numpy as np

from pimms_tf.data.grids import Grid
from pimms_tf.data.subjects import Subject
from pimms_tf.files import replacing
from pimms_tf.pipeline.memory import slices_first

try:
    import fcntl
except ImportError:  # Windows, which does not let mapped files be removed anyway
    fcntl = None

MAGIC = b"PIMMS\x00\x00\x01"  # the last byte is the version of the format
# Entries carry a time of modification from long ago, so that a later write into one shows.
STAMP_S = 2**30
_PAGE = 4096
_STORED_TYPES = {"Subject": Subject, "Grid": Grid}


class DamagedEntry(ValueError):  # noqa: N818
    """A file that is no complete entry."""


class Warned(NamedTuple):
    """A warning that was logged while the subject was prepared, to be repeated where it is taken from the cache."""

    logger: str
    message: str


def size_of_entry(subject: Subject) -> int:
    """Returns how many bytes its file has at most, but for warnings.

    Raises:
        TypeError: a field of the subject cannot be stored.
    """
    arrays: list[np.ndarray] = []
    _packed(subject, arrays)
    return sum(array.nbytes for array in arrays) + _PAGE * (len(arrays) + 2)


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
            stream.write(MAGIC + len(header).to_bytes(8, "little") + header + _checksum(header))
            for array, each in zip(stored, layout, strict=True):
                stream.seek(begin + each["offset"])
                stream.write(_in_memory(array).data)
            stream.truncate(begin + end)
        os.utime(temporary, (time.time(), STAMP_S))


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
        start = stream.read(len(MAGIC) + 8)
        if start[: len(MAGIC)] != MAGIC or int(found.st_mtime) != STAMP_S:
            raise DamagedEntry(f"{path} is no entry, or was changed after it was written")
        length = int.from_bytes(start[len(MAGIC) :], "little")
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
        # Small arrays are copied, so that each caller may change its own.
        arrays.append(np.array(array) if array.ndim < 3 else _from_memory(array))
    return _unpacked(content["subject"], arrays), [Warned(*each) for each in content["warned"]]


def _begin_of_arrays(header_length: int) -> int:
    return -(-(len(MAGIC) + 8 + header_length + len(_checksum(b""))) // _PAGE) * _PAGE


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
