"""write_index: a page and a table on the patients of a cohort, those first that need a look first."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from pimms_tf.clinic.lesions import Lesion
from pimms_tf.clinic.report import REPORT, doubts_of, templates
from pimms_tf.clinic.results import PatientResult
from pimms_tf.files import tsv_text, write_text

INDEX, TABLE = "index.html", "patients.tsv"
COLUMNS = (
    "patient",
    "doubt",
    "volume_ml",
    "volume_low_ml",
    "volume_high_ml",
    "lesions",
    "periventricular",
    "deep",
    "scans_used",
    "scans_found",
    "seconds",
    "remarks",
    "error",
)
_LEAST_ML = 1.0  # below, a small range is not a small doubt for being wide beside the volume


@dataclass(frozen=True)
class PatientRow:
    """One patient of a cohort. Numbers are NaN and counts None where nothing was segmented, which `error` explains.

    `folder` is where the patient's files lie, relative to the page.
    """

    patient: str
    folder: str
    volume_ml: float = math.nan
    volume_range_ml: tuple[float, float] = (math.nan, math.nan)
    lesions: int | None = None
    periventricular: int | None = None
    deep: int | None = None
    scans_used: int | None = None
    scans_found: int | None = None
    seconds: float = math.nan
    remarks: tuple[str, ...] = ()
    error: str = ""

    @property
    def doubt(self) -> float:
        """How much there is to doubt: one for each remark, and the width of the volume's range in volumes.

        A volume below 1 ml counts as 1 ml. Infinite for a patient who could not be segmented.
        """
        if self.error:
            return math.inf
        low, high = self.volume_range_ml
        return len(self.remarks) + (high - low) / max(self.volume_ml, _LEAST_ML)


def patient_row(result: PatientResult, lesions: Sequence[Lesion], folder: str) -> PatientRow:
    """Returns the row of a patient whose files lie in a folder beside the page."""
    sites = [lesion.site for lesion in lesions]
    known = None not in sites
    return PatientRow(
        patient=result.patient or folder,
        folder=folder,
        volume_ml=result.volume_ml,
        volume_range_ml=result.volume_range_ml,
        lesions=len(sites),
        periventricular=sites.count("periventricular") if known else None,
        deep=sites.count("deep") if known else None,
        scans_used=len(result.used),
        scans_found=len(result.scans) + len(result.set_aside),
        seconds=result.seconds,
        remarks=doubts_of(result),
    )


def by_doubt(rows: Iterable[PatientRow]) -> list[PatientRow]:
    """Returns rows from the most to the least doubtful patient; equals by name."""
    return sorted(rows, key=lambda row: (-row.doubt, row.patient))


def write_index(rows: Iterable[PatientRow], folder: Path) -> Path:
    """Returns the path of `index.html` in a folder, after it and `patients.tsv` were written there.

    Raises:
        OSError: the folder cannot be written.
    """
    ordered = by_doubt(rows)
    write_text(Path(folder) / TABLE, tsv_text([COLUMNS, *map(_cells, ordered)]))
    links = [f"{quote(row.folder)}/{REPORT}" for row in ordered]
    done = [row for row in ordered if not row.error]
    text = templates().get_template("index.html").render(rows=ordered, links=links, done=done, table=TABLE)
    return write_text(Path(folder) / INDEX, text)


def _cells(row: PatientRow) -> tuple[str, ...]:
    def number(value: float | int | None, digits: int = 3) -> str:
        if value is None or not math.isfinite(value):
            return "n/a"
        return str(value) if isinstance(value, int) else f"{value:.{digits}f}"

    return (
        row.patient,
        "inf" if row.error else number(row.doubt, 2),
        *(number(value) for value in (row.volume_ml, *row.volume_range_ml)),
        *(number(count) for count in (row.lesions, row.periventricular, row.deep, row.scans_used, row.scans_found)),
        number(row.seconds, 1),
        "; ".join(row.remarks) or "n/a",
        row.error or "n/a",
    )
