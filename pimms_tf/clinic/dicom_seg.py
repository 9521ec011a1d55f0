"""write_dicom_seg: the mask as a DICOM segmentation that refers to the series it was drawn on.

Written with highdicom, binary, a segment for each class, and read back before it takes its place. A viewer that has the
series shows it as an overlay.
"""

import copy
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import highdicom
import numpy as np
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes

from pimms_tf import __version__
from pimms_tf.clinic.results import PatientResult, ScanResult
from pimms_tf.clinic.viewers import COLOURS
from pimms_tf.errors import InputError
from pimms_tf.files import replacing

if TYPE_CHECKING:
    from highdicom.seg import Segmentation

NAME = "mask.dcm"

_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])  # DICOM counts to the left and back, NIfTI to the right and front
_SERIES_NUMBER = 9001  # behind those of scanners
_SAME_MM = 1e-3


def write_dicom_seg(result: PatientResult, path: Path) -> Path:
    """Returns `path` after the mask was written there as a DICOM segmentation object.

    It lies on the grid of the mask, in the frame of reference of the scan that is the reference, and names the images
    of its series.

    Raises:
        InputError: the reference scan is no DICOM series, or lacks what a segmentation must name.
        OSError: the folder cannot be written.
    """
    scan = next(scan for scan in result.scans if scan.is_reference)
    if scan.series is None:
        raise InputError(
            f"a DICOM segmentation refers to a DICOM series, but {scan.name}, on whose grid the mask lies, is none; "
            "leave the option out, or name a DICOM series as the reference"
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # at names without a caret, as their removal leaves them
            made = _segmentation(result, scan)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{scan.name} cannot be referred to by a DICOM segmentation: {reason}") from error
    with replacing(Path(path)) as temporary:
        made.save_as(temporary)
        _check(temporary, result, scan)
    return Path(path)


def read_dicom_seg(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Returns the classes (x, y, z) int32 of a segmentation object, and where its voxels lie: an affine (4, 4), RAS."""
    volume = highdicom.seg.segread(path).get_volume(combine_segments=True)
    affine = _LPS @ volume.affine
    return volume.array.transpose(2, 1, 0).astype(np.int32), affine[:, [2, 1, 0, 3]]


def _segmentation(result: PatientResult, scan: ScanResult) -> "Segmentation":
    sources = [_usual(header) for header in scan.series.datasets]
    first = sources[0]
    classes = result.mask.data[..., 0]
    # Slices lie along the first axis of a volume there, rows along the second.
    affine = _LPS @ result.mask.affine[:, [2, 1, 0, 3]]
    names = result.class_names[1:] or ("lesion",)
    present = list(range(1, len(names) + 1))
    stacked = np.stack([classes == number for number in present], axis=-1).astype(np.uint8).transpose(2, 1, 0, 3)
    volume = highdicom.Volume(
        np.ascontiguousarray(stacked),
        affine,
        coordinate_system="PATIENT",
        frame_of_reference_uid=first.FrameOfReferenceUID,
        channels={"SegmentNumber": present},
    )
    algorithm = highdicom.AlgorithmIdentificationSequence(
        name="pimms-tf", family=codes.cid7162.ArtificialIntelligence, version=__version__
    )
    segments = [
        highdicom.seg.SegmentDescription(
            segment_number=number,
            segment_label=name[:64],
            segmented_property_category=codes.SCT.MorphologicallyAbnormalStructure,
            segmented_property_type=codes.SCT.Lesion,
            algorithm_type=highdicom.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
            algorithm_identification=algorithm,
            anatomic_regions=[codes.SCT.Brain],
            display_color=highdicom.color.CIELabColor.from_rgb(*COLOURS[(number - 1) % len(COLOURS)]),
        )
        for number, name in zip(present, names, strict=True)
    ]
    return highdicom.seg.Segmentation(
        source_images=sources,
        pixel_array=volume,
        segmentation_type=highdicom.seg.SegmentationTypeValues.BINARY,
        segment_descriptions=segments,
        series_instance_uid=highdicom.UID(),
        series_number=_SERIES_NUMBER,
        sop_instance_uid=highdicom.UID(),
        instance_number=1,
        manufacturer="pimms-tf",
        manufacturer_model_name="pimms-tf",
        software_versions=__version__,
        device_serial_number="0",
        series_description="White matter lesions, for research",
        content_description="outlined by a network",
        content_label="LESIONS",
        omit_empty_frames=bool(classes.any()),
    )


def _usual(header: Dataset) -> Dataset:
    """A copy of a header without two things that the standard allows, or readers forgive, and highdicom refuses.

    A sex that is none of DICOM's words, as the removal of names leaves it, becomes empty. What all frames of an
    enhanced file share is also said once for all of them.
    """
    changed = copy.deepcopy(header)
    if changed.get("PatientSex") not in (None, "", "M", "F", "O"):
        changed.PatientSex = ""
    if "SharedFunctionalGroupsSequence" in changed:
        shared = changed.SharedFunctionalGroupsSequence[0]
        for name in ("PixelMeasuresSequence", "PlaneOrientationSequence"):
            if name not in shared:
                setattr(shared, name, getattr(changed.PerFrameFunctionalGroupsSequence[0], name))
    return changed


def _check(path: Path, result: PatientResult, scan: ScanResult) -> None:
    """Refuses a file that does not say what the mask says: it would be a fault of ours."""
    classes, affine = read_dicom_seg(path)
    expected = result.mask.data[..., 0]
    # Empty slices at the ends are left out, so voxels are compared where they lie.
    offset = np.linalg.inv(result.mask.affine) @ affine
    start = np.rint(offset[:3, 3]).astype(int)
    back = np.zeros(expected.shape, np.int32)
    back[tuple(slice(low, low + length) for low, length in zip(start, classes.shape, strict=True))] = classes
    moved_mm = np.abs(result.mask.affine @ offset - result.mask.affine @ _shifted(start)).max()
    series = highdicom.seg.segread(path).ReferencedSeriesSequence[0].SeriesInstanceUID
    if not np.array_equal(back, expected) or moved_mm > _SAME_MM or series != scan.series.datasets[0].SeriesInstanceUID:
        raise AssertionError(f"{path.name} does not read back as the mask that was written")


def _shifted(start: np.ndarray) -> np.ndarray:
    matrix = np.eye(4)
    matrix[:3, 3] = start
    return matrix
