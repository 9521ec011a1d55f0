"""Every file that an action would read: its header, and its voxels, read by threads."""

from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import nibabel as nib
import numpy as np

from pimms_tf.check.report import FILES, Report
from pimms_tf.data.formats import NIBABEL_SUFFIXES, PICTURE_SUFFIXES
from pimms_tf.data.grids import Grid
from pimms_tf.data.images import read_image, read_image_header
from pimms_tf.data.intensity import is_centred
from pimms_tf.errors import InputError, Mistake
from pimms_tf.study.cohort import grouped
from pimms_tf.wording import counted, some_of

Progress = Callable[[int, int], None]  # files read, files in all

MOST_NAMED = 10  # mistakes of one kind that are written out
_MOST_VALUES = 100  # a map with more different values is no label map


class Wanted(NamedTuple):
    """A file to look at; of labels the values are counted."""

    subject_id: str
    section: str
    path: Path
    loader: str | None = None
    counts_values: bool = False

    @property
    def name(self) -> str:
        return f"subject {self.subject_id}, section [{self.section}]"


@dataclass(frozen=True)
class FileFacts:
    """What is known of a file; `error` is empty if it can be used, range and values are None unless it was read."""

    wanted: Wanted
    error: str = ""
    grid: Grid | None = None
    num_channels: int = 1
    stored_type: str = ""
    reader: str = ""
    range: tuple[float, float] | None = None
    values: dict[float, int] | None = None  # voxels of each value
    is_centred: bool = False  # a scan that was standardised before; see `intensity.is_centred`

    @property
    def is_blank(self) -> bool:
        return self.range == (0.0, 0.0)

    @property
    def is_constant(self) -> bool:
        return self.range is not None and self.range[0] == self.range[1] != 0.0

    @property
    def has_too_many_values(self) -> bool:
        return self.values is not None and len(self.values) > _MOST_VALUES


def examine(files: Sequence[Wanted], fast: bool, num_threads: int, progress: Progress) -> list[FileFacts]:
    """The facts of all files in their order; `fast` looks at headers alone, where the format has one."""
    found = []
    progress(0, len(files))
    with ThreadPoolExecutor(max(num_threads, 1)) as threads:
        for facts in threads.map(lambda wanted: examine_file(wanted, fast), files):
            found.append(facts)
            progress(len(found), len(files))
    return found


def examine_file(wanted: Wanted, fast: bool) -> FileFacts:
    """The facts of one file. Nothing is raised for a file that cannot be used."""
    try:
        reader = _reader_of(wanted)
        image = (read_image_header if fast else read_image)(wanted.path, wanted.loader)
        stored = _stored_type(wanted)
    except InputError as error:
        return FileFacts(wanted, str(error.within(*wanted[:3])))
    except OSError as error:
        return FileFacts(wanted, str(Mistake(error.strerror or str(error)).within(*wanted[:3])))
    facts = FileFacts(wanted, "", image.original, image.data.shape[3], stored, reader)
    if fast:
        return facts
    values = None
    if wanted.counts_values:
        numbers, counts = np.unique(image.data, return_counts=True)
        values = dict(zip(numbers[: _MOST_VALUES + 1].tolist(), counts.tolist(), strict=False))
    span = (float(image.data.min()), float(image.data.max()))
    centred = not wanted.counts_values and any(is_centred(scan) for scan in np.moveaxis(image.data, -1, 0))
    return replace(facts, range=span, values=values, is_centred=centred)


def grid_rows(facts: Sequence[FileFacts]) -> list[tuple[str, str, str, str, str, str, int, str]]:
    """One row per section and grid: shape, spacing in mm, orientation, stored type, reader, files, one of them."""
    counts: Counter = Counter()
    example: dict[tuple, str] = {}
    for each in facts:
        if each.grid is None:
            continue
        shape = " x ".join(map(str, each.grid.shape)) + (f" x {each.num_channels}" if each.num_channels > 1 else "")
        spacing = " x ".join(f"{step:.3g}" for step in each.grid.spacing_mm)
        key = (each.wanted.section, shape, spacing, "".join(each.grid.axcodes), each.stored_type, each.reader)
        counts[key] += 1
        example.setdefault(key, each.wanted.path.name)
    return [(*key, count, example[key]) for key, count in counts.items()]


def say_files(
    facts: Sequence[FileFacts], report: Report, needs_contrast: bool = False, foreground_is_above_0: bool = False
) -> None:
    """Reports grids, files that cannot be used, and scans that show nothing: a mistake if they are to be whitened.

    Also scans that were standardised before, where the foreground is what lies above 0.
    """
    columns = ("section", "shape", "spacing (mm)", "axes", "stored as", "read by", "files", "such as")
    report.table(FILES, columns, grid_rows(facts))
    broken = [each for each in facts if each.error]
    for each in broken[:MOST_NAMED]:
        report.mistake(FILES, each.error)
    if len(broken) > MOST_NAMED:
        rest = some_of(each.wanted.path.name for each in broken[MOST_NAMED:])
        report.mistake(FILES, f"{counted(len(broken) - MOST_NAMED, 'more file')} cannot be used: {rest}")
    scans = [each for each in facts if not each.wanted.counts_values]
    for section, names in grouped((f.wanted.section, f.wanted.subject_id) for f in scans if f.is_blank).items():
        where = counted(len(names), "subject")
        report.note(FILES, f"[{section}] is 0 everywhere in {where}, and so absent: {some_of(names)}")
    centred = [(f.wanted.section, f.wanted.subject_id) for f in scans if f.is_centred and foreground_is_above_0]
    for section, names in grouped(centred).items():
        report.remark(
            FILES,
            f"[{section}] lies below 0 for a good part in {counted(len(names), 'subject')}, as after a "
            "standardisation, so that the foreground above 0 is a part of the head; zero_background = True in [PIMMS] "
            f"shifts such scans: {some_of(names)}",
        )
    for each in scans:
        if each.is_constant:
            say = report.mistake if needs_contrast else report.remark
            say(FILES, f"{each.wanted.name}: {each.wanted.path} is {each.range[0]:g} in every voxel and shows nothing")


def _reader_of(wanted: Wanted) -> str:
    name = wanted.path.name.lower()
    if wanted.loader is not None:
        return wanted.loader.lower()
    return "nibabel" if name.endswith(NIBABEL_SUFFIXES) else "simpleitk"


def _stored_type(wanted: Wanted) -> str:
    if _reader_of(wanted) == "nibabel":
        return str(nib.load(wanted.path).get_data_dtype())
    if wanted.path.name.lower().endswith(PICTURE_SUFFIXES):
        return "picture"
    import SimpleITK as sitk  # noqa: N813

    reader = sitk.ImageFileReader()
    reader.SetFileName(str(wanted.path))
    reader.ReadImageInformation()
    return sitk.GetPixelIDValueAsString(reader.GetPixelID())
