"""What long runs show: lines of training, and of a cohort of patients; live on a terminal, plain elsewhere."""

import logging
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TextIO

# What a line calls the figures of `training.Metrics`, on a terminal and elsewhere.
_FIGURES = {
    "segmentation_loss": ("loss", "loss"),
    "modality_loss": ("modality", "modality_loss"),
    "dice": ("dice", "dice"),
}


def figures_of(variant: str) -> tuple[str, ...]:
    """Returns the figures that training of a variant of the network has; the others would be 0 in every line."""
    lacking = {"classifier": ("segmentation_loss", "dice"), "hemis": ("modality_loss",)}.get(variant, ())
    return tuple(name for name in _FIGURES if name not in lacking)


def progress(max_iter: int, figures: Sequence[str] = tuple(_FIGURES)) -> AbstractContextManager:
    """Returns a context that yields what to call after each iteration: a live line on a terminal, else plain lines."""
    return _LiveLine(max_iter, figures) if sys.stdout.isatty() else _PlainLines(figures)


def progress_of_patients(total: int) -> AbstractContextManager:
    """Returns a context that yields what to call after each patient: done, total, what became of them, seconds left."""
    return _LivePatients(total) if sys.stdout.isatty() else nullcontext(_say_patient)


def _say_patient(done: int, total: int, text: str, left_s: float) -> None:
    left = f", {left_s / 60:.0f} min left" if left_s >= 60 else ""
    print(f"{done} of {total}{left}: {text}", flush=True)


def counting(what: str) -> Callable[[int, int], None]:
    """Returns what shows on a terminal how many of all are done, on the error stream; elsewhere nothing is shown."""

    def show(done: int, total: int) -> None:
        if sys.stderr.isatty() and total:
            end = "\r\033[K" if done == total else f"\r{done} of {total} {what}"
            print(end, end="", file=sys.stderr, flush=True)

    return show


class _PlainLines(AbstractContextManager):
    """NiftyNet's iteration lines, which log parsers know: `training iter 1, total_loss=0.5, loss=0.5 (1.2s)`."""

    def __init__(self, figures: Sequence[str]) -> None:
        self._figures = figures

    def __enter__(self) -> "_PlainLines":
        return self

    def prepared(self, done) -> None:
        """Shows that one more subject is ready, if that took a while."""
        if done.seconds > 0.5:
            print(f"prepared {done.subject_id}, {done.done} of {done.total} subjects ({done.seconds:.1f}s)", flush=True)

    def waiting(self, what: str, seconds: float) -> None:
        """Says what is waited for."""
        print(f"{what}, for {seconds:.0f}s so far", flush=True)

    def __exit__(self, *_: object) -> None:
        sys.stdout.flush()

    def __call__(self, report) -> None:
        indent = "    " if report.phase == "validation" else ""
        print(
            f"{indent}{report.phase} iter {report.iteration}, {self._values(report)} ({report.seconds:f}s)", flush=True
        )

    def _values(self, report) -> str:
        values = {"total_loss": report.metrics.total_loss}
        values |= {_FIGURES[name][1]: getattr(report.metrics, name) for name in self._figures}
        return ", ".join(f"{name}={float(value)}" for name, value in values.items())


class _Live(AbstractContextManager):
    """Lines at the foot of a terminal that are rewritten; all else scrolls above them."""

    def __init__(self, *columns) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress

        self._progress = Progress(MofNCompleteColumn(), BarColumn(bar_width=8), *columns)

    def __enter__(self):
        self._progress.start()
        self._write_logs_to(sys.stdout)  # which is now the progress line's own, and keeps above it
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()
        self._write_logs_to(sys.stdout)

    def _write_logs_to(self, stream: TextIO) -> None:
        for handler in logging.getLogger().handlers:
            if isinstance(handler, logging.StreamHandler):
                handler.setStream(stream)


class _LivePatients(_Live):
    """How many patients are done, for how long, and how long it will still take; what became of each scrolls away."""

    def __init__(self, total: int) -> None:
        from rich.progress import TextColumn, TimeElapsedColumn

        super().__init__(TextColumn("patients"), TimeElapsedColumn(), TextColumn("{task.fields[left]}"))
        self._task = self._progress.add_task("", total=total, left="")

    def __call__(self, done: int, total: int, text: str, left_s: float) -> None:
        print(text)
        left = f"about {max(1, round(left_s / 60))} min left" if left_s > 0 else ""  # NaN, too, says nothing
        self._progress.update(self._task, completed=done, total=total, left=left)


class _LiveLine(_Live):
    """Iteration, losses, iterations per second, time left."""

    def __init__(self, max_iter: int, figures: Sequence[str]) -> None:
        from rich.progress import TextColumn, TimeRemainingColumn

        super().__init__(
            TextColumn("{task.fields[losses]}"),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(elapsed_when_finished=True),
        )
        self._figures = figures
        self._task = self._progress.add_task("training", total=max_iter, losses="", rate="")
        self._preparing = self._progress.add_task("", losses="subjects prepared", rate="", visible=False)
        self._waiting = self._progress.add_task("", total=None, losses="", rate="", visible=False)

    def prepared(self, done) -> None:
        """Counts the subjects that are ready, until all are."""
        waiting = done.done < done.total
        self._progress.update(self._preparing, completed=done.done, total=done.total, visible=waiting)

    def waiting(self, what: str, seconds: float) -> None:
        """Shows what is waited for, until the next iteration is done."""
        self._progress.update(self._waiting, losses=what, rate=f"{seconds:.0f} s", visible=True)

    def __call__(self, report) -> None:
        losses = " ".join(f"{_FIGURES[name][0]} {float(getattr(report.metrics, name)):.3f}" for name in self._figures)
        if report.phase == "validation":
            print(f"validation iter {report.iteration}: {losses}")
            return
        self._progress.update(self._waiting, visible=False)
        rate = f"{1 / max(report.seconds, 1e-9):.1f} it/s"
        self._progress.update(self._task, completed=report.iteration, losses=losses, rate=rate)
