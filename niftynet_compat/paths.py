"""Where the file or folder meant by a name in an INI file lies."""

import errno
import os
import stat
from collections.abc import Iterable
from pathlib import Path

from niftynet_compat import ini
from niftynet_compat.spelling import nearest
from pimms_tf.errors import ConfigError


def find_config(value: str | Path) -> Path:
    """Returns the INI file meant by a value of `-c`, absolute: a path, or a name below NiftyNet's home folder.

    Raises:
        ConfigError: no such file, with the places looked at.
    """
    if not str(value).strip() or "\0" in str(value):
        raise ConfigError(f"{str(value)!r} is not the name of a file; give the path of the INI file")
    given = expanded(value)
    candidates = [given]
    home = niftynet_home()
    if home is not None:
        candidates += [home / value, home / "examples" / value / f"{Path(value).name}_config.ini"]
    found = first_file(candidates)
    if found:
        return found
    if os.path.lexists(given):
        raise ConfigError(f"{value}: {_no_config(given)}")
    places = " or ".join(str(absolute(candidate)) for candidate in candidates)
    beside = given.parent.glob("*.ini") if given.parent.is_dir() else ()
    known = nearest(given.name, sorted(path.name for path in beside))
    hint = f"did you mean {given.parent / known}?" if known else "check the path"
    if not known and given.name == str(value) and not given.suffix:
        hint = f"{hint}, for models of NiftyNet's zoo are not downloaded"
    raise ConfigError(f"{value}: there is no configuration file {places}; {hint}")


def _no_config(path: Path) -> str:
    why = why_no_file(path)
    if path.is_dir():
        return f"{why}, where an INI file is needed; name a file in it"
    if path.is_symlink():
        return f"{why}; correct the link"
    return f"{why}, where an INI file is needed; give the path of one"


def niftynet_home() -> Path | None:
    """Returns the folder that `[global] home` of NiftyNet's own settings names, None if there are none.

    The settings are `config.ini` in `$niftynet_config_home`, by default `~/.niftynet`. They are never created.
    """
    folder = expanded(os.environ.get("niftynet_config_home", "~/.niftynet"))  # noqa: SIM112
    if not os.path.isfile(folder / "config.ini"):
        return None
    try:
        file = ini.read_ini(folder / "config.ini")
    except ConfigError:
        return None
    homes = [item.entries["home"].text for item in file.sections if item.name == "global" and "home" in item.entries]
    return expanded(homes[0]) if homes and homes[0] else None


def expanded(path: str | Path) -> Path:
    """Returns the path with a leading `~` replaced by the home folder it means; left as it is if there is none."""
    return Path(os.path.expanduser(path))


def absolute(path: Path) -> Path:
    """Returns the path from the root, without `.` and `..`, with symbolic links left as they are."""
    # Not resolve(): a model folder behind a symbolic link keeps the name its owner gave it.
    return Path(os.path.abspath(path))


def search_folders(path_to_search: str, working_folder: Path) -> list[Path]:
    """Returns the folders of a comma list, absolute, each once, in the order written; they need not exist.

    Relative ones are looked up in the working folder, then in NiftyNet's home folder.
    """
    home = niftynet_home()
    folders = []
    for text in filter(None, map(str.strip, path_to_search.split(","))):
        given = expanded(text)
        candidates = [working_folder / given, *([home / given] if home else [])]
        folders.append(absolute(next((item for item in candidates if os.path.isdir(item)), candidates[0])))
    return list(dict.fromkeys(folders))


def why_no_file(path: Path) -> str:
    """Returns what a name stands for that is not that of a file to read, as the rest of a sentence; "" for a file."""
    try:
        mode = os.stat(path).st_mode
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ELOOP) and path.is_symlink():
            return f"is a link to {os.readlink(path)}, where no file is"
        return "does not exist" if isinstance(error, FileNotFoundError) else f"cannot be reached ({error.strerror})"
    if stat.S_ISDIR(mode):
        return "is a folder"
    return "" if stat.S_ISREG(mode) else "is no regular file"


def first_file(candidates: Iterable[Path]) -> Path | None:
    """Returns the first candidate that is a file, absolute; None if none is."""
    return next((absolute(item) for item in candidates if os.path.isfile(item)), None)
