"""write_report: one page on a patient that needs no network: the answer, what to doubt about it, and how it was made.

`report.html` holds its pictures, styles and script in itself; `mosaic.png` is the same mosaic for other documents. What
the page says and shows is decided here, how it looks in `templates/`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import jinja2
import numpy as np

from pimms_tf.clinic import pictures
from pimms_tf.clinic.lesions import PERIVENTRICULAR_MM, Lesion, lesions_of, number_lesions
from pimms_tf.clinic.patient import POSSIBLE
from pimms_tf.clinic.pictures import Stage
from pimms_tf.clinic.provenance import Provenance, provenance
from pimms_tf.clinic.results import PatientResult, ScanResult
from pimms_tf.files import replacing, write_text

REPORT, MOSAIC = "report.html", "mosaic.png"

_MOST_VIEWED = 4  # scans that the slider shows
_MOST_SHOWN = 16  # scans in mosaics and checkerboards
_MOSAIC_SLICES = 6
_BOARD_PIXELS = 220
_MOST_LESIONS = 50  # in the table
# Rounds of a quality and a number of slices, until the pictures take less than so many characters.
_QUALITIES = ((82, 64), (70, 64), (55, 48), (40, 32), (30, 16))
_MOST_CHARACTERS = 4_200_000
_OUTLINE = (255, 212, 0)


@dataclass(frozen=True)
class Viewer:
    """What the slider shows. `frames` are pictures by scan and slice; paths and words go with the slices."""

    plane: str
    sides: tuple[str, str]
    names: tuple[str, ...]
    width: int
    height: int
    width_mm: float
    height_mm: float
    frames: tuple[tuple[str, ...], ...]
    marked: tuple[str, ...]
    possible: tuple[str, ...]
    words: tuple[str, ...]
    first: int
    note: str

    @property
    def data(self) -> dict[str, Sequence]:
        """What the script of the page reads."""
        return {"frames": self.frames, "marked": self.marked, "possible": self.possible, "words": self.words}


@dataclass(frozen=True)
class Figure:
    """One picture of the page and what stands below it."""

    name: str
    uri: str
    width: int
    height: int
    caption: str


@dataclass(frozen=True)
class Page:
    """All that the template prints besides the result itself."""

    title: str
    doubts: tuple[str, ...]
    lesions: tuple[Lesion, ...]
    shown_lesions: tuple[Lesion, ...]
    lesion_places: tuple[int, ...]  # of the slider, for each lesion that is shown
    sites: tuple[int, int] | None  # periventricular and deep
    remarks: tuple[tuple[str, ...], ...]  # for each scan
    viewer: Viewer
    mosaics: tuple[Figure, ...]
    mosaic_places: tuple[int, ...]
    mosaic_outlines: tuple[str, ...]
    mosaic_lefts: tuple[int, ...]
    mosaic_width: int
    left_out: int
    checks: tuple[Figure, ...]
    made: tuple[tuple[str, str], ...]
    view_lines: tuple[str, ...]
    possible: float = POSSIBLE
    periventricular_mm: float = PERIVENTRICULAR_MM


def write_report(
    result: PatientResult,
    folder: Path,
    made: Provenance | None = None,
    lesions: Sequence[Lesion] | None = None,
    view_lines: Sequence[str] = (),
) -> Path:
    """Returns the path of `report.html` in a folder, after it and `mosaic.png` were written there.

    The page stays below 5 MB: pictures are coarser and slices fewer where scans are many or large.

    Args:
        made: how the result came about; by default what this process can tell, which is not the weights.
        lesions: those of the mask, if they were measured before.
        view_lines: command lines that open the files in viewers.

    Raises:
        OSError: the folder cannot be written.
    """
    lesions = tuple(lesions_of(result) if lesions is None else lesions)
    show = Show(result)
    for quality, most_slices in _QUALITIES:
        page = _page(result, show, lesions, made or provenance(), tuple(view_lines), quality, most_slices)
        text = templates().get_template("report.html").render(page=page, result=result)
        if len(text) <= _MOST_CHARACTERS:
            break
    with replacing(Path(folder) / MOSAIC) as temporary:
        temporary.write_bytes(pictures.png(show.mosaic()))
    return write_text(Path(folder) / REPORT, text)


class Show:
    """The volumes of a result, turned and cut to what is shown."""

    def __init__(self, result: PatientResult) -> None:
        affine = result.mask.affine
        mask = result.mask.data[..., 0] > 0
        self.stage: Stage = pictures.stage_for(result.brain if result.brain.any() else mask, affine)

        def staged(volume: np.ndarray) -> np.ndarray:
            return pictures.staged(volume, affine, self.stage)

        used = [scan for scan in result.used if scan.image is not None]
        used.sort(key=lambda scan: not scan.is_reference)
        self.left_out = max(0, len(used) - _MOST_SHOWN)
        self.scans: list[ScanResult] = used[:_MOST_SHOWN]
        self.volumes = [staged(pictures.brightness(scan.image.data[..., 0], result.brain)) for scan in self.scans]
        self.mask = staged(mask)
        self.possible = staged(mask | (result.probability.data[..., 0] >= POSSIBLE))
        self.numbers = staged(number_lesions(mask, affine))
        self.places = pictures.telling_slices(self.mask, self.stage, _MOSAIC_SLICES)
        self.size_mm = self.stage.size_mm()

    def viewed(self) -> list[int]:
        """Which scans the slider shows: the reference, then the first of each modality, then others."""
        firsts: dict[str, int] = {}
        for number, scan in enumerate(self.scans):
            firsts.setdefault(scan.taken_for, number)
        order = list(dict.fromkeys([0, *firsts.values(), *range(len(self.scans))]))
        return order[:_MOST_VIEWED]

    def picture(self, scan: int, place: int) -> np.ndarray:
        return pictures.scaled(pictures.cut(self.volumes[scan], self.stage, place), self.size_mm)

    def outlines(self, volume: np.ndarray, place: int) -> list[np.ndarray]:
        return pictures.outlines(pictures.cut(volume, self.stage, place), self.size_mm)

    def row(self, scan: int) -> np.ndarray:
        return pictures.side_by_side([self.picture(scan, place) for place in self.places])

    def mosaic(self) -> np.ndarray:
        """A row of slices for each scan, with the outlines drawn, (row, column, 3)."""
        rows = []
        for scan in range(len(self.scans)):
            drawn = (
                pictures.with_outlines(
                    self.picture(scan, place), self.outlines(self.mask, place), self.size_mm, _OUTLINE
                )
                for place in self.places
            )
            rows.append(pictures.side_by_side(list(drawn)))
        return np.concatenate(rows)

    def boards(self, number: int) -> np.ndarray:
        """Checkerboards of the reference and another scan, in three planes through the middle of what is shown."""
        boards = []
        for plane in ("axial", "coronal", "sagittal"):
            place = self.volumes[0].shape[pictures.PLANES.index(plane)] // 2
            size_mm = self.stage.size_mm(plane)
            one, other = (
                pictures.scaled(pictures.cut(self.volumes[each], self.stage, place, plane), size_mm, _BOARD_PIXELS)
                for each in (0, number)
            )
            boards.append(pictures.checkerboard(one, other, size_mm))
        return pictures.side_by_side(pictures.of_one_height(boards))


def _page(
    result: PatientResult,
    show: Show,
    lesions: tuple[Lesion, ...],
    made: Provenance,
    view_lines: tuple[str, ...],
    quality: int,
    most_slices: int,
) -> Page:
    shown = pictures.evenly(show.stage.num_slices, most_slices)
    viewer = _viewer(show, shown, quality)
    largest = lesions[:_MOST_LESIONS]
    sites = [lesion.site for lesion in lesions]
    return Page(
        title=f"Patient {result.patient}" if result.patient else "Report",
        doubts=doubts_of(result),
        lesions=lesions,
        shown_lesions=largest,
        lesion_places=tuple(_nearest(shown, _middle(show, lesion.number)) for lesion in largest),
        sites=(sites.count("periventricular"), sites.count("deep")) if sites and None not in sites else None,
        remarks=tuple(_remarks(scan) for scan in result.scans),
        viewer=viewer,
        mosaics=tuple(
            _figure(scan, show.row(number), quality, f"taken for {scan.taken_for}")
            for number, scan in enumerate(show.scans)
        ),
        mosaic_places=tuple(show.stage.box[show.stage.axis].start + place + 1 for place in show.places),
        mosaic_outlines=tuple(pictures.svg_path(show.outlines(show.mask, place)) for place in show.places),
        mosaic_lefts=tuple(number * (viewer.width + pictures.GAP) for number in range(len(show.places))),
        mosaic_width=len(show.places) * (viewer.width + pictures.GAP) - pictures.GAP,
        left_out=show.left_out,
        checks=tuple(_checks(show, quality)),
        made=_made(result, made),
        view_lines=view_lines,
    )


def doubts_of(result: PatientResult) -> tuple[str, ...]:
    """Returns what a reader should look at first, in sentences: what the result flags, and each scan's warnings."""
    said = list(result.flags)
    said += [f"{scan.name}: {warning}" for scan in result.scans for warning in scan.warnings]
    said += [f"{scan.name} was set aside: it {scan.reason}" for scan in result.scans if not scan.used]
    if not result.brain.any():
        said.append("No brain was found in the scans.")
    return tuple(dict.fromkeys(said))


def _viewer(show: Show, shown: Sequence[int], quality: int) -> Viewer:
    stage, viewed = show.stage, show.viewed()
    frames = tuple(tuple(pictures.jpeg_uri(show.picture(scan, place), quality) for place in shown) for scan in viewed)
    height, width = show.picture(0, shown[0]).shape
    amounts = [int(np.count_nonzero(pictures.cut(show.mask, stage, place))) for place in shown]
    start = stage.box[stage.axis].start
    step = f"every {stage.num_slices / len(shown):.2g}th slice" if len(shown) < stage.num_slices else "all slices"
    return Viewer(
        plane=stage.plane,
        sides=("R", "L") if stage.plane != "sagittal" else ("A", "P"),
        names=tuple(_title(show.scans[scan]) for scan in viewed),
        width=width,
        height=height,
        width_mm=round(show.size_mm[0], 1),
        height_mm=round(show.size_mm[1], 1),
        frames=frames,
        marked=tuple(pictures.svg_path(show.outlines(show.mask, place)) for place in shown),
        possible=tuple(pictures.svg_path(show.outlines(show.possible, place)) for place in shown),
        words=tuple(
            f"{stage.plane} slice {start + place + 1}, {amount} voxels marked"
            for place, amount in zip(shown, amounts, strict=True)
        ),
        first=int(np.argmax(amounts)) if any(amounts) else len(shown) // 2,
        note=f"{step.capitalize()} of the brain; the arrow keys and the wheel move through them.",
    )


def _checks(show: Show, quality: int) -> list[Figure]:
    return [
        _figure(scan, show.boards(number), quality, f"taken for {scan.taken_for}; {_registered(scan)}")
        for number, scan in enumerate(show.scans[1:], start=1)
    ]


def _registered(scan: ScanResult) -> str:
    found = scan.registration
    if found is None:
        return "not registered: placed by its header"
    if not found.kept:
        return "placed by its header, which no registration improved"
    return f"moved by {found.shift_mm:.1f} mm on average; mutual information {found.before:.3f} → {found.after:.3f}"


def _remarks(scan: ScanResult) -> tuple[str, ...]:
    said = ["its grid is that of the mask"] if scan.is_reference else []
    return (*said, *([scan.reason] if scan.reason else []), *scan.warnings, *scan.notes)


def _made(result: PatientResult, made: Provenance) -> tuple[tuple[str, str], ...]:
    weights = f"{made.weights}, SHA-256 {made.weights_sha256}" if made.weights_sha256 else made.weights
    rows = (
        ("Command", made.command),
        ("Weights", weights or "not recorded"),
        ("Versions", ", ".join(f"{name} {version}" for name, version in made.versions)),
        ("Time", f"{result.seconds:.1f} seconds, at {made.when}"),
        ("Memory", "" if made.peak_memory_mb is None else f"{made.peak_memory_mb:,.0f} MB at most"),
        ("Bias fields", "estimated by N4 within the brain and divided out" if result.bias_correction else ""),
        ("Grid of the mask", f"{result.reference}, since {result.reference_reason}; {counted_voxels(result)}"),
    )
    return tuple((name, text) for name, text in rows if text)


def counted_voxels(result: PatientResult) -> str:
    """Returns the grid of the mask in words: "181 × 217 × 181 voxels of 1 × 1 × 1 mm"."""
    spacing = " × ".join(f"{step:.3g}" for step in result.grid.spacing_mm)
    return f"{' × '.join(map(str, result.grid.shape))} voxels of {spacing} mm"


def _figure(scan: ScanResult, picture: np.ndarray, quality: int, caption: str) -> Figure:
    height, width = picture.shape[:2]
    return Figure(scan.name, pictures.jpeg_uri(picture, quality), width, height, caption)


def _title(scan: ScanResult) -> str:
    return f"{scan.taken_for}: {scan.name}" if scan.taken_for else scan.name


def _middle(show: Show, number: int) -> int:
    """The slice with most of a lesion."""
    other_axes = tuple(axis for axis in range(3) if axis != show.stage.axis)
    return int(np.argmax(np.count_nonzero(show.numbers == number, axis=other_axes)))


def _nearest(shown: Sequence[int], place: int) -> int:
    return int(np.argmin(np.abs(np.array(shown) - place)))


@cache
def templates() -> jinja2.Environment:
    """Returns the templates of this package; what they print is escaped, and what they miss is an error."""
    return jinja2.Environment(
        loader=jinja2.PackageLoader("pimms_tf.clinic", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
