"""The lines of a run while it trains."""

import io
import logging
import math
from typing import NamedTuple

import pytest

from pimms_tf.commands import progress as lines


class Metrics(NamedTuple):
    total_loss: float = 0.75
    segmentation_loss: float = 0.5
    modality_loss: float = 0.25
    dice: float = 0.125


class Report(NamedTuple):
    phase: str = "training"
    iteration: int = 3
    metrics: Metrics = Metrics()
    seconds: float = 0.5


@pytest.mark.parametrize(
    ("variant", "shown"),
    [
        ("online", "loss=0.5, modality_loss=0.25, dice=0.125"),
        ("soft", "loss=0.5, modality_loss=0.25, dice=0.125"),
        ("hemis", "loss=0.5, dice=0.125"),
        ("classifier", "modality_loss=0.25"),
    ],
)
def test_a_line_has_the_figures_that_the_network_has(capsys, variant, shown):
    with lines.progress(10, lines.figures_of(variant)) as report:
        report(Report())
    assert capsys.readouterr().out == f"training iter 3, total_loss=0.75, {shown} (0.500000s)\n"


def test_a_cohort_has_a_line_for_each_patient_and_the_time_left(capsys):
    with lines.progress_of_patients(3) as report:
        report(1, 3, "anna: 1.00 ml in 2 lesions", 240.0)
        report(2, 3, "bert: done before", 40.0)
    expected = "1 of 3, 4 min left: anna: 1.00 ml in 2 lesions\n2 of 3: bert: done before\n"
    assert capsys.readouterr().out == expected


def test_on_a_terminal_a_cohort_has_a_bar_and_the_time_left(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    terminal = Terminal()
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setattr("sys.stdout", terminal)
    monkeypatch.setattr(logging.getLogger(), "handlers", [])  # those of pytest are to go on writing elsewhere
    with lines.progress_of_patients(3) as report:
        report(1, 3, "anna: done before", math.nan)
        report(2, 3, "bert: 1.00 ml in 2 lesions", 100.0)
    shown = terminal.getvalue()
    assert "anna: done before" in shown
    assert "2/3" in shown
    assert "about 2 min left" in shown
    assert "nan" not in shown
