"""Writing files and folders so that a reader never meets half of one, and clearing away what killed writers left.

What is being written lies in a scratch folder beside its place, `.NAME.xxxxxxxx`, and takes that place by one rename. A
process that is killed leaves the scratch folder; `sweep` removes those whose writers are gone.
"""

import csv
import errno
import io
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

try:
    import fcntl
except ImportError:  # a system without such locks
    fcntl = None

_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS)
_MARK = ".writer"  # in each scratch folder; locked by its writer, and says under which kernel that lock holds
_STALE_S = 3600
_FORMULA = re.compile(r"[=+@\t\r]|-(?![\w.-]*$)")  # a minus before a number or a plain name is none


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yields a temporary path beside `path` which takes its place when the block ends without an exception.

    The block may write a file there, or create a folder where none is yet. Content is flushed to disk before the
    rename, so after a crash `path` is either what it was or complete. Parents are created. A file keeps the permissions
    of the one it replaces. The temporary path keeps the suffixes of `path`, because image writers choose the format by
    them.

    Raises:
        OSError: the folder cannot be written, the disk is full, or a folder is there already; it names the path.
    """
    path = Path(path)
    with scratch_beside(path) as scratch:
        temporary = scratch / path.name
        yield temporary
        if path.is_file() and temporary.is_file():
            shutil.copymode(path, temporary)
        flush(*([temporary, *temporary.rglob("*")] if temporary.is_dir() else [temporary]))
        try:
            os.replace(temporary, path)
        except OSError as error:
            if error.filename is not None:
                error.filename = str(path)  # not the temporary one, of which nobody knows
            raise
        flush(path.parent)


@contextmanager
def scratch_beside(path: Path) -> Iterator[Path]:
    """Yields an empty folder on the disk of `path`, whose parents are created; it is gone when the block ends.

    Raises:
        OSError: the folder cannot be made, or the disk is full; it names the path.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    try:
        with (scratch / _MARK).open("x", encoding="utf-8") as mark:
            if _locked(mark):
                # Last, so that what is not locked yet has no mark either.
                mark.write(kernel_id())
                mark.flush()
            yield scratch
    except OSError as error:
        # A system that cannot write on says neither where nor what.
        if error.filename is None and error.errno in _DISK:
            error.filename = str(path)
        raise
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def write_text(path: str | Path, text: str) -> Path:
    """Returns `path` after `text` (UTF-8, newlines as given) has replaced whatever the file held; see `replacing`.

    Bytes of files' names that are no UTF-8 are written as escapes, such as \\udcff, which JSON reads again.

    Raises:
        OSError: as `replacing`.
    """
    with (
        replacing(Path(path)) as temporary,
        temporary.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file,
    ):
        file.write(text)
    return Path(path)


def csv_text(rows: Iterable[Sequence[str]]) -> str:
    """Returns rows of texts as comma-separated lines.

    Texts that a spreadsheet would compute get an apostrophe in front, which tells it that they are texts.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows(["'" + cell if is_formula(cell) else cell for cell in row] for row in rows)
    return text.getvalue()


def tsv_text(rows: Iterable[Sequence[str]]) -> str:
    """Returns rows of texts as tab-separated lines, which know no quotes: tabs and ends of lines become spaces.

    Texts that a spreadsheet would compute get an apostrophe in front, as in `csv_text`.
    """
    lines = ("\t".join(_cell(text) for text in row) for row in rows)
    return "".join(f"{line}\n" for line in lines)


def _cell(text: str) -> str:
    return ("'" if is_formula(text) else "") + re.sub(r"[\t\r\n\v\f\x85\u2028\u2029]+", " ", text)


def is_formula(text: str) -> bool:
    """Returns whether a spreadsheet would compute a text instead of showing it, apostrophes in front left aside."""
    return _FORMULA.match(text.lstrip("'")) is not None


def sweep(folder: Path) -> None:
    """Removes what killed writers left in a folder, if there is one; nothing of a writer that may still live.

    A writer holds a lock, which ends with it. A lock counts among processes under one kernel; whatever was written
    from another machine, or where there are no locks, is taken for left once nothing of it has changed for an hour.
    """
    try:
        entries = [Path(entry.path) for entry in os.scandir(folder) if entry.is_dir(follow_symlinks=False)]
    except OSError:
        return
    for scratch in entries:
        name = re.fullmatch(r"\.(.+)\.[a-z0-9_]{8}", scratch.name)
        with suppress(OSError):  # of another user, or gone by now
            if name and all(item.name.startswith((name[1], _MARK)) for item in scratch.iterdir()) and _is_left(scratch):
                shutil.rmtree(scratch)


def flush(*paths: Path) -> None:
    """Returns once the content of files, or the names in folders, are on the disk."""
    for path in paths:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def disk_complaint(error: BaseException) -> str:
    """Returns what the disk refused, such as "No space left on device"; "" if the error is about something else.

    TensorFlow's errors only quote the system, between words of its own.
    """
    if isinstance(error, OSError) and error.errno in _DISK:
        return os.strerror(error.errno)
    return next((os.strerror(code) for code in _DISK if os.strerror(code) in str(error)), "")


def _is_left(scratch: Path) -> bool:
    written_under = ""
    try:
        with (scratch / _MARK).open("r+", encoding="utf-8") as mark:
            if _locked(mark, fcntl and fcntl.LOCK_NB):
                written_under = mark.read()
    except BlockingIOError:  # its writer lives
        return False
    except FileNotFoundError:  # it has only just begun, or is of an earlier version
        pass
    return written_under == kernel_id() != "" or _age_s(scratch) > _STALE_S


def _age_s(scratch: Path) -> float:
    return time.time() - max(item.stat().st_ctime for item in (scratch, *scratch.rglob("*")))


def _locked(file: TextIO, how: int = 0) -> bool:
    """Whether a file is now locked by this process; False where there are no locks.

    Raises:
        BlockingIOError: another has locked it, and `how` says not to wait.
    """
    if fcntl is None:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_EX | how)
    except BlockingIOError:
        raise
    except OSError:
        return False
    return True


def kernel_id() -> str:
    """What tells the running kernel from that of any other machine, and of any other boot; "" if nothing does."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""
