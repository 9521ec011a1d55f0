"""CachedLoader: subjects prepared once per content and settings, by processes of their own, then mapped from disk.

    key = hash(files, settings, code)  →  entry there? map it  :  prepare, store, map it

`keys` says what decides the key, `entry` how an entry is stored, `store` which ones stay. Prepared scans are patient
data: folders and files are made for their owner only.
"""

import logging
import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
import time
import traceback
import weakref
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, NamedTuple, Protocol

from pimms_tf.data.subjects import Subject
from pimms_tf.errors import InputError, Mistake
from pimms_tf.pipeline.entry import Warned
from pimms_tf.pipeline.keys import file_states, subject_key
from pimms_tf.pipeline.store import Room, SubjectStore
from pimms_tf.wording import counted

log = logging.getLogger(__name__)

DEFAULT_LIMIT_BYTES = 32 * 2**30
# A process takes about a second to start, so what is quick to prepare is prepared by the thread that asks.
_SLOW_S = 0.5
_GIB = 2**30


class Prepared(NamedTuple):
    """A subject became available, for a progress bar: the `done`-th of `total`, 0 if that is not known."""

    done: int
    total: int
    subject_id: str
    found: bool  # in the cache, rather than prepared now
    seconds: float

    @property
    def phase(self) -> Literal["preparing"]:
        """Tells it from the reports of training, which may go to the same place."""
        return "preparing"


class Use(NamedTuple):
    """What a cache was good for so far."""

    hits: int
    misses: int
    uncached: int  # of the misses, those that were not stored


class PreparesSubjects(Protocol):
    """A SubjectLoader, or another dataclass like it."""

    def load(self, images: Mapping[str, Path], subject_id: str = "") -> Subject: ...


def default_folder() -> Path:
    """`pimms-tf` in the user's folder for caches: $XDG_CACHE_HOME, or else ~/.cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pimms-tf"


class CachedLoader:
    """A loader whose subjects are prepared once: `CachedLoader(loader, folder, limit_bytes).load(images, subject_id)`.

    Subjects equal those of `loader` bit for bit; their volumes are read-only maps of a file. A changed file, even one
    of the same size and time of modification, a changed setting or another version of this package prepares them anew.
    A folder that cannot be written, or is full, is reported once, and subjects are then prepared every time.

    Any number of threads and processes may use one folder at once. With `num_processes` and if a subject takes long,
    processes prepare them; they do not know of TensorFlow, do not react to Ctrl-C and end with this one. (They import
    the main module, so a script that asks for them keeps what it does under ``if __name__ == "__main__"``.)

    Args:
        loader: a SubjectLoader; its fields are part of each entry's key.
        limit_bytes: what the folder may hold, see `SubjectStore`.
        num_subjects: how many will be asked for, for reports.
        report: called, by any thread, when a subject is ready for the first time.
    """

    def __init__(
        self,
        loader: PreparesSubjects,
        folder: Path,
        limit_bytes: int = DEFAULT_LIMIT_BYTES,
        *,
        num_processes: int = 0,
        num_subjects: int = 0,
        report: Callable[[Prepared], None] | None = None,
    ) -> None:
        self._loader, self._store = loader, SubjectStore(folder, limit_bytes)
        self._num_processes = min(num_processes, os.cpu_count() or 1)
        self._num_subjects, self._report = num_subjects, report
        self._readers: _Readers | None = None
        self._counting = threading.Lock()
        self._known: set[str] = set()
        self._use = Use(0, 0, 0)
        self._is_slow = self._is_full = self._is_off = False
        try:
            self._store.open()
        except OSError as error:
            self._go_without(error)

    def load(self, images: Mapping[str, Path], subject_id: str = "") -> Subject:
        """Returns the prepared subject.

        Raises:
            InputError: as the loader does.
            RuntimeError: a process failed in another way; the message has the subject and the process's traceback.
        """
        if self._is_off:
            return self._loader.load(images, subject_id=subject_id)
        began = time.perf_counter()
        try:
            key = subject_key(self._loader, images, subject_id)
        except OSError:
            key = None  # the loader says it better
        if key is None:
            return self._loader.load(images, subject_id=subject_id)
        entry = self._store.get(key)
        found = entry is not None
        if entry is None:
            entry = self._made(key, images, subject_id)
        subject, warned = entry
        self._account(key, warned, Prepared(0, self._num_subjects, subject_id, found, time.perf_counter() - began))
        return subject

    def use(self) -> Use:
        """How many subjects were found, how many prepared."""
        return self._use

    def room(self) -> Room:
        """How many entries the folder has, and their size."""
        return self._store.room()

    def close(self) -> None:
        """Ends the processes and logs what the cache was good for; the loader can still be used."""
        with self._counting:
            readers, self._readers = self._readers, None
        if readers is not None:
            readers.close()
        if self._known:
            log.info("%s", self)

    def __str__(self) -> str:
        room, use = self.room(), self._use
        stored = f"{use.uncached} of them not stored, " if use.uncached else ""
        return (
            f"cache of prepared scans {self._store.folder}: {use.hits} found, {use.misses} prepared, {stored}"
            f"{counted(room.num_entries, 'entry', 'entries')}, "
            f"{room.num_bytes / _GIB:.2f} of {self._store.limit_bytes / _GIB:g} GiB"
        )

    def _made(self, key: str, images: Mapping[str, Path], subject_id: str) -> tuple[Subject, list[Warned]]:
        """The subject, by a process if it is worth one and has room to leave it."""
        readers = self._started_readers() if self._is_slow and not self._is_full else None
        if readers is not None:
            outcome = readers.prepare(self._loader, images, subject_id)
            if outcome is not None:
                entry = self._store.get(key) if outcome.state == "stored" else None
                if entry is not None:
                    return entry
                self._note(outcome)
        began = time.perf_counter()
        subject, warned, outcome = prepare(self._store, self._loader, images, subject_id, key, not self._is_full)
        self._is_slow = self._is_slow or time.perf_counter() - began > _SLOW_S
        self._note(outcome)
        entry = self._store.get(key) if outcome.state == "stored" else None
        with self._counting:
            self._known.add(key)  # its warnings were logged
            self._use = self._use._replace(uncached=self._use.uncached + int(entry is None))
        return (subject, warned) if entry is None else entry

    def _note(self, outcome: "Outcome") -> None:
        if outcome.state == "unwritable":
            self._go_without(outcome.message)
        elif outcome.state == "no room" and not self._is_full:
            self._is_full = True
            log.warning(
                "the cache of prepared scans %s is full with its %.3g GiB, or the disk is; further subjects are "
                "prepared anew each time: raise [PIMMS] cache_gib, or make room",
                self._store.folder,
                self._store.limit_bytes / _GIB,
            )

    def _go_without(self, reason: object) -> None:
        with self._counting:
            known, self._is_full = self._is_full, True
            self._is_off = not self._store.folder.is_dir()
        if not known:
            log.warning(
                "the cache of prepared scans %s cannot be written (%s); subjects are prepared anew each time: name "
                "another folder in [PIMMS] cache, or set it to off",
                self._store.folder,
                reason,
            )

    def _started_readers(self) -> "_Readers | None":
        with self._counting:
            if self._readers is None and self._num_processes > 0:
                self._readers = _Readers(self._store, self._num_processes)
            return self._readers

    def _account(self, key: str, warned: list[Warned], prepared: Prepared) -> None:
        with self._counting:
            is_new = key not in self._known
            self._known.add(key)
            hits, misses = self._use.hits + int(prepared.found), self._use.misses + int(not prepared.found)
            self._use = self._use._replace(hits=hits, misses=misses)
            done = len(self._known)
        if is_new:
            for each in warned:
                logging.getLogger(each.logger).warning("%s", each.message)
        if self._report is not None and (is_new or not prepared.found):
            self._report(prepared._replace(done=done))


class Outcome(NamedTuple):
    """How preparing went; `message` says why it failed, `mistakes` what the user can mend."""

    state: str  # stored, no room, unwritable, changed, mistake or failure
    message: str = ""
    mistakes: tuple[Mistake, ...] = ()


def prepare(
    store: SubjectStore,
    loader: PreparesSubjects,
    images: Mapping[str, Path],
    subject_id: str,
    key: str,
    storing: bool = True,
) -> tuple[Subject, list[Warned], Outcome]:
    """The subject, the warnings it caused, and whether it was stored under its key.

    Raises: whatever the loader raises.
    """
    try:
        states = file_states(loader, images)
        with _warnings_noted() as warned:
            subject = loader.load(images, subject_id=subject_id)
        # What was read of a file in motion may be neither the old content nor the new; the key stands for the old.
        at_rest = file_states(loader, images) == states and subject_key(loader, images, subject_id) == key
    except FileNotFoundError:  # gone meanwhile, or about to be replaced
        return loader.load(images, subject_id=subject_id), [], Outcome("changed")
    if not at_rest:
        return subject, warned, Outcome("changed")
    if not storing:
        return subject, warned, Outcome("no room")
    try:
        return subject, warned, Outcome("stored" if store.put(key, subject, warned) else "no room")
    except OSError as error:
        return subject, warned, Outcome("unwritable", str(error))


@contextmanager
def _warnings_noted() -> Iterator[list[Warned]]:
    """The warnings that this thread logs meanwhile."""
    noted, thread = [], threading.get_ident()

    class Notes(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.thread == thread:
                noted.append(Warned(record.name, record.getMessage()))

    notes, ours = Notes(logging.WARNING), logging.getLogger("pimms_tf")
    ours.addHandler(notes)
    try:
        yield noted
    finally:
        ours.removeHandler(notes)


class _Readers:
    """Processes that prepare subjects and leave them in the store."""

    def __init__(self, store: SubjectStore, num_processes: int) -> None:
        self._store = store
        # Spawned, because a copy of a process with TensorFlow's threads in it may hang.
        self._pool = ProcessPoolExecutor(num_processes, multiprocessing.get_context("spawn"), _begin_reading)
        self._end = weakref.finalize(self, self._pool.shutdown, wait=False, cancel_futures=True)
        self._is_broken = False

    def prepare(self, loader: PreparesSubjects, images: Mapping[str, Path], subject_id: str) -> Outcome | None:
        """How it went; None if the processes are gone.

        Raises: InputError, and RuntimeError for any other exception in the process.
        """
        if self._is_broken:
            return None
        try:
            outcome = self._pool.submit(_prepare_apart, self._store, loader, images, subject_id).result()
        except BrokenProcessPool:
            if not self._is_broken:
                log.warning("a process that prepares scans was killed, of want of memory perhaps; going on without")
            self._is_broken = True
            return None
        if outcome.state == "mistake":
            raise InputError(*outcome.mistakes)
        if outcome.state == "failure":
            raise RuntimeError(f"subject {subject_id} could not be prepared:\n{outcome.message}")
        return outcome

    def close(self) -> None:
        """Lets the processes end after what they are at."""
        self._end()


def _begin_reading() -> None:
    # Ctrl-C and a queue's signals go to every process of a group; the parent decides what becomes of its readers.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    logging.getLogger().addHandler(logging.NullHandler())  # warnings go through the entry
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A killed parent closes no queue that its readers wait at."""
    multiprocessing.connection.wait([multiprocessing.parent_process().sentinel])
    os._exit(1)


def _prepare_apart(
    store: SubjectStore, loader: PreparesSubjects, images: Mapping[str, Path], subject_id: str
) -> Outcome:
    # Exceptions travel as what they say: some cannot be pickled, and none brings its traceback along.
    try:
        key = subject_key(loader, images, subject_id)
        return prepare(store, loader, images, subject_id, key)[2]
    except InputError as error:
        return Outcome("mistake", mistakes=error.mistakes)
    except Exception:  # whatever it is, the parent raises it with this text
        return Outcome("failure", traceback.format_exc())
