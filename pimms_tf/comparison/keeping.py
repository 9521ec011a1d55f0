"""What is kept of a comparison: all that its report is made of and its pictures, without scans and without weights."""

import shutil
from pathlib import Path

from pimms_tf.comparison.scales import HOLDOUTS
from pimms_tf.comparison.stages import PLAN_FILE, read_record
from pimms_tf.errors import InputError
from pimms_tf.files import replacing

# Lists of files are left out, since they say where patients lie.
_KEPT = (
    PLAN_FILE,
    "*.ini",
    *(f"splits/{holdout}*.csv" for holdout in HOLDOUTS),
    "models/dataset_split.csv",
    "*/data/subjects.csv",
    "*/data/hospitals.json",
    "done/*.json",
    "results/*/*/evaluation.csv",
    "report.md",
    "*.csv",
    "boxes.png",
    "contours.png",
)


def keep(folder: Path, kept: Path) -> list[Path]:
    """Copies what `report` needs of a comparison, and what it wrote, to another folder; returns the files there.

    Of the scores of modalities only those of the largest subset are kept. A file that is there already is written over.

    Raises:
        InputError: `folder` holds no comparison, or `kept` is the same folder.
    """
    folder, kept = Path(folder), Path(kept)
    read_record(folder)
    if kept.exists() and kept.samefile(folder):
        raise InputError(f"--keep {kept} is the folder of the comparison itself; give another one")
    found = [path for pattern in _KEPT for path in sorted(folder.glob(pattern))]
    for place in sorted(folder.glob("results/*/*")):
        tables = sorted(place.glob("subset_*/modality_scores.csv"), key=lambda table: table.parent.name.count("_"))
        found += tables[-1:]
    copies = []
    for path in found:
        copy = kept / path.relative_to(folder)
        copy.parent.mkdir(parents=True, exist_ok=True)
        with replacing(copy) as temporary:
            shutil.copyfile(path, temporary)
        copies.append(copy)
    return copies
