"""The lines of a run while it trains."""

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
