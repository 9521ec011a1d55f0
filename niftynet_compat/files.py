"""Writing a text file so that a reader meets either the old one or the new one."""

import os
import tempfile
from pathlib import Path


def write_text(path: str | Path, text: str) -> Path:
    """Returns `path` after `text` (UTF-8, newlines as given) has replaced whatever the file held.

    The text goes to a temporary file in the same folder, is flushed to disk and then renamed, so a crash leaves the old
    content. Missing parent folders are made. The file gets the permissions an ordinary new file would have.

    Raises:
        OSError: the folder cannot be made or written.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with open(descriptor, "w", encoding="utf-8", newline="") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, _permissions(path))
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
    return path


def _permissions(path: Path) -> int:
    # mkstemp makes private files; colleagues must be able to read a shared model folder.
    if path.exists():
        return path.stat().st_mode & 0o777
    mask = os.umask(0)
    os.umask(mask)
    return 0o666 & ~mask
