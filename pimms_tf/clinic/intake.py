"""What a patient's files and folders hold: scans to look at, and everything else with the reason why it is not.

Any mixture goes: image files that nibabel or SimpleITK open, DICOM folders, folders of both. Nothing is decided by
names; a file that cannot be used is said and costs no other.
"""

import hashlib
import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pimms_tf.data.formats import NIBABEL_SUFFIXES, PICTURE_SUFFIXES
from pimms_tf.data.images import Image, read_image
from pimms_tf.errors import InputError

if TYPE_CHECKING:
    from pimms_tf.clinic.dicom import Series

log = logging.getLogger(__name__)

MOST_SCANS = 50
_FEWEST_VOXELS, _SHORTEST_MM, _LONGEST_MM = 5, 40.0, 600.0  # of an axis of a scan of a head
_MOST_LABELS = 20  # different values of an image that is no scan
_VOLUME_SUFFIXES = (*NIBABEL_SUFFIXES, ".nrrd", ".nhdr", ".mha", ".mhd", ".mnc", ".mnc.gz")
_SECOND_FILES = (".img", ".img.gz", ".raw", ".zraw", ".raw.gz")  # voxels beside a header
_BESIDE = (".json", ".txt", ".tsv", ".csv", ".bval", ".bvec", ".html", ".pdf", ".md", ".ini")  # what lies beside scans


@dataclass(frozen=True, eq=False)
class Scan:
    """One volume that may be segmented. `image` has one channel; `files` are where it came from."""

    name: str  # for tables: the file's name, or number and description of the series
    files: tuple[Path, ...]
    image: Image
    series: "Series | None" = None
    notes: tuple[str, ...] = ()  # what was done to read it, in words


@dataclass(frozen=True)
class SetAside:
    """Something that is there and is not segmented."""

    name: str
    reason: str  # continues a sentence that begins with the name: "is a localiser"


@dataclass(frozen=True, eq=False)
class Intake:
    """All that was found for one patient."""

    scans: tuple[Scan, ...]
    set_aside: tuple[SetAside, ...]


def take_in(paths: Sequence[Path]) -> Intake:
    """Returns the scans in files and folders, in the order of their content, whatever their names and order were.

    Folders are searched through, hidden files left out. Copies of one scan are taken once.

    Raises:
        InputError: a path that is not there, no scan at all, or more than 50.
    """
    images, dicoms, set_aside = _sorted_out(paths)
    scans: list[Scan] = []
    for path in images:
        try:
            scans.append(_usable(Scan(path.name, (path,), *_with_one_volume(read_image(path), path))))
        except InputError as error:
            set_aside.append(SetAside(path.name, _without_path(str(error), path)))
    if dicoms:
        found, missed = _read_dicom(dicoms)
        scans += found
        set_aside += missed
    scans, copies = _without_copies(scans)
    set_aside += copies
    if not scans:
        raise InputError(_nothing(paths, set_aside))
    if len(scans) > MOST_SCANS:
        raise InputError(
            f"{len(scans)} scans were found for one patient, and {MOST_SCANS} is the most; give the folder of one "
            "patient, or name fewer scans"
        )
    for one in set_aside:
        log.info("%s %s", one.name, one.reason)
    return Intake(tuple(scans), tuple(set_aside))


def _sorted_out(paths: Iterable[Path]) -> tuple[list[Path], list[Path], list[SetAside]]:
    """Image files, DICOM files, and what is neither."""
    images, dicoms, set_aside = [], [], []
    seen: set[tuple[int, int]] = set()
    for path in _files(paths):
        name = path.name.lower()
        try:
            found = path.stat()
            if not path.is_file():
                set_aside.append(SetAside(path.name, "is no regular file"))
                continue
            if (found.st_dev, found.st_ino) in seen:  # named twice, or a link to another
                continue
            seen.add((found.st_dev, found.st_ino))
            if name.endswith(_BESIDE) or name == "dicomdir":
                continue
            if name.endswith(_SECOND_FILES) and _has_header(path):
                continue
            if name.endswith(_VOLUME_SUFFIXES):
                images.append(path)
            elif name.endswith(PICTURE_SUFFIXES):
                set_aside.append(SetAside(path.name, "is a picture, not a scan"))
            elif _is_dicom(path):
                dicoms.append(path)
            else:
                set_aside.append(SetAside(path.name, "is no image of a kind that is known here"))
        except OSError as error:
            what = "is a link to nothing" if path.is_symlink() else f"cannot be read ({error.strerror})"
            set_aside.append(SetAside(path.name, what))
    return images, dicoms, set_aside


def _files(paths: Iterable[Path]) -> Iterable[Path]:
    for path in map(Path, paths):
        if path.is_dir():
            inside = sorted(item for item in path.rglob("*") if not any(p.startswith(".") for p in _below(item, path)))
            yield from (item for item in inside if not item.is_dir())
        elif path.exists() or path.is_symlink():
            yield path
        else:
            raise InputError(f"{path} is not there; give scans, or a folder with scans")


def _below(item: Path, folder: Path) -> tuple[str, ...]:
    return item.relative_to(folder).parts


def _has_header(path: Path) -> bool:
    stem = path.name[: -len(next(end for end in _SECOND_FILES if path.name.lower().endswith(end)))]
    return any((path.parent / f"{stem}{end}").is_file() for end in (".hdr", ".hdr.gz", ".nhdr", ".mhd", ".HDR"))


def _is_dicom(path: Path) -> bool:
    with open(path, "rb") as stream:
        return stream.read(132)[128:] == b"DICM"


def _with_one_volume(image: Image, path: Path) -> tuple[Image, None, tuple[str, ...]]:
    """The image if it holds one volume; of several the reason why it is no scan."""
    if image.data.shape[3] > 1:
        raise InputError(f"holds {image.data.shape[3]} volumes, a series in time or colours; give one volume a file")
    return image, None, ()


def _usable(scan: Scan) -> Scan:
    """The scan, if it may be one of a head.

    Raises:
        InputError: it is flat, empty, or too small or large for a head.
    """
    image = scan.image
    lengths = np.array(image.shape) * np.array(image.spacing_mm)
    if min(image.shape) < _FEWEST_VOXELS:
        count = min(image.shape)
        raise InputError(f"has {count} slice{'s' * (count != 1)}; at least {_FEWEST_VOXELS} are needed")
    if lengths.min() < _SHORTEST_MM or lengths.max() > _LONGEST_MM:
        size = " x ".join(f"{length:.0f}" for length in lengths)
        raise InputError(f"measures {size} mm, which is no head; check the voxel size in its header")
    values = np.unique(image.data)
    if len(values) == 1:
        raise InputError("has the same value in every voxel")
    if len(values) <= _MOST_LABELS:
        raise InputError(f"has {len(values)} different values, so it is a mask or a map of labels")
    return scan


def _read_dicom(files: Sequence[Path]) -> tuple[list[Scan], list[SetAside]]:
    # highdicom takes a second to import, which those without DICOM need not wait.
    from pimms_tf.clinic import dicom

    series, unusable = dicom.find_series(files)
    scans, set_aside = [], [SetAside(path.name, reason) for path, reason in unusable.items()]
    patients = {str(one.datasets[0].get("PatientID", "")) for one in series}
    if len(patients) > 1:
        raise InputError(
            f"the DICOM files are of {len(patients)} patients; give one patient at a time, or one folder for each with "
            "--patients"
        )
    for one in series:
        reason = dicom.reason_to_set_aside(one)
        if not reason:
            try:
                scans.append(_usable(Scan(one.name, one.files, dicom.read_series(one), one)))
                continue
            except InputError as error:
                reason = str(error).removeprefix(f"series {one.name}").lstrip(": ")
        set_aside.append(SetAside(one.name, reason))
    return scans, set_aside


def _without_copies(scans: Sequence[Scan]) -> tuple[list[Scan], list[SetAside]]:
    """The scans in an order that their voxels decide, each once."""
    by_content: dict[bytes, Scan] = {}
    copies = []
    for scan in scans:
        key = _content(scan.image)
        if key in by_content:
            first, second = sorted((by_content[key], scan), key=lambda one: one.name)
            by_content[key] = first
            copies.append(SetAside(second.name, f"is a copy of {first.name}"))
        else:
            by_content[key] = scan
    return [by_content[key] for key in sorted(by_content)], copies


def _content(image: Image) -> bytes:
    content = hashlib.blake2b(digest_size=16)
    content.update(np.array(image.shape, np.int64).tobytes())
    content.update(np.round(image.affine, 3).astype(np.float32).tobytes())
    content.update(np.ascontiguousarray(image.data).tobytes())
    return content.digest()


def _without_path(text: str, path: Path) -> str:
    """A sentence about a file without the file, so that it can be said behind its name."""
    return text.removeprefix(f"{path}").lstrip(": ").rstrip(".") or text


def _nothing(paths: Sequence[Path], set_aside: Sequence[SetAside]) -> str:
    where = ", ".join(str(path) for path in paths[:3]) + (" and others" if len(paths) > 3 else "")
    if not set_aside:
        return f"{where}: no scan is there; give NIfTI, MGH, NRRD, MINC or DICOM files, or a folder with some"
    said = "; ".join(f"{one.name} {one.reason}" for one in set_aside[:3])
    more = f"; and {len(set_aside) - 3} more" if len(set_aside) > 3 else ""
    return f"{where}: no scan can be segmented: {said}{more}"


