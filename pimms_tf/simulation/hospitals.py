"""Hospitals drawn at random: which scans they take, on which scanner, with which settings."""

from dataclasses import replace

import numpy as np

from pimms_tf.simulation.protocols import Contrast, Hospital, Plane, Protocol, nulling_ti_ms

# What hospitals take, and how often (relative).
SETS: tuple[tuple[tuple[Contrast, ...], float], ...] = (
    (("T1", "T2", "FLAIR"), 6),
    (("T1", "FLAIR"), 2),
    (("T1", "T2", "FLAIR", "PD"), 1),
    (("T1", "T1ce", "T2", "FLAIR"), 1.5),
    (("T1ce", "T2", "FLAIR"), 1),
    (("T1", "T2", "T2", "FLAIR"), 0.5),
    (("T1", "T1", "T2", "FLAIR", "FLAIR"), 0.5),
    (("T1", "T2", "FLAIR", "T2*"), 0.5),
    (("T1", "T2", "FLAIR", "DWI"), 0.5),
    (("T1", "T2", "FLAIR", "STIR"), 0.2),
    (("T1", "FLAIR", "DIR"), 0.2),
    (("T1", "T2", "FLAIR", "TOF"), 0.2),
)


def draw_protocol(contrast: Contrast, field_t: float, rng: np.random.Generator) -> Protocol:
    """One scan of a contrast as a scanner of `field_t` tesla may take it; settings uniform within ranges in use."""
    u = rng.uniform
    sequence, tr, te, ti, ti2, flip, b = "spin echo", 0.0, 0.0, 0.0, 0.0, 90.0, 0.0
    volume = False
    if contrast in ("T1", "T1ce"):
        kind = rng.choice(4, p=(0.45, 0.2, 0.25, 0.1))
        if kind == 0:
            sequence, tr, te, flip, volume = "MPRAGE", u(1700, 2500), u(2, 5), u(7, 13), True
            ti = u(0.85, 1.1) * (1000 if field_t > 2 else 950)
        elif kind == 1:
            sequence, tr, te, flip, volume = "gradient echo", u(7, 30), u(2, 7), u(15, 30), True
        elif kind == 2:
            tr, te = u(400, 750), u(8, 20)
        else:
            sequence, tr, te, ti = "inversion recovery", u(1800, 2800), u(8, 25), u(750, 950)
    elif contrast == "T2":
        tr, te, volume = u(3000, 7500), u(75, 115), rng.random() < 0.15
    elif contrast == "FLAIR":
        volume = rng.random() < 0.4
        tr = u(4800, 8000) if volume else u(7000, 11000)
        # A volume's long train of small refocusing angles weights T2 less than its nominal echo time says.
        te = u(75, 130) if volume else u(85, 140)
        sequence, ti = "inversion recovery", nulling_ti_ms(4100, tr) * u(0.93, 1.05)
    elif contrast == "PD":
        tr, te = u(2000, 4500), u(10, 35)
    elif contrast == "T2*":
        sequence, tr, te, flip = "gradient echo", u(500, 900), u(15, 30), u(15, 25)
    elif contrast == "DWI":
        tr, te, b = u(4000, 8000), u(70, 110), float(rng.choice((0.0, 1000.0), p=(0.4, 0.6)))
    elif contrast == "STIR":
        sequence, tr, te = "inversion recovery", u(3500, 6000), u(30, 70)
        ti = nulling_ti_ms(370 if field_t > 2 else 290, tr)
    elif contrast == "DIR":
        sequence, tr, te = "double inversion recovery", u(6500, 9000), u(20, 60)
        ti, ti2 = u(2900, 3400), u(380, 500)
    else:
        sequence, tr, te, flip, volume = "gradient echo", u(20, 35), u(3, 7), u(15, 25), True

    if volume:
        plane: Plane = "volume"
        resolution = u(0.8, 1.25)
        thickness, gap = resolution * u(1, 1.4), 0.0
    else:
        plane = ("axial", "coronal", "sagittal")[rng.choice(3, p=(0.82, 0.06, 0.12))]
        resolution = u(1.6, 2.5) if contrast == "DWI" else u(0.7, 1.2)
        thickness = u(2, 4) if rng.random() < 0.6 else u(4, 7)
        gap = 0.0 if rng.random() < 0.4 else u(0.05, 0.3) * thickness
    suppressed = rng.random() < {"FLAIR": 0.6, "T2": 0.15, "DWI": 0.9, "STIR": 0.0, "DIR": 0.8}.get(contrast, 0.1)
    return Protocol(
        contrast,
        sequence,
        field_t,
        *(round(float(value), 2) for value in (tr, te, ti, ti2, flip)),
        plane=plane,
        resolution_mm=round(float(resolution), 2),
        thickness_mm=round(float(thickness), 2),
        gap_mm=round(float(gap), 2),
        snr=round(float(np.exp(u(np.log(14), np.log(100)))), 1),
        bias=round(float(u(0.02, 0.12) if field_t < 2 else u(0.03, 0.2)), 3),
        fat=round(float(u(0.02, 0.3)), 2) if suppressed else 1.0,
        magnetisation_transfer=round(float(u(0.82, 0.98) if contrast == "FLAIR" else u(0.92, 1.0)), 3),
        b_s_mm2=b,
        motion_mm=round(float(u(0.3, 1.5)), 2) if rng.random() < 0.15 else 0.0,
    )


def draw_hospital(rng: np.random.Generator, name: str = "", contrasts: tuple[Contrast, ...] | None = None) -> Hospital:
    """A hospital: a scanner of 1.5 or 3 T, its scans (of the given contrasts, or of a usual set), how it keeps them.

    Half the hospitals strip skulls, one in six of those badly; a third of the others deface. Half bring their scans to
    voxels of 1 mm, the others to those of their axial slices, 3 to 7.5 mm thick.
    """
    field_t = float(rng.choice((1.5, 3.0)))
    if contrasts is None:
        weights = np.array([weight for _, weight in SETS])
        contrasts = SETS[rng.choice(len(SETS), p=weights / weights.sum())][0]
    protocols = tuple(draw_protocol(contrast, field_t, rng) for contrast in contrasts)
    skull = ("kept", "defaced", "stripped", "badly stripped")[rng.choice(4, p=(0.34, 0.16, 0.42, 0.08))]
    grid = (1.0, 1.0, 1.0)
    if rng.random() < 0.5:
        edge = round(float(rng.uniform(0.8, 1.1)), 3)
        grid = (edge, edge, round(float(rng.uniform(3, 7.5)), 2))
        # Axial scans of one visit share their slices.
        protocols = tuple(
            replace(
                p,
                thickness_mm=round(grid[2] - min(p.gap_mm, 0.25 * grid[2]), 2),
                gap_mm=min(p.gap_mm, round(0.25 * grid[2], 2)),
            )
            if p.plane == "axial"
            else p
            for p in protocols
        )
    return Hospital(name, protocols, skull, grid)
