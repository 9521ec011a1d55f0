"""What users can mend, as values, and the one tree of exceptions that carries them.

    ValueError
    └── InputError           something that the user gave is wrong, and the user can correct it
        └── ConfigError      in a NiftyNet file, or in the lists, folders and checkpoints that it names
            └── UsageError   in words of a command line, or in values that cannot be read at all

Every one holds one `Mistake` or several, and its text is theirs, one per line. The command lines print it and end with
`exit_code`; `net_segment` and its like end with 1 unless it is a `UsageError`, as NiftyNet does. Any other exception is
a fault of ours: it keeps its traceback and ends with 1. What is accepted but worth saying is a `Remark`.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

_SHOWN = 120  # characters from each end of a long value in messages


@dataclass(frozen=True)
class Mistake:
    """One thing to correct: why it is wrong and what would be right, and where it stands as far as that is known.

    `line` is 0 for what no file says; a key without a line was given on the command line. `is_usage` tells a word or
    value that cannot be read at all from one that can and is wrong.
    """

    text: str
    section: str = ""
    key: str = ""
    value: str = ""  # as written
    line: int = 0
    path: Path | None = None
    subject: str = ""
    is_usage: bool = False

    def __str__(self) -> str:
        """Returns the mistake as one line to print."""
        file = f"{self.path}, line {self.line}" if self.path and self.line else str(self.path or "")
        if self.key:
            value = excerpt(self.value)
            return f"{file}: [{self.section}] {self.key} = {value} {self.text}" if file else self._option(value)
        subject = f"subject {self.subject}" if self.subject else ""
        section = f"section [{self.section}]" if self.section else ""
        place = ", ".join(filter(None, (subject, section, file)))
        return f"{place}: {self.text}" if place else self.text

    def _option(self, value: str) -> str:
        return f"--{self.key} {value} {self.text}" if value else f"--{self.key} {self.text}"

    def within(self, subject: str = "", section: str = "", path: Path | None = None) -> "Mistake":
        """Returns the mistake with its place filled in where it did not know it."""
        return replace(self, subject=self.subject or subject, section=self.section or section, path=self.path or path)


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


class InputError(ValueError):
    """Mistakes in what the user gave: one sentence each that says what, where, why, and the remedy.

    A mistake may be given as its text alone; `subject`, `section` and `path` then say what it is about and are printed
    before it.
    """

    exit_code = 2
    is_usage = False

    def __init__(
        self, *mistakes: Mistake | str, subject: str = "", section: str = "", path: Path | None = None
    ) -> None:
        self.mistakes = tuple(
            (mistake if isinstance(mistake, Mistake) else Mistake(mistake, is_usage=self.is_usage)).within(
                subject, section, path
            )
            for mistake in mistakes
        )
        super().__init__("\n".join(dict.fromkeys(map(str, self.mistakes))))

    def within(self, subject: str = "", section: str = "", path: Path | None = None) -> "InputError":
        """Returns the same error, whose mistakes know their place where they did not."""
        return type(self)(*(mistake.within(subject, section, path) for mistake in self.mistakes))


class ConfigError(InputError):
    """A mistake in a NiftyNet file or option, or in a list, folder or checkpoint that a file names."""


class UsageError(ConfigError):
    """A mistake in the words themselves: options that cannot be told apart, values that cannot be read."""

    is_usage = True


def one_line(text: str) -> str:
    """Returns the text on one line, for messages: the lines of a continued value joined by ` / `."""
    return " / ".join(line for line in text.split("\n") if line)


def excerpt(text: str) -> str:
    """Returns the text for a message: on one line, without control characters, its middle left out if it is long."""
    line = "".join(char if char.isprintable() else repr(char)[1:-1] for char in one_line(text))
    left_out = len(line) - 2 * _SHOWN
    return line if left_out <= 0 else f"{line[:_SHOWN]} … {left_out} characters … {line[-_SHOWN:]}"
