"""What a patient's files and folders hold: scans to look at, and everything else with the reason why it is not.

Any mixture goes: image files that nibabel or SimpleITK open, DICOM folders, folders of both. Nothing is decided by
names; a file that cannot be used is said and costs no other.
"""

import errno
import hashlib
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pimms_tf.data.brain import brain_mask
from pimms_tf.data.formats import MINC_SUFFIXES, NIBABEL_SUFFIXES, PICTURE_SUFFIXES
from pimms_tf.data.grids import corners
from pimms_tf.data.images import Image, read_image, reorient
from pimms_tf.data.intensity import is_centred
from pimms_tf.errors import InputError
from pimms_tf.wording import shown

if TYPE_CHECKING:
    from pimms_tf.clinic.dicom import Series

MOST_SCANS = 50
NEGLIGIBLE_MM = 1e-3  # headers that differ by less say the same
MASK, PROBABILITY, RESULT = "mask.nii.gz", "probability.nii.gz", "result.json"  # what earlier results are known by
_FEWEST_VOXELS, _SHORTEST_MM, _LONGEST_MM = 5, 40.0, 600.0  # of an axis of a scan of a head
_MOST_LABELS = 20  # different values of an image that is no scan
_MOST_MISSING = 0.5  # of the brain
_OTHER_SUFFIXES = (".nrrd", ".nhdr", ".mha", ".mhd", ".gipl", ".gipl.gz", ".vtk")
_VOLUME_SUFFIXES = (*NIBABEL_SUFFIXES, *MINC_SUFFIXES, *_OTHER_SUFFIXES)
_SECOND_FILES = (".img", ".img.gz", ".raw", ".zraw", ".raw.gz")  # voxels beside a header
_BESIDE = (".json", ".txt", ".tsv", ".csv", ".bval", ".bvec", ".html", ".pdf", ".md", ".ini")  # what lies beside scans


@dataclass(frozen=True, eq=False)
class Scan:
    """One volume that may be segmented.

    `image` has one channel; `files` are where it came from, those of copies last. `missing` (x, y, z)
    bool are voxels that were NaN or infinite and count as background, None where there are none.
    """

    name: str  # for tables: the file's name, or number and description of the series
    files: tuple[Path, ...]
    image: Image
    series: "Series | None" = None
    notes: tuple[str, ...] = ()  # what was done to read it, in words
    missing: np.ndarray | None = None


@dataclass(frozen=True)
class SetAside:
    """Something that is there and is not segmented."""

    name: str
    reason: str  # continues a sentence that begins with the name: "is a localiser"
    is_damaged: bool = False  # it should have been usable


@dataclass(frozen=True, eq=False)
class Intake:
    """All that was found for one patient."""

    scans: tuple[Scan, ...]
    set_aside: tuple[SetAside, ...]


def is_called(wanted: Path | str, name: str, files: Iterable[Path]) -> bool:
    """Returns whether a user's word means the scan of this name and these files: by its name, or the path of a file."""
    return shown(str(wanted)) == name or os.path.realpath(wanted) in map(os.path.realpath, files)


def take_in(paths: Sequence[Path]) -> Intake:
    """Returns the scans in files and folders, in the order of their content, whatever their names and order were.

    Folders are searched through, hidden files left out. Copies of one scan are taken once.

    Raises:
        InputError: a path that is not there, no scan at all, or more than 50.
    """
    check_paths(paths)
    images, dicoms, set_aside = _sorted_out(paths)
    names = _names(images)
    kept: dict[bytes, Scan] = {}
    copies: list[SetAside] = []
    for path in images:
        name = names[path]
        try:
            image = read_image(path, finite=False)
        except InputError as error:
            set_aside.append(SetAside(name, "; ".join(each.text for each in error.mistakes), is_damaged=True))
            continue
        try:
            scan = _usable(Scan(name, (path,), image, notes=_notes_on(image)))
        except InputError as error:
            set_aside.append(SetAside(name, str(error)))
        else:
            _keep(scan, kept, copies)
    if dicoms:
        found, missed = _read_dicom(dicoms)
        set_aside += missed
        for scan in found:
            _keep(scan, kept, copies)
    set_aside += copies
    if not kept:
        raise InputError(_nothing(paths, set_aside))
    return Intake(tuple(kept[key] for key in sorted(kept)), tuple(set_aside))


def check_paths(paths: Iterable[Path]) -> None:
    """Refuses paths that are not there, before anything that takes time.

    Raises:
        InputError: one is not there, or lies where this user may not look.
    """
    for path in map(Path, paths):
        try:
            is_there = path.exists() or path.is_symlink()
        except OSError as error:
            raise InputError(f"{path} cannot be reached ({error.strerror}); change the permissions above it") from error
        if not is_there:
            raise InputError(f"{path} is not there; give scans, or a folder with scans")


def _sorted_out(paths: Iterable[Path]) -> tuple[list[Path], list[Path], list[SetAside]]:
    """Image files, DICOM files, and what is neither."""
    images, dicoms, set_aside = [], [], []
    seen: set[tuple[int, int]] = set()
    files = list(_files(paths))
    given = set(files)
    for path in files:
        name, told = path.name.lower(), shown(path.name)
        try:
            found = path.stat()
            if path.is_dir() and not path.is_symlink():
                os.listdir(path)  # or says why not
            if not path.is_file():
                set_aside.append(SetAside(told or str(path), _why_no_file(path)))
                continue
            if (found.st_dev, found.st_ino) in seen:  # named twice, or a link to another
                continue
            seen.add((found.st_dev, found.st_ino))
            if name.endswith(_BESIDE) or name == "dicomdir":
                continue
            if name.endswith(_SECOND_FILES) and not given.isdisjoint(_headers(path)):
                continue
            if name.endswith(_VOLUME_SUFFIXES):
                images.append(path)
            elif name.endswith(PICTURE_SUFFIXES):
                set_aside.append(SetAside(told, "is a picture, not a scan"))
            elif _is_dicom(path):
                dicoms.append(path)
            else:
                set_aside.append(SetAside(told, "is no image of a kind that is known here"))
        except OSError as error:
            if path.is_symlink() and error.errno in (errno.ENOENT, errno.ELOOP):
                set_aside.append(SetAside(told, "is a link to nothing"))
            else:
                set_aside.append(SetAside(told, f"cannot be read ({error.strerror})", is_damaged=True))
    return images, dicoms, set_aside


def _files(paths: Iterable[Path]) -> Iterable[Path]:
    for path in map(Path, paths):
        if not path.is_dir():
            yield path
            continue
        inside: list[Path] = []
        closed: list[OSError] = []
        for folder, folders, files in os.walk(path, onerror=closed.append):
            folders[:] = [name for name in folders if not name.startswith(".")]
            links = [name for name in folders if os.path.islink(os.path.join(folder, name))]
            inside += [Path(folder, name) for name in (*files, *links) if not name.startswith(".")]
        found = sorted([*inside, *(Path(error.filename) for error in closed)])
        yield from (item for item in found if not _is_result(item)) if found else [path]


def _why_no_file(path: Path) -> str:
    if not path.is_dir():
        return "is no regular file"
    if path.is_symlink() and any(path.iterdir()):
        return "is a link to a folder, which is not followed; give that folder itself"
    return "holds no file, or none that this user may see"


def _is_result(path: Path) -> bool:
    """Whether a file lies in the folder of an earlier result, which may stand among the scans."""
    return all(os.path.isfile(path.parent / name) for name in (RESULT, PROBABILITY))


def _headers(path: Path) -> list[Path]:
    """What the header of a file of voxels may be called."""
    stem = path.name[: -len(next(end for end in _SECOND_FILES if path.name.lower().endswith(end)))]
    return [path.parent / f"{stem}{end}" for end in (".hdr", ".hdr.gz", ".nhdr", ".mhd", ".HDR")]


def _is_dicom(path: Path) -> bool:
    with open(path, "rb") as stream:
        return stream.read(132)[128:] == b"DICM"


def _names(paths: Sequence[Path]) -> dict[Path, str]:
    """What tables call each file: its name, with as many folders before it as tell it from the others."""
    names = {}
    for path in paths:
        count = 1
        while count < len(path.parts) and any(
            other != path and other.parts[-count:] == path.parts[-count:] for other in paths
        ):
            count += 1
        names[path] = shown(str(Path(*path.parts[-count:])))
    return names


def _notes_on(image: Image) -> tuple[str, ...]:
    """What is remarkable about a header that can be used all the same."""
    grid = image.original
    if grid is None or grid.qform is None:
        return ()
    apart = float(np.abs(corners(grid.shape, grid.affine) - corners(grid.shape, grid.qform)).max())
    if apart <= NEGLIGIBLE_MM:
        return ()
    return (f"its sform and its qform lie up to {apart:.3g} mm apart; the sform was taken",)


def _usable(scan: Scan) -> Scan:
    """The scan, if it may be one of a head.

    Raises:
        InputError: it is flat, empty, too small or large for a head, holds several volumes, or lacks most of the brain.
    """
    image = scan.image
    if image.data.shape[3] > 1:
        raise InputError(f"holds {image.data.shape[3]} volumes, a series in time or colours; give one volume a file")
    lengths = np.array(image.shape) * np.array(image.spacing_mm)
    if min(image.shape) < _FEWEST_VOXELS:
        count = min(image.shape)
        raise InputError(f"has {count} slice{'s' * (count != 1)}; at least {_FEWEST_VOXELS} are needed")
    if lengths.min() < _SHORTEST_MM or lengths.max() > _LONGEST_MM:
        size = " x ".join(f"{length:.0f}" for length in lengths)
        raise InputError(f"measures {size} mm, which is no head; check the voxel size in its header")
    scan = _without_missing(scan)
    values = np.unique(scan.image.data)
    if len(values) == 1:
        raise InputError("has the same value in every voxel")
    if len(values) <= _MOST_LABELS:
        raise InputError(f"has {len(values)} different values, so it is a mask or a map of labels")
    return scan


def _without_missing(scan: Scan) -> Scan:
    """The scan with background for voxels that are NaN or infinite, as programs leave them outside a field of view.

    Raises:
        InputError: most of the brain is among them.
    """
    data = scan.image.data
    missing = ~np.isfinite(data)
    if not missing.any():
        return scan
    if missing.all():
        raise InputError("has no voxel that is not NaN or infinite")
    share = f"{100 * missing.mean():.2g} %" if missing.mean() > 1e-4 else "less than 0.01 %"
    filled = np.where(missing, np.float32(0), data)
    if is_centred(filled[..., 0]):  # 0 is the middle of the brain there
        filled[missing] = filled.min()
    brain = brain_mask(filled, scan.image.affine)
    if not brain.any() or missing[..., 0][brain].mean() > _MOST_MISSING:
        raise InputError(f"lacks the brain: {share} of its voxels are NaN or infinite, the others show little of it")
    said = f"{share} of its voxels are NaN or infinite and count as background"
    image = replace(scan.image, data=filled)
    return replace(scan, image=image, notes=(*scan.notes, said), missing=missing[..., 0])


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
    names: list[str] = []
    for one in series:
        names.append(one.name)
        # Echoes and the like are volumes of one series.
        name = one.name if names.count(one.name) == 1 else f"{one.name} ({names.count(one.name)})"
        reason = dicom.reason_to_set_aside(one)
        if not reason:
            try:
                image = dicom.read_series(one)
            except InputError as error:
                set_aside.append(SetAside(name, str(error), is_damaged=True))
                continue
            try:
                scans.append(_usable(Scan(name, one.files, image, one)))
                continue
            except InputError as error:
                reason = str(error)
        set_aside.append(SetAside(name, reason))
    return scans, set_aside


def _keep(scan: Scan, kept: dict[bytes, Scan], copies: list[SetAside]) -> None:
    """Adds a scan to those of other content, or to the copies.

    Raises:
        InputError: there are more than any patient has; said at once, since a whole cohort would fill the memory.
    """
    key = _content(scan.image)
    if key in kept:
        first, other = sorted((kept[key], scan), key=lambda one: one.name)
        # Whoever names the file of a copy means this scan, and it is not to be written over either.
        kept[key] = replace(first, files=(*first.files, *other.files))
        copies.append(SetAside(other.name, f"is a copy of {first.name}"))
        return
    kept[key] = scan
    if len(kept) > MOST_SCANS:
        raise InputError(
            f"more than {MOST_SCANS} scans were found for one patient; give the folder of one patient, or name fewer"
        )


def _content(image: Image) -> bytes:
    """What the image holds, the same in whatever order its voxels are stored."""
    image = reorient(image, ("L", "P", "S"))
    content = hashlib.blake2b(digest_size=16)
    content.update(np.array(image.shape, np.int64).tobytes())
    # Coarse enough that rounding by another program does not show; -0 is 0.
    content.update((np.round(image.affine, 2) + 0.0).astype(np.float32).tobytes())
    content.update(np.ascontiguousarray(image.data).tobytes())
    return content.digest()


def _nothing(paths: Sequence[Path], set_aside: Sequence[SetAside]) -> str:
    where = ", ".join(str(path) for path in paths[:3]) + (" and others" if len(paths) > 3 else "")
    if not set_aside:
        return f"{where}: no scan is there; give NIfTI, MGH, NRRD, MINC or DICOM files, or a folder with some"
    said = "; ".join(f"{one.name} {one.reason}" for one in set_aside[:3])
    more = f"; and {len(set_aside) - 3} more" if len(set_aside) > 3 else ""
    return f"{where}: no scan can be segmented: {said}{more}"
