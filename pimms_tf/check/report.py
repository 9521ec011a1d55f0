"""What a dry run has to say: findings of three levels, tables and figures, as text or as JSON."""

import enum
import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from pimms_tf.errors import InputError
from pimms_tf.study.study import MODEL, PHASES, SETTINGS, SUBJECTS

Cell = str | int | float

# Topics, in the order in which they are looked at.
FILES, LABELS, WINDOWS = "Files", "Labels", "Windows"
EXAMPLE, COSTS = "One subject as the network sees it", "Costs"
_TOPICS = (SETTINGS, SUBJECTS, MODEL, PHASES, FILES, LABELS, WINDOWS, EXAMPLE, COSTS)


class Level(enum.IntEnum):
    """How much a finding matters; the highest one is the exit code."""

    NOTE = 0
    REMARK = 1  # results are other than the writer may expect
    MISTAKE = 2  # the action cannot run


_WORDS = {Level.NOTE: "note", Level.REMARK: "remark", Level.MISTAKE: "mistake"}


class Finding(NamedTuple):
    """One sentence about one topic."""

    level: Level
    topic: str
    text: str


class Table(NamedTuple):
    """Rows of a topic."""

    topic: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]


class Fact(NamedTuple):
    """One figure with its name."""

    topic: str
    name: str
    value: Cell
    shown: str


@dataclass
class Report:
    """Everything found so far."""

    path: Path
    action: str
    findings: list[Finding] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    facts: list[Fact] = field(default_factory=list)
    topic: str = FILES  # what is being looked at

    @property
    def exit_code(self) -> int:
        """0: nothing to mind, 1: remarks that change results, 2: the action cannot run."""
        return int(max((finding.level for finding in self.findings), default=Level.NOTE))

    def note(self, topic: str, text: str) -> None:
        self._add(Level.NOTE, topic, text)

    def remark(self, topic: str, text: str) -> None:
        self._add(Level.REMARK, topic, text)

    def mistake(self, topic: str, text: str) -> None:
        self._add(Level.MISTAKE, topic, text)

    def _add(self, level: Level, topic: str, text: str) -> None:
        finding = Finding(level, topic, text)
        if finding not in self.findings:
            self.findings.append(finding)

    def table(self, topic: str, columns: Sequence[str], rows: Iterable[Sequence[Cell]]) -> None:
        rows = tuple(tuple(row) for row in rows)
        if rows:
            self.tables.append(Table(topic, tuple(columns), rows))

    def fact(self, topic: str, name: str, value: Cell, shown: str = "") -> None:
        self.facts.append(Fact(topic, name, value, shown or str(value)))

    @contextmanager
    def collecting(self, topic: str) -> Iterator[None]:
        """Turns an error of the user's into the mistakes that it holds; what is remarked meanwhile is on the topic."""
        before, self.topic = self.topic, topic
        try:
            yield
        except InputError as error:
            for mistake in error.mistakes:
                self.mistake(topic, str(mistake))
        finally:
            self.topic = before

    def text(self) -> str:
        """The report for people: topics with tables, figures and findings, and the verdict in the last line."""
        lines = [f"{self.path}: {self.action}, nothing is written"]
        present = {part.topic for part in (*self.tables, *self.facts, *self.findings)}
        for topic in filter(present.__contains__, _TOPICS):
            lines += ["", topic]
            for table in self.tables:
                if table.topic == topic:
                    lines += [f"  {line}" for line in _aligned(table)]
            lines += [f"  {fact.name}: {fact.shown}" for fact in self.facts if fact.topic == topic]
            lines += [
                f"  {_WORDS[level]}: {text}"
                for level, at, text in sorted(self.findings, key=lambda finding: -finding.level)
                if at == topic
            ]
        return "\n".join([*lines, "", self._verdict()])

    def json(self) -> str:
        """The same as one JSON object: path, action, exit_code, findings, tables, facts."""
        content = {
            "path": str(self.path),
            "action": self.action,
            "exit_code": self.exit_code,
            "findings": [
                {"level": _WORDS[item.level], "topic": item.topic, "text": item.text} for item in self.findings
            ],
            "tables": [
                {"topic": item.topic, "rows": [dict(zip(item.columns, row, strict=True)) for row in item.rows]}
                for item in self.tables
            ],
            "facts": [{"topic": item.topic, "name": item.name, "value": item.value} for item in self.facts],
        }
        return json.dumps(content, indent=1, ensure_ascii=False)

    def _verdict(self) -> str:
        counts = {level: sum(finding.level is level for finding in self.findings) for level in Level}
        if counts[Level.MISTAKE]:
            return f"{self.action} cannot run: {_counted(counts[Level.MISTAKE], 'mistake')}"
        if counts[Level.REMARK]:
            return f"{self.action} can run; {_counted(counts[Level.REMARK], 'remark')} to look at first"
        return f"{self.action} can run"


def _counted(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _aligned(table: Table) -> list[str]:
    cells = [table.columns, *([str(cell) for cell in row] for row in table.rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(table.columns))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells]


def print_bytes(size: float) -> str:
    """A size in words, such as 1.5 GB."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} TB"


def print_seconds(seconds: float) -> str:
    """A duration in words, such as 3 h 20 min."""
    if seconds < 90:
        return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 120:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours < 48 else f"{hours // 24} days {hours % 24} h"
