"""SubjectStore: a folder of prepared subjects, and which of them give way to new ones."""

import logging
import os
import shutil
import time
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from pimms_tf.data.subjects import Subject
from pimms_tf.files import sweep
from pimms_tf.pipeline.entry import STAMP_S, DamagedEntry, Warned, read_entry, size_of_entry, write_entry

try:
    import fcntl
except ImportError:  # Windows, which does not let mapped files be removed anyway
    fcntl = None

log = logging.getLogger(__name__)

SUFFIX = ".subject"
RESERVED_BYTES = 2**30  # left free on the disk: a full one would cost checkpoints


class Room(NamedTuple):
    """What a folder holds."""

    num_entries: int
    num_bytes: int


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
            log.warning("%s; it is made again", error)
            with suppress(OSError):
                path.unlink()
            return None
        with suppress(OSError):  # another user's folder
            os.utime(path, ns=(time.time_ns(), STAMP_S * 10**9))
        return found

    def put(self, key: str, subject: Subject, warned: list[Warned]) -> bool:
        """Whether the subject was stored: False if there is no room for it. Of two equal entries the last one stays.

        Raises:
            OSError: the folder cannot be written.
        """
        if not self._make_room(size_of_entry(subject)):
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
