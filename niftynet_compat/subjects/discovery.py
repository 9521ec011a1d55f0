"""Which files belong to one subject: the join of all input sections on the subject's id.

Source: `niftynet/io/image_sets_partitioner.py`.
"""

import logging
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from niftynet_compat.schema.sections import InputSection
from niftynet_compat.subjects.folders import Column, files_of_section
from niftynet_compat.subjects.names import pieces_of
from pimms_tf.errors import ConfigError, Mistake
from pimms_tf.wording import counted

log = logging.getLogger(__name__)


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


def discover(inputs: Mapping[str, InputSection], may_lack: Collection[str] = ()) -> Discovery:
    """Returns the subjects of all sections joined on the id, with the counts and the leftovers for a report.

    A section with `csv_file` is read from that list; otherwise its folders are searched. Sections with `csv_data_file`
    hold values, not files, and are passed over. A section that finds nothing is an error if it is `referenced` by the
    task; else, and if it is among `may_lack`, it is left aside with a warning. No section at all gives no subject.

    What is wrong with the files of one subject never changes which files another one has: where it would, there is an
    error instead of subjects.

    Raises:
        ConfigError: a referenced section has no place to look, a missing folder, no file, files that cannot be told
            apart, or a faulty list; a name that takes another subject's id away; or no section finds any file. All such
            sections are reported, one per line.
    """
    columns: dict[str, Column] = {}
    unmatched: list[Unmatched] = []
    mistakes: list[Mistake] = []
    for name, section in inputs.items():
        if section.csv_data_file:
            continue
        reason = ""
        try:
            column = files_of_section(name, section)
            reason = column.nothing_found
            unmatched += [Unmatched(name, path, why) for path, why in column.leftovers]
            if not reason:
                columns[name] = column
        except ConfigError as error:
            reason = str(error)
            if section.referenced:
                mistakes += error.mistakes
                continue
        if reason and section.referenced and name not in may_lack:
            mistakes.append(Mistake(reason))
        elif reason:
            log.warning("section [%s] is left aside: %s", name, reason)
            unmatched.append(Unmatched(name, None, reason))
    mistakes += map(Mistake, _moved(columns))
    if inputs and not mistakes and not columns:
        reasons = [item.reason for item in unmatched if item.file is None]
        mistakes.append(Mistake("; ".join(["no input section finds any file", *reasons])))
    if mistakes:
        raise ConfigError(*mistakes)
    files = {name: column.files for name, column in columns.items()}
    ids = sorted({subject_id for column in files.values() for subject_id in column})
    subjects = tuple(
        SubjectFiles(subject_id, {name: column[subject_id] for name, column in files.items() if subject_id in column})
        for subject_id in ids
    )
    for message in (*similar_ids(files), *_joined_without_punctuation(subjects, inputs)):
        log.warning("%s", message)
    return Discovery(subjects, {name: len(column) for name, column in files.items()}, tuple(unmatched))


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
                    f"{counted(len(pairs), 'subject')} of [{left}] and [{right}] would match but for underscores, such "
                    f"as {mine} and {other}; let filename_contains of both sections cut the same characters"
                )
    return messages


def _moved(columns: Mapping[str, Column]) -> list[str]:
    """One sentence per section in which the name of a file has taken the id of another one from it.

    NiftyNet lets such a file go by a later piece of its name, or by none, and its subject then lacks it.
    """
    sentences = []
    for name, column in columns.items():
        elsewhere = {item for other, theirs in columns.items() if other != name for item in theirs.files}
        subject_of = {file: subject_id for subject_id, file in column.files.items()}
        lost = [
            (file, first, other)
            for file, (first, other) in column.moved.items()
            if first in elsewhere and subject_of.get(file) not in elsewhere
        ]
        if lost:
            file, first, other = lost[0]
            more = f" (and {counted(len(lost) - 1, 'more such file')})" if len(lost) > 1 else ""
            sentences.append(
                f"[{name}] {file} belongs to subject {first!r} of other sections, but {other} has {first!r} in its "
                f"name, too, and so neither goes by it{more}; rename the second, exclude it by filename_not_contains, "
                "or give a list by csv_file"
            )
    return sentences


def _joined_without_punctuation(subjects: Iterable[SubjectFiles], inputs: Mapping[str, InputSection]) -> list[str]:
    """A sentence about subjects whose files have one id only because punctuation is cut from names; [] without any."""
    searched = {name: section for name, section in inputs.items() if not section.csv_file}
    odd = []
    for subject in subjects:
        written = {
            name: _written_id(subject.images[name], searched[name], subject.subject_id)
            for name in searched
            if name in subject.images and not searched[name].filename_removefromid
        }
        if len(set(written.values())) > 1:
            odd.append((subject, written))
    if not odd:
        return []
    subject, written = odd[0]
    first, second = list(dict.fromkeys(written.values()))[:2]
    names = [next(subject.images[name].name for name in written if written[name] == text) for text in (first, second)]
    return [
        f"{counted(len(odd), 'subject has', 'subjects have')} files whose names differ in punctuation, which does not "
        f"count, such as {names[0]} and {names[1]} of subject {subject.subject_id}; if they are of different "
        "people, set filename_removefromid"
    ]


def _written_id(file: Path, section: InputSection, subject_id: str) -> str:
    """The id as it stands in a file's name, with the punctuation inside it."""
    pieces = pieces_of(file.name, section.filename_contains)
    whole = next((piece for piece in pieces if re.sub(r"\W", "", piece) == subject_id), "".join(pieces))
    return re.sub(r"^\W+|\W+$", "", whole)


def _brackets(names: Iterable[str], joint: str) -> str:
    return joint.join(f"[{name}]" for name in names)
