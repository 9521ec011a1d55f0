"""Files as strangers make them: other units, headers that promise too much, what is no file at all."""

import errno
import gzip
import os
import tracemalloc
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from pimms_tf.data.grids import Grid
from pimms_tf.data.images import read_image, read_image_header, resampled_shape, write_image
from pimms_tf.data.loading import SubjectLoader
from pimms_tf.errors import InputError

AFFINE = np.array([[0, -2.0, 0, 30], [1.5, 0, 0, -20], [0, 0, 3.0, 10], [0, 0, 0, 1]])
DATA = np.arange(4 * 5 * 6, dtype=np.int16).reshape(4, 5, 6)


def write(path, data=DATA, units="mm", scale=1.0, codes=(1, 1)):
    image = nib.Nifti1Image(data, None)
    affine = np.diag([scale, scale, scale, 1]) @ AFFINE
    image.set_qform(affine, codes[1])
    image.set_sform(affine, codes[0])
    image.header.set_xyzt_units(units)
    nib.save(image, path)
    return path


def refusal(path):
    """The one sentence about a file, which its header alone gives as well."""
    for read in (read_image, read_image_header):
        with pytest.raises(InputError) as caught:
            read(path)
    assert str(path) in str(caught.value)
    return str(caught.value)


# ---- units


@pytest.mark.parametrize("codes", [(1, 1), (1, 0), (0, 1), (0, 0)])
@pytest.mark.parametrize(("units", "scale"), [("meter", 1e-3), ("micron", 1e3), ("mm", 1.0), ("unknown", 1.0)])
def test_lengths_are_mm_whatever_the_units_of_the_file_and_go_back_in_its_own(tmp_path, units, scale, codes):
    plain = read_image(write(tmp_path / "plain.nii", codes=codes))
    path = write(tmp_path / "scan.nii", units=units, scale=scale, codes=codes)
    for image in (read_image(path), read_image_header(path)):
        np.testing.assert_allclose(image.affine, plain.affine, rtol=1e-6)
        np.testing.assert_allclose(image.spacing_mm, plain.spacing_mm, rtol=1e-6)
        assert image.original.matches(plain.original)
    image = read_image(path)
    write_image(image, tmp_path / "out.nii", like=image)
    stored, written = nib.load(path).header, nib.load(tmp_path / "out.nii").header
    assert written.get_xyzt_units()[0] == units
    np.testing.assert_allclose(written.get_best_affine(), stored.get_best_affine(), rtol=1e-6)
    np.testing.assert_allclose(written.get_zooms(), stored.get_zooms(), rtol=1e-6)


def test_a_qform_that_differs_from_the_sform_goes_back_as_it_was_in_any_unit(tmp_path):
    image = nib.Nifti1Image(DATA, None)
    tilted = np.diag([2e3, 2e3, 2e3, 1])
    tilted[:3, 3] = 1e4
    image.set_qform(tilted, 1)
    image.set_sform(np.diag([-2e3, -2e3, 2e3, 1]), 2)
    image.header.set_xyzt_units("micron")
    nib.save(image, tmp_path / "scan.nii")
    read = read_image(tmp_path / "scan.nii")
    write_image(read, tmp_path / "out.nii", like=read)
    before, after = (nib.load(tmp_path / name).header for name in ("scan.nii", "out.nii"))
    np.testing.assert_allclose(after.get_qform(), before.get_qform(), rtol=1e-6)
    np.testing.assert_allclose(after.get_sform(), before.get_sform(), rtol=1e-6)


def test_scans_in_any_unit_are_prepared_alike(tmp_path):
    loader = SubjectLoader(pixdim_mm=(1.0, 1.0, 1.0), whitening=False)
    plain = loader.load({"T1": write(tmp_path / "plain.nii")})
    for units, scale in (("meter", 1e-3), ("micron", 1e3)):
        files = {"T1": write(tmp_path / f"{units}.nii", units=units, scale=scale)}
        np.testing.assert_array_equal(loader.load(files).scans, plain.scans)
        assert loader.prepared_shape(files) == plain.scans.shape[:3]


@pytest.mark.parametrize("spacing_mm", [2e3, 2e-3])
def test_voxel_sizes_that_cannot_be_right_are_refused_before_memory_is_touched(tmp_path, spacing_mm):
    path = tmp_path / "scan.nii"
    nib.save(nib.Nifti1Image(np.ones((66, 80, 16), np.int16), np.diag([spacing_mm] * 3 + [1])), path)
    loader = SubjectLoader(pixdim_mm=(2.0, 2.0, 2.0))
    tracemalloc.start()
    for read in (loader.load, loader.prepared_shape):
        with pytest.raises(InputError, match=rf"66 x 80 x 16 voxels of \({spacing_mm:.4g}, .* mm would become"):
            read({"T1": path}, "s1")
    assert tracemalloc.get_traced_memory()[1] < 20e6
    tracemalloc.stop()


def test_thin_slabs_and_microscopy_are_resampled_as_before():
    assert resampled_shape(Grid((8, 8, 2), np.diag([1, 1, 0.3, 1.0])), (1.0, 1.0, 1.0)) == (8, 8, 1)
    assert resampled_shape(Grid((90, 90, 90), np.diag([0.02, 0.02, 0.02, 1])), (1.0, 1.0, 1.0)) == (2, 2, 2)


# ---- headers that do not fit their file


def with_dim(path, *dim):
    """The file with other lengths in its header."""
    content = path.read_bytes()
    content = gzip.decompress(content) if path.suffix == ".gz" else content
    content = content[:40] + np.array([len(dim), *dim], "<i2").tobytes() + content[42 + 2 * len(dim) :]
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


@pytest.mark.parametrize("name", ["scan.nii", "scan.nii.gz"])
def test_a_header_that_promises_what_the_file_cannot_hold_is_refused_from_the_header(tmp_path, name):
    text = refusal(with_dim(write(tmp_path / name), 900, 900, 900))
    assert "cannot hold the 1,458,000,352 that its header tells of" in text
    text = refusal(with_dim(write(tmp_path / name), 30000, 30000, 30000))
    assert "its header tells of 30000 x 30000 x 30000 voxels, more than any scan has" in text


@pytest.mark.parametrize("name", ["scan.nii", "scan.nii.gz", "scan.img"])
def test_a_file_that_goes_on_far_behind_its_voxels_is_refused_and_never_held_in_memory(tmp_path, name):
    image = nib.Nifti1Pair(DATA, AFFINE) if name.endswith("img") else nib.Nifti1Image(DATA, AFFINE)
    path = tmp_path / name
    for behind, is_fine in ((1000, True), (1 << 20, True), (1 << 26, False)):
        nib.save(image, path)
        if name.endswith(".gz"):
            path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes()) + bytes(behind), 1))
        else:
            with path.open("ab") as stream:
                stream.truncate(path.stat().st_size + behind)
        if is_fine:
            np.testing.assert_array_equal(read_image(path).data[..., 0], DATA)
            continue
        tracemalloc.start()
        with pytest.raises(InputError, match="goes on for more than 1,048,576 bytes behind the last voxel"):
            read_image(path)
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
        tracemalloc.stop()


def test_bits_that_flipped_in_a_zipped_pair_are_seen(tmp_path):
    nib.save(nib.Nifti1Pair(DATA, AFFINE), tmp_path / "scan.img")
    for ending in ("hdr", "img"):
        plain = tmp_path / f"scan.{ending}"
        (tmp_path / f"scan.{ending}.gz").write_bytes(gzip.compress(plain.read_bytes()))
        plain.unlink()
    path = tmp_path / "scan.img.gz"
    np.testing.assert_array_equal(read_image(path).data[..., 0], DATA)
    content = bytearray(path.read_bytes())
    content[-8] ^= 1  # of the checksum
    path.write_bytes(content)
    with pytest.raises(InputError, match="is damaged"):
        read_image(path)


@pytest.mark.parametrize("kind", [nib.Nifti1Pair, nib.Spm2AnalyzeImage])
def test_a_pair_is_the_image_that_one_file_of_the_same_voxels_is(tmp_path, kind):
    affine = np.diag([-2.0, 2, 3, 1])
    affine[:3, 3] = 2 * 1.5, -2 * 2, -3 * 2.5  # Analyze puts its origin into the middle
    nib.save(nib.Nifti1Image(DATA, affine), tmp_path / "one.nii")
    nib.save(kind(DATA, affine), tmp_path / "two.img")
    one = SubjectLoader(whitening=False).load({"T1": tmp_path / "one.nii"})
    for name in ("two.img", "two.hdr"):
        two = SubjectLoader(whitening=False).load({"T1": tmp_path / name})
        np.testing.assert_array_equal(two.scans, one.scans)


def test_other_formats_may_not_promise_too_much_either(tmp_path):
    path = tmp_path / "scan.mhd"
    path.write_text("NDims = 3\nDimSize = 30000 30000 30000\nElementType = MET_UCHAR\nElementDataFile = scan.raw\n")
    (tmp_path / "scan.raw").write_bytes(bytes(100))
    assert "30000 x 30000 x 30000 x 1 values, more than any scan has" in refusal(path)


def test_an_affine_that_is_no_number_is_seen_in_the_header(tmp_path):
    content = bytearray(write(tmp_path / "scan.nii").read_bytes())
    content[280:284] = np.array(np.nan, "<f4").tobytes()  # the first number of the sform
    (tmp_path / "scan.nii").write_bytes(content)
    assert "cannot be inverted" in refusal(tmp_path / "scan.nii")


# ---- what is no file


def test_links_that_lead_nowhere_pipes_and_folders_are_named_and_not_opened(tmp_path):
    path = tmp_path / "scan.nii.gz"
    path.symlink_to("../annex/scan.nii.gz")
    assert "is a link to ../annex/scan.nii.gz, where no file is; fetch the file" in refusal(path)
    path.unlink()
    path.symlink_to("scan.nii.gz")
    assert "is a link to scan.nii.gz, where no file is" in refusal(path)
    path.unlink()
    os.mkfifo(path)
    assert "is no regular file" in refusal(path)
    path.unlink()
    path.mkdir()
    assert "is a folder, not an image" in refusal(path)
    (tmp_path / "file").write_bytes(b"")
    assert "cannot be reached (Not a directory)" in refusal(tmp_path / "file" / "scan.nii")


def test_files_that_this_user_may_not_read_are_no_damaged_ones(tmp_path, monkeypatch):
    path, opened, asked = write(tmp_path / "scan.nii"), Path.open, os.stat

    def locked(file, *words, **more):
        if file == path:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return opened(file, *words, **more)

    monkeypatch.setattr(Path, "open", locked)
    assert "may not be read by this user (Permission denied); change its permissions" in refusal(path)

    def closed(file, *words, **more):
        if file == path:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return asked(file, *words, **more)

    monkeypatch.setattr(os, "stat", closed)
    assert "cannot be reached (Permission denied)" in refusal(path)
