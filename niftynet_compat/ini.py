"""NiftyNet's INI files as text: sections, keys, line numbers, and the grammar of single values.

The grammar is that of Python's `configparser.ConfigParser()` with default options, which NiftyNet used, except that a
byte-order mark is ignored, the encoding is always UTF-8, one pair of quotes around a value is removed, and a comment
behind a value is an error that says so. Every mistake of a file is collected, none stops the reading.

Source: `niftynet/utilities/user_parameters_parser.py`, `user_parameters_helper.py`, `user_parameters_regex.py`.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from niftynet_compat.spelling import nearest

DEFAULT_SECTION = "DEFAULT"

_HEADER = re.compile(r"\[(?P<name>.+)\]")
_OPTION = re.compile(r"(?P<key>.*?)\s*[=:]\s*(?P<value>.*)$")
_REFERENCE = re.compile(r"%\(([^)]+)\)s")
_INLINE_COMMENT = re.compile(r"\s[;#]")
_DEEPEST_REFERENCE = 10
_SHOWN = 120  # characters from each end of a long value in messages


class ConfigError(ValueError):
    """A mistake in a NiftyNet file or option: one sentence per line that says what, where, why, and the remedy.

    The command line prints it and ends with `exit_code`.
    """

    exit_code = 2


class UsageError(ConfigError):
    """A ConfigError in the words themselves: options that cannot be told apart, values that cannot be read."""


class Remark(NamedTuple):
    """Something accepted but worth saying: where it stands (line 0 = not in the file) and one sentence."""

    section: str
    key: str
    line: int
    text: str

    def __str__(self) -> str:
        """Returns the remark as one line to print."""
        place = f"line {self.line}: " if self.line else ""
        return f"{place}[{self.section}] {self.key} {self.text}" if self.key else f"{place}{self.text}"


@dataclass(frozen=True)
class Entry:
    """One `key = value`: the value as one text, its line, and the indented lines that continue it."""

    text: str
    line: int
    inherited: bool = False
    continuations: tuple[tuple[int, str], ...] = ()


@dataclass(frozen=True)
class IniSection:
    """One section: cleaned name, line of its header (0 = none), and its entries with those of [DEFAULT]."""

    name: str
    line: int
    entries: Mapping[str, Entry]


@dataclass(frozen=True)
class IniFile:
    """A file as read: sections in file order, what is worth saying, and one sentence per mistake."""

    path: Path
    sections: tuple[IniSection, ...]
    remarks: tuple[Remark, ...] = ()
    mistakes: tuple[str, ...] = ()


def read_ini(path: str | Path) -> IniFile:
    """Returns the sections of an INI file; mistakes in it are collected in `.mistakes`, an empty file has no sections.

    Raises:
        ConfigError: the file is not there, cannot be opened, or is not UTF-8 text.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: byte {error.start} is not UTF-8 text; save the file with UTF-8 encoding") from error
    except FileNotFoundError as error:
        raise ConfigError(f"{path}: there is no such file; check the path") from error
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}); check its permissions") from error
    return parse_ini(text, path)


def parse_ini(text: str, path: str | Path = "<text>") -> IniFile:
    """Returns the sections of INI text; `path` only appears in messages."""
    path = Path(path)
    raw, mistakes = _raw_sections(text, path)
    inherited = raw.pop(DEFAULT_SECTION, _RawSection(0))
    remarks: list[Remark] = []
    sections: dict[str, IniSection] = {}
    for header, section in raw.items():
        name = clean_name(header)
        if not name or name == DEFAULT_SECTION:
            mistakes.append(
                f"{path}, line {section.line}: [{header}] is no section name once all but letters, digits, '_', '-' "
                "and blanks are removed; rename the section"
            )
        elif name in sections:
            mistakes.append(
                f"{path}, line {section.line}: [{header}] is the same section as [{name}] of line "
                f"{sections[name].line}; rename or merge one of them"
            )
        else:
            entries = _resolved_entries(name, section, inherited, path, mistakes, remarks)
            sections[name] = IniSection(name, section.line, entries)
    return IniFile(path, tuple(sections.values()), tuple(remarks), tuple(dict.fromkeys(mistakes)))


def clean_name(header: str) -> str:
    """Returns the name of a section: outer blanks and every character but letters, digits, `_`, `-`, blank removed."""
    return re.sub(r"[^0-9a-zA-Z_\- ]", "", header).strip()


def to_int(text: str) -> int:
    """Returns a whole number: optional sign, digits, `_` between digits. Raises ValueError otherwise."""
    try:
        return int(text)
    except ValueError:
        raise ValueError("is not a whole number") from None


def to_float(text: str) -> float:
    """Returns a number in any spelling Python's `float` takes, `inf` and `nan` included. Raises ValueError."""
    try:
        return float(text)
    except ValueError:
        raise ValueError("is not a number") from None


def to_bool(text: str) -> bool:
    """Returns True for yes, true, t, y, 1 and False for no, false, f, n, 0 in any case. Raises ValueError."""
    word = text.strip().lower()
    if word in ("yes", "true", "t", "y", "1"):
        return True
    if word in ("no", "false", "f", "n", "0"):
        return False
    raise ValueError("is neither True nor False")


def to_str(text: str) -> str:
    """Returns the text without outer blanks."""
    return text.strip()


def to_strs(text: str) -> tuple[str, ...]:
    """Returns the words of a comma list, which `( )` or `{ }` may enclose; empty text gives ().

    Words consist of letters, digits, `-`, `_`, `.`, `:`, backslash and inner blanks; or all of them are plain numbers.

    Raises:
        ValueError: other characters, an unpaired bracket, or a comma with nothing behind it.
    """
    body = text.strip()
    for left, right in ("()", "{}"):
        if body[:1] == left and body[-1:] == right and len(body) > 1:
            body = body[1:-1]
            if not body:
                return ()
            break
    else:
        if not body:
            return ()
    pieces = body.split(",")
    words = [piece.strip() for piece in pieces]
    if all(re.fullmatch(r"[+-]?(\d+|\d*\.\d+)", word, re.ASCII) for word in words):
        return tuple(words)
    for piece, word in zip(pieces, words, strict=True):
        # NiftyNet's pattern wants one character at least, and a blank is one: `(a, )` has two words, `(a,)` is wrong.
        if not word and " " not in piece:
            raise ValueError("has a comma with nothing beside it")
        if not re.fullmatch(r"[-_a-zA-Z0-9 \\:.]*", word):
            odd = "".join(sorted(set(re.sub(r"[-_a-zA-Z0-9 \\:.]", "", word))))
            raise ValueError(f"is not a list separated by commas, because of the characters {odd}")
    return tuple(words)


def to_ints(text: str) -> tuple[int, ...]:
    """Returns the whole numbers of a comma list, see `to_strs`. Raises ValueError."""
    return tuple(_each(text, int, "is not a list of whole numbers"))


def to_floats(text: str) -> tuple[float, ...]:
    """Returns the numbers of a comma list, see `to_strs`; `1e+2` is refused as NiftyNet does. Raises ValueError."""
    return tuple(_each(text, float, "is not a list of numbers"))


def to_window(text: str) -> tuple[int, ...]:
    """Returns a window size (x, y, z, ...): fewer than three numbers are completed with 1, so `64` is (64, 1, 1).

    Empty text gives (0, 1, 1). Raises ValueError as `to_ints` does.
    """
    sizes = to_ints(text) or (0,)
    return sizes + (1,) * (3 - len(sizes))


def to_spatial3(text: str) -> tuple[int, int, int]:
    """Returns one number per axis (x, y, z): the last one given is repeated, more than three are cut.

    Empty text gives (0, 0, 0). Raises ValueError as `to_ints` does.
    """
    sizes = to_ints(text) or (0,)
    x, y, z = (sizes + (sizes[-1],) * 3)[:3]
    return x, y, z


@dataclass
class _RawEntry:
    line: int
    lines: list[str]
    continuations: list[tuple[int, str]] = field(default_factory=list)


@dataclass
class _RawSection:
    line: int
    entries: dict[str, _RawEntry] = field(default_factory=dict)


def _raw_sections(text: str, path: Path) -> tuple[dict[str, _RawSection], list[str]]:
    sections: dict[str, _RawSection] = {}
    mistakes: list[str] = []
    section: _RawSection | None = None
    name, entry, indent = "", None, 0
    for number, line in enumerate(re.split(r"\r\n|\r|\n", text), start=1):
        value = line.strip()
        if value.startswith(("#", ";")):
            continue
        if not value:
            if entry is not None:
                entry.lines.append("")
            continue
        here = f"{path}, line {number}"
        depth = len(line) - len(line.lstrip())
        if entry is not None and depth > indent:
            entry.lines.append(value)
            entry.continuations.append((number, value))
            continue
        indent = depth
        header = _HEADER.match(value)
        if header:
            name, entry = header["name"], None
            if name in sections and name != DEFAULT_SECTION:
                mistakes.append(
                    f"{here}: section [{name}] stands in line {sections[name].line} already; merge or rename one"
                )
            section = sections.setdefault(name, _RawSection(number))
            continue
        if section is None:
            mistakes.append(
                f"{here}: {excerpt(value)!r} stands before the first [section]; put a section header above it"
            )
            continue
        option = _OPTION.match(value)
        if option is None or not option["key"]:
            mistakes.append(
                f"{here}: {excerpt(value)!r} in [{name}] is not `key = value`; add the missing part or a leading #"
            )
            entry = None
            continue
        key = option["key"].rstrip().lower()
        entry = _RawEntry(number, [option["value"].strip()])
        if key in section.entries:
            mistakes.append(
                f"{here}: [{name}] {key} = {excerpt(entry.lines[0])} is given in line {section.entries[key].line} "
                "already; keep one of them"
            )
        else:
            section.entries[key] = entry
    return sections, mistakes


def _resolved_entries(
    name: str, section: _RawSection, inherited: _RawSection, path: Path, mistakes: list[str], remarks: list[Remark]
) -> dict[str, Entry]:
    merged = {**inherited.entries, **section.entries}
    texts = {key: "\n".join(entry.lines).rstrip() for key, entry in merged.items()}
    entries = {}
    for key, raw in merged.items():
        where = f"{path}, line {raw.line}: [{name}] {key} = {excerpt(texts[key])}"
        try:
            text = _interpolated(key, texts[key], texts, 1)
        except ValueError as error:
            mistakes.append(f"{where} {error}")
            continue
        if len(text) > 1 and text[0] == text[-1] and text[0] in "\"'":
            text = text[1:-1].strip()
            if text and key not in inherited.entries:
                remarks.append(Remark(name, key, raw.line, f"the quotes around {text} are not taken as part of it"))
        elif _INLINE_COMMENT.search(text):
            mistakes.append(
                f"{where} has a comment behind the value, which NiftyNet takes as part of it; put the comment on a "
                "line of its own, or the whole value in quotes if it is none"
            )
            continue
        own = key in section.entries
        entries[key] = Entry(text, raw.line, inherited=not own, continuations=tuple(raw.continuations))
    return entries


def _interpolated(key: str, text: str, texts: Mapping[str, str], depth: int) -> str:
    if depth > _DEEPEST_REFERENCE:
        raise ValueError(f"refers to itself through %({key})s; write the value out")
    parts = []
    while "%" in text:
        before, _, text = text.partition("%")
        parts.append(before)
        reference = _REFERENCE.match("%" + text)
        if text.startswith("%"):
            parts.append("%")
            text = text[1:]
        elif reference is None:
            raise ValueError("has a single %, which starts a reference such as %(key)s; write %% for a percent sign")
        else:
            other = reference[1].lower()
            if other not in texts:
                known = nearest(other, texts)
                hint = f"did you mean %({known})s?" if known else "define it in this section or in [DEFAULT]"
                raise ValueError(f"refers to %({other})s, which this section does not have; {hint}")
            parts.append(_interpolated(other, texts[other], texts, depth + 1))
            text = text[reference.end() - 1 :]
    return "".join([*parts, text])


def one_line(text: str) -> str:
    """Returns the text on one line, for messages: the lines of a continued value joined by ` / `."""
    return " / ".join(line for line in text.split("\n") if line)


def excerpt(text: str) -> str:
    """Returns the text for a message: on one line, without control characters, its middle left out if it is long."""
    line = "".join(char if char.isprintable() else repr(char)[1:-1] for char in one_line(text))
    left_out = len(line) - 2 * _SHOWN
    return line if left_out <= 0 else f"{line[:_SHOWN]} … {left_out} characters … {line[-_SHOWN:]}"


def _each(text: str, convert: type, complaint: str) -> Iterable[int | float]:
    for word in to_strs(text):
        try:
            yield convert(word)
        except ValueError:
            raise ValueError(f"{complaint}, because of {word!r}") from None
