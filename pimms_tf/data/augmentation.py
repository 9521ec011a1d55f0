"""Random changes to training subjects: their geometry and their intensities; which scans are there is in `slots`.

Every change is a pair, a `draw_…` that takes the generator and a function that applies what was drawn, so any augmented
volume can be made again. Geometry follows NiftyNet: flip, scaling, rotation, elastic deformation, in this order.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
from scipy import ndimage

from pimms_tf.data.images import FarPlane, zoom_to
from pimms_tf.data.moving import MovedVolume, Polynomial, bend_coefficients, composed
from pimms_tf.data.subjects import Subject
from pimms_tf.errors import InputError

if TYPE_CHECKING:
    import SimpleITK as sitk  # noqa: N813

Range = tuple[float, float]
Reading = Literal["composed", "chained"]


def draw_flips(axes: Sequence[int], rng: np.random.Generator) -> np.ndarray:
    """Which of the three axes to flip (3,) bool: each of ``axes`` with probability 1/2, the others never.

    Source: niftynet/layer/rand_flip.py, which also draws a number for axes that are never flipped.
    """
    return (rng.random(3) < 0.5) & np.isin(range(3), axes)


def flip(volume: np.ndarray, flips: Sequence[bool]) -> np.ndarray:
    """``volume`` (x, y, z, ...) mirrored along the flagged axes, as a view."""
    return np.flip(volume, tuple(np.flatnonzero(flips)))


def draw_scaling(percentage: Range, isotropic: bool, rng: np.random.Generator) -> np.ndarray:
    """Factors (3,) by which the axes are stretched: 1 + p/100, p uniform in ``percentage``, one p if isotropic.

    Source: niftynet/layer/rand_spatial_scaling.py.
    """
    return np.broadcast_to(1 + rng.uniform(*percentage, 1 if isotropic else 3) / 100, 3)


def scale(
    volume: np.ndarray,
    factors: Sequence[float],
    order: int,
    antialiasing: bool = True,
    far_plane: FarPlane = "interpolated",
) -> np.ndarray:
    """``volume`` (x, y, z) stretched by ``factors``; its shape becomes round(length * factor).

    Only if all three factors are below 1 and ``antialiasing`` is on, a Gaussian smooths the volume first, with
    sigma = sqrt(k^2 - 1) / (2 sqrt(2 ln 2)) voxels, k = 1 / factor. For ``far_plane`` see `zoom_to`.

    Source: niftynet/layer/rand_spatial_scaling.py; the versions of 2018 never smooth.
    """
    factors = np.asarray(factors, dtype=np.float64)
    if antialiasing and (factors < 1).all():
        volume = ndimage.gaussian_filter(volume, smoothing_before(factors))
    return zoom_to(volume[..., np.newaxis], scaled_shape(volume.shape, factors), order, far_plane)[..., 0]


def smoothing_before(factors: np.ndarray) -> np.ndarray:
    """The sigma (3,) in voxels of the Gaussian that smooths a volume before ``factors`` below 1 shrink it."""
    return np.sqrt(1 / factors**2 - 1) / (2 * np.sqrt(2 * np.log(2)))


def scaled_shape(shape: Sequence[int], factors: Sequence[float]) -> tuple[int, ...]:
    """``shape`` stretched by ``factors``, rounded as `scipy.ndimage.zoom` does."""
    return tuple(round(length * float(factor)) for length, factor in zip(shape, factors, strict=True))


def draw_rotation(degrees: Range | Sequence[Range], rng: np.random.Generator) -> np.ndarray:
    """A rotation matrix (3, 3) with three angles uniform in ``degrees``, one range for all or one range for each.

    Source: niftynet/layer/rand_rotation.py.
    """
    low, high = np.broadcast_to(np.asarray(degrees, dtype=np.float64), (3, 2)).T
    return rotation_matrix(rng.uniform(low, high, 3))


def rotation_matrix(degrees: Sequence[float]) -> np.ndarray:
    """The matrix R_z (R_x R_y) (3, 3) of three angles, where R_x turns axes (0, 1), R_y (0, 2) and R_z (1, 2).

    Source: niftynet/layer/rand_rotation.py, whose names do not match the axes they turn.
    """
    (cx, cy, cz), (sx, sy, sz) = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    r_x = np.array([[cx, -sx, 0], [sx, cx, 0], [0, 0, 1]])
    r_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    r_z = np.array([[1, 0, 0], [0, cz, -sz], [0, sz, cz]])
    return r_z @ (r_x @ r_y)


def rotate(volume: np.ndarray, matrix: np.ndarray, order: int) -> np.ndarray:
    """``volume`` (x, y, z) turned by ``matrix`` (3, 3) about shape / 2, half a voxel off its centre; 0 flows in.

    A volume with an axis of length 1 is returned as it is.

    Source: niftynet/layer/rand_rotation.py.
    """
    if 1 in volume.shape:
        return volume
    centre = np.asarray(volume.shape) / 2
    return ndimage.affine_transform(volume, matrix.T, offset=centre - matrix.T @ centre, order=order)


class Elastic(NamedTuple):
    """Settings of the elastic deformation; `sigma` is in voxels."""

    num_ctrl_points: int = 4
    sigma: float = 15.0
    proportion: float = 0.5


def draw_deformation(num_axes: int, elastic: Elastic, rng: np.random.Generator) -> np.ndarray | None:
    """B-spline coefficients (number,) in voxels, normal with mean 0; None for the share left undeformed.

    ``num_axes`` is 2 for a single slice, which is deformed within its plane, and else 3. A cubic spline on a mesh of n
    cells has n + 3 coefficients per axis and direction.

    Source: niftynet/layer/rand_elastic_deform.py.
    """
    if rng.random() >= elastic.proportion:
        return None
    return rng.normal(0.0, elastic.sigma, num_axes * (elastic.num_ctrl_points + 3) ** num_axes)


def displacement(shape: Sequence[int], coefficients: np.ndarray, num_ctrl_points: int) -> "sitk.Transform":
    """The deformation of a volume of ``shape`` (x, y, z) by cubic B-splines, evaluated once at every voxel."""
    import SimpleITK as sitk  # noqa: N813  (what segments needs it as little as what composes)

    grid = sitk.GetImageFromArray(np.zeros([length for length in shape if length > 1], np.uint8))
    transform = sitk.BSplineTransformInitializer(grid, [num_ctrl_points] * grid.GetDimension())
    transform.SetParameters(coefficients.tolist())
    geometry = grid.GetSize(), grid.GetOrigin(), grid.GetSpacing(), grid.GetDirection()
    return sitk.DisplacementFieldTransform(
        sitk.TransformToDisplacementField(transform, sitk.sitkVectorFloat64, *geometry)
    )


def deform(volume: np.ndarray, transform: "sitk.Transform", order: int) -> np.ndarray:
    """``volume`` (x, y, z) seen through a `displacement` of its shape; 0 flows in.

    ``order`` 0 takes the nearest voxel, 1 is linear, higher ones a cubic B-spline.

    Source: niftynet/layer/rand_elastic_deform.py, which evaluates the splines anew for each volume, at three times the
    cost and with the same result.
    """
    import SimpleITK as sitk  # noqa: N813

    image = sitk.GetImageFromArray(np.ascontiguousarray(np.squeeze(volume)))
    interpolator = {0: sitk.sitkNearestNeighbor, 1: sitk.sitkLinear}.get(order, sitk.sitkBSpline)
    return sitk.GetArrayFromImage(sitk.Resample(image, image, transform, interpolator, 0.0)).reshape(volume.shape)


def draw_bias_field(coefficients: Range, order: int, rng: np.random.Generator) -> np.ndarray:
    """Coefficients (order + 1,) * 3 of a polynomial in x, y, z, uniform in a range; 0 where i + j + k > ``order``.

    Source: niftynet/layer/rand_bias_field.py.
    """
    powers = np.indices((order + 1,) * 3).sum(axis=0) <= order
    polynomial = np.zeros(powers.shape)
    polynomial[powers] = rng.uniform(*coefficients, np.count_nonzero(powers))
    return polynomial


def bias_field(shape: Sequence[int], polynomial: np.ndarray) -> np.ndarray:
    """The positive factor (x, y, z) float32 exp(sum a_ijk x^i y^j z^k) for coefficients (i, j, k).

    Coordinates run along each axis from about -1 to 1, the last voxel; a slice has no power along its axis of length 1.

    Source: niftynet/layer/rand_bias_field.py.
    """
    return Polynomial(polynomial, tuple(shape)).at(*(np.arange(length) for length in shape))


class Drawn(NamedTuple):
    """What `Augmentation.draw` drew for one subject; None where nothing is to be done."""

    flips: np.ndarray | None = None
    factors: np.ndarray | None = None
    rotation: np.ndarray | None = None
    deformation: np.ndarray | None = None
    polynomial: np.ndarray | None = None


@dataclass(frozen=True)
class Augmentation:
    """A callable ``(subject, rng) -> Subject`` that changes scans, label and sampling prior by one random geometry.

    Scans are interpolated with splines of `scan_order`, the label by nearest voxels; only scans are smoothed before
    they shrink, and only scans are multiplied by the bias field, one field for all of them. Absent scans stay exactly
    zero. Scaling changes the volume's shape; affines stay, as if the head itself had moved or grown.

    The `reading` "composed" makes one geometry of all changes and interpolates once, where windows are cut: volumes of
    the subject returned are `MovedVolume`, and the prior is taken by nearest voxels, as the label is. "chained" is what
    NiftyNet does: each change interpolates the whole volume, again and again, the prior linearly.

    Axes of `flipping_axes` are 0, 1, 2 (a negative one means none); `scaling_percentage`, `rotation_degrees` and
    `bias_field_range` are (min, max), and `rotation_degrees` may be three such pairs. Unset, each change is off.
    `far_plane` is what scaling leaves there in the chained reading, see `zoom_to`.

    Raises: InputError for settings out of range.
    Source: niftynet/application/segmentation_application.py, niftynet/contrib/segmentation_bf_aug.
    """

    flipping_axes: tuple[int, ...] = ()
    scaling_percentage: Range | None = None
    isotropic: bool = False
    antialiasing: bool = True
    rotation_degrees: Range | tuple[Range, Range, Range] | None = None
    elastic: Elastic | None = None
    bias_field_range: Range | None = None
    bias_field_order: int = 3
    scan_order: int = 3
    far_plane: FarPlane = "interpolated"
    reading: Reading = "composed"

    def __post_init__(self) -> None:
        if any(axis > 2 for axis in self.flipping_axes):
            raise InputError(
                f"random_flipping_axes = {self.flipping_axes} names an axis beyond 0, 1 and 2 (x, y and z)"
            )
        _check_range("scaling_percentage", self.scaling_percentage)
        _check_range("bias_field_range", self.bias_field_range)
        if self.scaling_percentage and min(self.scaling_percentage) <= -100:
            raise InputError(
                f"scaling_percentage = {self.scaling_percentage} shrinks a volume to nothing: stay above -100"
            )
        if self.rotation_degrees:
            per_axis = np.ndim(self.rotation_degrees) == 2
            for degrees in self.rotation_degrees if per_axis else [self.rotation_degrees]:
                _check_range("rotation_angle", degrees)
            if per_axis and len(self.rotation_degrees) != 3:
                raise InputError(f"rotation_angle = {self.rotation_degrees} needs one (min, max) or three of them")
        if self.elastic and self.elastic.num_ctrl_points < 2:
            raise InputError(
                f"num_ctrl_points = {self.elastic.num_ctrl_points} is too few to bend a volume: use at least 2"
            )
        if self.elastic and not 0 <= self.elastic.proportion <= 1:
            raise InputError(f"proportion_to_deform = {self.elastic.proportion} is not between 0 and 1")
        if self.bias_field_order < 0:
            raise InputError(f"bf_order = {self.bias_field_order} is negative: use 3 for a smooth field")

    @property
    def interpolates_scans(self) -> bool:
        """Whether the composed reading needs splines through the scans."""
        moves = self.scaling_percentage or self.rotation_degrees or self.elastic
        return self.reading == "composed" and self.scan_order > 1 and bool(moves)

    def __call__(self, subject: Subject, rng: np.random.Generator) -> Subject:
        """The subject after a newly drawn change."""
        return self.apply(subject, self.draw(subject.scans.shape[:3], rng))

    def draw(self, shape: Sequence[int], rng: np.random.Generator) -> Drawn:
        """A change for a volume of ``shape`` (x, y, z)."""
        num_axes = sum(length > 1 for length in shape)
        return Drawn(
            flips=draw_flips(self.flipping_axes, rng) if self.flipping_axes else None,
            factors=draw_scaling(self.scaling_percentage, self.isotropic, rng) if self.scaling_percentage else None,
            rotation=draw_rotation(self.rotation_degrees, rng) if self.rotation_degrees else None,
            deformation=draw_deformation(num_axes, self.elastic, rng) if self.elastic else None,
            polynomial=draw_bias_field(self.bias_field_range, self.bias_field_order, rng)
            if self.bias_field_range
            else None,
        )

    def apply(self, subject: Subject, drawn: Drawn) -> Subject:
        """The subject after the change ``drawn``; the same arrays where nothing changes."""
        if all(change is None for change in drawn):
            return subject
        shape = subject.scans.shape[:3]
        if drawn.factors is not None:
            shape = scaled_shape(shape, drawn.factors)
        if self.reading == "composed":
            return self._composed(subject, drawn, shape)
        bend = None
        if drawn.deformation is not None:
            bend = displacement(shape, drawn.deformation, self.elastic.num_ctrl_points)
        bias = None if drawn.polynomial is None else bias_field(shape, drawn.polynomial)
        stack = np.zeros((len(subject.valid), *shape), np.float32)  # (scan, x, y, z), so that each scan is contiguous
        for slot in np.flatnonzero(subject.valid):
            stack[slot] = self._move(subject.scans[..., slot], drawn, bend, self.scan_order)
            if bias is not None:
                stack[slot] *= bias
        label = None if subject.label is None else self._move(subject.label, drawn, bend, order=0)
        weight = None if subject.weight is None else self._move(subject.weight, drawn, bend, order=1)
        return replace(subject, scans=np.moveaxis(stack, 0, -1), label=label, weight=weight)

    def _composed(self, subject: Subject, drawn: Drawn, shape: tuple[int, int, int]) -> Subject:
        bend = smoothing = bias = None
        if drawn.deformation is not None:
            bend = bend_coefficients(shape, drawn.deformation, self.elastic.num_ctrl_points)
        if drawn.factors is not None and self.antialiasing and (drawn.factors < 1).all():
            smoothing = smoothing_before(drawn.factors)
        if drawn.polynomial is not None:
            bias = Polynomial(drawn.polynomial, shape)
        source = subject.scans.shape[:3]
        geometry = composed(source, shape, drawn.flips, drawn.rotation, bend, smoothing)
        order = self.scan_order if geometry.interpolates else 0
        return replace(
            subject,
            scans=MovedVolume(subject.scans, geometry, order, subject.coefficients, bias),
            label=None if subject.label is None else MovedVolume(subject.label, geometry, 0),
            weight=None if subject.weight is None else MovedVolume(subject.weight, geometry, 0),
            coefficients=None,
        )

    def _move(self, volume: np.ndarray, drawn: Drawn, bend: "sitk.Transform | None", order: int) -> np.ndarray:
        if drawn.flips is not None:
            volume = flip(volume, drawn.flips)
        if drawn.factors is not None:
            volume = scale(volume, drawn.factors, order, self.antialiasing and order > 1, self.far_plane)
        if drawn.rotation is not None:
            volume = rotate(volume, drawn.rotation, order)
        if bend is not None:
            volume = deform(volume, bend, order)
        return volume


def _check_range(key: str, values: Range | None) -> None:
    if values is not None and (len(values) != 2 or values[0] > values[1]):
        raise InputError(f"{key} = {values} is not a pair (min, max) with min <= max")
