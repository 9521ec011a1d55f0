"""The comparison's pictures: boxes of Dice for every row of the table, and contours on simulated subjects."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from pimms_tf.comparison.scales import MODALITIES
from pimms_tf.data import read_image
from pimms_tf.evaluation import SubjectResult, Table
from pimms_tf.files import replacing

_COLOURS = ("#4477aa", "#66ccee", "#228833", "#ccbb44", "#aa3377")  # told apart with every kind of colour vision
_PERCENTILES = (95, 50, 20)  # of Dice; the paper's picture shows these
TRUE, PREDICTED = "#00c8ff", "#ff8c00"  # told apart with every kind of colour vision, too


def write_boxes(
    tables: Mapping[str, Table], results: Mapping[str, Mapping[str, Sequence[SubjectResult]]], path: Path
) -> None:
    """Writes a PNG: a panel per holdout, a group of boxes per subset, a box of Dice over subjects per network.

    Boxes span the quartiles, whiskers all subjects.
    """
    figure = Figure(figsize=(11, 3.2 * len(tables)), layout="constrained")
    axes = figure.subplots(len(tables), 1, squeeze=False)[:, 0]
    for panel, (holdout, table) in zip(axes, tables.items(), strict=True):
        subsets = list(dict.fromkeys(cell.subset for cell in table.cells))
        networks = list(dict.fromkeys(cell.variant for cell in table.cells))
        width = 0.8 / len(networks)
        for place, network in enumerate(networks):
            values = [[r.scores.dice for r in results[holdout][network] if r.subset == subset] for subset in subsets]
            at = np.arange(len(subsets)) + (place - (len(networks) - 1) / 2) * width
            boxes = panel.boxplot(values, positions=at, widths=0.9 * width, whis=(0, 100), patch_artist=True)
            for box in boxes["boxes"]:
                box.set_facecolor(_COLOURS[place])
            for line in boxes["medians"]:
                line.set_color("black")
            panel.plot([], [], "s", color=_COLOURS[place], label=network)
        panel.set_xticks(range(len(subsets)), ["+".join(subset) for subset in subsets])
        panel.set(ylim=(0, 1), ylabel="Dice", title=holdout)
        panel.legend(ncols=len(networks), fontsize="small")
    _save(figure, path)


def write_contours(folder: Path, results: Sequence[SubjectResult], path: Path) -> None:
    """Writes a PNG: the mixed holdout's subjects at three percentiles of Online's Dice, all scans given.

    True outlines are blue, predicted ones orange; shown is the slice with most lesion.
    """
    whole = sorted((r for r in results if r.subset == MODALITIES), key=lambda result: result.scores.dice)
    if not whole:
        return
    figure = Figure(figsize=(9, 3.1 * len(_PERCENTILES)), layout="constrained")
    axes = figure.subplots(len(_PERCENTILES), len(MODALITIES), squeeze=False)
    for row, percentile in zip(axes, _PERCENTILES, strict=True):
        result = whole[round(percentile / 100 * (len(whole) - 1))]
        scans = Path(folder) / "mixed" / "data"
        true = read_image(scans / f"{result.subject_id}_lesion.nii.gz").data[..., 0] > 0.5
        inferred = sorted((Path(folder) / "results/mixed/online").glob(f"subset_*/{result.subject_id}_*.nii.gz"))
        inferred = [file for file in inferred if file.parent.name == f"subset_{'_'.join(MODALITIES)}"]
        found = read_image(inferred[0]).data[..., 0] > 0.5
        z = int(np.argmax(true.sum(axis=(0, 1))))
        for panel, name in zip(row, MODALITIES, strict=True):
            scan = read_image(scans / f"{result.subject_id}_{name}.nii.gz").data[..., 0]
            panel.imshow(scan[:, :, z].T, cmap="gray", origin="lower")
            draw_outlines(panel, true[..., z], found[..., z], 0.8)
            panel.set_axis_off()
        row[0].set_title(f"{percentile}th percentile, Dice {result.scores.dice:.2f}", fontsize="medium", loc="left")
    _save(figure, path)


def draw_outlines(axes: Axes, true: np.ndarray, predicted: np.ndarray, width: float) -> None:
    """Draws the outlines of two masks (x, y) on a slice, with x to the right."""
    for mask, colour in ((true, TRUE), (predicted, PREDICTED)):
        if mask.any():
            axes.contour(mask.T.astype(float), [0.5], colors=colour, linewidths=width)


def _save(figure: Figure, path: Path) -> None:
    FigureCanvasAgg(figure)
    with replacing(Path(path)) as temporary, temporary.open("wb") as file:
        figure.savefig(file, format="png", dpi=110)
