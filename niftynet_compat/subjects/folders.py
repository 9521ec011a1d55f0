"""The files of one input section: searched for in folders by words in names, or listed.

Source: `niftynet/utilities/filename_matching.py`, `util_csv.py`.
"""

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from niftynet_compat.paths import search_folders
from niftynet_compat.schema.sections import InputSection
from niftynet_compat.subjects.lists import read_file_list
from niftynet_compat.subjects.names import subject_ids_of
from pimms_tf.errors import ConfigError

# Images that are several files: the ending of the one that is given to a reader, and those of the others, among them
# what BIDS lays beside a scan.
_PARTS = {
    (".nii", ".nii.gz"): (".json", ".bval", ".bvec"),
    (".img", ".img.gz"): (".hdr", ".hdr.gz", ".mat"),
    (".mhd",): (".raw", ".zraw", ".raw.gz"),
    (".nhdr",): (".raw", ".zraw", ".raw.gz"),
}
_FOLDER = "it is a folder, and folders below those of path_to_search are not searched"


class Column(NamedTuple):
    """The files of a section by subject, those that have none with the reason, and those that a name may have moved.

    `moved` is as in `names.Ids`, by file: the piece that would be its subject, and the file that has it, too.
    `nothing_found` is the sentence about a section none of whose folders has a file for it, "" for any other.
    """

    files: dict[str, Path]
    leftovers: tuple[tuple[Path, str], ...] = ()
    moved: Mapping[Path, tuple[str, Path]] = {}
    nothing_found: str = ""


def files_of_section(name: str, section: InputSection) -> Column:
    """Returns the files of a section: of its list if it has one, else of its folders.

    What bears the name of a scan but is no file that can be read, a link that leads nowhere or a pipe, belongs to its
    subject like any other: what is wrong is said when it is read. Folders are leftovers.

    Raises:
        ConfigError: there is no place to look, a folder is missing or cannot be read, files cannot be told apart, or
            the list is faulty.
    """
    if section.csv_file:
        column = read_file_list(section.csv_file, name)
        if not column:
            raise ConfigError(f"[{name}] csv_file = {section.csv_file}: lists no file; write lines `subject,path`")
        return Column(column)
    if not section.path_to_search.strip():
        raise ConfigError(f"[{name}] says neither path_to_search nor csv_file; give it the folder of its files")
    folders = _folders(name, section.path_to_search)
    try:
        found = [entry for folder in folders for entry in matching(folder, section)]
    except OSError as error:
        raise ConfigError(
            f"[{name}] path_to_search = {section.path_to_search}: {error.filename} cannot be read ({error.strerror}); "
            "check its permissions"
        ) from error
    files = _without_parts([entry for entry in found if not os.path.isdir(entry)])
    leftovers = [(entry, _FOLDER) for entry in found if os.path.isdir(entry)]
    searched = f"[{name}] path_to_search = {', '.join(map(str, folders))}"
    if not files:
        return Column({}, tuple(leftovers), nothing_found=_nothing_found(searched, folders, section))
    words = f"{searched}, filename_contains = {', '.join(section.filename_contains)}"
    try:
        ids = subject_ids_of(map(str, files), section.filename_contains, section.filename_removefromid)
    except re.error as error:
        raise ConfigError(
            f"[{name}] filename_removefromid = {section.filename_removefromid}: is no regular expression ({error}); "
            "write a backslash before characters meant as they are"
        ) from error
    except ValueError as error:
        raise ConfigError(f"{words}: {error}, or give a list by csv_file") from error
    leftovers += [(Path(file), reason) for file, reason in ids.reasons.items()]
    if not ids.subjects:
        why = "; ".join(f"{Path(file).name}: {reason}" for file, reason in list(ids.reasons.items())[:3])
        raise ConfigError(f"{words}: no name has anything that tells subjects apart ({why}); give a list by csv_file")
    moved = {Path(file): (first, Path(other)) for file, (first, other) in ids.moved.items()}
    return Column({subject_id: Path(file) for file, subject_id in ids.subjects.items()}, tuple(leftovers), moved)


def matching(folder: Path, section: InputSection) -> list[Path]:
    """Returns the entries of a folder whose names a section asks for, sorted; hidden ones are none.

    Raises:
        OSError: the folder cannot be read.
    """
    return [
        entry
        for entry in sorted(folder.iterdir())
        if not entry.name.startswith(".")
        and all(word in entry.name for word in section.filename_contains)
        and not any(word in entry.name for word in section.filename_not_contains if word)
    ]


def _without_parts(files: Sequence[Path]) -> list[Path]:
    """The files without those that belong to another one of them, as a header belongs to its voxels."""
    names = {(file.parent, file.name.lower()) for file in files}

    def is_part(file: Path) -> bool:
        for mains, parts in _PARTS.items():
            for part in parts:
                if file.name.lower().endswith(part):
                    stem = file.name[: -len(part)].lower()
                    if any((file.parent, stem + main) in names for main in mains):
                        return True
        return False

    return [file for file in files if not is_part(file)]


def _folders(name: str, path_to_search: str) -> list[Path]:
    folders = search_folders(path_to_search, Path.cwd())
    for folder in folders:
        if not os.path.isdir(folder):
            what = "is a file" if os.path.isfile(folder) else "is not there"
            raise ConfigError(
                f"[{name}] path_to_search = {path_to_search}: the folder {folder} {what}; relative ones start from the "
                "working directory"
            )
    return folders


def _nothing_found(searched: str, folders: Iterable[Path], section: InputSection) -> str:
    present = [file.name for folder in folders for file in sorted(folder.iterdir()) if os.path.isfile(file)]
    folded = [item for item in present if all(word.lower() in item.lower() for word in section.filename_contains)]
    unlike = [item for item in present if all(word in item for word in section.filename_contains)]
    if unlike and section.filename_not_contains:
        remedy = f"filename_not_contains excludes {unlike[0]}"
    elif folded:
        remedy = f"upper and lower case count, and {folded[0]} differs only by them"
    elif present:
        remedy = f"the folder holds {len(present)} other files such as {present[0]}"
    else:
        remedy = "the folder holds no file, and folders below it are not searched"
    words = ", ".join(section.filename_contains) or "(any)"
    but = f" without {', '.join(section.filename_not_contains)}" if section.filename_not_contains else ""
    return f"{searched}: no file name contains {words}{but}; {remedy}"
