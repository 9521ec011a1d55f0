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

from niftynet_compat.spelling import nearest
from pimms_tf.errors import ConfigError, Mistake, Remark, excerpt

DEFAULT_SECTION = "DEFAULT"

_HEADER = re.compile(r"\[(?P<name>.+)\]")
_REFERENCE = re.compile(r"%\(([^)]+)\)s")
_INLINE_COMMENT = re.compile(r"\s[;#]")
_DEEPEST_REFERENCE = 10  # as in configparser
_LONGEST_EXPANSION = 65536  # characters; configparser has no limit, and ten lines of ten references fill any memory
_SINGLE_PERCENT = "has a single %, which starts a reference such as %(key)s; write %% for a percent sign"
_LARGEST_FILE = 2**24  # bytes; the author's largest has 5,000


@dataclass(frozen=True)
class Entry:
    """One `key = value`: the value as one text, its line, and the indented lines that continue it.

    `inherited` tells a key of [DEFAULT], `quoted` that quotes stood around the value.
    """

    text: str
    line: int
    inherited: bool = False
    continuations: tuple[tuple[int, str], ...] = ()
    quoted: bool = False


@dataclass(frozen=True)
class IniSection:
    """One section: cleaned name, line of its header (0 = none), and its entries with those of [DEFAULT]."""

    name: str
    line: int
    entries: Mapping[str, Entry]


@dataclass(frozen=True)
class IniFile:
    """A file as read: sections in file order, what is worth saying, and what is wrong with its text."""

    path: Path
    sections: tuple[IniSection, ...]
    remarks: tuple[Remark, ...] = ()
    mistakes: tuple[Mistake, ...] = ()


def read_ini(path: str | Path) -> IniFile:
    """Returns the sections of an INI file; mistakes in it are collected in `.mistakes`, an empty file has no sections.

    Raises:
        ConfigError: the file is not there, cannot be opened, or is not UTF-8 text.
    """
    path = Path(path)
    try:
        with open(path, "rb") as file:
            content = file.read(_LARGEST_FILE + 1)
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        why = f"byte {error.start} is not UTF-8 text; save the file with UTF-8 encoding"
        raise ConfigError(why, path=path) from error
    except FileNotFoundError as error:
        raise ConfigError("there is no such file; check the path", path=path) from error
    except OSError as error:
        raise ConfigError(f"cannot be read ({error.strerror}); check its permissions", path=path) from error
    if len(content) > _LARGEST_FILE:
        raise ConfigError(f"has more than {_LARGEST_FILE:,} bytes, so it is no INI file; check the path", path=path)
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
            why = (
                f"[{header}] is no section name once all but letters, digits, '_', '-' and blanks are removed; rename "
                "the section"
            )
            mistakes.append(Mistake(why, line=section.line, path=path))
        elif name in sections:
            why = (
                f"[{header}] is the same section as [{name}] of line {sections[name].line}; rename or merge one of them"
            )
            mistakes.append(Mistake(why, line=section.line, path=path))
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


def _raw_sections(text: str, path: Path) -> tuple[dict[str, _RawSection], list[Mistake]]:
    sections: dict[str, _RawSection] = {}
    mistakes: list[Mistake] = []
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
                why = f"section [{name}] stands in line {sections[name].line} already; merge or rename one"
                mistakes.append(Mistake(why, line=number, path=path))
            section = sections.setdefault(name, _RawSection(number))
            continue
        if section is None:
            why = f"{excerpt(value)!r} stands before the first [section]; put a section header above it"
            mistakes.append(Mistake(why, line=number, path=path))
            continue
        key, separator, rest = _divided(value)
        if not separator or not key:
            why = f"{excerpt(value)!r} in [{name}] is not `key = value`; add the missing part or a leading #"
            mistakes.append(Mistake(why, line=number, path=path))
            entry = None
            continue
        entry = _RawEntry(number, [rest])
        if key in section.entries:
            why = f"is given in line {section.entries[key].line} already; keep one of them"
            mistakes.append(Mistake(why, name, key, rest, number, path))
        else:
            section.entries[key] = entry
    return sections, mistakes


def _divided(line: str) -> tuple[str, str, str]:
    """The key, the first `=` or `:`, and the value of a line; no separator if it has none."""
    separator = next((character for character in line if character in "=:"), "")
    key, _, value = line.partition(separator) if separator else (line, "", "")
    return key.rstrip().lower(), separator, value.strip()


def _resolved_entries(
    name: str,
    section: _RawSection,
    inherited: _RawSection,
    path: Path,
    mistakes: list[Mistake],
    remarks: list[Remark],
) -> dict[str, Entry]:
    merged = {**inherited.entries, **section.entries}
    texts = {key: "\n".join(entry.lines).rstrip() for key, entry in merged.items()}
    expand = _References(texts)
    entries = {}
    for key, raw in merged.items():
        try:
            text = expand(key)
        except ValueError as error:
            mistakes.append(Mistake(str(error), name, key, texts[key], raw.line, path))
            continue
        quoted = len(text) > 1 and text[0] == text[-1] and text[0] in "\"'"
        if quoted:
            text = text[1:-1].strip()
            if text and key not in inherited.entries:
                why = f"the quotes around {excerpt(text)} are not taken as part of it"
                remarks.append(Remark(name, key, raw.line, why))
        elif _INLINE_COMMENT.search(text):
            why = (
                "has a comment behind the value, which NiftyNet takes as part of it; put the comment on a line of its "
                "own, or the whole value in quotes if it is none"
            )
            mistakes.append(Mistake(why, name, key, texts[key], raw.line, path))
            continue
        own = key in section.entries
        entries[key] = Entry(text, raw.line, not own, tuple(raw.continuations), quoted)
    return entries


class _References:
    """Values with every `%(other)s` replaced: `expand(key)`. Each value is expanded once, however often it is named."""

    def __init__(self, texts: Mapping[str, str]) -> None:
        self._texts = texts
        self._done: dict[str, tuple[str, int]] = {}
        self._under_way: set[str] = set()

    def __call__(self, key: str) -> str:
        """Returns the value of a key. Raises ValueError for what is no reference, leads nowhere, or grows too long."""
        return self._expanded(key)[0]

    def _expanded(self, key: str) -> tuple[str, int]:
        """The value, and how many of the values in it, one inside the other, have references."""
        if key in self._done:
            return self._done[key]
        if key in self._under_way:
            raise ValueError(f"refers to itself through %({key})s; write the value out")
        self._under_way.add(key)
        try:
            self._done[key] = self._replaced(self._texts[key])
        finally:
            self._under_way.discard(key)
        return self._done[key]

    def _replaced(self, text: str) -> tuple[str, int]:
        if "%" not in text:
            return text, 0
        parts, length, deepest = [], 0, 0
        while "%" in text:
            before, _, text = text.partition("%")
            parts.append(before)
            reference = _REFERENCE.match("%" + text)
            if text.startswith("%"):
                parts.append("%")
                text = text[1:]
            elif reference is None:
                raise ValueError(_SINGLE_PERCENT)
            else:
                inner, depth = self._expanded(self._known(reference[1].lower()))
                parts.append(inner)
                length, deepest = length + len(inner), max(deepest, depth)
                text = text[reference.end() - 1 :]
            if deepest >= _DEEPEST_REFERENCE:
                raise ValueError(f"refers to others more than {_DEEPEST_REFERENCE} deep; write the value out")
            if length > _LONGEST_EXPANSION:
                raise ValueError(
                    f"has more than {_LONGEST_EXPANSION:,} characters once its references are replaced; shorten it"
                )
        return "".join([*parts, text]), deepest + 1

    def _known(self, key: str) -> str:
        if key in self._texts:
            return key
        known = nearest(key, self._texts)
        hint = f"did you mean %({known})s?" if known else "define it in this section or in [DEFAULT]"
        raise ValueError(f"refers to %({key})s, which this section does not have; {hint}")


def _each(text: str, convert: type, complaint: str) -> Iterable[int | float]:
    for word in to_strs(text):
        try:
            yield convert(word)
        except ValueError:
            raise ValueError(f"{complaint}, because of {word!r}") from None
