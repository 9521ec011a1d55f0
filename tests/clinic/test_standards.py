"""What other programs read: DICOM segmentations, BIDS derivatives, colour tables of viewers."""

import json
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian, MRImageStorage

from pimms_tf.clinic.bids import write_bids
from pimms_tf.clinic.dicom import Series, find_series, read_series
from pimms_tf.clinic.dicom_seg import read_dicom_seg, write_dicom_seg
from pimms_tf.clinic.lesions import lesions_of
from pimms_tf.clinic.provenance import Provenance
from pimms_tf.clinic.viewers import fsleyes_colours, write_viewer_files
from pimms_tf.errors import InputError

MADE = Provenance("pimms-tf segment a", "bundled", "ab" * 32, (), "", None)
VALIDATOR = shutil.which("bids-validator-deno")
REAL = Path(__file__).parents[3] / "shared" / "data" / "real"


def a_series(folder: Path, size: int = 24, sex: str = "F") -> Series:
    """Tilted slices of one MR series, written in disorder."""
    folder.mkdir()
    tilt = np.deg2rad(20)
    normal = np.array([0, -np.sin(tilt), np.cos(tilt)])
    rng = np.random.default_rng(0)
    for number in (2, 0, 5, 1, 4, 3):
        meta = FileMetaDataset()
        meta.TransferSyntaxUID, meta.MediaStorageSOPClassUID = ExplicitVRLittleEndian, MRImageStorage
        meta.MediaStorageSOPInstanceUID = UID(f"1.2.3.4.{number + 1}")
        one = FileDataset(str(folder / f"{number}.dcm"), {}, file_meta=meta, preamble=b"\0" * 128)
        one.SOPClassUID, one.SOPInstanceUID = MRImageStorage, meta.MediaStorageSOPInstanceUID
        one.StudyInstanceUID, one.SeriesInstanceUID, one.FrameOfReferenceUID = (
            UID("1.2.3"),
            UID("1.2.3.4"),
            UID("1.2.9"),
        )
        one.Modality, one.SeriesNumber, one.InstanceNumber, one.SeriesDescription = "MR", 3, number + 1, "FLAIR"
        one.PatientName, one.PatientID, one.PatientBirthDate, one.PatientSex = "A^B", "7", "", sex
        one.StudyDate, one.StudyTime, one.StudyID, one.AccessionNumber = "20200101", "101010", "1", ""
        one.ReferringPhysicianName, one.Manufacturer, one.ImageType = "", "none", ["ORIGINAL", "PRIMARY", "M"]
        one.Rows, one.Columns, one.PixelSpacing, one.SliceThickness = size, size, [8.0, 7.0], 9.0
        one.ImageOrientationPatient = [1, 0, 0, 0, np.cos(tilt), np.sin(tilt)]
        one.ImagePositionPatient = list(np.array([-80.0, -90.0, -20.0]) + 9 * number * normal)
        one.SamplesPerPixel, one.PhotometricInterpretation, one.PixelRepresentation = 1, "MONOCHROME2", 0
        one.BitsAllocated, one.BitsStored, one.HighBit = 16, 16, 15
        one.PixelData = rng.integers(0, 500, (size, size), dtype=np.uint16).tobytes()
        one.save_as(folder / f"{number}.dcm")
    (series,), _ = find_series(sorted(folder.iterdir()))
    return series


def drawn_on(result, series, mask):
    """The result as if its reference were the series."""
    image = read_series(series)
    scan = replace(result.scans[0], series=series, files=series.files, grid=image.grid, image=image)
    marked = replace(image, data=mask(image.shape)[..., np.newaxis].astype(np.int32))
    return replace(
        result, scans=(scan, *result.scans[1:]), mask=marked, probability=replace(image, data=0.9 * marked.data)
    )


def some_voxels(shape):
    mask = np.zeros(shape, bool)
    mask[3:8, 10:12, 2] = mask[5, 5, 3] = True
    return mask


@pytest.mark.parametrize("sex", ["F", "0000"])
def test_a_dicom_segmentation_reads_back_and_refers_to_its_series(tmp_path, a_result, sex):
    series = a_series(tmp_path / "dicom", sex=sex)
    result = drawn_on(a_result(), series, some_voxels)
    path = write_dicom_seg(result, tmp_path / "out" / "mask.dcm")
    classes, affine = read_dicom_seg(path)
    written = {tuple(np.round(affine @ [*voxel, 1], 2)) for voxel in np.argwhere(classes)}
    expected = {
        tuple(np.round(result.mask.affine @ [*voxel, 1], 2)) for voxel in np.argwhere(some_voxels(result.mask.shape))
    }
    assert written == expected
    header = pydicom.dcmread(path, stop_before_pixels=True)
    assert (header.Modality, header.PatientID, header.StudyInstanceUID) == ("SEG", "7", "1.2.3")
    (referred,) = header.ReferencedSeriesSequence
    assert referred.SeriesInstanceUID == "1.2.3.4"
    assert {each.ReferencedSOPInstanceUID for each in referred.ReferencedInstanceSequence} <= {
        f"1.2.3.4.{number}" for number in range(1, 7)
    }
    assert header.FrameOfReferenceUID == "1.2.9"
    assert header.SegmentSequence[0].SegmentLabel == "lesion"
    assert series.datasets[0].PatientSex == sex


def test_an_empty_mask_has_a_dicom_segmentation(tmp_path, a_result):
    result = drawn_on(a_result(), a_series(tmp_path / "dicom"), lambda shape: np.zeros(shape, bool))
    classes, _ = read_dicom_seg(write_dicom_seg(result, tmp_path / "mask.dcm"))
    assert not classes.any()


def test_a_mask_on_a_scan_that_is_no_series_is_refused(tmp_path, a_result):
    with pytest.raises(InputError, match="scan_0.nii.gz, on whose grid the mask lies, is none; leave the option out"):
        write_dicom_seg(a_result(), tmp_path / "mask.dcm")
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.skipif(not REAL.is_dir(), reason="needs the real scans beside the checkout")
@pytest.mark.parametrize("name", ["dicom_brainix", "dicom_xa30_multiframe"])
def test_series_of_scanners_can_be_referred_to(tmp_path, a_result, name):
    found, _ = find_series(sorted(path for path in (REAL / name).rglob("*") if path.is_file()))
    for series in found:
        result = drawn_on(a_result(), series, some_voxels)
        classes, _ = read_dicom_seg(write_dicom_seg(result, tmp_path / "mask.dcm"))
        assert classes.sum() == some_voxels(result.mask.shape).sum()


def test_images_of_a_derivative_say_where_they_come_from(tmp_path, a_result):
    result = a_result()
    anat = write_bids(result, tmp_path / "derivatives", lesions_of(result), MADE, "sub-01_ses-2")
    assert anat == tmp_path / "derivatives" / "sub-01" / "ses-2" / "anat"
    stem = "sub-01_ses-2_space-orig_label-L_desc-pimms"
    mask = nib.load(anat / f"{stem}_mask.nii.gz")
    np.testing.assert_array_equal(np.asarray(mask.dataobj), result.mask.data[..., 0])
    record = json.loads((anat / f"{stem}_mask.json").read_text(encoding="utf-8"))
    assert record["Type"] == "Lesion"
    assert record["SpatialReference"].endswith("scan_0.nii.gz")
    assert len(record["Sources"]) == 2


def test_another_data_set_and_other_labels_are_refused(tmp_path, a_result):
    (tmp_path / "dataset_description.json").write_text('{"Name": "raw"}')
    with pytest.raises(InputError, match="a BIDS data set of other content"):
        write_bids(a_result(), tmp_path, (), MADE, "01")
    with pytest.raises(InputError, match="patient 'sub-a_b' cannot be a subject of BIDS, .* such as ab"):
        write_bids(a_result(), tmp_path / "new", (), MADE, "sub-a_b")
    assert not (tmp_path / "new").exists()


@pytest.mark.slow
@pytest.mark.skipif(VALIDATOR is None, reason="needs bids-validator-deno, which is not installed")
def test_the_validator_has_no_complaint(tmp_path, a_result):
    result = a_result()
    for subject in ("01", "02"):
        write_bids(result, tmp_path / "derivatives", lesions_of(result), MADE, subject)
    done = subprocess.run([VALIDATOR, tmp_path / "derivatives"], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout
    assert "[ERROR]" not in done.stdout


def test_viewers_get_a_line_a_colour_table_and_a_reference_that_they_can_open(tmp_path, a_result):
    result = a_result()
    fsleyes, freeview = write_viewer_files(result, tmp_path / "o p")
    assert fsleyes.startswith(f"fsleyes scan_0.nii.gz '{tmp_path}/o p/mask.nii.gz' --overlayType label --lut '")
    assert freeview.endswith(":outline=1")
    rows = np.genfromtxt(tmp_path / "o p" / "colours.lut", usecols=(0, 1, 2, 3))
    assert rows.shape == (2, 4)  # FSLeyes fails on one row
    assert rows[:, 1:].max() == 1
    assert fsleyes_colours(("lesion",)).splitlines()[1] == "1 1.00000 0.83137 0.00000 lesion"
    assert not (tmp_path / "o p" / "reference.nii.gz").exists()
    drawn = drawn_on(result, a_series(tmp_path / "dicom"), some_voxels)
    assert f"{tmp_path}/reference.nii.gz" in write_viewer_files(drawn, tmp_path)[0]
    assert nib.load(tmp_path / "reference.nii.gz").shape == drawn.mask.shape
    # A reference that gave no more than its grid has nothing to show.
    aside = replace(drawn.scans[0], used=False, image=None)
    lines = write_viewer_files(replace(drawn, scans=(aside, *drawn.scans[1:])), tmp_path / "aside")
    assert "fsleyes scan_1.nii.gz" in lines[0]
    assert not (tmp_path / "aside" / "reference.nii.gz").exists()
