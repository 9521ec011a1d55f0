"""What a head is made of: label codes of FreeSurfer, relaxation times and water of each tissue at 1.5 and 3 T."""

from dataclasses import dataclass

import numpy as np

from pimms_tf.errors import InputError


@dataclass(frozen=True)
class Tissue:
    """MR properties of one tissue: T1, T2, T2* in ms at 1.5 and 3 T, proton density of water's, diffusion in µm²/ms."""

    name: str
    codes: tuple[int, ...]
    t1_ms: tuple[float, float]
    t2_ms: tuple[float, float]
    t2_star_ms: tuple[float, float]
    proton_density: float
    diffusion: float = 0.8


# Grey and white matter: Wansapura et al., J Magn Reson Imaging 1999;9:531 and Stanisz et al., Magn Reson Med
# 2005;54:507; deep grey matter: Gelman et al., Magn Reson Med 2001;45:71 and Rooney et al., Magn Reson Med 2007;57:308;
# blood: Stanisz, Lu et al., Magn Reson Med 2004;52:679; fat and muscle: Gold et al., AJR 2004;183:343, with a T2 of fat
# as trains of echoes show it; water contents: Ernst et al., J Magn Reson B 1993;102:1. Codes of extracerebral tissues
# are those of the SynthSeg training maps and of FreeSurfer's head atlas (900 and above).
# fmt: off
TISSUES = (
    # name, codes, T1, T2 and T2* at 1.5 and 3 T, proton density, diffusion
    Tissue("background", (0, 165), (1000, 1000), (1, 1), (1, 1), 0.0),
    Tissue("white matter", (2, 25, 41, 57, 77, 78, 79, 85, 192, 251, 252, 253, 254, 255, 530, 930, 5001, 5002),
           (650, 860), (90, 84), (66, 50), 0.70, 0.7),
    Tissue("cortex", (3, 42, 80, 81, 82), (1050, 1310), (98, 92), (84, 62), 0.79),
    Tissue("cerebrospinal fluid", (4, 5, 14, 15, 24, 43, 44, 72, 213, 221),
           (4050, 4160), (1300, 1100), (700, 500), 0.99, 3.0),
    Tissue("thalamus", (9, 10, 48, 49), (850, 1090), (90, 83), (66, 48), 0.76),
    Tissue("caudate", (11, 26, 50, 58), (990, 1270), (93, 85), (65, 46), 0.79),
    Tissue("putamen", (12, 51), (930, 1200), (88, 78), (58, 40), 0.79),
    Tissue("pallidum", (13, 52), (720, 950), (70, 58), (40, 26), 0.73),
    Tissue("hippocampus", (17, 18, 53, 54), (1080, 1390), (106, 100), (84, 62), 0.83),
    Tissue("brain stem", (16, 27, 28, 59, 60, 170, 173, 174, 175),
           (740, 960), (89, 82), (62, 48), 0.74),
    Tissue("cerebellar white matter", (7, 46), (670, 880), (91, 85), (66, 50), 0.71, 0.7),
    Tissue("cerebellar cortex", (6, 8, 45, 47, 172, 183, 184), (1060, 1340), (98, 91), (84, 60), 0.81),
    Tissue("choroid plexus", (31, 63, 136, 137, 163, 164), (1250, 1500), (140, 120), (90, 70), 0.88, 1.6),
    Tissue("spinal cord", (126, 512), (740, 960), (89, 82), (62, 48), 0.74),
    Tissue("artery", (502, 902), (1450, 1700), (200, 130), (120, 60), 0.88, 1.5),
    Tissue("vein", (30, 62, 514, 914), (1450, 1650), (120, 60), (60, 25), 0.88, 1.5),
    Tissue("eye", (506, 906), (3500, 3700), (900, 800), (500, 400), 0.98, 2.6),
    Tissue("muscle", (508, 908), (1000, 1400), (45, 38), (35, 25), 0.78, 1.4),
    Tissue("mucosa", (509, 909), (1050, 1350), (130, 110), (50, 35), 0.85, 1.3),
    Tissue("skin", (258, 511, 911), (850, 1000), (60, 50), (30, 20), 0.60, 0.5),
    Tissue("fat", (507, 907), (290, 370), (130, 120), (50, 35), 0.90, 0.05),
    Tissue("cortical bone", (515, 915), (400, 500), (5, 4), (2, 2), 0.15, 0.1),
    Tissue("marrow", (262, 516, 916), (380, 480), (80, 70), (20, 12), 0.60, 0.1),
)
# fmt: on
INDEX = {tissue.name: number for number, tissue in enumerate(TISSUES)}
WHITE, GREY, FLUID = INDEX["white matter"], INDEX["cortex"], INDEX["cerebrospinal fluid"]
# Everything a brain extraction is to keep besides the fluid around it.
BRAIN = tuple(range(WHITE, INDEX["choroid plexus"] + 1))
WHITE_LIKE = (WHITE, INDEX["cerebellar white matter"], INDEX["brain stem"])
FATTY = (INDEX["fat"], INDEX["marrow"])


def tissue_map(labels: np.ndarray) -> np.ndarray:
    """Position in TISSUES (x, y, z) uint8 of every voxel of a label map in FreeSurfer codes.

    Cortical parcels (1000-1999, 2000-2999, 11000-12999) count as cortex, parcels of white matter (3000-4999) as white
    matter.

    Raises:
        InputError: a code that is none of these; the message lists such codes. Numbers that are no codes at all.
    """
    labels = np.asarray(labels)
    low, high = int(labels.min(initial=0)), int(labels.max(initial=0))
    if low < 0 or high > 20_000:
        raise InputError(f"codes from {low} to {high} are not FreeSurfer's: give a label map, not a scan")
    found = np.zeros(high + 1, np.uint8)
    of_code = {code: number for number, tissue in enumerate(TISSUES) for code in tissue.codes}
    unknown = []
    for code in np.flatnonzero(np.bincount(labels.ravel(), minlength=high + 1)).tolist():
        if code in of_code:
            found[code] = of_code[code]
        elif 1000 <= code < 3000 or 11000 <= code < 13000:
            found[code] = GREY
        elif 3000 <= code < 5000:
            found[code] = WHITE
        else:
            unknown.append(code)
    if unknown:
        raise InputError(
            f"codes {', '.join(map(str, unknown[:8]))} are no tissue of the head: give a label map in FreeSurfer's "
            "codes, such as aseg.mgz or the output of SynthSeg"
        )
    return found[labels]


def draw_tissues(rng: np.random.Generator, field_t: float) -> np.ndarray:
    """One person's tissues (tissue, 5) float32: T1, T2, T2* in ms, proton density, diffusion in µm²/ms.

    Times are those at `field_t` tesla, on the line through 1.5 and 3 T in the logarithm of the field. Between people
    T1 varies by 4 %, T2 and T2* by 5 %, proton density by 2 % (one standard deviation); half of it is common to all
    tissues of a person, as age is.
    """
    weight = np.log(field_t / 1.5) / np.log(2)
    times = np.array([(t.t1_ms, t.t2_ms, t.t2_star_ms) for t in TISSUES])  # (tissue, time, field)
    times = times[..., 0] ** (1 - weight) * times[..., 1] ** weight
    rest = np.array([(t.proton_density, t.diffusion) for t in TISSUES])
    table = np.concatenate([times, rest], axis=1)
    spread = np.array([0.04, 0.05, 0.05, 0.02, 0.05]) / np.sqrt(2)
    table *= np.exp(spread * (rng.standard_normal(5) + rng.standard_normal(table.shape)))
    return table.astype(np.float32)
