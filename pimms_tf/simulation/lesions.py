"""White matter lesions: real masks bent into a head, grown ones, and what each voxel of them does to its tissue."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from pimms_tf.simulation.fields import along_axes, linear_weights, smooth_noise
from pimms_tf.simulation.heads import COARSE_MM, Head, LesionMask, moved_places
from pimms_tf.simulation.tissues import FLUID, INDEX, WHITE_LIKE

# Places in MNI space, in mm, where bright caps are normal: frontal and occipital horn.
HORNS_MM = ((18, 36, 2), (29, -52, 14))


@dataclass(frozen=True, eq=False)
class Lesions:
    """Lesions of one head on a box of its grid, whose first voxel is `start`; arrays (x, y, z) float32.

    `share` is how much of a voxel is lesion. Where it is, `t1` and `t2` say how much longer than in healthy tissue
    relaxation takes (0.5: half as long again), `water` how much more of the gap to pure water it holds, `enhancing`
    how far contrast agent leaks in, 0 to 1. `normal` is how much longer T2 is in bright tissue that is no lesion:
    caps and rims of ventricles, dirty white matter; `fluid` is the share of perivascular spaces. `label` (x, y, z) bool
    is what a rater marks.
    """

    start: tuple[int, int, int]
    share: np.ndarray
    t1: np.ndarray
    t2: np.ndarray
    water: np.ndarray
    enhancing: np.ndarray
    normal: np.ndarray
    fluid: np.ndarray
    label: np.ndarray


def draw_lesions(
    head: Head,
    rng: np.random.Generator,
    masks: Sequence[LesionMask] = (),
    load_ml: float | None = None,
) -> Lesions:
    """Lesions of one patient: real masks, grown ones or both; without `masks` they are all grown.

    Two patients of five may have some in the brain stem and the cerebellum besides those of their mask.

    `load_ml` is about what they measure; None: 0.3 to 60 ml, small loads as often as large ones on a logarithmic scale,
    and none in one patient of 16; 0: none.
    """
    white = np.isin(head.tissue, WHITE_LIKE)
    box = ndimage.find_objects(white.astype(np.uint8))[0]
    box = tuple(slice(max(0, s.start - 2), min(n, s.stop + 2)) for s, n in zip(box, white.shape, strict=True))
    inside = _Inside(head, box)
    if load_ml is None:
        load_ml = 0.0 if rng.random() < 0.06 else float(np.exp(rng.uniform(np.log(0.3), np.log(60))))
    normal, fluid = _caps(inside, rng), _spaces(inside, rng)
    if load_ml == 0:
        nothing = np.zeros(normal.shape, np.float32)
        return Lesions(inside.start, *[nothing] * 5, normal, fluid, nothing > 0)

    level = np.full(normal.shape, -1.0, np.float32)  # above 0: lesion
    kind = rng.random() if masks else 1.0
    grown = 0.0 if kind < 0.55 else 1.0 if kind > 0.75 else rng.uniform(0.2, 0.8)  # share of the load
    if grown < 1:
        parts = [1.0] if rng.random() < 0.65 else [0.6, 0.4]
        for part in parts:
            level = np.maximum(level, _real(inside, masks, load_ml * part * (1 - grown), rng))
    if grown > 0:
        level = np.maximum(level, _grown(inside, load_ml * grown, rng))
    if inside.below.any() and rng.random() < 0.4:
        level = np.maximum(level, _below(inside, rng))
    label = _thinned((level > 0) & inside.allowed, load_ml, rng)
    # Half a voxel and more around the edge the tissue changes; raters mark most of it.
    edge = ndimage.gaussian_filter(label.astype(np.float32), rng.uniform(0.45, 0.9))
    share = np.clip((edge - 0.5) * np.float32(rng.uniform(1, 2)) + np.float32(rng.uniform(0.5, 0.9)), 0, 1)
    share = np.maximum(share * (edge > 0.05), label * np.float32(rng.uniform(0.75, 1))) * inside.allowed
    contrast = _contrast(label, share, rng)
    return Lesions(inside.start, share, *contrast, _dirty(label, normal, inside, rng), fluid * ~label, label)


class _Inside:
    """The box of a head that holds its white matter: what may become lesion, and where things are."""

    def __init__(self, head: Head, box: tuple[slice, ...]) -> None:
        self.box, self.start = box, tuple(side.start for side in box)
        tissue = head.tissue[box]
        self.white = np.isin(tissue, WHITE_LIKE)
        self.ventricle_mm, self.surface_mm = head.ventricle_mm[box], head.surface_mm[box]
        deep = np.isin(tissue, [INDEX[name] for name in ("thalamus", "putamen", "caudate", "pallidum")])
        # Lesions reach a voxel into cortex and a voxel of deep grey matter, but not into fluid.
        near = ndimage.binary_dilation(self.white, iterations=1)
        self.allowed = self.white | (near & (tissue != FLUID) & (tissue != INDEX["choroid plexus"]) & (tissue > 0))
        self.allowed |= deep
        self.cerebral = tissue == WHITE_LIKE[0]
        self.below = self.white & ~self.cerebral  # brain stem and cerebellum, where the map tells them apart
        coarse = head.mni_mm.shape[1:]
        weights = [linear_weights(np.arange(s.start, s.stop) / COARSE_MM, n) for s, n in zip(box, coarse, strict=True)]
        self.mni_mm = np.stack([along_axes(axis, weights) for axis in head.mni_mm])

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.white.shape


def _real(inside: _Inside, masks: Sequence[LesionMask], load_ml: float, rng: np.random.Generator) -> np.ndarray:
    """How far each voxel is inside lesions of a real patient, mirrored or not, shifted, bent, thinned or grown."""
    sizes_ml = np.array([mask.mask.sum() / 1000 for mask in masks])
    fitting = np.exp(-(np.log(sizes_ml / load_ml) ** 2) / (2 * 0.8**2)) + 0.02
    real = masks[rng.choice(len(masks), p=fitting / fitting.sum())]
    places = inside.mni_mm
    if rng.random() < 0.5:
        places = places * np.array([-1, 1, 1], np.float32)[:, None, None, None]
    bend = np.float32(rng.uniform(0, 4)) * np.stack([smooth_noise(inside.shape, 12, rng) for _ in range(3)])
    places = places + bend + rng.normal(0, 2, (3, 1, 1, 1)).astype(np.float32)
    soft = ndimage.gaussian_filter(real.mask.astype(np.float32), rng.uniform(0.4, 0.8))
    voxels = moved_places(np.linalg.inv(real.affine), places).astype(np.float32)
    found = ndimage.map_coordinates(soft, voxels, order=1, output=np.float32, prefilter=False)
    found = np.where(inside.allowed, found, 0)
    size = min(int(load_ml * 1000), found.size // 2)
    edge = np.partition(found, -size - 1, axis=None)[-size - 1]
    return np.where(found > 0, found - np.float32(np.clip(edge, 0.12, 0.7)), -1).astype(np.float32)


def _grown(inside: _Inside, load_ml: float, rng: np.random.Generator) -> np.ndarray:
    """How far each voxel is inside grown lesions: bands and caps at the ventricles, patches, many small spots."""
    white = inside.cerebral
    shelter = np.clip((inside.surface_mm - rng.uniform(0, 2)) / 3, 0, 1)
    height = inside.mni_mm[2]
    shelter = shelter * np.clip((height + rng.uniform(10, 40)) / 8, 0, 1)
    reach_mm = rng.uniform(1, 6) * np.exp(0.4 * smooth_noise(inside.shape, 7, rng)).astype(np.float32)
    for horn in HORNS_MM:
        reach_mm *= 1 + np.float32(rng.uniform(0, 1.5)) * _near(inside, horn, 12)
    fine, medium = smooth_noise(inside.shape, 1.2, rng), smooth_noise(inside.shape, 2.5, rng)
    bands = 1 - inside.ventricle_mm / reach_mm
    patches = np.float32(rng.uniform(0.15, 0.5)) * smooth_noise(inside.shape, rng.uniform(3, 6), rng)
    patches -= np.float32(rng.uniform(0.2, 0.5)) + inside.ventricle_mm / 60
    spots = np.float32(rng.uniform(0.15, 0.3)) * (0.6 * fine + 0.8 * medium) - np.float32(rng.uniform(0.5, 1))
    rough = np.float32(rng.uniform(0.1, 0.25)) * (fine + medium)
    level = np.maximum(np.maximum(bands, patches) + rough, spots) - 1.5 * (1 - shelter)
    candidates = level[white]
    size = min(int(load_ml * 1000), len(candidates) // 2)
    if size == 0:
        return np.full(level.shape, -1, np.float32)
    level = np.where(ndimage.binary_dilation(white) & inside.allowed, level, -9)
    return (level - np.partition(candidates, -size)[-size]).astype(np.float32)


def _below(inside: _Inside, rng: np.random.Generator) -> np.ndarray:
    """How far each voxel is inside one to five round lesions of brain stem and cerebellum, mostly near their surface.

    Most real masks have them, as 1 to 10 % of their volume or more: too little to learn them from.
    """
    places = np.argwhere(inside.below)
    level = np.full(inside.shape, -1, np.float32)
    weight = 0.3 + np.exp(-inside.surface_mm[tuple(places.T)] / 3)
    centres = places[rng.choice(len(places), rng.integers(1, 6), p=weight / weight.sum())]
    rough = np.float32(rng.uniform(0.1, 0.3)) * smooth_noise(inside.shape, 2, rng)
    for centre in centres:
        radii_mm = np.exp(rng.normal(np.log(2.3), 0.35)) * np.exp(rng.normal(0, 0.25, 3))
        x, y, z = (((np.arange(n) - c) / r) ** 2 for n, c, r in zip(inside.shape, centre, radii_mm, strict=True))
        away = np.sqrt(x[:, None, None] + y[:, None] + z)
        level = np.maximum(level, (1 - away + rough).astype(np.float32))
    return level


def _thinned(lesion: np.ndarray, load_ml: float, rng: np.random.Generator) -> np.ndarray:
    """The lesions (x, y, z) bool without some of them, the largest kept, so that about the load is left or less."""
    pieces, number = ndimage.label(lesion)
    if number == 0:
        return lesion
    sizes = np.bincount(pieces.ravel(), minlength=number + 1)[1:]
    order = rng.permutation(number)
    keep = np.cumsum(sizes[order]) - sizes[order] <= max(load_ml * 1000 * 1.3, 30)
    keep &= rng.random(number) < rng.uniform(0.6, 1)
    keep |= sizes[order] == sizes.max()
    kept = np.zeros(number + 1, bool)
    kept[1 + order[keep]] = True
    return kept[pieces]


def _contrast(label: np.ndarray, share: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, ...]:
    """T1, T2, water and enhancement of each voxel of the lesions, from lesion to lesion and within each."""
    pieces, number = ndimage.label(label)
    if number:
        # Soft edges belong to the lesion that they touch.
        near = ndimage.distance_transform_edt(pieces == 0, return_distances=False, return_indices=True)
        pieces = pieces[tuple(near)]
    shape = label.shape
    base = float(rng.normal(0, 1))
    own = rng.normal(0, 1, (3, number + 1)).astype(np.float32)
    depth_mm = ndimage.distance_transform_edt(label).astype(np.float32)
    core = np.clip(depth_mm / np.float32(rng.uniform(1.5, 5)), 0, 1)
    wide, fine = smooth_noise(shape, 4, rng), smooth_noise(shape, 1.5, rng)
    wide1 = smooth_noise(shape, 4, rng)
    severity = 0.3 * base + 0.55 * own[0][pieces] + 0.45 * wide + 0.25 * fine
    t2 = np.float32(rng.uniform(0.65, 1.05)) * np.exp(0.55 * severity) * (0.85 + 0.35 * core)
    holes = 0.5 * severity + 0.45 * own[1][pieces] + 0.45 * wide1 + 0.15 * fine
    t1 = np.float32(rng.uniform(0.3, 0.85)) * np.exp(0.75 * holes) * (0.5 + 0.8 * core)
    # Raters mark what is bright on FLAIR, where a long T1 alone is dark.
    t1 = np.minimum(t1, 0.2 + 1.1 * t2)
    liquid = (own[2][pieces] > rng.uniform(1.6, 3)) & (depth_mm > 1.2)
    t1 = np.where(liquid, t1 + 1.5, t1)
    t2 = np.where(liquid, t2 + 1.5, t2)
    t1, t2 = np.clip(t1, 0.02, 3.2), np.clip(t2, 0.2, 4)
    water = np.clip(0.3 * t1 + 0.15, 0, 0.9)
    enhancing = np.zeros(shape, np.float32)
    if number and rng.random() < 0.4:
        active = rng.random(number + 1) < rng.uniform(0.02, 0.25)
        ring = rng.random(number + 1) < 0.4
        profile = np.where(ring[pieces], np.exp(-((depth_mm - 1) ** 2) / 2), np.minimum(depth_mm / 2, 1))
        enhancing = (active[pieces] * profile).astype(np.float32) * (share > 0)
    return tuple(a.astype(np.float32) for a in (t1, t2, water, enhancing))


def _near(inside: _Inside, place_mm: tuple[float, float, float], width_mm: float) -> np.ndarray:
    x, y, z = inside.mni_mm
    squared = (np.abs(x) - place_mm[0]) ** 2 + (y - place_mm[1]) ** 2 + (z - place_mm[2]) ** 2
    return np.exp(-squared / np.float32(2 * width_mm**2))


def _caps(inside: _Inside, rng: np.random.Generator) -> np.ndarray:
    """How much longer T2 is in the normal rim of the ventricles and the caps at their horns."""
    rim_mm = np.float32(rng.uniform(0.6, 1.6))
    thick = rim_mm * (1 + 0.3 * smooth_noise(inside.shape, 5, rng))
    strength = np.float32(rng.uniform(0.05, 0.25))
    for horn in HORNS_MM:
        near = _near(inside, horn, 9)
        thick = thick + np.float32(rng.uniform(0, 3)) * near
        strength = strength * (1 + np.float32(rng.uniform(0, 0.6)) * near)
    return strength * np.exp(-((inside.ventricle_mm / np.maximum(thick, 0.3)) ** 2)) * inside.white


def _spaces(inside: _Inside, rng: np.random.Generator) -> np.ndarray:
    """Share of each voxel that is fluid around a vessel: thin tubes in white matter and basal ganglia."""
    share = np.zeros(inside.shape, np.float32)
    seeds = np.argwhere(inside.allowed & (inside.surface_mm > 2))
    number = int(np.exp(rng.uniform(0, np.log(120)))) - 1
    if number == 0 or not len(seeds):
        return share
    directions = rng.normal(0, 1, (number, 1, 3))
    directions /= np.linalg.norm(directions, axis=2, keepdims=True)
    steps = np.linspace(-0.5, 0.5, 13)[None, :, None] * rng.uniform(1, 8, (number, 1, 1))
    places = np.rint(seeds[rng.integers(len(seeds), size=number)][:, None] + steps * directions).astype(int)
    places = places.reshape(-1, 3)
    places = places[((places >= 0) & (places < share.shape)).all(axis=1)]
    share[tuple(places.T)] = 1
    blurred = ndimage.gaussian_filter(share, rng.uniform(0.35, 0.6)) * np.float32(rng.uniform(0.8, 1.6))
    return np.clip(blurred, 0, 1) * inside.allowed


def _dirty(label: np.ndarray, normal: np.ndarray, inside: _Inside, rng: np.random.Generator) -> np.ndarray:
    """Caps, and dirty white matter around lesions, which fades over some millimetres."""
    if not label.any() or rng.random() < 0.3:
        return normal
    away_mm = ndimage.distance_transform_edt(~label).astype(np.float32)
    halo = np.exp(-away_mm / np.float32(rng.uniform(1, 5))) * np.clip(
        1 + 0.5 * smooth_noise(inside.shape, 4, rng), 0, 2
    )
    return np.maximum(normal, np.float32(rng.uniform(0.02, 0.18)) * halo * inside.white)
