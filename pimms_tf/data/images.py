"""Image, an array with its place in the patient: reading, orientation, spacing, and the way back to the file's grid."""

from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Literal

import nibabel as nib
import numpy as np
from nibabel import orientations
from scipy import ndimage

from pimms_tf.data.formats import read_file, read_header
from pimms_tf.data.grids import Grid, corners, is_too_large, print_numbers
from pimms_tf.errors import InputError
from pimms_tf.files import replacing

FarPlane = Literal["interpolated", "zeroed"]

_SMALLEST_FACTOR = 0.01
OPPOSITES = (("L", "R"), ("P", "A"), ("I", "S"))


@dataclass(frozen=True, eq=False)
class Image:
    """Voxels and where they lie.

    `data` is (x, y, z, channel): float32 as read, integers where labels are about to be written. `affine` (4, 4) maps
    voxel indices to mm. `original` is the grid of the file the image was read from; `reorient` and `resample` keep it.
    """

    data: np.ndarray
    affine: np.ndarray
    original: Grid | None = None

    def __post_init__(self) -> None:
        if self.data.ndim != 4:
            raise ValueError(f"image data must be (x, y, z, channel), received shape {self.data.shape}")

    @property
    def shape(self) -> tuple[int, int, int]:
        """Number of voxels along x, y and z."""
        return tuple(int(length) for length in self.data.shape[:3])

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Distance between neighbouring voxels along x, y and z."""
        return self.grid.spacing_mm

    @property
    def axcodes(self) -> tuple[str, str, str]:
        """The anatomical direction in which each axis grows, such as ("L", "P", "S")."""
        return self.grid.axcodes

    @property
    def grid(self) -> Grid:
        """The grid the voxels lie on now; header codes and units are those of the file, if there was one."""
        if self.original is None:
            return Grid(self.shape, self.affine)
        if self.shape == self.original.shape and np.array_equal(self.affine, self.original.affine):
            return self.original
        code = self.original.sform_code or 1  # readers pass over an sform of code 0
        return replace(self.original, shape=self.shape, affine=self.affine, sform_code=code, qform=None, num_axes=3)


def read_image(path: Path, loader: str | None = None, finite: bool = True) -> Image:
    """Returns the image in a file, scaled as its header says.

    NIfTI, Analyze and MGH are read through nibabel, everything else (MHA, MHD, NRRD, pictures, …) through SimpleITK,
    unless `loader` is one of `formats.LOADERS`. A file of two axes, or with one axis of length 1, becomes (x, y, 1);
    times or vector components become channels. Pictures have the identity as affine, and their rows are x. A header
    whose sform contradicts its voxel sizes is repaired as NiftyNet does. With `finite`,
    voxels that are NaN or infinite are refused.

    Raises:
        InputError: the file is missing, empty, damaged or no image; it has no voxels, voxels that are NaN or infinite,
            several times and several components at once, or an affine that cannot be inverted.
    Source: niftynet/io/{image_loader,image_type,misc_io}.py.
    """
    return _in_order(*read_file(path, loader, finite))


def read_image_header(path: Path, loader: str | None = None) -> Image:
    """Returns the image in a file with all its voxels 0, which take no memory: to know its grid without reading it.

    Raises:
        InputError: as `read_image`, as far as the header shows it.
    """
    grid, num_channels = read_header(path, loader)
    return _in_order(np.broadcast_to(np.float32(0), (*grid.shape, num_channels)), grid)


def _in_order(data: np.ndarray, grid: Grid) -> Image:
    # An axis of length 1 goes last, so that a slice is (x, y, 1) whichever plane it was cut from.
    order = sorted(range(3), key=lambda axis: grid.shape[axis] == 1)
    affine = np.column_stack([grid.affine[:, order], grid.affine[:, 3]])
    return Image(np.transpose(data, (*order, 3)), affine, original=grid)


def reorient(image: Image, axcodes: tuple[str, str, str]) -> Image:
    """Returns the image with axes permuted and flipped to grow towards `axcodes`; every voxel keeps its place in mm.

    `axcodes` name the positive ends, ("L", "P", "S") for instance. An image with fewer than three axes longer than 1 is
    returned as it is, as NiftyNet does. The data may be a view of the input.

    Raises:
        InputError: `axcodes` are not one of L and R, one of P and A, and one of I and S.
    Source: niftynet/io/misc_io.py `do_reorientation`.

    >>> image = Image(np.arange(6.0).reshape(3, 2, 1, 1), np.diag([2.0, 1, 1, 1]))  # axes to right, front, top
    >>> reorient(image, ("L", "P", "S")).data[..., 0, 0].tolist()
    [[0.0, 1.0], [2.0, 3.0], [4.0, 5.0]]
    """
    codes = tuple(str(code).upper() for code in axcodes)
    if len(codes) != 3 or not all(any(code in pair for code in codes) for pair in OPPOSITES):
        raise InputError(f"axcodes {tuple(axcodes)} must be one of L, R, one of P, A and one of I, S, as in L,P,S")
    if image.grid.is_flat:
        return image
    change = orientations.ornt_transform(nib.io_orientation(image.affine), orientations.axcodes2ornt(codes))
    affine = image.affine @ orientations.inv_ornt_aff(change, image.shape)
    return Image(orientations.apply_orientation(image.data, change), affine, image.original)


def resampled_shape(grid: Grid, pixdim_mm: tuple[float, float, float]) -> tuple[int, int, int]:
    """The shape `resample` gives a grid: round(n · spacing / pixdim) per axis, halves to even, at least 1.

    A pixdim of 0 keeps the length, and so the spacing, of its axis.

    Raises:
        InputError: the spacing cannot be right, since each voxel would take the place of a hundred in every direction,
            or there would be more than any scan has.
    """
    if grid.is_flat:
        return grid.shape
    # The spacing is a float32 in every header; more digits would decide halves by rounding noise.
    factors = [
        float(np.float32(now)) / float(wanted) if wanted else 1.0
        for now, wanted in zip(grid.spacing_mm, pixdim_mm, strict=True)
    ]
    shape = tuple(max(1, round(length * factor)) for length, factor in zip(grid.shape, factors, strict=True))
    if max(factors) < _SMALLEST_FACTOR or is_too_large(*shape):
        raise InputError(
            f"{' x '.join(map(str, grid.shape))} voxels of {print_numbers(grid.spacing_mm)} mm would become"
            f" {' x '.join(map(str, shape))} at pixdim {print_numbers(pixdim_mm)}; correct the voxel size in the"
            " header, its units, or pixdim"
        )
    return shape


def resample(
    image: Image,
    pixdim_mm: tuple[float, float, float],
    order: int,
    keep_zeros: bool = False,
    far_plane: FarPlane = "interpolated",
) -> Image:
    """Returns the image with round(n · spacing / pixdim) voxels along each axis, by splines of `order` 0 to 3.

    The centres of the first and the last voxel stay where they are, so the new spacing is (n_in - 1) / (n_out - 1) of
    the old one and only nearly `pixdim_mm`; the new affine says exactly which. There is no anti-aliasing. An image with
    fewer than three axes longer than 1 is returned as it is.

    Orders 2 and 3 ring: around a brain whose background is 0 they leave values of 1e-30 and more, of either sign, which
    the foreground method `threshold_plus` takes for brain. With `keep_zeros`, a voxel between zeros only is 0. For
    `far_plane` see `zoom_to`.

    Raises:
        InputError: `order` is -1, never interpolate, but the shape would change; or `pixdim_mm` is not three positive
            numbers.
    Source: niftynet/io/misc_io.py `do_resampling`.

    >>> image = Image(np.ones((4, 4, 3, 1)), np.diag([2.0, 2, 5, 1]))
    >>> resample(image, (1.0, 1.0, 5.0), order=1).shape
    (8, 8, 3)
    """
    if len(pixdim_mm) != 3 or not all(np.isfinite(step) and step >= 0 for step in pixdim_mm):
        raise InputError(f"pixdim {tuple(pixdim_mm)} must be three positive numbers of mm, as in 1.0,1.0,1.0")
    return resample_to_shape(image, resampled_shape(image.grid, pixdim_mm), order, keep_zeros, far_plane)


def resample_to_shape(
    image: Image,
    shape: tuple[int, int, int],
    order: int,
    keep_zeros: bool = False,
    far_plane: FarPlane = "interpolated",
) -> Image:
    """Returns the image zoomed to `shape`, corner voxels in place; see `resample`."""
    if image.shape == tuple(shape):
        return image
    if order < 0:
        raise InputError(
            f"interp_order is {order}, never interpolate, but an image of shape {image.shape} and spacing"
            f" {print_numbers(image.spacing_mm)} mm would become {tuple(shape)}; give 0 for labels, or no pixdim"
        )
    affine = np.array(image.affine)
    for axis, (before, after) in enumerate(zip(image.shape, shape, strict=True)):
        # Between the corners there are n - 1 steps; a single voxel stands for the whole width.
        affine[:3, axis] *= (before - 1) / (after - 1) if after > 1 and before > 1 else before / after
    data = zoom_to(image.data, shape, order, far_plane)
    if keep_zeros and order > 1 and not image.data.all():
        data[zoom_to((image.data != 0).astype(np.float32), shape, 1) == 0] = 0
    return Image(data, affine, image.original)


def zoom_to(
    data: np.ndarray, shape: tuple[int, int, int], order: int, far_plane: FarPlane = "interpolated"
) -> np.ndarray:
    """Returns (x, y, z, channel) data interpolated to `shape` along the first three axes, corner voxels aligned.

    Order 0 keeps the type of the data; the others give float32. Equal shapes: the input itself.

    Args:
        far_plane: the last plane along an axis lies exactly on the last voxels, so it is "interpolated" like the
            others. "zeroed" is what NiftyNet and the released code do for one pair of lengths in 25 (8 → 26, 26 → 23,
            182 → 100): there rounding puts the plane outside the volume, and it is 0.

    Source: `scipy.ndimage.zoom` as NiftyNet calls it. Since splines are separable, one matrix per axis does the same
    five times faster; sums are in float64, and results equal to the last bit but for values below 1e-37.
    """
    if data.shape[:3] == tuple(shape):
        return data
    lengths = list(zip(data.shape[:3], shape, strict=True))
    if order == 0:
        result = data
        for axis, (before, after) in enumerate(lengths):
            result = np.take(result, np.rint(_spline(before, after, 0) @ np.arange(before)).astype(int), axis)
    else:
        splines = [_spline(before, after, order) for before, after in lengths]
        result = np.empty((*shape, data.shape[3]), np.float32)
        for channel in range(data.shape[3]):
            result[..., channel] = np.einsum("ax,by,cz,xyz->abc", *splines, data[..., channel], optimize=True)
    if far_plane == "zeroed":
        for axis, (before, after) in enumerate(lengths):
            # The last place as scipy computes it, in steps of the old grid.
            if after > 1 and (after - 1) * ((before - 1) / (after - 1)) > before - 1:
                np.moveaxis(result, axis, 0)[-1] = 0
    return result


@lru_cache(maxsize=64)
def _spline(before: int, after: int, order: int) -> np.ndarray:
    """The matrix (after, before) float64 that interpolates a line of voxels."""
    units = np.eye(before)
    # NiftyNet's mode, "constant", gives equal values but where the last voxel falls a rounding error outside the line.
    return np.stack([ndimage.zoom(unit, after / before, order=order, mode="mirror") for unit in units], axis=1)


def spline_coefficients(volume: np.ndarray) -> np.ndarray:
    """Coefficients, float32, of the cubic splines through the voxels of a (x, y, z) or (x, y, z, channel) volume.

    Splines are mirrored at the outermost voxels, as in `scipy.ndimage`; with these, interpolating is a weighted sum.
    Axes lie in memory as those of the volume do.
    """
    coefficients = np.empty_like(volume, np.float32)
    for channel in np.ndindex(volume.shape[3:]):
        where = (..., *channel)
        ndimage.spline_filter(volume[where], 3, output=coefficients[where], mode="mirror")
    return coefficients


def resample_onto(image: Image, grid: Grid, order: int, keep_zeros: bool = False) -> Image:
    """Returns the image on the voxels of `grid`, interpolated at the places both affines say; 0 outside the image.

    Splines of `order` 0 to 3; order 0 keeps labels. A voxel reaches half its width to each side, so no rim is lost. An
    image that lies there already keeps its voxels. `original` becomes `grid`; `keep_zeros` as in `resample`. NiftyNet
    has nothing like it.

    Raises:
        InputError: `order` is negative although voxels would have to be interpolated.
    """
    if image.grid.matches(grid):
        return Image(image.data, grid.affine, grid)
    if order < 0:
        raise InputError(
            f"interp_order is {order}, never interpolate, but an image of shape {image.shape} would be resampled onto a"
            f" grid of shape {grid.shape}; give 0 for labels"
        )
    to_image = np.linalg.inv(image.affine) @ grid.affine
    data = _read_at(image.data, to_image, grid.shape, order)
    if keep_zeros and order > 1 and not image.data.all():
        data[_read_at(image.data != 0, to_image, grid.shape, 1) == 0] = 0
    return Image(data, grid.affine, grid)


def restore_grid(image: Image, grid: Grid, order: int = 0, far_plane: FarPlane = "interpolated") -> Image:
    """Returns the image on the grid it was reoriented and resampled from: exactly its shape, order of axes and affine.

    For `far_plane` see `zoom_to`.

    Raises:
        InputError: the corners of the image are not those of the grid, so it was cropped, padded or is of another scan.
    Source: niftynet/io/misc_io.py `save_data_array`: first the shape, then the orientation.
    """
    to_grid = np.linalg.inv(grid.affine) @ image.affine
    # Relative to each other the two are permuted and flipped exactly, also when both are tilted by 45 degrees.
    change = nib.io_orientation(to_grid)
    axes = change[:, 0].astype(int)
    # The corner voxels of the image, in the order of the grid's axes, belong at the corner voxels of the grid.
    ends = corners(tuple(np.minimum(image.shape, 2)))
    expected = np.empty((8, 3))
    expected[:, axes] = np.where(change[:, 1] > 0, ends, 1 - ends) * (np.array(grid.shape) - 1)[axes]
    long_enough = axes[np.array(image.shape) > 1]
    found = corners(image.shape, to_grid)
    if np.abs(found - expected)[:, long_enough].max(initial=0) > 0.5:
        raise InputError(
            f"an image of {image.grid} cannot go back onto the grid of {grid}, whose corners are elsewhere; remove its"
            " padding, or resample it onto that grid"
        )
    data = zoom_to(image.data, tuple(grid.shape[axis] for axis in axes), order, far_plane)
    return Image(orientations.apply_orientation(data, change), grid.affine, grid)


def write_image(image: Image, path: Path, like: Image | Grid | None = None, order: int = 0) -> None:
    """Writes a NIfTI file (`.nii` or `.nii.gz`), complete or not at all.

    With `like`, the image or the grid of the file as it was read, the array is first resampled by `order` to exactly
    that shape, then reoriented, and written with that affine, its sform and qform and its units. Integers and booleans
    are stored as int32, other types as float32; several channels as (x, y, z, 1, channel).

    Raises:
        InputError: another suffix, or an image that does not come from `like`; see `restore_grid`.
        OSError: the folder cannot be written.
    Source: niftynet/io/misc_io.py `save_data_array`.
    """
    path = Path(path)
    if not path.name.lower().endswith((".nii", ".nii.gz")):
        raise InputError(f"{path}: images are written as NIfTI; end the name in .nii.gz")
    if isinstance(like, Image):
        like = like.grid if like.original is None else like.original
    if like is not None:
        image = restore_grid(image, like, order)
    grid = image.grid if like is None else like
    data = np.asarray(image.data, np.int32 if image.data.dtype.kind in "iub" else np.float32)
    channels = data.shape[3]
    shape = (*grid.shape, 1, channels) if channels > 1 else grid.shape[: grid.num_axes]
    nifti = nib.Nifti1Image(data.reshape(shape), None)
    nifti.header["xyzt_units"] = grid.xyzt_units
    to_units = np.diag([*[1 / grid.mm_per_unit] * 3, 1.0])
    nifti.set_qform(to_units @ (grid.affine if grid.qform is None else grid.qform), grid.qform_code)
    nifti.set_sform(to_units @ grid.affine, grid.sform_code)
    with replacing(path) as temporary:
        nib.save(nifti, temporary)


def _read_at(data: np.ndarray, affine: np.ndarray, shape: tuple[int, int, int], order: int) -> np.ndarray:
    """(x, y, z, channel) float32 of `shape`, voxel i read at `affine` i of the data."""
    result = np.empty((*shape, data.shape[3]), np.float32)
    for channel in range(data.shape[3]):
        ndimage.affine_transform(
            np.asarray(data[..., channel], np.float32),
            affine[:3, :3],
            affine[:3, 3],
            output_shape=shape,
            output=result[..., channel],
            order=order,
            mode="grid-constant",
        )
    return result
