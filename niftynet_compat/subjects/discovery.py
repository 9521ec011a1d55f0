"""Which file belongs to which subject: folder search by words in names, csv lists, and the join of all sections.

Source: `niftynet/utilities/filename_matching.py`, `util_csv.py`, `niftynet/io/image_sets_partitioner.py`.
"""

import logging
import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from niftynet_compat.paths import search_folders
from niftynet_compat.schema.sections import InputSection
from niftynet_compat.subjects.lists import read_file_list
from pimms_tf.errors import ConfigError, Mistake

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SubjectFiles:
    """One subject and its file in each section that has one: {section name: absolute path}, in section order."""

    subject_id: str
    images: dict[str, Path]


class Unmatched(NamedTuple):
    """A file that got no subject, or a section that got no file, and the reason."""

    section: str
    file: Path | None
    reason: str


@dataclass(frozen=True)
class Discovery:
    """Everything found: subjects in the order of their ids, files per section, and what was left aside."""

    subjects: tuple[SubjectFiles, ...]
    found: Mapping[str, int]
    unmatched: tuple[Unmatched, ...]


class Dropped(NamedTuple):
    """A subject that is left out, and the reason."""

    subject_id: str
    reason: str


def find_subjects(inputs: Mapping[str, InputSection]) -> list[SubjectFiles]:
    """Returns one row per subject id that any section has, sorted by id; see `discover`.

    Raises:
        ConfigError: as `discover`.
    """
    return list(discover(inputs).subjects)


def discover(inputs: Mapping[str, InputSection]) -> Discovery:
    """Returns the subjects of all sections joined on the id, with the counts and the leftovers for a report.

    A section with `csv_file` is read from that list; otherwise its folders are searched. Sections with `csv_data_file`
    hold values, not files, and are passed over. A section that finds nothing is an error if it is `referenced` by the
    task; else it is left aside with a warning. No section at all gives no subject.

    Raises:
        ConfigError: a referenced section has no place to look, a missing folder, no file, two files with one id, or a
            faulty list; or no section finds any file. All such sections are reported, one per line.
    """
    columns: dict[str, dict[str, Path]] = {}
    unmatched: list[Unmatched] = []
    mistakes: list[Mistake] = []
    for name, section in inputs.items():
        if section.csv_data_file:
            continue
        try:
            columns[name], leftovers = _column(name, section)
            unmatched += [Unmatched(name, path, reason) for path, reason in leftovers]
        except ConfigError as error:
            if section.referenced:
                mistakes += error.mistakes
            else:
                _log.warning("section [%s] is left aside: %s", name, error)
                unmatched.append(Unmatched(name, None, str(error)))
    if inputs and not mistakes and not any(columns.values()):
        mistakes.append(Mistake("no input section finds any file; check path_to_search and filename_contains"))
    if mistakes:
        raise ConfigError(*mistakes)
    ids = sorted({subject_id for column in columns.values() for subject_id in column})
    subjects = tuple(
        SubjectFiles(subject_id, {name: column[subject_id] for name, column in columns.items() if subject_id in column})
        for subject_id in ids
    )
    for message in similar_ids(columns):
        _log.warning("%s", message)
    return Discovery(subjects, {name: len(column) for name, column in columns.items()}, tuple(unmatched))


def select_subjects(
    subjects: Sequence[SubjectFiles], required: Sequence[str], any_of: Sequence[str] = ()
) -> tuple[list[SubjectFiles], list[Dropped]]:
    """Returns the subjects that have a file in every `required` section and in one of `any_of`, and the others.

    Empty `required` and empty `any_of` ask for nothing. NiftyNet's rule is `required` = all sources of all inputs.
    """
    kept, dropped = [], []
    for subject in subjects:
        lacking = [name for name in required if name not in subject.images]
        if lacking:
            dropped.append(Dropped(subject.subject_id, f"has no file in {_brackets(lacking, ' and ')}"))
        elif any_of and not any(name in subject.images for name in any_of):
            dropped.append(Dropped(subject.subject_id, f"has no file in any of {_brackets(any_of, ', ')}"))
        else:
            kept.append(subject)
    return kept, dropped


def similar_ids(columns: Mapping[str, Collection[str]]) -> list[str]:
    """Returns one sentence per pair of sections whose ids differ only by outer underscores, and so do not match."""
    messages = []
    names = list(columns)
    for position, left in enumerate(names):
        bare = {item.strip("_"): item for item in columns[left]}
        for right in names[position + 1 :]:
            pairs = [
                (bare[item.strip("_")], item)
                for item in columns[right]
                if item.strip("_") in bare and item not in columns[left] and bare[item.strip("_")] not in columns[right]
            ]
            if pairs:
                mine, other = pairs[0]
                messages.append(
                    f"{len(pairs)} subjects of [{left}] and [{right}] differ only by underscores, such as {mine} and "
                    f"{other}, and so do not match; let filename_contains of both sections cut the same characters"
                )
    return messages


def subject_ids_of(
    names: Iterable[str], contains: Sequence[str], remove: str = ""
) -> tuple[dict[str, str], dict[str, str]]:
    """Returns {file name: subject id} and {file name: reason} for the files of one section that get no id.

    The id is what remains of a name without its extension when the words of `contains` (or the pattern `remove`) are
    cut out; the first remaining piece that no other file shares, else all pieces joined.

    Raises:
        ValueError: two names start with the same piece, so that they would be one subject.

    Source: `niftynet/utilities/filename_matching.py`, `KeywordsMatching`.
    """
    candidates = {name: candidate_ids(name, contains, remove) for name in names}
    firsts: dict[str, str] = {}
    for name, options in candidates.items():
        if options and options[0] in firsts:
            raise ValueError(f"{firsts[options[0]]} and {name} both belong to subject {options[0]!r}")
        if options:
            firsts[options[0]] = name
    counts = Counter(option for options in candidates.values() for option in options)
    ids, reasons = {}, {}
    for name, options in candidates.items():
        single = [option for option in options if counts[option] == 1]
        if single:
            ids[name] = single[0]
        else:
            reasons[name] = "every piece of its name occurs in others" if options else "nothing is left of its name"
    return ids, reasons


def candidate_ids(name: str, contains: Sequence[str], remove: str = "") -> list[str]:
    """Returns the possible subject ids of one file name, best first; [] if nothing of the name is left."""
    stem = _stem(Path(name).name)
    if remove:
        pieces = [re.sub(remove, "", stem)]
    else:
        # Longest first, so that a word which begins another one does not decide by chance.
        words = "|".join(re.escape(word) for word in sorted(contains, key=lambda word: (-len(word), word)) if word)
        pieces = [re.sub(r"\W", "", piece) for piece in (re.split(words, stem) if words else [stem])]
    pieces = [piece for piece in pieces if piece]
    return [*pieces, "".join(pieces)] if len(pieces) > 1 else pieces


def _column(name: str, section: InputSection) -> tuple[dict[str, Path], list[tuple[Path, str]]]:
    if section.csv_file:
        column = read_file_list(section.csv_file, name)
        if not column:
            raise ConfigError(f"[{name}] csv_file = {section.csv_file}: lists no file; write lines `subject,path`")
        return column, []
    if not section.path_to_search.strip():
        raise ConfigError(f"[{name}] says neither path_to_search nor csv_file; give it the folder of its files")
    folders = _folders(name, section.path_to_search)
    files = [file for folder in folders for file in _matching(folder, section)]
    searched = f"[{name}] path_to_search = {', '.join(map(str, folders))}"
    if not files:
        raise ConfigError(_nothing_found(name, searched, folders, section))
    try:
        ids, reasons = subject_ids_of(map(str, files), section.filename_contains, section.filename_removefromid)
    except re.error as error:
        raise ConfigError(
            f"[{name}] filename_removefromid = {section.filename_removefromid}: is no regular expression ({error}); "
            "write a backslash before characters meant as they are"
        ) from error
    except ValueError as error:
        raise ConfigError(
            f"{searched}, filename_contains = {', '.join(section.filename_contains)}: {error}; exclude one by "
            "filename_not_contains, or give a list by csv_file"
        ) from error
    column = {subject_id: Path(file) for file, subject_id in ids.items()}
    if not column:
        raise ConfigError(
            f"{searched}, filename_contains = {', '.join(section.filename_contains)}: no name has anything that tells "
            "subjects apart; give a list by csv_file"
        )
    return column, [(Path(file), reason) for file, reason in reasons.items()]


def _folders(name: str, path_to_search: str) -> list[Path]:
    folders = search_folders(path_to_search, Path.cwd())
    for folder in folders:
        if not folder.is_dir():
            what = "is a file" if folder.is_file() else "is not there"
            raise ConfigError(
                f"[{name}] path_to_search = {path_to_search}: the folder {folder} {what}; relative ones start from the "
                "working directory"
            )
    return folders


def _matching(folder: Path, section: InputSection) -> list[Path]:
    return [
        file
        for file in sorted(folder.iterdir())
        if file.is_file()
        and not file.name.startswith(".")
        and all(word in file.name for word in section.filename_contains)
        and not any(word in file.name for word in section.filename_not_contains if word)
    ]


def _nothing_found(name: str, searched: str, folders: Sequence[Path], section: InputSection) -> str:
    present = [file.name for folder in folders for file in sorted(folder.iterdir()) if file.is_file()]
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


def _stem(name: str) -> str:
    if name.lower().endswith((".nii.gz", ".tar.gz")):
        return name[:-7]
    return name.rpartition(".")[0] if "." in name[1:] else name


def _brackets(names: Iterable[str], joint: str) -> str:
    return joint.join(f"[{name}]" for name in names)
