"""DICOM studies: which series are taken, which are not and why, and that a study gives what NIfTI files give."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, generate_uid
from pydicom.valuerep import DSfloat

import pimms_tf
from pimms_tf.clinic.dicom import find_series, read_series, reason_to_set_aside
from pimms_tf.clinic.intake import take_in
from pimms_tf.data.images import Image, read_image, reorient, resample_onto
from pimms_tf.errors import InputError


def write_series(folder, volume, affine, first=0, patient="p1", left_out=(), **tags):
    """Writes whole numbers (x, y, z) that lie where `affine` says as one file for each z."""
    folder.mkdir(parents=True, exist_ok=True)
    series = generate_uid()
    steps = np.linalg.norm(affine[:3, :3], axis=0)
    directions = np.diag((-1.0, -1.0, 1.0)) @ affine[:3, :3] / steps  # to the left, back and top
    for place in range(volume.shape[2]):
        if place in left_out:
            continue
        one = Dataset()
        one.file_meta = FileMetaDataset()
        one.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        one.file_meta.MediaStorageSOPClassUID = one.SOPClassUID = MRImageStorage
        one.file_meta.MediaStorageSOPInstanceUID = one.SOPInstanceUID = generate_uid()
        one.StudyInstanceUID, one.SeriesInstanceUID, one.FrameOfReferenceUID = "1.2.3", series, "1.2.3.4"
        one.Modality, one.PatientID, one.InstanceNumber, one.SeriesNumber = "MR", patient, place + 1, first or 1
        one.ImageType = ["ORIGINAL", "PRIMARY", "M"]
        one.Rows, one.Columns = volume.shape[1], volume.shape[0]
        one.SamplesPerPixel, one.PhotometricInterpretation = 1, "MONOCHROME2"
        one.BitsAllocated, one.BitsStored, one.HighBit, one.PixelRepresentation = 16, 16, 15, 0
        one.PixelSpacing = decimals((steps[1], steps[0]))
        one.SliceThickness = decimals(steps[2:])[0]
        one.ImageOrientationPatient = decimals(directions[:, :2].T.ravel())
        corner = affine @ [0, 0, place, 1]
        one.ImagePositionPatient = decimals((-corner[0], -corner[1], corner[2]))
        one.PixelData = np.ascontiguousarray(volume[:, :, place].T.astype("<u2")).tobytes()
        for name, value in tags.items():
            setattr(one, name, value)
        # Names that say nothing, in an order that means nothing.
        one.save_as(folder / f"{hash_of(series, place)}", enforce_file_format=True)


def decimals(values):
    """Numbers in at most 16 characters, as DICOM has them."""
    return [DSfloat(float(value), auto_format=True) for value in values]


def hash_of(series, place):
    return f"{(int(series.rpartition('.')[2]) * 31 + place * 7919) % 10**9:09d}"


AFFINE = nib.affines.from_matvec(np.diag((-6.0, -6.0, 6.0)), (60.0, 50.0, -40.0))


def noise(*shape):
    return np.random.default_rng(1).integers(0, 1000, shape)


def only_series(folder):
    (series,), unusable = find_series(sorted(folder.iterdir()))
    assert unusable == {}
    return series


@pytest.mark.parametrize(
    ("tags", "slices", "reason"),
    [
        ({}, 8, ""),
        ({"SeriesDescription": "t2_tse_tra"}, 8, ""),
        ({"SeriesDescription": "localizer"}, 8, "is a localiser"),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}, 8, "is a localiser"),
        ({"Modality": "CT"}, 8, "is no MR scan (modality CT)"),
        ({"ImageType": ["DERIVED", "SECONDARY", "M"]}, 8, "was derived from other scans"),
        ({"ImageType": ["DERIVED", "PRIMARY", "MPR"]}, 8, ""),
        ({"ImageType": ["DERIVED", "PRIMARY", "DIFFUSION", "ADC"]}, 8, "holds diffusion images"),
        ({"DiffusionBValue": 1000.0}, 8, "holds diffusion images"),
        ({"SeriesDescription": "TOF_3D_multi-slab"}, 8, "is an angiogram or a projection"),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "M", "SWI"]}, 8, "holds susceptibility images"),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "M", "ND", "MOSAIC"]}, 8, "holds a series in time"),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "P"]}, 8, "holds phases instead of magnitudes"),
        ({}, 3, "has 3 slices; at least 5 are needed"),
        ({}, 1, "has 1 slice; at least 5 are needed"),
    ],
)
def test_a_series_is_judged_by_its_headers(tmp_path, tags, slices, reason):
    write_series(tmp_path, noise(10, 12, slices), AFFINE, **tags)
    assert reason_to_set_aside(only_series(tmp_path)) == reason


def test_a_series_lies_where_its_headers_say_whatever_its_files_are_called(tmp_path):
    volume = noise(10, 12, 8)
    write_series(tmp_path, volume, AFFINE)
    image = reorient(read_series(only_series(tmp_path)), ("L", "P", "S"))
    np.testing.assert_array_equal(image.data[..., 0], volume)
    np.testing.assert_allclose(image.affine, AFFINE, rtol=0, atol=1e-6)


def test_missing_slices_are_named(tmp_path):
    write_series(tmp_path, noise(10, 12, 9), AFFINE, left_out=(4, 5))
    with pytest.raises(InputError, match=r"lacks 2 slices between -22\.0 and -4\.0 mm"):
        read_series(only_series(tmp_path))


def test_several_images_at_one_place_are_a_series_in_time(tmp_path):
    write_series(tmp_path, noise(10, 12, 6), AFFINE)
    for path in sorted(tmp_path.iterdir()):
        again = pydicom.dcmread(path)
        again.SOPInstanceUID = again.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        again.save_as(path.with_name(f"{path.name}b"))
    with pytest.raises(InputError, match="has several images at .* mm, so it is a series in time"):
        read_series(only_series(tmp_path))


def test_two_patients_in_one_folder_are_refused(tmp_path):
    for name in ("p1", "p2"):
        write_series(tmp_path / name, noise(10, 12, 8), AFFINE, patient=name)
    with pytest.raises(InputError, match="the DICOM files are of 2 patients"):
        take_in([tmp_path])


def test_a_study_gives_the_mask_of_its_nifti_files(scans, segmenter, tmp_path):
    for number, name in enumerate(("FLAIR", "T1", "T2"), start=1):
        image = reorient(read_image(scans / f"sub04_{name}.nii.gz"), ("L", "P", "S"))
        data = np.clip(np.rint(image.data[..., 0] * 1000 / image.data.max()), 0, None)
        (tmp_path / "nifti").mkdir(exist_ok=True)
        nib.save(nib.Nifti1Image(data.astype(np.int16), image.affine), tmp_path / "nifti" / f"{3 - number}.nii")
        # Twice the value in the file, and a slope of a half.
        write_series(tmp_path / "dicom", 2 * data, image.affine, number, RescaleSlope="0.5", RescaleIntercept="0")
    shape = data.shape
    write_series(tmp_path / "dicom", noise(*shape[:2], 3), AFFINE, 7, SeriesDescription="scout")
    write_series(tmp_path / "dicom", noise(*shape), AFFINE, 8, ImageType=["DERIVED", "PRIMARY", "DIFFUSION", "TRACEW"])
    nifti, dicom = (
        pimms_tf.segment_patient(tmp_path / kind, segmenter, register=False, contributions=False)
        for kind in ("nifti", "dicom")
    )
    assert sorted(one.reason for one in dicom.set_aside) == ["holds diffusion images", "is a localiser"]
    found, expected = (sorted(scan.scores for scan in result.used) for result in (dicom, nifti))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)
    moved = resample_onto(Image(dicom.probability.data, dicom.probability.affine), nifti.grid, 0)
    np.testing.assert_allclose(moved.data, nifti.probability.data, rtol=0, atol=1e-5)
    assert dicom.volume_ml == pytest.approx(nifti.volume_ml, rel=1e-3)


REAL = Path(__file__).parents[3] / "shared" / "data" / "real"


def thick_last(image):
    """The image with the axis of its thick slices last, as scanners write them."""
    thick = int(np.argmax(image.spacing_mm))
    order = [*(axis for axis in range(3) if axis != thick), thick]
    affine = np.column_stack([image.affine[:, order], image.affine[:, 3]])
    return Image(np.transpose(image.data, (*order, 3)), affine)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ms3_106639", "ms_native_p04"])
@pytest.mark.skipif(not (REAL / "ms_native_p04").is_dir(), reason="the real scans are not part of the repository")
def test_a_study_made_of_real_scans_gives_the_mask_of_their_files(name, tmp_path):
    files = [REAL / name / f"{contrast}.nii.gz" for contrast in ("FLAIR", "T1", "T2")]
    folder = tmp_path / "dicom"
    for number, path in enumerate(files, start=1):
        image = thick_last(read_image(path))
        np.testing.assert_array_equal(image.data, np.rint(image.data))  # whole numbers, so that slices hold them all
        write_series(folder, image.data[..., 0], image.affine, number)
    write_series(folder, image.data[:, :, ::20, 0], image.affine, 7, SeriesDescription="survey")
    kind = ["DERIVED", "PRIMARY", "DIFFUSION", "TRACEW"]
    write_series(folder, image.data[..., 0], image.affine, 8, ImageType=kind)
    nifti, dicom = (pimms_tf.segment_patient(paths, contributions=False) for paths in (files, folder))
    assert sorted(one.reason for one in dicom.set_aside) == ["holds diffusion images", "is a localiser"]
    assert [scan.taken_for for scan in dicom.used] == [scan.taken_for for scan in nifti.used]
    assert nifti.volume_ml > 0
    there = resample_onto(Image(dicom.mask.data, dicom.mask.affine), nifti.grid, 0)
    np.testing.assert_array_equal(there.data, nifti.mask.data)


@pytest.mark.slow
@pytest.mark.skipif(not (REAL / "dicom_brainix").is_dir(), reason="the real DICOM study is not part of the repository")
def test_a_real_study_is_read_and_recognised():
    result = pimms_tf.segment_patient(REAL / "dicom_brainix", contributions=False)
    assert sorted(scan.taken_for for scan in result.used) == ["FLAIR", "T1", "T2"]
