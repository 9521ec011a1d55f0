"""How a scan is taken: the settings of one scan, the signal equations that they enter, and hospitals that use them."""

from dataclasses import dataclass
from numbers import Real
from typing import Literal, get_args

import numpy as np

from pimms_tf.errors import InputError

Contrast = Literal["T1", "T1ce", "T2", "FLAIR", "PD", "T2*", "DWI", "STIR", "DIR", "TOF"]
Sequence = Literal["spin echo", "gradient echo", "MPRAGE", "inversion recovery", "double inversion recovery"]
Plane = Literal["axial", "coronal", "sagittal", "volume"]
Treatment = Literal["kept", "defaced", "stripped", "badly stripped"]

CONTRASTS: tuple[Contrast, ...] = get_args(Contrast)
MPRAGE_ECHO_MS = 8.0  # from one excitation of the train to the next


@dataclass(frozen=True)
class Protocol:
    """Settings of one scan: times in ms, lengths in mm, the field in tesla, the flip angle in degrees.

    `ti_ms` is the inversion time (of a double inversion the second, shorter one is `ti2_ms`); 0 where there is none.
    Slices of `thickness_mm` lie `gap_mm` apart and across `plane`; a "volume" has thickness as its third edge.
    `snr` is the signal of white matter over the noise; `bias` the strength of the inhomogeneity (0.1: some 10 %);
    `fat` the share of fat's signal that fat suppression leaves; `magnetisation_transfer` that of white matter's;
    `b_s_mm2` the diffusion weighting; `motion_mm` how far the head moves.
    """

    contrast: Contrast
    sequence: Sequence
    field_t: float
    tr_ms: float
    te_ms: float
    ti_ms: float = 0.0
    ti2_ms: float = 0.0
    flip_deg: float = 90.0
    plane: Plane = "axial"
    resolution_mm: float = 1.0
    thickness_mm: float = 1.0
    gap_mm: float = 0.0
    snr: float = 30.0
    bias: float = 0.1
    fat: float = 1.0
    magnetisation_transfer: float = 1.0
    b_s_mm2: float = 0.0
    motion_mm: float = 0.0


@dataclass(frozen=True)
class Hospital:
    """A set of protocols and what becomes of their scans: what is left of the head, the voxels they get."""

    name: str
    protocols: tuple[Protocol, ...]
    head: Treatment = "kept"
    grid_mm: tuple[float, float, float] = (1.0, 1.0, 1.0)

    def check(self, where: str) -> None:
        """Raises InputError, whose sentence begins with `where`, if a setting has no possible value."""
        _check_word(where, "head", self.head, Treatment)
        if len(self.grid_mm) != 3 or not all(0.5 <= edge <= 10 for edge in self.grid_mm):
            raise InputError(f"{where}: grid_mm = {self.grid_mm}: give three numbers between 0.5 and 10")
        for number, protocol in enumerate(self.protocols, 1):
            here = f"{where}, protocol {number}"
            _check_word(here, "contrast", protocol.contrast, Contrast)
            _check_word(here, "sequence", protocol.sequence, Sequence)
            _check_word(here, "plane", protocol.plane, Plane)
            for name, (low, high) in _RANGES.items():
                value = getattr(protocol, name)
                if not isinstance(value, Real) or not low <= value <= high:
                    raise InputError(f"{here}: {name} = {value!r} is not between {low:g} and {high:g}")
            inverts = "inversion" in protocol.sequence or protocol.sequence == "MPRAGE"
            if inverts and not 0 < protocol.ti_ms < protocol.tr_ms:
                raise InputError(f"{here}: ti_ms = {protocol.ti_ms:g} is not between 0 and tr_ms")


# The values that settings may have: beyond them no scanner works, or an equation fails.
_RANGES = {
    "field_t": (0.1, 12),
    "tr_ms": (1, 60_000),
    "te_ms": (0, 1000),
    "ti_ms": (0, 20_000),
    "ti2_ms": (0, 20_000),
    "flip_deg": (1, 180),
    "resolution_mm": (0.3, 10),
    "thickness_mm": (0.3, 20),
    "gap_mm": (0, 20),
    "snr": (1, 1e6),
    "bias": (0, 1),
    "fat": (0, 1),
    "magnetisation_transfer": (0.1, 1),
    "b_s_mm2": (0, 10_000),
    "motion_mm": (0, 20),
}


def _check_word(where: str, name: str, value: object, words: object) -> None:
    if value not in get_args(words):
        raise InputError(f"{where}: {name} = {value!r} is none of {', '.join(get_args(words))}")


def spin_echo(t1_ms, t2_ms, proton_density, tr_ms, te_ms):
    """Signal PD (1 - exp(-TR/T1)) exp(-TE/T2) of a spin echo, relative to fully relaxed water; valid for TE << TR.

    Source: Haacke et al., Magnetic Resonance Imaging: Physical Principles and Sequence Design, 1999.
    """
    return proton_density * (1 - np.exp(-tr_ms / t1_ms)) * np.exp(-te_ms / t2_ms)


def inversion_recovery(t1_ms, t2_ms, proton_density, tr_ms, te_ms, ti_ms):
    """Signal PD (1 - 2 exp(-TI/T1) + exp(-TR/T1)) exp(-TE/T2), negative before its null.

    The sign is kept because tissues that share a voxel add up before a magnitude is taken. Source: as `spin_echo`.
    """
    recovered = 1 - 2 * np.exp(-ti_ms / t1_ms) + np.exp(-tr_ms / t1_ms)
    return proton_density * recovered * np.exp(-te_ms / t2_ms)


def double_inversion_recovery(t1_ms, t2_ms, proton_density, tr_ms, te_ms, ti_ms, ti2_ms):
    """Signal after two inversions, `ti_ms` and `ti2_ms` (the later, shorter one) before the excitation.

    Source: Redpath and Smith, Br J Radiol 1994;67:1258.
    """
    recovered = 1 - 2 * np.exp(-ti2_ms / t1_ms) + 2 * np.exp(-ti_ms / t1_ms) - np.exp(-tr_ms / t1_ms)
    return proton_density * recovered * np.exp(-te_ms / t2_ms)


def gradient_echo(t1_ms, t2_star_ms, proton_density, tr_ms, te_ms, flip_deg):
    """Steady-state signal PD sin(a) (1 - E1) / (1 - cos(a) E1) exp(-TE/T2*) of a spoiled gradient echo.

    Source: Ernst and Anderson, Rev Sci Instrum 1966;37:93.
    """
    angle, e1 = float(np.deg2rad(flip_deg)), np.exp(-tr_ms / t1_ms)
    return (
        proton_density
        * (float(np.sin(angle)) * (1 - e1) / (1 - float(np.cos(angle)) * e1))
        * np.exp(-te_ms / t2_star_ms)
    )


def mprage(t1_ms, t2_star_ms, proton_density, tr_ms, te_ms, ti_ms, flip_deg, echo_ms=MPRAGE_ECHO_MS):
    """Signed signal at the middle of an MPRAGE's train of small excitations, in the steady state of its cycles.

    `ti_ms` runs from the inversion to the middle of the train, which fills at most 60 % of the cycle.
    Source: Mugler and Brookeman, Magn Reson Med 1990;15:152; Deichmann et al., NeuroImage 2000;12:112.
    """
    angle = float(np.deg2rad(flip_deg))
    half_ms = min(ti_ms * 0.95, 0.3 * tr_ms)
    number = half_ms / echo_ms  # excitations in half a train
    before, after = np.exp(-(ti_ms - half_ms) / t1_ms), np.exp(-(tr_ms - ti_ms - half_ms) / t1_ms)
    e1 = np.exp(-echo_ms / t1_ms)
    kept = float(np.cos(angle)) * e1
    driven = (1 - e1) / (1 - kept)  # where the train leads to
    half = kept**number
    # m is the magnetisation before the inversion: -m, recovery, half a train, half a train, recovery, m again.
    constant = 1 + ((driven + ((1 - before) - driven) * half**2) - 1) * after
    slope = -before * half**2 * after
    m = constant / (1 - slope)
    middle = driven + ((1 - before) - m * before - driven) * half
    return proton_density * middle * float(np.sin(angle)) * np.exp(-te_ms / t2_star_ms)


def signal(t1_ms, t2_ms, t2_star_ms, proton_density, protocol: Protocol):
    """Signed signal of tissue under a protocol, same shape as the properties; diffusion, flow and fat come on top."""
    p = protocol
    if p.sequence == "spin echo":
        return spin_echo(t1_ms, t2_ms, proton_density, p.tr_ms, p.te_ms)
    if p.sequence == "inversion recovery":
        return inversion_recovery(t1_ms, t2_ms, proton_density, p.tr_ms, p.te_ms, p.ti_ms)
    if p.sequence == "double inversion recovery":
        return double_inversion_recovery(t1_ms, t2_ms, proton_density, p.tr_ms, p.te_ms, p.ti_ms, p.ti2_ms)
    if p.sequence == "gradient echo":
        return gradient_echo(t1_ms, t2_star_ms, proton_density, p.tr_ms, p.te_ms, p.flip_deg)
    return mprage(t1_ms, t2_star_ms, proton_density, p.tr_ms, p.te_ms, p.ti_ms, p.flip_deg)


def nulling_ti_ms(t1_ms: float, tr_ms: float) -> float:
    """Inversion time at which a tissue gives no signal: T1 (ln 2 - ln(1 + exp(-TR/T1)))."""
    return float(t1_ms * (np.log(2) - np.log1p(np.exp(-tr_ms / t1_ms))))
