"""Series of a DICOM study: found, told apart, read, and those set aside that no network of ours can use.

Headers are read with pydicom and volumes are put together by highdicom, which sorts slices by position and finds
missing ones. What a series is follows DICOM PS3.3 C.7.6.16, C.8.3 and C.8.13: image type, spacing, diffusion, time.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pydicom
from highdicom import Image as FramedImage
from highdicom import Volume, get_volume_from_series
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError

from pimms_tf.data.grids import Grid
from pimms_tf.data.images import Image
from pimms_tf.errors import InputError

FEWEST_SLICES = 5  # with fewer there is no volume to segment, only a look at where the head lies
_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])  # DICOM counts to the left and back, NIfTI to the right and front
_POSITION_MM = 0.01
# Words of image types and series descriptions, in lower case, and what they say of a series.
_KINDS = (
    (("localizer", "localiser", "scout", "survey", "3-plane", "plan_scan"), "is a localiser"),
    (("diffusion", "adc", "tracew", "trace", "exponential"), "holds diffusion images"),
    (("angio", "tof", "mra", "projection image", "mip", "phase contrast"), "is an angiogram or a projection"),
    (("swi", "susceptibility", "minip", "mag_images", "pha_images"), "holds susceptibility images"),
    (("mosaic", "bold", "fmri", "asl", "perfusion", "moco", "t2*perf"), "holds a series in time"),
    (("screen save", "secondary capture", "report", "csa report", "phoenixzipreport"), "holds no scan"),
)


@dataclass(frozen=True, eq=False)
class Series:
    """The files of one volume, in no order. `datasets` are their headers without pixels."""

    files: tuple[Path, ...]
    datasets: tuple[Dataset, ...]

    @property
    def name(self) -> str:
        """Number and description, as on a console: "4 sT2W/FLAIR"."""
        first = self.datasets[0]
        number, text = _text(first, "SeriesNumber"), _text(first, "SeriesDescription")
        return " ".join(filter(None, (number, text))) or f"series of {self.files[0].name}"

    @property
    def is_framed(self) -> bool:
        """Whether each file holds many frames (enhanced MR) rather than one slice."""
        return int(getattr(self.datasets[0], "NumberOfFrames", 1) or 1) > 1


def find_series(files: Iterable[Path]) -> tuple[list[Series], dict[Path, str]]:
    """Returns the volumes among DICOM files, in the order of their unique identifiers, and the files without pixels.

    One series may hold several volumes: echoes, orientations, diffusion weightings, magnitude and phase. They are told
    apart by these.
    """
    groups: dict[tuple, list[tuple[Path, Dataset]]] = defaultdict(list)
    unusable: dict[Path, str] = {}
    for path in files:
        try:
            header = pydicom.dcmread(path, stop_before_pixels=True)
        except (InvalidDicomError, OSError, ValueError, EOFError, KeyError, AttributeError) as error:
            unusable[path] = f"cannot be read as DICOM ({error})"
            continue
        if "Rows" not in header:
            unusable[path] = "is a DICOM file without an image"
            continue
        groups[_volume_of(header)].append((path, header))
    series = [Series(*map(tuple, zip(*sorted(members, key=_by_instance), strict=True))) for members in groups.values()]
    return sorted(series, key=lambda one: (one.datasets[0].get("SeriesInstanceUID", ""), str(one.files[0]))), unusable


def reason_to_set_aside(series: Series) -> str:
    """Why a volume is none to segment, "" for a structural scan of a head or what may be one.

    The words of the header decide, since contrast itself is judged later, by the classifier.
    """
    first = series.datasets[0]
    if _text(first, "Modality") != "MR":
        return f"is no MR scan (modality {_text(first, 'Modality') or 'unknown'})"
    kind = [word.lower() for word in _kind_of(first)]
    described = _text(first, "SeriesDescription").lower()
    words = {*kind, *described.replace("_", " ").replace("/", " ").replace("-", " ").split()}
    for marks, says in _KINDS:
        if any(mark in words or (len(mark) > 4 and mark in described) for mark in marks):
            return says
    if _diffusion_weight(first) > 0:
        return "holds diffusion images"
    if kind[2:3] and kind[2] in ("p", "phase map", "phase"):
        return "holds phases instead of magnitudes"
    if kind[:1] == ["derived"] and "mpr" not in words and not series.is_framed:
        return "was derived from other scans"
    count = int(first.NumberOfFrames) if series.is_framed else len(series.files)
    if count < FEWEST_SLICES:
        return f"has {count} slice{'s' * (count != 1)}; at least {FEWEST_SLICES} are needed"
    return ""


def read_series(series: Series) -> Image:
    """Returns the volume of a series as an `Image` in NIfTI's coordinates.

    Raises:
        InputError: continues a sentence that begins with the series: pixels that cannot be decoded, several images at
            one place, slices that are missing or unevenly spaced; it says between which positions.
    """
    if series.is_framed:
        if len(series.files) > 1:
            raise InputError(f"has {len(series.files)} files of many frames each, which is a series in time")
        return _from_volume(lambda: FramedImage.from_dataset(pydicom.dcmread(series.files[0])).get_volume())
    _check_spacing(series)
    return _from_volume(lambda: get_volume_from_series([pydicom.dcmread(path) for path in series.files]))


def _from_volume(make: Callable[[], Volume]) -> Image:
    try:
        volume = make()
    # What pydicom, highdicom and the decoders raise for files that are damaged or of a kind they do not know.
    except (ValueError, RuntimeError, NotImplementedError, AttributeError, KeyError, OSError) as error:
        raise InputError(f"cannot be read: {' '.join(str(error).split())[:200]}") from error
    affine = _LPS @ volume.affine
    data = np.ascontiguousarray(volume.array, dtype=np.float32)
    if data.ndim != 3:
        raise InputError("has pixels of several components, so it is no MR scan")
    # Slices lie along the first axis there; x, y and z in this order are what readers of NIfTI files expect.
    data, affine = data.transpose(2, 1, 0), affine[:, [2, 1, 0, 3]]
    return Image(data[..., np.newaxis], affine, Grid(data.shape, affine))


def _check_spacing(series: Series) -> None:
    if not all(one.get("ImageOrientationPatient") and one.get("ImagePositionPatient") for one in series.datasets):
        raise InputError("does not say where its slices lie; export it again as the scanner wrote it")
    normal = np.cross(*np.array(series.datasets[0].ImageOrientationPatient, float).reshape(2, 3))
    places = sorted(float(np.dot(header.ImagePositionPatient, normal)) for header in series.datasets)
    steps = np.diff(places)
    if (steps < _POSITION_MM).any():
        at = places[int(np.argmin(steps))]
        raise InputError(f"has several images at {at:.1f} mm, so it is a series in time")
    usual = float(np.median(steps))
    gaps = np.flatnonzero(steps > 1.5 * usual)
    if len(gaps):
        where = ", ".join(f"{places[gap]:.1f} and {places[gap + 1]:.1f} mm" for gap in gaps[:3])
        missing = int(np.round(steps[gaps] / usual - 1).sum())
        raise InputError(f"lacks {missing} slice{'s' * (missing != 1)} between {where}; export it again")


def _volume_of(header: Dataset) -> tuple:
    orientation = tuple(np.round(np.array(header.get("ImageOrientationPatient") or (), float), 3).tolist())
    kind = _kind_of(header)[2:4]
    return (
        _text(header, "SeriesInstanceUID"),
        _text(header, "Modality"),
        (int(header.Rows), int(header.Columns)),
        orientation,
        _text(header, "EchoTime"),
        _diffusion_weight(header),
        kind,
        # Each enhanced file is a volume of its own.
        _text(header, "SOPInstanceUID") if int(header.get("NumberOfFrames", 1) or 1) > 1 else "",
    )


def _kind_of(header: Dataset) -> tuple[str, ...]:
    """The words of the image type, which is a text where there is one alone."""
    words = header.get("ImageType") or ()
    return (words,) if isinstance(words, str) else tuple(map(str, words))


def _diffusion_weight(header: Dataset) -> float:
    return float(header.get("DiffusionBValue") or 0.0)


def _by_instance(member: tuple[Path, Dataset]) -> tuple:
    return int(member[1].get("InstanceNumber") or 0), str(member[0])


def _text(header: Dataset, keyword: str) -> str:
    value = header.get(keyword)
    return "" if value is None else str(value).strip()
