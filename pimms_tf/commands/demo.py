"""The demonstration: simulated scans and a configuration in a folder, what to type there, a picture of the result."""

import csv
import logging
import shutil
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from pimms_tf.comparison.figures import PREDICTED, TRUE, draw_outlines
from pimms_tf.data import read_image
from pimms_tf.errors import InputError
from pimms_tf.evaluation import dice
from pimms_tf.files import replacing
from pimms_tf.simulation.cohort import subject_ids
from pimms_tf.simulation.phantom import draw_phantom, write_phantom

if TYPE_CHECKING:  # elsewhere in Python 3.10
    from importlib.resources.abc import Traversable

log = logging.getLogger(__name__)

CONFIG = "demo.ini"
NUM_SUBJECTS = 12
# Voxels of a usual clinical protocol, and the slab in which most lesions lie: small enough for minutes on two cores.
SPACING_MM = (1.5, 1.5, 3.0)
Z_RANGE_MM = (-14.0, 58.0)
MODALITIES = ("T1", "T2", "FLAIR")


def shipped_configs() -> tuple[str, ...]:
    """Names of the configurations that come with the package, sorted: `demo.ini` and one per published experiment."""
    return tuple(sorted(file.name for file in _config_folder().iterdir() if file.name.endswith(".ini")))


def shipped_config(name: str) -> str:
    """Text of a shipped configuration such as `pimms_online.ini`; the ending may be left out.

    Raises:
        InputError: there is none of that name.
    """
    wanted = name if name.endswith(".ini") else f"{name}.ini"
    if wanted not in shipped_configs():
        raise InputError(f"there is no shipped configuration {name}; choose one of {', '.join(shipped_configs())}")
    return _config_folder().joinpath(wanted).read_text(encoding="utf-8")


def _config_folder() -> "Traversable":
    beside = Path(__file__).parents[2] / "configs"  # a checkout, where the folder has not moved into the package
    try:
        return resources.files("pimms_tf.configs")
    except ModuleNotFoundError:
        return beside


def _write_cohort(
    folder: Path,
    num_subjects: int,
    spacing_mm: tuple[float, float, float],
    z_range_mm: tuple[float, float] | None,
    seed: int,
) -> None:
    for number, subject_id in enumerate(subject_ids(num_subjects), start=1):
        subject = draw_phantom(np.random.default_rng((seed, number)), spacing_mm, z_range_mm)
        write_phantom(folder, subject_id, subject)
        load_ml = subject.lesion.sum() * np.prod(spacing_mm) / 1000
        log.info("%d of %d: %s, %.1f ml of lesions", number, num_subjects, subject_id, load_ml)


def write_demo(folder: Path, seed: int = 0) -> None:
    """Writes `demo.ini` and twelve simulated subjects in `scans/` into a folder that is new, empty, or an earlier demo.

    An earlier demo is one whose demo.ini is still as shipped; what it trained and exported is removed, since a training
    from the start would not write over it.

    Raises:
        InputError: the folder holds anything else.
    """
    folder, text = Path(folder), shipped_config(CONFIG)
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file; give the name of a folder for the demonstration")
    if folder.is_dir() and any(folder.iterdir()):
        config = folder / CONFIG
        if not config.is_file() or config.read_text(encoding="utf-8", errors="replace") != text:
            raise InputError(
                f"{folder} is not empty and not an untouched demonstration; give another folder, or remove this one"
            )
        for earlier in ("model", "export"):
            shutil.rmtree(folder / earlier, ignore_errors=True)
    with replacing(folder / CONFIG) as path:
        path.write_text(text, encoding="utf-8")
    _write_cohort(folder / "scans", NUM_SUBJECTS, SPACING_MM, Z_RANGE_MM, seed)


def segment_demo(folder: Path, num_subjects: int = 3, seed: int = 0) -> list[str]:
    """Segments subjects of the demonstration with the bundled weights; a line on each, results in `bundled/SUBJECT/`.

    Scans are handed over in a random order without saying which is which. No training has seen these subjects.
    """
    from pimms_tf.clinic.folder import write_result
    from pimms_tf.clinic.patient import segment_patient
    from pimms_tf.weights import bundled

    folder, rng, segmenter, lines = Path(folder), np.random.default_rng(seed), bundled(), []
    for lesion in sorted((folder / "scans").glob("*_lesion.nii.gz"))[:num_subjects]:
        subject_id = lesion.name.removesuffix("_lesion.nii.gz")
        names = [MODALITIES[place] for place in rng.permutation(len(MODALITIES))]
        scans = [folder / "scans" / f"{subject_id}_{name}.nii.gz" for name in names]
        result = segment_patient(scans, segmenter, patient=subject_id, register=False)
        write_result(result, folder / "bundled" / subject_id)
        taken_for = {scan.files[0]: scan.taken_for for scan in result.scans}
        guessed = ", ".join(taken_for[path] for path in scans)
        found = dice(read_image(lesion).data[..., 0] > 0.5, result.mask.data[..., 0] > 0)
        lines.append(f"{subject_id}: scans in the order {', '.join(names)} were taken for {guessed}; Dice {found:.2f}")
    return lines


def demo_commands() -> list[list[str]]:
    """What a user types in the folder of the demonstration, one list of words per command, in order."""
    return [
        ["pimms-tf", "train", CONFIG],
        ["pimms-tf", "inference", CONFIG],
        ["pimms-tf", "inference", CONFIG, "--subsets"],
        ["pimms-tf", "evaluation", CONFIG, "--subsets"],
        ["pimms-tf", "export", CONFIG, "--output", "export"],
    ]


def demo_picture(folder: Path, path: Path, max_subjects: int = 3) -> None:
    """Writes a PNG: a row per test subject with its three scans, and the true and the predicted outlines of lesions.

    Shown is the slice with most lesion, seen from below: the patient's right is on the left. Dice in the margin is that
    of the whole volume. Test subjects are those listed in `model/output/inferred.csv`.

    Raises:
        InputError: nothing has been inferred in the folder yet.
    """
    inferred = _inferred(Path(folder))[:max_subjects]
    figure = Figure(figsize=(9.6, 1.2 + 3.7 * len(inferred)), facecolor="white", layout="constrained")
    figure.suptitle("White matter lesions in simulated scans that the network has not seen", fontsize=13)
    rows = figure.subplots(len(inferred), len(MODALITIES), squeeze=False)
    for row, (subject_id, predicted_path) in zip(rows, inferred, strict=True):
        _draw_subject(row, Path(folder) / "scans", subject_id, predicted_path)
    for axes, name in zip(rows[0], MODALITIES, strict=True):
        axes.set_title(name, fontsize=12)
    lines = [Line2D([], [], color=colour, linewidth=2) for colour in (TRUE, PREDICTED)]
    figure.legend(lines, ["true", "predicted"], loc="outside lower center", ncols=2, fontsize=11, frameon=False)
    with replacing(Path(path)) as temporary:
        figure.savefig(temporary, dpi=110, format="png")


def _inferred(folder: Path) -> list[tuple[str, Path]]:
    listed = folder / "model" / "output" / "inferred.csv"
    if not listed.is_file():
        raise InputError(f"{listed} is missing; run pimms-tf inference {CONFIG} in {folder} first")
    with listed.open(newline="", encoding="utf-8") as file:
        rows = [[word.strip() for word in row] for row in csv.reader(file) if row]
    if not rows:
        raise InputError(f"{listed} is empty; run pimms-tf inference {CONFIG} in {folder} again")
    return [(subject_id, Path(path)) for subject_id, path, *_ in rows]


def _draw_subject(row: np.ndarray, scans: Path, subject_id: str, predicted_path: Path) -> None:
    volumes = [read_image(scans / f"{subject_id}_{name}.nii.gz").data[..., 0] for name in MODALITIES]
    true = read_image(scans / f"{subject_id}_lesion.nii.gz").data[..., 0] > 0.5
    predicted = read_image(predicted_path).data[..., 0] > 0.5
    level = int(np.argmax(np.einsum("xyz->z", true.astype(int))))
    shown = np.nonzero(volumes[0][..., level] > 0)
    box = tuple(slice(max(0, side.min() - 3), side.max() + 4) for side in shown)
    row[0].set_ylabel(f"{subject_id}\nDice {dice(true, predicted):.2f}", fontsize=11)
    for axes, volume in zip(row, volumes, strict=True):
        _draw_slice(axes, volume[..., level][box], true[..., level][box], predicted[..., level][box])


def _draw_slice(axes: Axes, scan: np.ndarray, true: np.ndarray, predicted: np.ndarray) -> None:
    # Files are RAS: columns run to the patient's right, rows to the front.
    axes.imshow(scan.T, cmap="gray", origin="lower", vmin=0, vmax=np.percentile(scan[scan > 0], 99.7))
    draw_outlines(axes, true, predicted, 1.1)
    axes.invert_xaxis()
    axes.set_xticks([])
    axes.set_yticks([])
