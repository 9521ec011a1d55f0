"""Rigid registration of a patient's scans onto one of them, never keeping a result that is worse than the header's.

Six parameters by Mattes mutual information, coarse to fine, with SimpleITK. Scans of one visit differ by a few
millimetres and degrees, and those of several by more, so the search starts from what the headers say, and from those of
a grid of rotations, about the middles of the two brains, that look best.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import SimpleITK as sitk  # noqa: N813

from pimms_tf.data.grids import Grid
from pimms_tf.data.images import Image

# Fine enough for a tenth of a voxel of 1 mm, coarse enough for a few seconds a scan on two cores.
_LEVELS_MM = (6.0, 3.0, 1.5)
_SMOOTHING_MM = (4.0, 2.0, 0.75)
_ANGLES_DEG = (-18.0, -9.0, 0.0, 9.0, 18.0)  # around each axis
_STARTS = 3  # of the best ones
_SAMPLED = (0.5, 0.35, 0.2)  # of the voxels of each level
_BINS = 40
_SEED = 20180731
WORK_UNITS = 4  # whatever the machine: sums are then rounded alike everywhere
_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])  # NIfTI counts to the right and front, ITK to the left and back


@dataclass(frozen=True, eq=False)
class Registration:
    """What was found for one scan.

    `transform` (4, 4) maps the patient coordinates of the moving scan to those of the fixed one, in mm; it is the
    identity where the headers agreed better. `before` and `after` are mutual information in nats at the start and at
    the transform that was kept; larger is better.
    """

    transform: np.ndarray
    before: float
    after: float
    kept: bool

    @property
    def shift_mm(self) -> float:
        """How far the scan is moved: the mean over the corners of a cube of 160 mm around the coordinates' origin."""
        corners = 80.0 * np.array([(x, y, z) for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)])
        moved = corners @ self.transform[:3, :3].T + self.transform[:3, 3]
        return float(np.linalg.norm(moved - corners, axis=1).mean())


def register(
    moving: Image, fixed: Image, fixed_mask: np.ndarray | None = None, moving_mask: np.ndarray | None = None
) -> Registration:
    """Returns the rigid transform that brings `moving` onto `fixed`, or the identity where none is better.

    Both are single-channel images in patient coordinates. `fixed_mask` (x, y, z) bool limits where similarity is
    measured, on the grid of `fixed`; `moving_mask` on that of `moving` only says where the middle of the same part is.
    """
    target, source = to_sitk(fixed), to_sitk(moving)
    mask = None if fixed_mask is None else to_sitk(replace(fixed, data=fixed_mask[..., np.newaxis]), sitk.sitkUInt8)
    header = sitk.Euler3DTransform()
    header.SetCenter(_centre_of(target) if fixed_mask is None else _middle(fixed_mask, fixed).tolist())
    offsets = [np.zeros(3)]
    if fixed_mask is not None and moving_mask is not None and moving_mask.any():
        offsets.append(_middle(moving_mask, moving) - _middle(fixed_mask, fixed))
    before = _similarity(source, target, header, mask)
    pyramid = [
        (_coarse(source, spacing, smoothing), _coarse(target, spacing, smoothing))
        for spacing, smoothing in zip(_LEVELS_MM, _SMOOTHING_MM, strict=True)
    ]
    starts = _starts(*pyramid[0], header, offsets, mask)
    ends = [_search(*pyramid[0], start, mask, _SAMPLED[0]) for start in starts]
    # Rated on the next level: at the coarsest one wrong places can look best.
    rated = [_rating(_dense(mask), *pyramid[1], end) for end in ends]
    found = _refined(pyramid, ends[int(np.argmax(rated))], mask)
    after = _similarity(source, target, found, mask)
    if not after > before:
        found = _refined(pyramid, ends[0], mask)
        after = _similarity(source, target, found, mask)
    if not after > before:
        return Registration(np.eye(4), before, before, kept=False)
    return Registration(_matrix(found), before, after, kept=True)


def moved(image: Image, registration: Registration) -> Image:
    """Returns the image where its voxels lie after the registration: another affine, the same voxels."""
    affine = registration.transform @ image.affine
    return Image(image.data, affine, Grid(image.shape, affine))


def _starts(
    source: sitk.Image,
    target: sitk.Image,
    header: sitk.Euler3DTransform,
    offsets: Sequence[np.ndarray],
    mask: sitk.Image | None,
) -> list[sitk.Euler3DTransform]:
    """What the headers say, and the best of other transforms: rotations of a grid after each of the offsets."""
    method, rated = _dense(mask), []
    for offset, angles in itertools.product(offsets, itertools.product(np.deg2rad(_ANGLES_DEG), repeat=3)):
        start = sitk.Euler3DTransform(header)
        start.SetRotation(*map(float, angles))
        start.SetTranslation([float(value) for value in offset])
        rated.append((_rating(method, source, target, start), start))
    rated.sort(key=lambda pair: -pair[0])  # equals stay in order
    return [header, *(start for _, start in rated[:_STARTS])]


def _refined(
    pyramid: Sequence[tuple[sitk.Image, sitk.Image]], found: sitk.Euler3DTransform, mask: sitk.Image | None
) -> sitk.Euler3DTransform:
    """What the searches on all levels but the coarsest make of a transform."""
    for (source, target), sampled in zip(pyramid[1:], _SAMPLED[1:], strict=True):
        found = _search(source, target, found, mask, sampled)
    return found


def _rating(
    method: sitk.ImageRegistrationMethod, source: sitk.Image, target: sitk.Image, transform: sitk.Transform
) -> float:
    method.SetInitialTransform(transform)
    try:
        return -method.MetricEvaluate(target, source)
    except RuntimeError:  # they do not overlap
        return float("-inf")


def _search(
    source: sitk.Image, target: sitk.Image, start: sitk.Euler3DTransform, mask: sitk.Image | None, sampled: float
) -> sitk.Euler3DTransform:
    method = _method(mask)
    method.SetMetricSamplingStrategy(method.RANDOM)
    method.SetMetricSamplingPercentage(sampled, _SEED)
    method.SetOptimizerAsRegularStepGradientDescent(
        learningRate=1.0, minStep=1e-3, numberOfIterations=120, relaxationFactor=0.6, gradientMagnitudeTolerance=1e-6
    )
    method.SetOptimizerScalesFromPhysicalShift()
    transform = sitk.Euler3DTransform(start)
    method.SetInitialTransform(transform, inPlace=True)
    try:
        method.Execute(target, source)
    except RuntimeError:  # no overlap left: what there was before is all that can be said
        return start
    return transform


def _similarity(source: sitk.Image, target: sitk.Image, transform: sitk.Transform, mask: sitk.Image | None) -> float:
    return _rating(_dense(mask), _coarse(source, 3.0, 1.0), _coarse(target, 3.0, 1.0), transform)


def _method(mask: sitk.Image | None) -> sitk.ImageRegistrationMethod:
    method = sitk.ImageRegistrationMethod()
    method.SetNumberOfWorkUnits(WORK_UNITS)
    method.SetMetricAsMattesMutualInformation(_BINS)
    method.SetInterpolator(sitk.sitkLinear)
    # Differences of neighbours, as the interpolation has them. Filtered gradients are smoothed over thick slices, and
    # the search then ended up to 1 mm from the greatest similarity.
    method.SetMetricUseFixedImageGradientFilter(False)
    method.SetMetricUseMovingImageGradientFilter(False)
    if mask is not None:
        method.SetMetricFixedMask(mask)
    return method


def _dense(mask: sitk.Image | None) -> sitk.ImageRegistrationMethod:
    """The same, looking at every voxel."""
    method = _method(mask)
    method.SetMetricSamplingStrategy(method.NONE)
    return method


def _coarse(image: sitk.Image, spacing_mm: float, smoothing_mm: float) -> sitk.Image:
    """The image smoothed and sampled about `spacing_mm` apart; axes that are coarser already stay as they are."""
    # A recursive filter takes half the time, but with its ringing the search of real scans went astray.
    sigmas = [smoothing_mm if step < spacing_mm else 0.0 for step in image.GetSpacing()]
    if any(sigmas):
        image = sitk.DiscreteGaussian(image, [sigma**2 for sigma in sigmas], 32, 0.01, True)
    factors = [max(1, int(round(spacing_mm / step))) for step in image.GetSpacing()]
    return sitk.Shrink(image, factors)


def to_sitk(image: Image, kind: int = sitk.sitkFloat32) -> sitk.Image:
    """Returns an image with one channel as SimpleITK has it, where it lies; voxels are of a type of SimpleITK."""
    affine = _LPS @ image.affine
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    out = sitk.GetImageFromArray(np.ascontiguousarray(image.data[..., 0].T.astype(np.float32)))
    out.SetSpacing([float(step) for step in spacing])
    out.SetOrigin([float(value) for value in affine[:3, 3]])
    out.SetDirection((affine[:3, :3] / spacing).ravel().tolist())
    return sitk.Cast(out, kind)


def _middle(mask: np.ndarray, image: Image) -> np.ndarray:
    """The mean place of a mask on the grid of an image, to the left, back and top."""
    return (_LPS @ image.affine @ [*np.argwhere(mask).mean(axis=0), 1.0])[:3]


def _centre_of(image: sitk.Image) -> list[float]:
    return list(image.TransformContinuousIndexToPhysicalPoint([(length - 1) / 2 for length in image.GetSize()]))


def _matrix(transform: sitk.Euler3DTransform) -> np.ndarray:
    """The transform from moving to fixed in NIfTI's coordinates; ITK's leads from fixed to moving."""
    rotation = np.array(transform.GetMatrix()).reshape(3, 3)
    centre, shift = np.array(transform.GetCenter()), np.array(transform.GetTranslation())
    to_moving = np.eye(4)
    to_moving[:3, :3], to_moving[:3, 3] = rotation, centre + shift - rotation @ centre
    return _LPS @ np.linalg.inv(to_moving) @ _LPS
