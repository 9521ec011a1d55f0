"""Scans of people who never lived: an atlas, bent and sampled, with lesions, seen through the MR signal equations.

A subject is made in four steps. The ICBM152 tissue probabilities are deformed and sampled into one anatomy; white matter
hyperintensities are grown around the ventricles and in deep white matter until a drawn load in ml is reached; the
protocol of the day (TR, TE, TI) and the relaxation times of four tissues give one brightness per tissue and scan; bias
field and Rician noise follow. Brain only: there is no skull, and outside the brain every voxel is exactly 0 and free of
noise, as after brain extraction.
"""

import gzip
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from importlib import resources
from pathlib import Path
from typing import NamedTuple

import nibabel as nib
import numpy as np
from scipy import ndimage

from pimms_tf.errors import InputError
from pimms_tf.files import replacing

LEVELS = 63  # steps of the stored probabilities; 1/63 is far below the randomness added to them
WORKING_MM = 4.0  # grid of the deformation, which is smooth over centimetres


@dataclass(frozen=True)
class Tissue:
    """MR properties of one tissue: relaxation times in ms, proton density relative to pure water."""

    name: str
    t1_ms: float
    t2_ms: float
    proton_density: float


# 3 T. T1 and T2 of grey and white matter: Wansapura et al., J Magn Reson Imaging 1999;9:531. T1 of CSF: Lin et al., Proc
# ISMRM 2001;9:1391. T2 of CSF in vivo: Piechnik et al., Magn Reson Med 2009;61:579. Water contents: Ernst et al., J Magn
# Reson B 1993;102:1. Hyperintensities vary from faint to nearly liquid and have no single published value: these figures
# lie between white matter and CSF so that a lesion looks as it does in practice, grey on T1w, bright on T2w and FLAIR.
GREY_MATTER = Tissue("grey matter", 1331.0, 110.0, 0.78)
WHITE_MATTER = Tissue("white matter", 832.0, 79.2, 0.65)
CSF = Tissue("CSF", 4163.0, 503.0, 0.97)
HYPERINTENSITY = Tissue("white matter hyperintensity", 1350.0, 140.0, 0.76)
TISSUES = (GREY_MATTER, WHITE_MATTER, CSF, HYPERINTENSITY)


@dataclass(frozen=True)
class Protocol:
    """Settings of one scan in ms; without an inversion time it is a spin echo."""

    name: str
    tr_ms: float
    te_ms: float
    ti_ms: float | None = None


class Protocols(NamedTuple):
    t1: Protocol
    t2: Protocol
    flair: Protocol


class TissueMaps(NamedTuple):
    """The atlas: probabilities (x, y, z, tissue) float32 of grey matter, white matter, CSF; lateral ventricles; affine."""

    probability: np.ndarray
    ventricles: np.ndarray
    affine: np.ndarray


@dataclass(frozen=True)
class SimulatedSubject:
    """One subject: scans (x, y, z) float32 by name, lesion (x, y, z) bool, fractions (x, y, z, tissue) in order TISSUES."""

    scans: Mapping[str, np.ndarray]
    lesion: np.ndarray
    fractions: np.ndarray
    affine: np.ndarray
    protocols: Protocols
    tissues: tuple[Tissue, ...]


def spin_echo(tissue: Tissue, tr_ms: float, te_ms: float) -> float:
    """Signal of a spin echo, PD (1 - exp(-TR/T1)) exp(-TE/T2), relative to fully relaxed water; valid for TE << TR.

    Source: Haacke et al., Magnetic Resonance Imaging: Physical Principles and Sequence Design, 1999.
    """
    return tissue.proton_density * (1 - np.exp(-tr_ms / tissue.t1_ms)) * np.exp(-te_ms / tissue.t2_ms)


def inversion_recovery(tissue: Tissue, tr_ms: float, te_ms: float, ti_ms: float) -> float:
    """Signed signal of an inversion recovery, PD (1 - 2 exp(-TI/T1) + exp(-TR/T1)) exp(-TE/T2); negative before the null.

    Source: as `spin_echo`. The sign is kept because tissues that share a voxel add up before the magnitude is taken.
    """
    recovered = 1 - 2 * np.exp(-ti_ms / tissue.t1_ms) + np.exp(-tr_ms / tissue.t1_ms)
    return tissue.proton_density * recovered * np.exp(-te_ms / tissue.t2_ms)


def signal(tissue: Tissue, protocol: Protocol) -> float:
    """Signed brightness of a tissue under a protocol: inversion recovery if it has a TI, else spin echo."""
    if protocol.ti_ms is None:
        return spin_echo(tissue, protocol.tr_ms, protocol.te_ms)
    return inversion_recovery(tissue, protocol.tr_ms, protocol.te_ms, protocol.ti_ms)


def nulling_ti_ms(t1_ms: float, tr_ms: float) -> float:
    """Inversion time at which a tissue gives no signal: T1 (ln 2 - ln(1 + exp(-TR/T1)))."""
    return t1_ms * (np.log(2) - np.log1p(np.exp(-tr_ms / t1_ms)))


def draw_protocols(rng: np.random.Generator) -> Protocols:
    """T1w, T2w and FLAIR protocol of one subject, uniform within ranges used at 3 T.

    T1w: seven in ten are inversion recovery (TR 1900-2500, TE 2-5, TI 950-1150 ms), the others short spin echoes (TR
    450-700, TE 8-15 ms). T2w: spin echo, TR 3500-7000, TE 80-110 ms. FLAIR: TR 8000-11000, TE 100-140 ms, TI within 3 %
    of the value that nulls CSF.
    """
    if rng.random() < 0.7:
        t1 = Protocol("T1", rng.uniform(1900, 2500), rng.uniform(2, 5), rng.uniform(950, 1150))
    else:
        t1 = Protocol("T1", rng.uniform(450, 700), rng.uniform(8, 15))
    t2 = Protocol("T2", rng.uniform(3500, 7000), rng.uniform(80, 110))
    tr_ms = rng.uniform(8000, 11000)
    ti_ms = nulling_ti_ms(CSF.t1_ms, tr_ms) * rng.uniform(0.97, 1.03)
    return Protocols(t1, t2, Protocol("FLAIR", tr_ms, rng.uniform(100, 140), ti_ms))


def add_rician_noise(magnitude: np.ndarray, sigma: float, rng: np.random.Generator) -> np.ndarray:
    """Magnitude of the signal after Gaussian noise of width `sigma` on its real and on its imaginary part; same shape.

    Where the signal is 0 the result is Rayleigh distributed with mean sigma sqrt(pi/2).

    Source: Gudbjartsson and Patz, Magn Reson Med 1995;34:910.
    """
    real, imaginary = (sigma * rng.standard_normal(magnitude.shape, dtype=np.float32) for _ in range(2))
    return np.hypot(magnitude + real, imaginary)


def smooth_field(shape: tuple[int, ...], scale_mm: float, spacing_mm: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Random field (x, y, z) float32 of mean 0 and variance 1 that varies over about `scale_mm`."""
    noise = rng.standard_normal(shape, dtype=np.float32)
    field = ndimage.gaussian_filter(noise, scale_mm / np.asarray(spacing_mm), mode="wrap", truncate=3)
    return (field - field.mean()) / max(float(field.std()), 1e-6)


@cache
def tissue_maps() -> TissueMaps:
    """The shipped atlas on 1 mm voxels in RAS order, MNI space, cropped to the brain; probabilities sum to 1 in the brain.

    Source: ICBM152 2009a symmetric, Fonov et al., NeuroImage 2011;54:313; licence and changes in `assets/NOTICE.txt`.
    """
    with resources.as_file(resources.files("pimms_tf.data") / "assets") as assets:
        stored = nib.load(assets / "tissue_maps.nii.gz")
        level = _mirrored(np.asarray(stored.dataobj, dtype=np.float32))
        ventricles = _mirrored(np.asarray(nib.load(assets / "ventricles.nii.gz").dataobj)) > 0
    affine = stored.affine @ nib.affines.from_matvec(np.eye(3), [-(level.shape[0] // 2), 0, 0])
    total = np.einsum("xyzt->xyz", level)
    return TissueMaps(np.einsum("xyzt,xyz->xyzt", level, 1 / np.maximum(total, 1)), ventricles, affine)


def _mirrored(right_half: np.ndarray) -> np.ndarray:
    """Both hemispheres from the right one, whose first plane is the midline."""
    return np.concatenate([right_half[:0:-1], right_half])


def write_tissue_maps(template: Path, folder: Path) -> None:
    """Writes the two shipped files `tissue_maps.nii.gz` and `ventricles.nii.gz` from a folder of the ICBM152 2009a maps.

    `template` holds p_gm, p_wm and p_csf (.nii.gz) on one grid, scaled to 0..1. Kept is the box of the brain. The lateral
    ventricles are the largest piece of CSF deeper than 22 mm and between 14 mm below and 34 mm above the origin. Grey
    matter thinner than 5 mm within 6 mm of them is the blur of white matter against CSF, not tissue, and is shared out
    between those two. The template is symmetric, so only its right half is stored, as integers 0..63. The same template
    gives the same bytes.
    """
    images = [nib.load(template / f"{name}.nii.gz") for name in ("p_gm", "p_wm", "p_csf")]
    grey, white, csf = (image.get_fdata(dtype=np.float32) for image in images)
    brain = grey + white + csf > 0.99
    box = ndimage.find_objects(brain.astype(np.uint8))[0]
    start = np.array([side.start for side in box])
    affine = images[0].affine @ nib.affines.from_matvec(np.eye(3), start)
    grey, white, csf, brain = (volume[box] for volume in (grey, white, csf, brain))

    height_mm = affine[2, 3] + np.arange(brain.shape[2])
    deep = ndimage.distance_transform_edt(np.pad(brain, 1))[1:-1, 1:-1, 1:-1] > 22
    pieces, _ = ndimage.label((csf > 0.5) & deep & (height_mm > -14) & (height_mm < 34))
    ventricles = pieces == 1 + np.argmax(np.bincount(pieces.ravel())[1:])

    beside = ndimage.distance_transform_edt(~ventricles) < 6
    rim = np.where(beside, grey - ndimage.grey_opening(grey, size=(5, 5, 5)), 0)
    white_share = white / np.maximum(white + csf, 1e-6)
    tissues = np.stack([grey - rim, white + rim * white_share, csf + rim * (1 - white_share)], axis=-1)
    level = np.where(brain[..., None], np.rint(tissues * LEVELS), 0).astype(np.uint8)

    midline = level.shape[0] // 2
    affine = affine @ nib.affines.from_matvec(np.eye(3), [midline, 0, 0])
    for name, volume in {"tissue_maps": level, "ventricles": ventricles.astype(np.uint8)}.items():
        half = nib.Nifti1Image(volume[midline:], affine)
        with replacing(folder / f"{name}.nii.gz") as path:
            path.write_bytes(gzip.compress(half.to_bytes(), 9, mtime=0))


@cache
def _distances_mm() -> tuple[np.ndarray, np.ndarray]:
    """Distance in mm to the lateral ventricles, and to any other grey matter, CSF or edge; on every second atlas voxel."""
    maps = tissue_maps()
    ventricles = maps.ventricles[::2, ::2, ::2]
    white = maps.probability[::2, ::2, ::2, 1] > 0.5
    inner = white | ndimage.binary_dilation(ventricles, iterations=2)
    distance = ndimage.distance_transform_edt
    return tuple(distance(np.pad(mask, 1))[1:-1, 1:-1, 1:-1].astype(np.float32) * 2 for mask in (~ventricles, inner))


def _grid(spacing_mm: np.ndarray, z_range_mm: tuple[float, float] | None) -> tuple[tuple[int, ...], np.ndarray]:
    """Shape and affine of the voxels that cover the atlas with a margin of 6 mm, or its axial slab `z_range_mm`."""
    maps = tissue_maps()
    low = maps.affine[:3, 3] - 6
    high = maps.affine[:3, 3] + maps.probability.shape[:3] + 5
    if z_range_mm is not None:
        low[2], high[2] = z_range_mm
    shape = tuple(int(n) for n in np.ceil((high - low) / spacing_mm))
    return shape, nib.affines.from_matvec(np.diag(spacing_mm), low)


def _deformed_positions(shape: tuple[int, ...], affine: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Atlas voxel position (3, x, y, z) float32 seen by each voxel: size, tilt, smooth bends, and larger ventricles."""
    maps = tissue_maps()
    tilt = rng.normal(0, np.deg2rad(4), 3)
    turn = np.array([[0, -tilt[2], tilt[1]], [tilt[2], 0, -tilt[0]], [-tilt[1], tilt[0], 0]])
    linear = (np.eye(3) + turn) @ np.diag(1 / rng.normal(1, 0.04, 3))

    # Bends are drawn on a coarse grid over the atlas, then read off for every voxel.
    coarse = tuple(int(n) for n in np.ceil(np.array(maps.probability.shape[:3]) / WORKING_MM))
    bends = np.stack([3.0 * smooth_field(coarse, 16, np.full(3, WORKING_MM), rng) for _ in range(3)])
    ventricle_mm, _ = _distances_mm()
    ventricle_mm = ndimage.gaussian_filter(ventricle_mm, 1.5)[::2, ::2, ::2][tuple(slice(n) for n in coarse)]
    growth_mm = rng.uniform(0, 4.5) * np.exp(-ventricle_mm / 14)
    bends -= growth_mm * np.stack(np.gradient(ventricle_mm, WORKING_MM))

    to_atlas = np.linalg.inv(maps.affine) @ affine
    # The linear part turns about the middle of the third ventricle, near the world's origin.
    matrix, offset = linear @ to_atlas[:3, :3], np.linalg.inv(maps.affine)[:3, 3]
    offset = linear @ (to_atlas[:3, 3] - offset) + offset
    axes = np.meshgrid(*[np.arange(n, dtype=np.float32) for n in shape], indexing="ij", sparse=True)
    positions = np.empty((3, *shape), np.float32)
    for row, shift, out in zip(matrix, offset, positions, strict=True):
        out[...] = row[0] * axes[0] + row[1] * axes[1] + row[2] * axes[2] + shift
    shifts = [_read(bend, positions / WORKING_MM) for bend in bends]
    for shift, out in zip(shifts, positions, strict=True):
        out += shift
    return positions


def _read(volume: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """Linear interpolation of a volume at positions (3, x, y, z) in its voxels; the edge value outside."""
    return ndimage.map_coordinates(volume, positions, order=1, mode="nearest", output=np.float32, prefilter=False)


def _sampled_anatomy(positions: np.ndarray, spacing_mm: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Fractions (x, y, z, tissue) of grey matter, white matter and CSF of one person; all 0 outside the brain.

    An average of many brains is blurred. Smooth noise on the log probabilities decides, patch by patch, which of the
    people behind the average this one resembles, and sharpening removes most of the blur.
    """
    atlas = tissue_maps().probability
    likely = [_read(atlas[..., tissue], positions) for tissue in range(3)]
    brain = sum(likely) > 0.5
    preference = [np.float32(1.8) * np.log(p + np.float32(0.004)) for p in likely]
    for tissue in range(3):
        preference[tissue] += np.float32(0.9) * smooth_field(brain.shape, 2.0, spacing_mm, rng)
    top = np.maximum.reduce(preference)
    weights = np.stack([np.exp(one - top) for one in preference], axis=-1)
    return np.einsum("xyzt,xyz,xyz->xyzt", weights, 1 / np.einsum("xyzt->xyz", weights), brain.astype(np.float32))


def _grow_lesions(
    white: np.ndarray, positions: np.ndarray, spacing_mm: np.ndarray, load_ml: float, rng: np.random.Generator
) -> np.ndarray:
    """Fraction (x, y, z) of the white matter that is hyperintense; above one half in `load_ml` of lesion.

    Every white matter voxel gets a susceptibility: high at the wall of the lateral ventricles (bands) and higher at their
    horns (caps), lower in deep white matter where smooth patches (confluent lesions) and small blobs (punctate ones) stand
    out. The threshold that yields the load is the edge of the lesions.
    """
    ventricle_mm, cortex_mm = (_read(distance, positions / 2) for distance in _distances_mm())
    centre = -tissue_maps().affine[:3, 3]
    x, y, z = (axis - middle for axis, middle in zip(positions, centre, strict=True))
    reach_mm = np.full(white.shape, rng.uniform(3.5, 6), np.float32)
    for horn, weight in ((18, 36, 2), rng.uniform(0.5, 1.4)), ((29, -52, 14), rng.uniform(0.5, 1.4)):
        squared_mm = (np.abs(x) - horn[0]) ** 2 + (y - horn[1]) ** 2 + (z - horn[2]) ** 2
        reach_mm *= 1 + np.float32(weight) * np.exp(-squared_mm / np.float32(2 * 11**2))
    susceptibility = 1 - ventricle_mm / reach_mm * (1 + np.float32(0.35) * smooth_field(white.shape, 8, spacing_mm, rng))

    deep = np.clip((cortex_mm - 2) / 4, 0, 1) * np.clip((z + 14) / 8, 0, 1) * np.clip((np.abs(x) - 7) / 6, 0, 1)
    patches = np.float32(rng.uniform(0.15, 0.4)) * smooth_field(white.shape, 4.5, spacing_mm, rng) - np.float32(0.45)
    patches -= np.float32(0.012) * ventricle_mm
    susceptibility = np.maximum(susceptibility, patches)
    allowed = (white > 0.6) & (deep > 0)
    candidates = np.argwhere(allowed & (deep > 0.4))
    if len(candidates):
        for seed in rng.choice(candidates, rng.integers(6, 40)):
            _raise_blob(susceptibility, seed, rng.uniform(1.0, 2.6, 3), rng.uniform(0.3, 1.1), spacing_mm)
    susceptibility += np.float32(0.12) * smooth_field(white.shape, 1.5, spacing_mm, rng)
    susceptibility += 1 - deep

    return susceptibility


def _raise_blob(
    field: np.ndarray, seed: np.ndarray, radii_mm: np.ndarray, height: float, spacing_mm: np.ndarray
) -> None:
    pass
