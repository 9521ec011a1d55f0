"""What a run of inference leaves beside its images: the file of each subject, and what each scan was taken for."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from pimms_tf.files import csv_text, write_text
from pimms_tf.inference.records import Record


@dataclass
class ResultFolder:
    """A folder of segmentations with its two tables.

    `inferred.csv` has lines `subject,absolute path` without a header, which NiftyNet writes, and reads as a `csv_file`.
    `modality_scores.csv` has a line per scan: subject, file, the score of each modality, and the best one. `part` is
    put before the `.csv` of both, for tables of a part of the subjects.
    """

    folder: Path
    modalities: tuple[str, ...]
    part: str = ""
    _taken: list[Record] = field(default_factory=list)

    @property
    def num_scans(self) -> int:
        """How many scans have been noted."""
        return sum(len(record.scores) for record in self._taken)

    def rows(
        self, subject_id: str, scan_names: Sequence[str], scores: np.ndarray, valid: np.ndarray
    ) -> tuple[tuple[str, ...], ...]:
        """Returns the lines of `modality_scores.csv` of one subject.

        Args:
            scan_names: the file name of each scan.
            scores: (scan, modality); rows of absent scans are passed over by `valid` (scan,).
        """
        scans = zip(scan_names, scores, valid, strict=True)
        return tuple(
            (subject_id, name, *(f"{score:.6f}" for score in row), self.modalities[int(np.argmax(row))])
            for name, row, present in scans
            if present
        )

    def take(self, record: Record) -> None:
        """Notes one subject, to be listed after those before it."""
        self._taken.append(record)

    def write(self) -> None:
        """Writes the tables of all subjects noted so far; no table without lines."""
        results = [(each.subject_id, str((self.folder / each.result).resolve())) for each in self._taken if each.result]
        if results:
            _write_rows(self.folder / f"inferred{self.part}.csv", results)
        header = ("subject_id", "scan", *self.modalities, "best")
        rows = [row for record in self._taken for row in record.scores]
        if rows:
            _write_rows(self.folder / f"modality_scores{self.part}.csv", [header, *rows])


def image_name(subject_id: str, postfix: str, form: str = "niftynet05") -> str:
    """Returns the name of a segmentation: `<id><postfix>.nii.gz`, or of niftynet06 `window_seg_<id>_<postfix>.nii.gz`.

    Source: `niftynet/engine/windows_aggregator_grid.py` of the releases 0.5 and 0.6.
    """
    return f"window_seg_{subject_id}_{postfix}.nii.gz" if form == "niftynet06" else f"{subject_id}{postfix}.nii.gz"


def class_table_name(subject_id: str, postfix: str) -> str:
    """Returns the name of NiftyNet 0.6's table of a classification."""
    return f"csv_{subject_id}_{postfix}.csv"


def write_class_table(
    folder: Path, subject_id: str, postfix: str, scores: np.ndarray, valid: np.ndarray, probabilities: bool
) -> Path:
    """Returns `folder/csv_<id>_<postfix>.csv`, NiftyNet 0.6's result of a classification, after writing it.

    A first column without name counts the rows from 0; NiftyNet has one row, here there is one per scan that is
    present. `csv` is the best class, or with `probabilities` `csv_0`, `csv_1`, … are those of all classes.

    Args:
        scores: (scan, class); rows of absent scans are passed over by `valid` (scan,).

    Source: `niftynet/engine/windows_aggregator_classifier.py`, `windows_aggregator_resize.py`.
    """
    path = Path(folder) / class_table_name(subject_id, postfix)
    present = np.asarray(scores)[np.asarray(valid, bool)]
    if probabilities:
        header = [f"csv_{number}" for number in range(present.shape[1])]
        values = [[f"{score:.6f}" for score in row] for row in present]
    else:
        header, values = ["csv"], [[str(int(np.argmax(row)))] for row in present]
    _write_rows(path, [("", *header), *((str(number), *row) for number, row in enumerate(values))])
    return path


def _write_rows(path: Path, rows: list[tuple[str, ...]]) -> None:
    write_text(path, csv_text(rows))


def orthogonal_slices(scan: np.ndarray, reference: np.ndarray | None, inferred: np.ndarray) -> np.ndarray:
    """Returns an RGB picture (height, width, 3) in [0, 1] of three planes through the lesions, side by side.

    Args:
        scan: (x, y, z), shown in grey from its 1st to its 99th percentile.
        reference, inferred: (x, y, z) label maps, tinted green and red, yellow where they agree. The planes cross in
            the middle of the reference's foreground, else of the inferred one, else of the volume.
    """
    low, high = np.percentile(scan, (1, 99))
    grey = np.clip((scan - low) / max(high - low, 1e-6), 0, 1)
    picture = np.stack([grey] * 3, axis=-1)
    for mask, channel in ((inferred, 0), (reference, 1)):
        if mask is not None:
            picture[mask > 0, channel] = 1.0
    marked = next((mask for mask in (reference, inferred) if mask is not None and np.any(mask > 0)), None)
    centre = np.array(scan.shape) // 2 if marked is None else np.median(np.argwhere(marked > 0), axis=0).astype(int)
    planes = [np.take(picture, centre[axis], axis=axis) for axis in (2, 1, 0)]
    height = max(plane.shape[1] for plane in planes)
    # The second axis of each plane points up in the picture.
    turned = [np.flip(np.swapaxes(plane, 0, 1), axis=0) for plane in planes]
    padded = [np.pad(plane, ((0, height - len(plane)), (0, 0), (0, 0))) for plane in turned]
    return np.concatenate(padded, axis=1).astype(np.float32)


def subset_folder(folder: Path, subset: tuple[str, ...]) -> Path:
    """The folder of the results from a subset of the modalities; the folder itself for no subset."""
    return folder / ("subset_" + "_".join(subset)) if subset else folder
