"""The first lines of a cleaned file: where it comes from, whether it was edited, what its text tells no longer."""

import hashlib
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

_MARK = "# Written by pimms-tf migrate from "
_SUM = "# As written: "
_SUM_NOTE = " is the sum of the lines below; a file edited since is not written over"
_DROPPED = "# dropped: "
_LONGEST = 2**20  # characters; headers have a few thousand


class Dropped(NamedTuple):
    """A setting that results depend on in the original program, and that the cleaned file does not have any more."""

    section: str
    key: str
    text: str
    sentence: str
    verbs: tuple[str, ...]


class Header(NamedTuple):
    """What the head of a file says; `original` is empty for a file that `write_cleaned` has not written."""

    original: str = ""  # the name of the file that was cleaned
    is_as_written: bool = False
    dropped: tuple[Dropped, ...] = ()


def with_header(body: str, original: str, notes: Sequence[str], dropped: Sequence[Dropped]) -> str:
    """Returns the text of a cleaned file: the header, and below it the body. `notes` are sentences for its reader."""
    lines = [f"# {note}" for note in notes]
    lines += [_DROPPED + json.dumps([*row[:4], list(row.verbs)], ensure_ascii=False) for row in dropped]
    below = "".join(f"{line}\n" for line in [*lines, ""]) + body
    return f"{_MARK}{original}.\n{_SUM}{_sum(below)}{_SUM_NOTE}.\n{below}"


def read_header(path: str | Path) -> Header:
    """Returns what the head of a file says; nothing for a file that cannot be read or is none of ours."""
    try:
        with open(path, encoding="utf-8", errors="replace", newline="") as file:
            text = file.read(_LONGEST)
    except OSError:
        return Header()
    first, _, rest = text.partition("\n")
    if not first.startswith(_MARK):
        return Header()
    second, _, below = rest.partition("\n")
    found = re.match(rf"{re.escape(_SUM)}(\w+)", second)
    rows = [line.removeprefix(_DROPPED) for line in below.split("\n") if line.startswith(_DROPPED)]
    return Header(
        original=first.removeprefix(_MARK).rstrip("\r").removesuffix("."),
        is_as_written=bool(found) and found[1] == _sum(below),
        dropped=tuple(row for row in map(_row, rows) if row is not None),
    )


def without_header(text: str) -> str:
    """Returns the text of a cleaned file below its header, which ends at the first blank line; others whole."""
    return text.partition("\n\n")[2] if text.startswith(_MARK) else text


def _sum(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _row(text: str) -> Dropped | None:
    """A row as written; None for one that was edited into something else."""
    try:
        section, key, value, sentence, verbs = json.loads(text)
        return Dropped(str(section), str(key), str(value), str(sentence), tuple(map(str, verbs)))
    except (ValueError, TypeError):
        return None
