"""NiftyNet's console and log file: the form of their lines, and where a run's lines go.

Lines in NiftyNet's own words are logged to `JOURNAL`; programs that read its logs know them. A record with the
attribute `log_file` has no text: it says where all lines of the run belong, from its first on.

Source: `niftynet/io/misc_io.py`, `set_logger`; `niftynet/engine/handler_console.py`; recorded logs.
"""

import logging
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

JOURNAL = "niftynet"


class ConsoleFormatter(logging.Formatter):
    """`INFO:niftynet: message` with the first part in bold."""

    def format(self, record: logging.LogRecord) -> str:
        """Returns the line of a record."""
        return f"\033[1m{record.levelname}:niftynet:\033[0m {_message(self, record)}"


class FileFormatter(logging.Formatter):
    """`INFO:niftynet:2026-01-31 12:00:00,123: message`."""

    def format(self, record: logging.LogRecord) -> str:
        """Returns the line of a record."""
        return f"{record.levelname}:niftynet:{self.formatTime(record)}: {_message(self, record)}"


class RunLog(logging.Handler):
    """Appends the lines of one run to the file that a record with the attribute `log_file` names.

    Lines that come before it wait; a run that ends before it knows its file leaves none.
    """

    def __init__(self) -> None:
        super().__init__()
        self.setFormatter(FileFormatter())
        self._waiting: list[str] = []
        self._file = None

    def emit(self, record: logging.LogRecord) -> None:
        """Writes the line of a record, or keeps it until the file is known. A full disk does not end a run."""
        try:
            path = getattr(record, "log_file", None)
            if path is None:
                self._waiting.append(self.format(record))
            elif self._file is None:
                self._file = open(path, "a", encoding="utf-8")  # noqa: SIM115
            if self._file is not None:
                self._file.write("".join(f"{line}\n" for line in self._waiting))
                self._file.flush()
                self._waiting.clear()
        except OSError:
            self.handleError(record)

    def close(self) -> None:
        """Closes the file."""
        if self._file is not None:
            self._file.close()
            self._file = None
        super().close()


def begin_log(path: Path) -> None:
    """Tells every `RunLog` of the process its file, by a record without text that no console shows."""
    logging.getLogger(JOURNAL).info("", extra={"log_file": path})


def is_text(record: logging.LogRecord) -> bool:
    """Returns whether a record has anything to show; a filter of consoles."""
    return not hasattr(record, "log_file")


def is_ours(record: logging.LogRecord) -> bool:
    """Returns whether a record is in our own words rather than NiftyNet's; a filter of consoles."""
    return record.name != JOURNAL


def console_handler() -> logging.Handler:
    """Returns a handler that writes every record to the standard output as NiftyNet does."""
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(ConsoleFormatter())
    handler.addFilter(is_text)
    return handler


def iteration_line(phase: str, iteration: int, values: Mapping[str, float], seconds: float) -> str:
    """Returns `training iter 1, total_loss=0.5, loss=0.25 (1.373799s)`; validation is indented by four blanks."""
    indent = "    " if phase == "validation" else ""
    listed = ", ".join(f"{name}={float(value)!r}" for name, value in values.items())
    return f"{indent}{phase} iter {iteration}, {listed} ({seconds:f}s)"


def partition_lines(sections: Sequence[str], num_subjects: int, counts: Mapping[str, int] | None) -> str:
    """Returns the block of how many subjects there are and how they are divided: {phase: number}, None if they are not.

    `sections` are the input sections in their order. No subject at all counts as 0 percent of each.
    """
    names = ["subject_id", *sections]
    text = f"\n\nNumber of subjects {num_subjects}, input section names: {names}\n"
    if counts is None:
        return text + "-- using all subjects (without data partitioning).\n"
    parts = [f"-- {phase} {count} cases ({count / max(num_subjects, 1):.2%})" for phase, count in counts.items()]
    return text + "Dataset partitioning:\n" + ",\n".join(parts) + ".\n"


def _message(formatter: logging.Formatter, record: logging.LogRecord) -> str:
    message = record.getMessage()
    # NiftyNet names the prefix that all checkpoints share, without the number it has said already.
    message = re.sub(r"\A(iter (\d+) saved: .*)-\2\Z", r"\1", message)
    if record.exc_info:
        message += "\n" + formatter.formatException(record.exc_info)
    return message
