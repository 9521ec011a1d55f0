"""One brain out of an atlas: ICBM152 tissue probabilities, bent, sampled, and with hyperintensities grown in."""

import gzip
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Literal, NamedTuple

import nibabel as nib
import numpy as np
from scipy import ndimage

from pimms_tf.files import replacing

LEVELS = 63  # steps of the stored probabilities, far finer than the randomness added to them
BEND_GRID_MM = 4  # grid on which deformations are drawn; they are smooth over centimetres
HORNS_MM = ((18, 36, 2), (29, -52, 14))  # frontal and occipital horn of the right lateral ventricle, MNI
SMALLEST_LESION_MM3 = 8.0
MARGIN_MM = (10, 18, 2), (10, 10, 18)  # room for larger and tilted heads: left, behind, below; right, before, above


class TissueMaps(NamedTuple):
    """The atlas: probability (x, y, z, tissue) of grey matter, white matter, CSF; ventricles, bool; affine in mm."""

    probability: np.ndarray
    ventricles: np.ndarray
    affine: np.ndarray


@cache
def tissue_maps() -> TissueMaps:
    """The shipped atlas: MNI space, RAS, 1 mm, cropped to the brain, where the three probabilities sum to 1.

    Source: ICBM152 2009a symmetric, Fonov et al., NeuroImage 2011;54:313; licence and changes in `assets/NOTICE.txt`.
    """
    with resources.as_file(resources.files("pimms_tf.simulation") / "assets") as assets:
        stored = nib.load(assets / "tissue_maps.nii.gz")
        level = _mirrored(np.asarray(stored.dataobj, dtype=np.float32))
        ventricles = _mirrored(np.asarray(nib.load(assets / "ventricles.nii.gz").dataobj)) > 0
    affine = _moved(stored.affine, (-(level.shape[0] // 2), 0, 0))
    probability = np.einsum("xyzt,xyz->xyzt", level, 1 / np.maximum(np.einsum("xyzt->xyz", level), 1))
    for shared in (probability, ventricles, affine):
        shared.flags.writeable = False
    return TissueMaps(probability, ventricles, affine)


def write_tissue_maps(template: Path, folder: Path) -> None:
    """Writes the shipped `tissue_maps.nii.gz` and `ventricles.nii.gz` from a folder of the ICBM152 2009a maps.

    `template` holds p_gm, p_wm and p_csf (.nii.gz) of the symmetric template on one RAS grid, scaled to 0..1. Kept is
    the box of the brain. The lateral ventricles are the largest piece of CSF deeper than 22 mm and between 14 mm
    below and 34 mm above the origin. Grey matter thinner than 5 mm within 6 mm of them is the blur of white matter
    against CSF, not tissue, and is shared out between those two. Only the right half is stored, as integers 0..63.
    The same template gives the same bytes.
    """
    images = [nib.load(template / f"{name}.nii.gz") for name in ("p_gm", "p_wm", "p_csf")]
    grey, white, csf = (image.get_fdata(dtype=np.float32) for image in images)
    brain = grey + white + csf > 0.99
    box = ndimage.find_objects(brain.astype(np.uint8))[0]
    affine = _moved(images[0].affine, [side.start for side in box])
    grey, white, csf, brain = (volume[box] for volume in (grey, white, csf, brain))

    height_mm = affine[2, 3] + np.arange(brain.shape[2])
    deep = _distance_to_outside(brain) > 22
    pieces, _ = ndimage.label((csf > 0.5) & deep & (height_mm > -14) & (height_mm < 34))
    ventricles = pieces == 1 + np.argmax(np.bincount(pieces.ravel())[1:])

    beside = ndimage.distance_transform_edt(~ventricles) < 6
    rim = np.where(beside, grey - ndimage.grey_opening(grey, size=(5, 5, 5)), 0)
    white_share = white / np.maximum(white + csf, 1e-6)
    tissues = np.stack([grey - rim, white + rim * white_share, csf + rim * (1 - white_share)], axis=-1)
    level = np.rint(np.einsum("xyzt,xyz->xyzt", tissues * LEVELS, brain)).astype(np.uint8)

    midline = level.shape[0] // 2
    for name, volume in {"tissue_maps": level, "ventricles": ventricles.astype(np.uint8)}.items():
        half = nib.Nifti1Image(volume[midline:], _moved(affine, (midline, 0, 0)))
        with replacing(folder / f"{name}.nii.gz") as path:
            path.write_bytes(gzip.compress(half.to_bytes(), 9, mtime=0))


def smooth_field(
    shape: tuple[int, ...], scale_mm: float, spacing_mm: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Random field (x, y, z) float32 of mean 0 and variance 1 that varies over about `scale_mm`."""
    noise = rng.standard_normal(shape, dtype=np.float32)
    field = ndimage.gaussian_filter(noise, scale_mm / np.asarray(spacing_mm), mode="nearest", truncate=3)
    return (field - field.mean()) / max(float(field.std()), 1e-6)


def voxel_grid(
    spacing_mm: np.ndarray, z_range_mm: tuple[float, float] | None
) -> tuple[tuple[int, int, int], np.ndarray]:
    """Shape and RAS affine of voxels that cover the atlas and a margin, or only its axial slab `z_range_mm`."""
    maps = tissue_maps()
    low_mm = maps.affine[:3, 3] - MARGIN_MM[0]
    high_mm = maps.affine[:3, 3] + maps.ventricles.shape + MARGIN_MM[1]
    if z_range_mm is not None:
        low_mm[2], high_mm[2] = z_range_mm
    x, y, z = (int(n) for n in np.ceil((high_mm - low_mm) / spacing_mm))
    return (x, y, z), nib.affines.from_matvec(np.diag(spacing_mm), low_mm)


def deformed_positions(shape: tuple[int, int, int], affine: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Atlas position (3, x, y, z) float32 in atlas voxels that each voxel shows: size, tilt, bends, larger ventricles.

    Size varies by up to 6 % and tilt by up to 5 degrees per axis, bends by some 2.5 mm over some 4 cm; the
    walls of the lateral ventricles move outwards by up to 4.5 mm, as they do with age.
    """
    atlas = tissue_maps()
    to_voxel = np.linalg.inv(atlas.affine)
    pitch, roll, yaw = rng.uniform(-1, 1, 3) * np.deg2rad(5)
    tilt = np.eye(3) + np.array([[0, -yaw, roll], [yaw, 0, -pitch], [-roll, pitch, 0]])
    linear = nib.affines.from_matvec(tilt @ np.diag(1 / rng.uniform(0.94, 1.06, 3)), np.zeros(3))
    matrix = (to_voxel @ linear @ affine)[:3].astype(np.float32)
    index = np.meshgrid(*[np.arange(n, dtype=np.float32) for n in shape], indexing="ij", sparse=True)
    positions = np.stack([row[0] * index[0] + row[1] * index[1] + row[2] * index[2] + row[3] for row in matrix])

    spacing_mm = np.full(3, float(BEND_GRID_MM))
    ventricle_mm = ndimage.gaussian_filter(distances_mm()[0], 1.5)[::2, ::2, ::2]
    growth_mm = rng.uniform(0, 4.5) * np.exp(-ventricle_mm / 14)
    outwards = np.gradient(ventricle_mm, BEND_GRID_MM)
    bends_mm = [2.5 * smooth_field(ventricle_mm.shape, 18, spacing_mm, rng) - growth_mm * slope for slope in outwards]
    shifts = [read(bend, positions / BEND_GRID_MM) for bend in bends_mm]
    for axis, shift in zip(positions, shifts, strict=True):
        axis += shift
    return positions


def sampled_anatomy(positions: np.ndarray, spacing_mm: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Fractions (x, y, z, tissue) float32 of grey matter, white matter and CSF; they sum to 1 in the brain, else 0.

    An average of many brains is blurred. Smooth noise on the log probabilities decides, patch by patch, which of the
    people behind the average this one resembles, and a power of 1.8 removes most of the blur.
    """
    probability = tissue_maps().probability
    likely = [read(probability[..., tissue], positions, outside="constant") for tissue in range(3)]
    brain = likely[0] + likely[1] + likely[2] > 0.5
    weights = [np.power(one + np.float32(0.004), np.float32(1.8)) for one in likely]
    weights = [one * np.exp(np.float32(0.9) * smooth_field(brain.shape, 2, spacing_mm, rng)) for one in weights]
    inside = brain / (weights[0] + weights[1] + weights[2])
    return np.stack([one * inside for one in weights], axis=-1)


def lesion_fraction(
    white: np.ndarray, positions: np.ndarray, spacing_mm: np.ndarray, load_ml: float, rng: np.random.Generator
) -> np.ndarray:
    """Share (x, y, z) float32 of each voxel's white matter that is hyperintense; above one half in about `load_ml`.

    Every voxel of white matter gets a susceptibility: high at the wall of the lateral ventricles (bands), reaching
    further at their horns (caps), lower in deep white matter, where patches (confluent lesions) and blobs (punctate
    ones) stand out. The threshold that yields the load is the edge of the lesions. White matter within 2 mm of the
    cortex, more than 14 mm below the anterior commissure, or less than 6 mm from the midline stays free. At most half
    of the remaining white matter is lesion; none at all for a load of 0.
    """
    ventricle_mm, cortex_mm = (read(distance, positions / 2) for distance in distances_mm())
    x, y, z = (
        axis + start for axis, start in zip(positions, tissue_maps().affine[:3, 3].astype(np.float32), strict=True)
    )
    shelter = np.minimum(np.clip((cortex_mm - 2) / 3, 0, 1), np.clip((z + 14) / 8, 0, 1))
    shelter = np.minimum(shelter, np.clip((np.abs(x) - 6) / 6, 0, 1))
    allowed = (white > 0.6) & (shelter > 0)

    reach_mm = np.full(white.shape, rng.uniform(3, 6), np.float32)
    for horn in HORNS_MM:
        squared_mm = (np.abs(x) - horn[0]) ** 2 + (y - horn[1]) ** 2 + (z - horn[2]) ** 2
        reach_mm *= 1 + np.float32(rng.uniform(0.5, 1.5)) * np.exp(-squared_mm / np.float32(2 * 12**2))
    reach_mm *= np.exp(np.float32(0.35) * smooth_field(white.shape, 7, spacing_mm, rng))
    bands = 1 - ventricle_mm / reach_mm
    patches = np.float32(rng.uniform(0.15, 0.45)) * smooth_field(white.shape, 4.5, spacing_mm, rng)
    patches -= np.float32(0.3) + ventricle_mm / 60
    susceptibility = np.maximum(bands, patches)
    seeds = np.argwhere(allowed & (shelter > 0.6))
    if len(seeds):
        for seed in rng.choice(seeds, rng.integers(10, 50)):
            _raise_blob(susceptibility, seed, rng.uniform(1.2, 2.6, 3), rng.uniform(0.5, 1.5), spacing_mm)
    susceptibility += np.float32(0.12) * smooth_field(white.shape, 2, spacing_mm, rng) - (1 - shelter)

    size = min(round(load_ml * 1000 / float(np.prod(spacing_mm))), int(allowed.sum()) // 2)
    if size == 0:
        return np.zeros(white.shape, np.float32)
    edge = np.partition(susceptibility[allowed], -size)[-size]
    fraction = np.clip((susceptibility - edge) / np.float32(rng.uniform(0.2, 0.5)) + np.float32(0.5), 0, 1) * allowed
    pieces, _ = ndimage.label(fraction >= 0.5)
    tiny = np.bincount(pieces.ravel()) * np.prod(spacing_mm) < SMALLEST_LESION_MM3
    tiny[0] = False
    return np.where(tiny[pieces], np.float32(0.4), fraction)


def _raise_blob(
    field: np.ndarray, seed: np.ndarray, radii_mm: np.ndarray, height: float, spacing_mm: np.ndarray
) -> None:
    """Lifts a field, in place, to at least a Gaussian hill of `height` less the 0.3 that patches start from."""
    half = np.ceil(3 * radii_mm / spacing_mm).astype(int)
    box = tuple(slice(max(0, s - h), s + h + 1) for s, h in zip(seed, half, strict=True))
    steps = [
        (np.arange(side.start, min(side.stop, n)) - s) * mm / radius
        for side, n, s, mm, radius in zip(box, field.shape, seed, spacing_mm, radii_mm, strict=True)
    ]
    hill = [np.exp(-(step**2) / 2).astype(np.float32) for step in steps]
    field[box] = np.maximum(field[box], np.float32(height) * np.einsum("x,y,z->xyz", *hill) - np.float32(0.3))


@cache
def distances_mm() -> tuple[np.ndarray, np.ndarray]:
    """Distance to the lateral ventricles, and depth below any other grey matter or CSF, on every second atlas voxel."""
    maps = tissue_maps()
    ventricles = maps.ventricles[::2, ::2, ::2]
    inner = (maps.probability[::2, ::2, ::2, 1] > 0.5) | ndimage.binary_dilation(ventricles)
    in_voxels = ndimage.distance_transform_edt(~ventricles), _distance_to_outside(inner)
    # Smoothed, or the 2 mm grid shows as steps in the outlines of lesions.
    to_ventricle, depth = (ndimage.gaussian_filter(2 * distance, 0.7).astype(np.float32) for distance in in_voxels)
    return to_ventricle, depth


def read(volume: np.ndarray, positions: np.ndarray, outside: Literal["nearest", "constant"] = "nearest") -> np.ndarray:
    """Linear interpolation (x, y, z) float32 of a volume at positions (3, x, y, z) in voxels; edge or 0 outside."""
    return ndimage.map_coordinates(volume, positions, order=1, mode=outside, output=np.float32, prefilter=False)


def _distance_to_outside(mask: np.ndarray) -> np.ndarray:
    return ndimage.distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1, 1:-1]


def _mirrored(right_half: np.ndarray) -> np.ndarray:
    """Both hemispheres from the right one, whose first plane is the midline."""
    return np.concatenate([right_half[:0:-1], right_half])


def _moved(affine: np.ndarray, first_voxel: tuple[int, int, int] | list[int]) -> np.ndarray:
    return affine @ nib.affines.from_matvec(np.eye(3), first_voxel)
