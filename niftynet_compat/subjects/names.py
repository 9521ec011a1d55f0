"""Which subject a file belongs to, by its name alone.

Source: `niftynet/utilities/filename_matching.py`.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from pimms_tf.files import is_formula

_WHOLE_ENDINGS = (".nii.gz", ".tar.gz")
# File systems take names of 255 bytes; the rest is for postfix, subset and format, and for what names unfinished files.
_MOST_BYTES_OF_ID = 180


class Ids(NamedTuple):
    """The subject of each file of a section that has one, why others have none, and what a shared piece may have moved.

    `moved` has the files whose first piece stands elsewhere in the name of another file, which is named beside it: they
    go by a later piece, or by none.
    """

    subjects: dict[str, str]
    reasons: dict[str, str]
    moved: dict[str, tuple[str, str]]


def subject_ids_of(names: Iterable[str], contains: Sequence[str], remove: str = "") -> Ids:
    """Returns the subject ids of the files of one section.

    The id is what remains of a name without its extension when the words of `contains` (or the pattern `remove`) are
    cut out; the first remaining piece that no other file shares, else all pieces joined.

    Raises:
        ValueError: names start with the same piece, so that they would be one subject; all of them are named.

    Source: `niftynet/utilities/filename_matching.py`, `KeywordsMatching`.
    """
    candidates = {name: candidate_ids(name, contains, remove) for name in names}
    firsts: dict[str, list[str]] = {}
    for name, options in candidates.items():
        if options:
            firsts.setdefault(options[0], []).append(name)
    clashes = {subject_id: files for subject_id, files in firsts.items() if len(files) > 1}
    if clashes:
        raise ValueError(_clash(clashes))
    counts = Counter(option for options in candidates.values() for option in options)
    ids, reasons, moved = {}, {}, {}
    for name, options in candidates.items():
        single = [option for option in options if counts[option] == 1]
        if single and not id_complaint(single[0]):
            ids[name] = single[0]
        elif single:
            reasons[name] = f"the subject id that its name gives {id_complaint(single[0])}"
        else:
            reasons[name] = "every piece of its name occurs in others" if options else "nothing is left of its name"
        if options and counts[options[0]] > 1:
            sharing = (other for other, theirs in candidates.items() if other != name and options[0] in theirs)
            moved[name] = options[0], next(sharing, name)
    return Ids(ids, reasons, moved)


def candidate_ids(name: str, contains: Sequence[str], remove: str = "") -> list[str]:
    """Returns the possible subject ids of one file name, best first; [] if nothing of the name is left."""
    pieces = pieces_of(name, contains, remove)
    pieces = pieces if remove else [re.sub(r"\W", "", piece) for piece in pieces]
    pieces = [piece for piece in pieces if piece]
    return [*pieces, "".join(pieces)] if len(pieces) > 1 else pieces


def pieces_of(name: str, contains: Sequence[str], remove: str = "") -> list[str]:
    """Returns what remains of a name, with its punctuation."""
    stem = stem_of(Path(name).name)
    if remove:
        return [re.sub(remove, "", stem)]
    # Longest first, so that a word which begins another one does not decide by chance.
    words = "|".join(re.escape(word) for word in sorted(contains, key=lambda word: (-len(word), word)) if word)
    return re.split(words, stem) if words else [stem]


def stem_of(name: str) -> str:
    """Returns a file name without its extension, of which `.nii.gz` is one."""
    if name.lower().endswith(_WHOLE_ENDINGS):
        return name[:-7]
    return name.rpartition(".")[0] if "." in name[1:] else name


def id_complaint(subject_id: str) -> str:
    """Returns why a text cannot be a subject id, "" if it can: results are files of that name, and cells of tables."""
    if "/" in subject_id or "\\" in subject_id or subject_id in (".", ".."):
        return f"{subject_id!r} is a path, and results of that name would lie in another folder"
    if not subject_id.isprintable():
        return f"{subject_id!r} has characters that cannot be printed"
    if is_formula(subject_id):
        return f"{subject_id!r} would be computed by programs that open tables, since it begins like a formula"
    if len(subject_id.encode()) > _MOST_BYTES_OF_ID:
        beginning = subject_id[:40] + "…"
        return f"{beginning!r} is longer than {_MOST_BYTES_OF_ID} bytes, so that endings of results have no room"
    return ""


def _clash(clashes: Mapping[str, Sequence[str]]) -> str:
    subject_id, files = next(iter(clashes.items()))
    who = f"{files[0]} and {files[1]} both belong to subject {subject_id!r}"
    more = [f"{len(files) - 2} more of its files"] if len(files) > 2 else []
    more += [f"so do files of {', '.join([*clashes][1:4])}"] if len(clashes) > 1 else []
    who += f" ({'; '.join(more)})" if more else ""
    paths = [Path(file) for file in files]
    stems = {path.with_name(stem_of(path.name)) for path in paths}
    if len(stems) == 1:
        return f"{who}; remove one, or exclude one by filename_not_contains"
    if len({path.with_name(re.sub(r"\W", "", path.name)) for path in stems}) == 1:
        return f"{who}, for punctuation does not count; set filename_removefromid, with which it does, or rename one"
    return f"{who}; exclude one by filename_not_contains"
