"""Writing files and folders so that a reader never meets half of one."""

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yields a temporary path beside `path` which takes its place when the block ends without an exception.

    The block may write a file or create a folder there. Content is flushed to disk before the rename, so after a crash
    `path` is either what it was or complete. Parents are created. The temporary path keeps the suffixes of `path`,
    because image writers choose the format by them.

    Raises:
        OSError: the folder cannot be written, or the disk is full; it names the path.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    temporary = scratch / path.name
    try:
        yield temporary
        for item in [temporary, *temporary.rglob("*")] if temporary.is_dir() else [temporary]:
            _flush(item)
        if path.is_dir() and temporary.is_dir():
            path.rename(scratch / f"{path.name}.old")
        os.replace(temporary, path)
        _flush(path.parent)
    except OSError as error:
        # A system that cannot write on says neither where nor what.
        if error.filename is None and error.errno in _DISK:
            error.filename = str(path)
        raise
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
