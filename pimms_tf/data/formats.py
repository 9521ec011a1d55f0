"""Image files: which library reads which, what their headers say, and what is wrong with a file that cannot be used."""

import errno
import gzip
import logging
import math
import os
import stat
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np

from pimms_tf.data.grids import Grid, is_too_large, mm_per_unit, print_affine, print_numbers
from pimms_tf.errors import InputError

log = logging.getLogger(__name__)

NIBABEL_SUFFIXES = (".nii", ".nii.gz", ".hdr", ".hdr.gz", ".img", ".img.gz", ".mgh", ".mgz")
MINC_SUFFIXES = (".mnc", ".mnc.gz")
PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")
Reader = Callable[[Path], tuple[np.ndarray, Grid]]

_MOST_DEFLATED = 1032  # bytes that one byte of a gzip file can stand for
_MOST_BEHIND = 2**20  # bytes behind the voxels: padding, or the tags of MGH
HEADER_TOLERANCE_MM = 1e-3  # the zooms of a header are float32 and rarely equal the column norms exactly


def read_file(path: Path, loader: str | None = None, finite: bool = True) -> tuple[np.ndarray, Grid]:
    """Returns the voxels of a file, (x, y, z, channel) float32 scaled as its header says, and its grid.

    With `finite`, voxels that are NaN or infinite are refused.

    Raises:
        InputError: as `images.read_image`, which says more.
    """
    path = Path(path)
    _check_file(path)
    read = _reader(path, loader)
    try:
        voxels, grid = read(path)
    except InputError:
        raise
    except PermissionError as error:
        raise InputError("may not be read by this user; change its permissions", path=path) from error
    except MemoryError as error:
        raise InputError("claims to be larger than the memory; if it is not, export it again", path=path) from error
    except Exception as error:  # a damaged file can fail anywhere inside the readers, with any type
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise InputError(f"is no image or is damaged ({reason}); copy or export it again", path=path) from error
    data = _with_channels(voxels, path)
    _check_values(data, grid, path, finite)
    return data, grid


def read_header(path: Path, loader: str | None = None) -> tuple[Grid, int]:
    """Returns the grid of a file and how many channels it has, of NIfTI and MGH files without reading the voxels.

    Raises:
        InputError: as `read_file`, as far as the header shows it.
    """
    path = Path(path)
    _check_file(path)
    if not path.name.lower().endswith(NIBABEL_SUFFIXES) or _reader(path, loader) is not _read_nibabel:
        data, grid = read_file(path, loader)
        return grid, data.shape[3]
    try:
        image = _nibabel_image(path)
        grid = _nibabel_grid(image, path)
    except InputError:
        raise
    except PermissionError as error:
        raise InputError("may not be read by this user; change its permissions", path=path) from error
    except Exception as error:  # as in `read_file`
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise InputError(f"is no image or is damaged ({reason}); copy or export it again", path=path) from error
    _check_affine(grid, path)
    return grid, max(image.shape[3:], default=1)


def _check_file(path: Path) -> None:
    """Refuses what cannot be read, before it is opened: opening a pipe would wait for ever."""
    try:
        found = os.stat(path)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ELOOP) and path.is_symlink():
            raise InputError(
                f"is a link to {os.readlink(path)}, where no file is; fetch the file, or correct the link", path=path
            ) from error
        if isinstance(error, FileNotFoundError):
            raise InputError("does not exist; check the path", path=path) from error
        raise InputError(
            f"cannot be reached ({error.strerror}); check the path and its permissions", path=path
        ) from error
    if stat.S_ISDIR(found.st_mode):
        raise InputError("is a folder, not an image; give the path of a file", path=path)
    if not stat.S_ISREG(found.st_mode):
        raise InputError("is no regular file; give the path of an image", path=path)
    if found.st_size == 0:
        raise InputError("is empty (0 bytes); copy or export it again", path=path)
    try:
        path.open("rb").close()
    except OSError as error:  # the libraries below would call it damaged
        why = f"may not be read by this user ({error.strerror}); change its permissions"
        raise InputError(why, path=path) from error


def _reader(path: Path, loader: str | None) -> Reader:
    name = path.name.lower()
    if loader is not None:
        if loader.lower() not in LOADERS:
            raise InputError(f"loader is {loader!r}; use one of {', '.join(LOADERS)}, or leave it out", path=path)
        return LOADERS[loader.lower()]
    if name.endswith(NIBABEL_SUFFIXES):
        return _read_nibabel
    if name.endswith(MINC_SUFFIXES):
        return _read_minc
    return _read_picture if name.endswith(PICTURE_SUFFIXES) else _read_simpleitk


def _read_minc(path: Path) -> tuple[np.ndarray, Grid]:
    # SimpleITK, which opens these too, takes their coordinates to the right and front for ones to the left and back.
    image = nib.load(path)
    return np.asanyarray(image.dataobj), Grid(_spatial_shape(image.shape), np.array(image.affine, float))


def _read_nibabel(path: Path) -> tuple[np.ndarray, Grid]:
    image = _nibabel_image(path)
    if path.name.lower().endswith((".nii.gz", ".mgz")):
        with gzip.open(path) as stream:
            image = type(image).from_stream(stream)
            voxels = np.asanyarray(image.dataobj)
            _read_rest(stream, path)
    else:
        voxels = np.asanyarray(image.dataobj)
        data = _data_file(image, path)
        if data.suffix.lower() == ".gz":
            with gzip.open(data) as stream:
                _read_rest(stream, path, voxels.size * image.dataobj.dtype.itemsize)
    return voxels, _nibabel_grid(image, path)


def _nibabel_image(path: Path) -> nib.spatialimages.SpatialImage:
    """The image of a file, whose voxels are still there alone and can be as many as its header says.

    Raises:
        InputError: it has too few bytes for them or far too many, or there would be more than any scan has.
    """
    image = nib.load(path)
    if is_too_large(*image.shape):
        raise InputError(
            f"its header tells of {' x '.join(map(str, image.shape))} voxels, more than any scan has; export it again",
            path=path,
        )
    data = _data_file(image, path)
    expected = image.dataobj.offset + math.prod(image.shape) * image.dataobj.dtype.itemsize
    found, is_zipped = data.stat().st_size, data.suffix.lower() in (".gz", ".mgz")
    if found * (_MOST_DEFLATED if is_zipped else 1) < expected:
        raise InputError(
            f"is no image or is damaged ({found:,} bytes cannot hold the {expected:,} that its header tells of);"
            " copy or export it again",
            path=path,
        )
    if not is_zipped and found - expected > _MOST_BEHIND:
        raise _goes_on(path)
    return image


def _data_file(image: nib.spatialimages.SpatialImage, path: Path) -> Path:
    return Path(image.file_map["image"].filename or path)


def _read_rest(stream: gzip.GzipFile, path: Path, known: int = 0) -> None:
    """Reads what comes behind the voxels: nibabel stops before the checksum, without which flipped bits go unseen."""
    count = -known
    while block := stream.read(1 << 20):
        count += len(block)
        if count > _MOST_BEHIND:
            raise _goes_on(path)


def _goes_on(path: Path) -> InputError:
    return InputError(
        f"goes on for more than {_MOST_BEHIND:,} bytes behind the last voxel that its header tells of, so one of"
        " the two is wrong; export it again",
        path=path,
    )


def _nibabel_grid(image: nib.spatialimages.SpatialImage, path: Path) -> Grid:
    shape, affine = _spatial_shape(image.shape), np.array(image.affine, float)
    num_axes = len(image.shape)
    if not isinstance(image, nib.Nifti1Pair):
        return Grid(shape, affine)
    header = image.header
    units = int(header["xyzt_units"])
    scale = mm_per_unit(units)
    affine[:3] *= scale
    sform_code, qform_code = int(header["sform_code"]), int(header["qform_code"])
    qform = header.get_qform() if qform_code > 0 else None
    if qform is not None:
        qform[:3] *= scale
    zooms_mm = np.array(header["pixdim"][1:4], float) * scale
    if num_axes < 5:
        repaired = repaired_affine(affine, qform, zooms_mm, num_axes)
        if repaired is not affine:
            used = "the qform" if repaired is qform else f"the voxel sizes {print_numbers(zooms_mm)} mm"
            log.warning("%s: its sform and its voxel sizes contradict each other; using %s", path, used)
            affine, qform = repaired, None
    return Grid(shape, affine, sform_code, qform_code, qform, units, num_axes=min(num_axes, 3))


def repaired_affine(affine: np.ndarray, qform: np.ndarray | None, zooms_mm: np.ndarray, num_axes: int) -> np.ndarray:
    """The affine itself if it has the header's voxel sizes, else the qform in use, else the affine rescaled to them.

    Sizes that are not positive are no evidence and change nothing.

    Source: niftynet/io/misc_io.py `correct_image_if_necessary`, which also takes a qform of code 0 and so loses the
    position.
    """
    norms = np.linalg.norm(affine[:3, :3], axis=0)
    known = np.arange(3) < num_axes
    if not (np.isfinite(zooms_mm).all() and (zooms_mm[known] > 0).all() and (norms > 0).all()):
        return affine
    if np.abs(norms - zooms_mm)[known].max() <= HEADER_TOLERANCE_MM:
        return affine
    if qform is not None:
        return qform
    if not np.isfinite(norms).all():
        return affine
    rescaled = affine.copy()
    rescaled[:3, :3] *= np.where(known, zooms_mm, norms) / norms
    return rescaled


def _read_simpleitk(path: Path) -> tuple[np.ndarray, Grid]:
    import SimpleITK as sitk  # noqa: N813  (half a second that users of NIfTI need not wait)

    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    reader.ReadImageInformation()
    size = (*reader.GetSize(), reader.GetNumberOfComponents())
    if is_too_large(*size):
        raise InputError(
            f"its header tells of {' x '.join(map(str, size))} values, more than any scan has; export it again",
            path=path,
        )
    image = reader.Execute()
    rank = image.GetDimension()
    voxels = sitk.GetArrayFromImage(image)  # (…, z, y, x) and then the components of a vector
    is_vector = image.GetNumberOfComponentsPerPixel() > 1
    voxels = np.transpose(voxels, (*range(rank - 1, -1, -1), *([rank] if is_vector else [])))
    if is_vector:
        voxels = voxels.reshape(*voxels.shape[:-1], *(1,) * (4 - rank), voxels.shape[-1])  # (x, y, z, t, component)
    size = min(rank, 3)
    direction = np.array(image.GetDirection()).reshape(rank, rank)
    affine = np.eye(4)
    affine[:size, :size] = (direction * np.array(image.GetSpacing()))[:size, :size]
    affine[:size, 3] = image.GetOrigin()[:size]
    affine[:2] *= -1  # left, posterior, superior → right, anterior, superior
    return voxels, Grid(_spatial_shape(voxels.shape), affine, num_axes=size)


def _read_picture(path: Path) -> tuple[np.ndarray, Grid]:
    voxels, grid = _read_simpleitk(path)
    voxels = np.swapaxes(voxels, 0, 1)  # rows first, as NiftyNet's picture loaders
    return voxels, Grid(_spatial_shape(voxels.shape), np.eye(4), num_axes=grid.num_axes)


def _spatial_shape(shape: tuple[int, ...]) -> tuple[int, int, int]:
    return tuple(int(length) for length in (*shape, 1, 1, 1)[:3])


def _with_channels(voxels: np.ndarray, path: Path) -> np.ndarray:
    """(x, y, z, channel) float32 of an array with any number of axes: times or vector components become channels."""
    if voxels.dtype.names:  # the colours of an RGB file
        voxels = np.stack([voxels[name] for name in voxels.dtype.names], axis=-1)
        voxels = voxels.reshape(*voxels.shape[:-1], *(1,) * (5 - voxels.ndim), voxels.shape[-1])  # (x, y, z, t, colour)
    if voxels.dtype.kind == "c":
        raise InputError("has complex voxels; write their magnitude to a file and give that", path=path)
    shape = voxels.shape + (1,) * (5 - voxels.ndim)
    longer = [length for length in shape[3:] if length != 1]
    if len(longer) > 1:
        raise InputError(
            f"has more than one axis beyond x, y and z (shape {voxels.shape}); write times, or vector"
            " components, to files of their own",
            path=path,
        )
    channels = longer[0] if longer else 1
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, and is refused
        # A memory map must not outlive this call: its file may be overwritten.
        return voxels.reshape(*shape[:3], channels).astype(np.float32, copy=isinstance(voxels, np.memmap))


def _check_values(data: np.ndarray, grid: Grid, path: Path, finite: bool) -> None:
    if data.size == 0:
        raise InputError(f"has no voxels: its shape is {data.shape}; export it again", path=path)
    if finite and not (np.isfinite(data.min()) and np.isfinite(data.max())):
        count = data.size - np.count_nonzero(np.isfinite(data))
        raise InputError(
            f"has {count} voxels that are NaN or infinite; replace them, by 0 outside the head for instance", path=path
        )
    _check_affine(grid, path)


def _check_affine(grid: Grid, path: Path) -> None:
    if not np.isfinite(grid.affine).all() or abs(np.linalg.det(grid.affine[:3, :3])) < 1e-12:
        raise InputError(
            f"the affine {print_affine(grid.affine)} of its header cannot be inverted; repair its sform or"
            " its voxel sizes",
            path=path,
        )


# NiftyNet's words; its three picture libraries gave the same array.
LOADERS: dict[str, Reader] = {
    "nibabel": _read_nibabel,
    "simpleitk": _read_simpleitk,
    "opencv": _read_picture,
    "skimage": _read_picture,
    "pillow": _read_picture,
}
