"""Files read and written inside the graph are those that nibabel reads and writes."""

import gzip

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
import tensorflow as tf

from pimms_tf.data.images import read_image
from pimms_tf.graph.nifti import mask_files, read_files

RNG = np.random.default_rng(7)
AFFINE = np.array([[-0.9, 0.1, 0.0, 20.0], [0.1, 0.9, 0.3, -30.0], [0.0, -0.2, 4.0, 5.0], [0.0, 0.0, 0.0, 1.0]])
TYPES = ("uint8", "int8", "int16", "uint16", "int32", "uint32", "int64", "uint64", "float32", "float64")


def a_file(dtype="int16", shape=(5, 4, 3), affine=AFFINE, endianness="<", slope=None, inter=0.0, **fields):
    values = RNG.integers(0, 100, shape) if np.dtype(dtype).kind == "u" else RNG.integers(-100, 100, shape)
    if np.dtype(dtype).itemsize > 2 and np.dtype(dtype).kind == "u":
        values = values.astype(np.uint64) + np.uint64(2 ** (8 * np.dtype(dtype).itemsize - 1))
    header = nib.Nifti1Header(endianness=endianness)
    header.set_data_dtype(dtype)
    image = nib.Nifti1Image(values.astype(dtype), affine, header)
    if slope is not None:
        image.header.set_slope_inter(slope, inter)
    content = image.to_bytes()
    header = nib.Nifti1Header(content[:348], endianness=endianness, check=False)
    for name, value in fields.items():
        header[name] = value
    return header.binaryblock + content[348:]


@tf.function(input_signature=[tf.TensorSpec((None,), tf.string)], autograph=False)
def _read(files):
    return read_files(files)


def read(*files):
    return _read(tf.constant(list(files), tf.string))


def as_read(content, folder):
    path = folder / "x.nii"
    path.write_bytes(content)
    return read_image(path)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("endianness", ["<", ">"])
def test_all_types_in_both_byte_orders_are_read_as_nibabel_reads_them(dtype, endianness, tmp_path):
    content = a_file(dtype, endianness=endianness, slope=0.37, inter=-2.5)
    found, expected = read(gzip.compress(content)), as_read(content, tmp_path)
    np.testing.assert_array_equal(found.scans[0], expected.data[..., 0])
    np.testing.assert_allclose(found.affine, expected.affine, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    "fields",
    [
        {"sform_code": 0},
        {"sform_code": 0, "qform_code": 0},
        {"xyzt_units": 3},
        {"pixdim": [-1, 0.9, 0.9, 4.0, 0, 0, 0, 0], "sform_code": 0},
        {"pixdim": [1, 1.8, 1.8, 8.0, 0, 0, 0, 0], "qform_code": 0},
        {"scl_slope": 0.0, "scl_inter": 5.0},
        {"scl_slope": np.nan},
    ],
)
def test_affines_and_slopes_are_chosen_as_nibabel_chooses_them(fields, tmp_path):
    content = a_file(**{"qform_code": 1, "quatern_b": 0.1, "quatern_c": 0.05, "quatern_d": 0.99} | fields)
    found, expected = read(content), as_read(content, tmp_path)
    np.testing.assert_allclose(found.affine, expected.affine, rtol=0, atol=2e-5)
    np.testing.assert_array_equal(found.scans[0], expected.data[..., 0])


@pytest.mark.parametrize("endianness", ["<", ">"])
def test_a_mask_lies_where_the_scan_does_in_nibabel_and_simpleitk(endianness, tmp_path):
    # SimpleITK wants a rotation, so this affine has no shear.
    content = a_file(affine=np.diag([-0.9, 0.9, 4.0, 1.0]), endianness=endianness, descrip=b"Jane Doe")
    mask = RNG.integers(0, 2, (5, 4, 3)).astype(np.uint8)
    written = mask_files(tf.constant(mask), read(content)).numpy()
    image = nib.Nifti1Image.from_bytes(written)
    np.testing.assert_array_equal(np.asarray(image.dataobj), mask)
    np.testing.assert_array_equal(image.affine, nib.Nifti1Image.from_bytes(content).affine)
    assert b"Jane" not in written
    assert image.get_data_dtype() == np.uint8
    (tmp_path / "mask.nii").write_bytes(written)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(sitk.ReadImage(tmp_path / "mask.nii")), mask.transpose())


def test_the_order_of_the_files_decides_nothing_but_the_order_of_the_scans():
    files = [a_file(affine=AFFINE + 1e-4 * n) for n in range(3)]
    forwards, backwards = read(*files), read(*files[::-1])
    np.testing.assert_array_equal(forwards.affine, backwards.affine)
    np.testing.assert_array_equal(forwards.scans, backwards.scans[::-1])


GOOD = a_file()
ZIPPED = gzip.compress(GOOD)


@pytest.mark.parametrize(
    ("files", "complaint"),
    [
        ([], "there is no file"),
        ([GOOD, b"text"], "file 2 is no NIfTI file: it has 4 bytes"),
        ([b"\0" * 400], "file 1 is no NIfTI-1 file"),
        ([bytes(nib.Nifti2Image(np.zeros((3, 3, 3)), np.eye(4)).to_bytes())], "is a NIfTI-2 file; convert"),
        ([a_file(magic=b"ni1")], "is the header of a pair of files"),
        ([a_file(datatype=32)], "voxels of type 32, which are no integers or real numbers"),
        ([a_file(shape=(3, 3, 3, 2))], "has several times or components"),
        ([a_file(dim=[3, 30000, 30000, 30000, 1, 1, 1, 1])], "more than 134217728 voxels"),
        ([a_file(dim=[3, 5, -4, 3, 1, 1, 1, 1])], "an axis has no voxel"),
        ([a_file(dim=[9, 5, 4, 3, 1, 1, 1, 1])], "it tells of 9 axes"),
        ([GOOD[:-8]], "has 464 bytes, and its header tells of 472; send it again, whole"),
        ([a_file(vox_offset=-5e9)[:-8]], "send it again, whole"),
        ([a_file(vox_offset=3e9)], "send it again, whole"),
        ([GOOD + bytes(2**21)], "goes on far behind its last voxel"),
        ([ZIPPED[:-9]], "file 1 claims to hold|file 1 holds|inflate"),
        ([ZIPPED[:-4] + b"\xff\xff\xff\x7f"], "file 1 claims to hold 2147483647 bytes"),
        ([ZIPPED[:-4] + b"\x10\x00\x00\x00"], "incorrect length check|instead of 16"),
        ([GOOD, a_file(shape=(5, 4, 4))], "file 2 has 5 x 4 x 4 voxels and file 1 has 5 x 4 x 3|file 1 has 5 x 4 x 3"),
        ([GOOD, a_file(affine=AFFINE + np.eye(4, k=3))], "lie in different places"),
    ],
)
def test_files_that_cannot_be_used_are_refused_in_words(files, complaint):
    with pytest.raises((tf.errors.InvalidArgumentError, tf.errors.DataLossError), match=complaint):
        read(*files)
