"""Stripped brains with simple lesions in T1w, T2w and FLAIR, made in moments: for the demonstration and for tests.

A phantom is made in two steps. `atlas` bends and samples an atlas and grows white matter hyperintensities in it.
Here the protocol of the day (TR, TE, TI) and the relaxation times of four tissues give one brightness per tissue and
scan, and bias field and noise follow. There is no skull: outside the brain every voxel is exactly 0, as after brain
extraction.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import nibabel as nib
import numpy as np

from pimms_tf.errors import InputError
from pimms_tf.files import replacing
from pimms_tf.simulation.atlas import deformed_positions, lesion_fraction, sampled_anatomy, smooth_field, voxel_grid
from pimms_tf.simulation.protocols import inversion_recovery, nulling_ti_ms, spin_echo
from pimms_tf.simulation.scans import bias_field


@dataclass(frozen=True)
class Tissue:
    """MR properties of one tissue: relaxation times in ms, proton density relative to pure water."""

    name: str
    t1_ms: float
    t2_ms: float
    proton_density: float


# 3 T. Grey and white matter: T1 and T2 of Wansapura et al., J Magn Reson Imaging 1999;9:531, but T2 of grey matter from
# Stanisz et al., Magn Reson Med 2005;54:507, since 110 ms makes cortex too bright on FLAIR. T1 of CSF: Lin et al., Proc
# ISMRM 2001;9:1391; its T2 in vivo: Piechnik et al., Magn Reson Med 2009;61:579. Water contents: Ernst et al., J Magn
# Reson B 1993;102:1. Hyperintensities range from faint to nearly liquid and have no one published value: these figures
# were chosen between white matter and CSF for the contrast seen in practice, grey on T1w, bright on T2w and FLAIR.
GREY_MATTER = Tissue("grey matter", 1331.0, 99.0, 0.78)
WHITE_MATTER = Tissue("white matter", 832.0, 79.2, 0.65)
CSF = Tissue("CSF", 4163.0, 503.0, 0.97)
HYPERINTENSITY = Tissue("white matter hyperintensity", 1300.0, 130.0, 0.72)
TISSUES = (GREY_MATTER, WHITE_MATTER, CSF, HYPERINTENSITY)


@dataclass(frozen=True)
class Protocol:
    """Settings of one scan in ms; without an inversion time it is a spin echo."""

    tr_ms: float
    te_ms: float
    ti_ms: float | None = None


class Protocols(NamedTuple):
    t1: Protocol
    t2: Protocol
    flair: Protocol


@dataclass(frozen=True)
class Phantom:
    """One subject on one RAS grid: scans (x, y, z) float32 in arbitrary units, lesion (x, y, z) bool, affine in mm.

    `fractions` (x, y, z, tissue) float32 holds how much of each voxel each of TISSUES fills, with its sum 1 in the
    brain and 0 outside; `tissues` are the properties this subject's were drawn to have.
    """

    t1: np.ndarray
    t2: np.ndarray
    flair: np.ndarray
    lesion: np.ndarray
    affine: np.ndarray
    fractions: np.ndarray
    tissues: tuple[Tissue, ...]
    protocols: Protocols


def signal(tissue: Tissue, protocol: Protocol) -> float:
    """Signed brightness of a tissue under a protocol: inversion recovery if it has a TI, else spin echo."""
    properties = tissue.t1_ms, tissue.t2_ms, tissue.proton_density
    if protocol.ti_ms is None:
        return float(spin_echo(*properties, protocol.tr_ms, protocol.te_ms))
    return float(inversion_recovery(*properties, protocol.tr_ms, protocol.te_ms, protocol.ti_ms))


def draw_protocols(rng: np.random.Generator) -> Protocols:
    """T1w, T2w and FLAIR protocol of one subject, uniform within ranges in use at 3 T.

    T1w: seven in ten are inversion recovery (TR 1900-2500, TE 2-5, TI 1000-1150 ms), the others short spin echoes (TR
    450-600, TE 8-15 ms). T2w: spin echo, TR 3500-7000, TE 80-110 ms. FLAIR: TR 8000-11000, TE 100-140 ms, TI within 3
    % of the value that nulls CSF.
    """
    if rng.random() < 0.7:
        t1 = Protocol(rng.uniform(1900, 2500), rng.uniform(2, 5), rng.uniform(1000, 1150))
    else:
        t1 = Protocol(rng.uniform(450, 600), rng.uniform(8, 15))
    t2 = Protocol(rng.uniform(3500, 7000), rng.uniform(80, 110))
    tr_ms = rng.uniform(8000, 11000)
    ti_ms = nulling_ti_ms(CSF.t1_ms, tr_ms) * rng.uniform(0.97, 1.03)
    return Protocols(t1, t2, Protocol(tr_ms, rng.uniform(100, 140), ti_ms))


def draw_tissues(rng: np.random.Generator) -> tuple[Tissue, ...]:
    """TISSUES as one subject has them: relaxation times vary by 3 % (one standard deviation), in lesions by 5 %."""
    return tuple(
        Tissue(t.name, t.t1_ms * rng.normal(1, spread), t.t2_ms * rng.normal(1, spread), t.proton_density)
        for t, spread in zip(TISSUES, (0.03, 0.03, 0.03, 0.05), strict=True)
    )


def add_rician_noise(scan: np.ndarray, sigma: float, rng: np.random.Generator) -> np.ndarray:
    """Magnitude, same shape, of a signed scan after Gaussian noise of width `sigma` on real and imaginary part.

    Where the scan is 0 the result is Rayleigh distributed with mean sigma sqrt(pi/2).

    Source: Gudbjartsson and Patz, Magn Reson Med 1995;34:910.
    """
    real, imaginary = (np.float32(sigma) * rng.standard_normal(scan.shape, dtype=np.float32) for _ in range(2))
    return np.hypot(scan + real, imaginary)


def draw_phantom(
    rng: np.random.Generator,
    spacing_mm: tuple[float, float, float] = (1.0, 1.0, 1.0),
    z_range_mm: tuple[float, float] | None = None,
    load_ml: tuple[float, float] = (5.0, 40.0),
) -> Phantom:
    """One subject: T1w, T2w and FLAIR with a lesion mask on one grid; an equal `rng` gives an equal subject.

    Lesion load in the field of view is drawn between the two values of `load_ml`, small ones as often as large ones
    on a logarithmic scale; (0, 0) is a healthy brain. `z_range_mm` limits the scans to an axial slab, in mm above the
    anterior commissure. Scans come in arbitrary units that differ from scan to scan, with a bias field of some 10 %
    and Rician noise at a signal-to-noise ratio of 20 to 45 in white matter; voxels outside the brain are exactly 0.

    Raises:
        InputError: a spacing outside 0.5 to 10 mm, an empty slab, or a load that is negative or reversed.
    """
    spacing = np.asarray(spacing_mm, dtype=np.float64)
    if spacing.shape != (3,) or not np.all((spacing >= 0.5) & (spacing <= 10)):
        raise InputError(f"voxel spacing {spacing_mm} mm: give three numbers between 0.5 and 10")
    if z_range_mm is not None and z_range_mm[0] >= z_range_mm[1]:
        raise InputError(f"slab {z_range_mm} mm is empty: give its lower and then its upper end")
    if not 0 <= load_ml[0] <= load_ml[1]:
        raise InputError(f"lesion load {load_ml} ml: give a smallest and a largest load, both 0 or more")

    shape, affine = voxel_grid(spacing, z_range_mm)
    positions = deformed_positions(shape, affine, rng)
    healthy = sampled_anatomy(positions, spacing, rng)
    load = np.exp(rng.uniform(*np.log(np.maximum(load_ml, 1e-3)))) if load_ml[1] > 0 else 0.0
    share = lesion_fraction(healthy[..., 1], positions, spacing, load, rng)
    white = healthy[..., 1]
    fractions = np.stack([healthy[..., 0], white * (1 - share), healthy[..., 2], white * share], axis=-1)

    tissues, protocols = draw_tissues(rng), draw_protocols(rng)
    scans = [_scan(fractions, tissues, protocol, spacing, rng) for protocol in protocols]
    return Phantom(*scans, share >= 0.5, affine, fractions, tissues, protocols)


def _scan(
    fractions: np.ndarray,
    tissues: tuple[Tissue, ...],
    protocol: Protocol,
    spacing: np.ndarray,
    rng: np.random.Generator,
) -> np.ndarray:
    brightness = np.array([signal(tissue, protocol) for tissue in tissues], np.float32)
    scan = np.einsum("xyzt,t->xyz", fractions, brightness)
    # Tissue is not uniform inside: a texture of 2 % keeps a network from living on exact grey values.
    scan *= 1 + np.float32(0.02) * smooth_field(scan.shape, 3, spacing, rng)
    scan *= bias_field(scan.shape, 0.12, rng)
    scan = add_rician_noise(scan, abs(float(brightness[1])) / rng.uniform(20, 45), rng)
    gain = rng.uniform(300, 900) / max(abs(float(brightness[1])), 1e-6)
    return np.where(np.einsum("xyzt->xyz", fractions) > 0, scan * np.float32(gain), np.float32(0))


def write_phantom(folder: Path, subject_id: str, subject: Phantom) -> tuple[Path, Path, Path, Path]:
    """Paths of the four files written: `<id>_T1.nii.gz`, `<id>_T2.nii.gz`, `<id>_FLAIR.nii.gz`, `<id>_lesion.nii.gz`.

    Scans are stored as int16 with at least 1 in the brain, so that `> 0` remains the brain; the lesion as 0 and 1
    (uint8).

    Raises:
        OSError: the folder cannot be written.
    """
    brain = np.einsum("xyzt->xyz", subject.fractions) > 0
    volumes = {
        name: np.where(brain, np.clip(np.rint(scan), 1, 32767), 0).astype(np.int16)
        for name, scan in (("T1", subject.t1), ("T2", subject.t2), ("FLAIR", subject.flair))
    }
    volumes["lesion"] = subject.lesion.astype(np.uint8)
    paths = tuple(folder / f"{subject_id}_{name}.nii.gz" for name in volumes)
    for path, volume in zip(paths, volumes.values(), strict=True):
        image = nib.Nifti1Image(volume, subject.affine)
        image.header.set_xyzt_units("mm")
        with replacing(path) as temporary:
            nib.save(image, temporary)
    return paths
