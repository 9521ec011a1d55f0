"""Heads: label maps in FreeSurfer codes with what lesions need to know of them, distances and the way to MNI space."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import SimpleITK as sitk  # noqa: N813 - its manual's own name
from scipy import ndimage

from pimms_tf.errors import InputError
from pimms_tf.files import replacing
from pimms_tf.simulation.atlas import tissue_maps
from pimms_tf.simulation.fields import smooth_noise
from pimms_tf.simulation.tissues import BRAIN, FLUID, GREY, INDEX, WHITE, WHITE_LIKE, tissue_map

VENTRICLES = (4, 5, 43, 44, 31, 63, 136, 137, 163, 164)  # lateral ventricles and the plexus in them
COARSE_MM = 4  # grid of the registration to MNI space
WARP_REACH_MM = 25  # farther from the ventricles than this, the warp no longer tells places apart
NEAR = 12  # mm and voxels around the brain within which distances are told
FLUID_MM = 3.0  # fluid put around a brain whose map ends at its surface


@dataclass(frozen=True, eq=False)
class Head:
    """One head: `tissue` (x, y, z) uint8 indexes TISSUES, `affine` to mm; the same grid holds the rest.

    `brain_mm` (x, y, z) float32 is the distance to the brain without the fluid around it, negative inside;
    `ventricle_mm` and `surface_mm` those to the lateral ventricles, and to the cortex or to fluid other than theirs.
    `mni_mm` (3, *coarse) float32 is the place in MNI space of every fourth voxel, in mm. `whole` is False for maps
    without anything around the brain.
    """

    name: str
    tissue: np.ndarray
    affine: np.ndarray
    brain_mm: np.ndarray
    ventricle_mm: np.ndarray
    surface_mm: np.ndarray
    mni_mm: np.ndarray
    whole: bool


@dataclass(frozen=True, eq=False)
class LesionMask:
    """Real lesions: `mask` (x, y, z) bool on a grid of MNI space, `affine` to mm."""

    name: str
    mask: np.ndarray
    affine: np.ndarray


def read_heads(folder: Path, cache: Path | None = None, most: int | None = None) -> list[Head]:
    """One Head for each label map in a folder (.nii, .nii.gz, .mgz), sorted by name, or for the first `most` of them.

    The way to MNI space takes some ten seconds a head; `cache` is a folder that keeps it for the next time.

    Raises:
        InputError: no map in the folder, a map that cannot be read, or one with codes of no tissue.
    """
    paths = _volumes(Path(folder), (".nii", ".nii.gz", ".mgz", ".mgh"))
    return [read_head(path, cache) for path in paths[:most]]


def read_head(path: Path, cache: Path | None = None) -> Head:
    """The head in one label map, turned to RAS and, if its voxels are not of 1 mm, resampled to them.

    Raises:
        InputError: the file cannot be read, or has codes of no tissue.
    """
    try:
        image = nib.as_closest_canonical(nib.load(path))
        labels = np.asarray(image.dataobj)
    except (OSError, ValueError, nib.filebasedimages.ImageFileError) as error:
        raise InputError(f"{path} cannot be read as a label map: {error}") from error
    if labels.ndim != 3:
        raise InputError(f"{path} has {labels.ndim} axes: a label map has three")
    labels = np.rint(labels).astype(np.int32)
    spacing = nib.affines.voxel_sizes(image.affine)
    affine = image.affine
    if np.any(np.abs(spacing - 1) > 0.02):
        shape = np.maximum(np.rint(np.array(labels.shape) * spacing), 1).astype(int)
        index = [np.minimum(np.arange(n) / s, m - 1) for n, s, m in zip(shape, spacing, labels.shape, strict=True)]
        labels = labels[np.ix_(*[np.rint(i).astype(int) for i in index])]
        affine = affine @ np.diag([*(1 / spacing), 1])
    try:
        tissue = tissue_map(labels)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    name = path.name.removesuffix(".gz").removesuffix(".nii").removesuffix(".mgz").removesuffix(".mgh")
    return make_head(name, tissue, np.isin(labels, VENTRICLES), affine, cache)


def packaged_head(rng: np.random.Generator) -> Head:
    """A brain without a skull out of the packaged ICBM152 tissue map; its folds are those of `rng`.

    The map is the average of many brains; smooth noise decides, patch by patch, which of them this one resembles.
    """
    maps = tissue_maps()
    shape = maps.ventricles.shape
    score = np.stack([np.log(maps.probability[..., t] + 0.004) + 0.5 * smooth_noise(shape, 2, rng) for t in range(3)])
    tissue = np.array([GREY, WHITE, FLUID], np.uint8)[np.argmax(score, axis=0)]
    tissue[maps.probability.sum(axis=-1) < 0.5] = 0
    return make_head("icbm152", tissue, maps.ventricles & (tissue == FLUID), maps.affine, in_mni=True)


def make_head(
    name: str,
    tissue: np.ndarray,
    ventricles: np.ndarray,
    affine: np.ndarray,
    cache: Path | None = None,
    in_mni: bool = False,
) -> Head:
    """A Head from its tissues and lateral ventricles, both (x, y, z) on a RAS grid of 1 mm; `cache` as in `read_heads`.

    `in_mni` says that `affine` leads to MNI space as it is.

    Raises:
        InputError: there is hardly any brain in it.
    """
    brain = np.isin(tissue, BRAIN) & (tissue != FLUID)
    if brain.sum() < 200_000:
        raise InputError(f"{name}: {int(brain.sum())} voxels of brain are no whole head; give whole label maps")
    box = ndimage.find_objects(brain.astype(np.uint8))[0]
    box = tuple(slice(max(0, s.start - NEAR), min(n, s.stop + NEAR)) for s, n in zip(box, brain.shape, strict=True))
    near, hollow = brain[box], ventricles[box]
    near = ndimage.binary_fill_holes(ndimage.binary_closing(near, iterations=2) | near | hollow)
    brain_mm = np.full(tissue.shape, NEAR, np.float32)
    outside_mm = ndimage.distance_transform_edt(~near)
    brain_mm[box] = np.where(near, 0.5 - ndimage.distance_transform_edt(near), np.minimum(outside_mm - 0.5, NEAR))
    # What the map leaves out between brain tissues is fluid too.
    tissue = np.where((tissue == 0) & (brain_mm < 0), np.uint8(FLUID), tissue)
    if whole := bool((tissue > INDEX["choroid plexus"]).sum() > 100_000):
        tissue = _with_muscle(tissue)
    else:
        tissue = np.where((tissue == 0) & (brain_mm <= FLUID_MM), np.uint8(FLUID), tissue)
    ventricle_mm, surface_mm = np.full(tissue.shape, 99, np.float32), np.zeros(tissue.shape, np.float32)
    ventricle_mm[box] = ndimage.distance_transform_edt(~hollow)
    inner = np.isin(tissue[box], (*WHITE_LIKE, *(INDEX[n] for n in ("thalamus", "pallidum", "putamen", "caudate"))))
    surface_mm[box] = ndimage.distance_transform_edt(inner | (ventricle_mm[box] < 1.5))
    if in_mni:
        return Head(
            name, tissue, affine, brain_mm, ventricle_mm, surface_mm, _coarse_places(tissue.shape, affine), whole
        )
    kept = None
    if cache is not None:
        seen = np.where(tissue > INDEX["choroid plexus"], np.uint8(0), tissue)
        known = hashlib.sha256(seen.tobytes() + ventricles.tobytes() + np.round(affine, 4).tobytes()).hexdigest()
        kept = Path(cache) / f"{known[:32]}.npy"
    if kept is not None and kept.exists():
        mni_mm = np.load(kept, allow_pickle=False)
    else:
        mni_mm = _mni_positions(tissue, ventricles, brain_mm, affine)
        if kept is not None:
            kept.parent.mkdir(parents=True, exist_ok=True)
            with replacing(kept) as temporary, open(temporary, "wb") as file:
                np.save(file, mni_mm, allow_pickle=False)
    return Head(name, tissue, affine, brain_mm, ventricle_mm, surface_mm, mni_mm, whole)


def _with_muscle(tissue: np.ndarray) -> np.ndarray:
    """The same head with muscle in place of fat where soft tissue lies deep; maps do not tell the two apart."""
    depth_mm = 2 * ndimage.distance_transform_edt(tissue[::2, ::2, ::2] != 0)
    depth_mm = np.kron(depth_mm.astype(np.float32), np.ones((2, 2, 2), np.float32))[tuple(map(slice, tissue.shape))]
    patches = smooth_noise(tissue.shape, 4, np.random.default_rng(0))
    deep = (tissue == INDEX["fat"]) & (depth_mm + 3 * patches > 9)
    return np.where(deep, np.uint8(INDEX["muscle"]), tissue)


def read_lesion_masks(folder: Path) -> list[LesionMask]:
    """The real lesion masks of MNI space in a folder, sorted by name; empty ones are left out.

    Raises:
        InputError: no mask in the folder, or one that cannot be read.
    """
    masks = []
    for path in _volumes(Path(folder), (".nii", ".nii.gz")):
        try:
            image = nib.load(path)
            mask = np.asarray(image.dataobj) > 0
        except (OSError, ValueError, nib.filebasedimages.ImageFileError) as error:
            raise InputError(f"{path} cannot be read as a lesion mask: {error}") from error
        if mask.any():
            box = ndimage.find_objects(ndimage.binary_dilation(mask, iterations=3).astype(np.uint8))[0]
            start = [side.start for side in box]
            affine = image.affine @ nib.affines.from_matvec(np.eye(3), start)
            masks.append(LesionMask(path.name.removesuffix(".gz").removesuffix(".nii"), mask[box], affine))
    return masks


def _volumes(folder: Path, endings: Sequence[str]) -> list[Path]:
    if not folder.is_dir():
        raise InputError(f"{folder} is no folder: give one with {' or '.join(endings)} files")
    paths = sorted(path for path in folder.iterdir() if path.name.endswith(tuple(endings)))
    if not paths:
        raise InputError(f"{folder} holds no {' or '.join(endings)} file")
    return paths


def _mni_positions(tissue: np.ndarray, ventricles: np.ndarray, brain_mm: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """MNI place in mm (3, *coarse) float32 of every fourth voxel, by registration to the atlas.

    Brains are matched by an affine map, blind to the size of the ventricles; a smooth warp then matches the distances
    to the ventricles, so that what lay at their walls does so again.
    """
    maps = tissue_maps()
    grey, white, fluid = np.moveaxis(maps.probability, -1, 0)
    brightness = np.zeros(256, np.float32)
    brightness[list(BRAIN)] = 65
    brightness[list(WHITE_LIKE)] = 100
    brightness[FLUID] = 15
    near = (brain_mm < 0) | ((tissue == FLUID) & (brain_mm < 3.5))
    atlas_t1 = np.where(maps.ventricles, 100, 100 * white + 65 * grey + 15 * fluid)
    own_t1 = np.where(ventricles, 100, np.where(near, brightness[tissue], 0))
    atlas, own = _itk(atlas_t1, maps.affine), _itk(own_t1, affine)

    initialiser = sitk.CenteredTransformInitializerFilter.MOMENTS
    rough = sitk.CenteredTransformInitializer(own, atlas, sitk.AffineTransform(3), initialiser)
    method = sitk.ImageRegistrationMethod()
    method.SetGlobalDefaultNumberOfThreads(1)
    method.SetNumberOfThreads(1)  # sums in one order, so that the same map gives the same place
    method.SetMetricAsMeanSquares()
    method.SetInterpolator(sitk.sitkLinear)
    method.SetOptimizerAsRegularStepGradientDescent(1.0, 1e-3, 60, gradientMagnitudeTolerance=1e-4)
    method.SetOptimizerScalesFromPhysicalShift()
    method.SetInitialTransform(rough, inPlace=True)
    method.Execute(own, atlas)

    own = _itk(_depth(ventricles) + 0.1 * own_t1, affine)
    atlas = _itk(_depth(maps.ventricles) + 0.1 * atlas_t1, maps.affine)
    moved = sitk.Resample(atlas, own, rough, sitk.sitkLinear, float(WARP_REACH_MM))
    demons = sitk.FastSymmetricForcesDemonsRegistrationFilter()
    demons.SetNumberOfThreads(1)
    demons.SetNumberOfIterations(40)
    demons.SetStandardDeviations(1.5)
    field = demons.Execute(own, moved)  # from own places to affinely matched ones
    shift = sitk.GetArrayFromImage(field).transpose(3, 2, 1, 0)
    matched = _coarse_places(tissue.shape, _lps(affine)) + shift
    centre, matrix = np.array(rough.GetCenter()), np.array(rough.GetMatrix()).reshape(3, 3)
    place = moved_places(nib.affines.from_matvec(matrix, rough.GetTranslation() + centre - matrix @ centre), matched)
    return moved_places(np.diag([-1, -1, 1, 1]), place).round(3).astype(np.float32)


def _coarse_places(shape: tuple[int, int, int], affine: np.ndarray) -> np.ndarray:
    """Where every fourth voxel lies (3, *coarse) float32."""
    index = np.meshgrid(*[np.arange(0.0, n, COARSE_MM) for n in shape], indexing="ij")
    return moved_places(affine, np.stack(index)).astype(np.float32)


def moved_places(affine: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Places (3, x, y, z) after an affine map (4, 4)."""
    return np.einsum("ij,jxyz->ixyz", affine[:3, :3], places) + affine[:3, 3, None, None, None]


def _depth(mask: np.ndarray) -> np.ndarray:
    """Distance to a mask in mm, negative inside, cut off at WARP_REACH_MM."""
    outside, inside = (ndimage.distance_transform_edt(m) for m in (~mask, mask))
    return np.minimum(outside, WARP_REACH_MM) - inside


def _itk(volume: np.ndarray, affine: np.ndarray) -> sitk.Image:
    """A volume of 1 mm as SimpleITK's image of every fourth voxel, smoothed."""
    smooth = ndimage.gaussian_filter(volume.astype(np.float32), 1.5)[::COARSE_MM, ::COARSE_MM, ::COARSE_MM]
    image = sitk.GetImageFromArray(smooth.transpose(2, 1, 0))
    lps = _lps(affine)
    spacing = nib.affines.voxel_sizes(lps)
    image.SetSpacing((spacing * COARSE_MM).tolist())
    image.SetDirection((lps[:3, :3] / spacing).ravel().tolist())
    image.SetOrigin(lps[:3, 3].tolist())
    return image


def _lps(affine: np.ndarray) -> np.ndarray:
    return np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine
