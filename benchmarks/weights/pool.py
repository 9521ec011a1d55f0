"""Prepared slices on disk, and windows drawn from them: what all three trainings of the bundled weights learn from.

A pool is a folder of .npz files, one a subject: `scans` (slice, x, y, modality) float16, whitened within the brain;
`valid` (modality,) bool; `label` and `brain` (slice, x, y) uint8. Slices are axial (x towards the left, y towards the
back), 1 mm × 1 mm, as thick as the scanner made them.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy import ndimage

from pimms_tf.data import read_image, reorient, whiten
from pimms_tf.data.images import Image, resample_to_shape, resampled_shape
from pimms_tf.files import replacing

MODALITIES = ("T1", "T2", "FLAIR")
MARGIN = 12  # voxels around the brain that a pool keeps
CLIP = 8.0  # whitened units; only skull, fat and vessels reach it
WINDOW = 72


class Slices(NamedTuple):
    """The slices of one subject, see above."""

    scans: np.ndarray
    valid: np.ndarray
    label: np.ndarray
    brain: np.ndarray


class Window(NamedTuple):
    """What the segmenter learns from: scans (x, y, modality), valid (modality,), label (x, y)."""

    scans: np.ndarray
    valid: np.ndarray
    label: np.ndarray


def prepared(path: Path, order: int, slice_mm: float | None = None) -> Image:
    """An image in axial slices of 1 mm × 1 mm, as thick as they are, or as thick as `slice_mm`."""
    image = reorient(read_image(path), ("L", "P", "S"))
    pixdim = (1.0, 1.0, image.spacing_mm[2] if slice_mm is None else slice_mm)
    return resample_to_shape(image, resampled_shape(image.grid, pixdim), order, keep_zeros=True)


def slices_of(scans: Mapping[str, np.ndarray], brain: np.ndarray, label: np.ndarray) -> Slices:
    """Whitened and cropped slices of volumes (x, y, z); a modality without a volume is zero and not valid."""
    inside = [np.flatnonzero(brain.any(axis=tuple(other))) for other in ((1, 2), (0, 2), (0, 1))]
    x, y, _ = (
        slice(max(int(found[0]) - MARGIN, 0), min(int(found[-1]) + MARGIN + 1, length))
        for found, length in zip(inside, brain.shape, strict=True)
    )
    z = np.flatnonzero(brain.sum(axis=(0, 1)) > 300)
    stack = np.zeros((*brain.shape, len(MODALITIES)), np.float16)
    for m, name in enumerate(MODALITIES):
        if name in scans:
            stack[..., m] = np.clip(whiten(scans[name], brain), -CLIP, CLIP)
    valid = np.array([name in scans for name in MODALITIES])
    volumes = (stack, label.astype(np.uint8), brain.astype(np.uint8))
    stack, label, brain = (np.ascontiguousarray(np.moveaxis(v[x, y][:, :, z], 2, 0)) for v in volumes)
    return Slices(stack, valid, label, brain)


def write_slices(path: Path, slices: Slices) -> None:
    """Writes one subject of a pool, complete or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary, open(temporary, "wb") as file:
        np.savez(file, **slices._asdict())


def read_slices(path: Path) -> Slices:
    with np.load(path, allow_pickle=False) as arrays:
        return Slices(*(arrays[name] for name in Slices._fields))


class Pool:
    """Subjects in memory, from which balanced windows are drawn.

    `groups` gives folders and the share of windows that each is to have; a group of fewer than ten subjects gets less.
    Files that appear later join at `refresh`. Those whose name is in `without`, or begins with held_, do not.
    """

    def __init__(self, groups: Mapping[Path, float], without: Sequence[str] = ()):
        self.groups, self.without = groups, without
        self.subjects, self.folders = {}, {}
        self.refresh()

    def refresh(self) -> None:
        for folder in self.groups:
            for path in sorted(folder.glob("*.npz")):
                if path not in self.subjects and path.stem not in self.without and not path.stem.startswith("held_"):
                    subject = read_slices(path)
                    if len(_places(subject)[1]) < 500:  # hardly any brain
                        continue
                    self.folders[path] = folder
                    self.subjects[path] = (subject, *_places(subject))
        count = {folder: max(list(self.folders.values()).count(folder), 10) for folder in self.groups}
        weights = np.array([self.groups[folder] / count[folder] for folder in self.folders.values()])
        self.drawn_from = list(self.subjects.values()), weights / weights.sum()

    def windows(self, seed: int, subsets: "Subsets") -> Iterator[Window]:
        """Endless windows, half of them around a lesion voxel, each changed at random."""
        rng = np.random.default_rng(seed)
        while True:
            subjects, weights = self.drawn_from
            subject, lesions, brains = subjects[rng.choice(len(subjects), p=weights)]
            places = lesions if len(lesions) and rng.random() < 0.6 else brains
            yield drawn_window(subject, places[rng.integers(len(places))], subsets, rng)


def _places(subject: Slices) -> tuple[np.ndarray, np.ndarray]:
    """Voxels (place, 3) of lesions, of each as many as the square root of its volume, so that small ones count, and of
    the brain."""
    pieces, number = ndimage.label(subject.label > 0)
    places = np.argwhere(pieces)
    places = places[np.random.default_rng(0).permutation(len(places))]
    of = pieces[tuple(places.T)]
    sizes = np.bincount(of, minlength=number + 1)
    order = np.argsort(of, kind="stable")
    rank = np.empty(len(of), int)
    rank[order] = np.arange(len(of)) - (np.cumsum(sizes) - sizes)[of[order]]
    lesions = places[rank < 2 * np.sqrt(sizes[of])]
    brains = np.argwhere(subject.brain[:, ::4, ::4] > 0) * (1, 4, 4)
    return lesions.astype(np.int16), brains.astype(np.int16)


Subsets = Mapping[tuple[str, ...], float]
# How often training sees which scans. FLAIR is nearly always there in practice; single contrasts are hard and rare.
SUBSETS: Subsets = {
    ("T1", "T2", "FLAIR"): 0.18,
    ("T1", "FLAIR"): 0.20,
    ("T2", "FLAIR"): 0.07,
    ("FLAIR",): 0.24,
    ("T1", "T2"): 0.08,
    ("T1",): 0.13,
    ("T2",): 0.10,
}


def drawn_subset(valid: np.ndarray, subsets: Subsets, rng: np.random.Generator) -> np.ndarray:
    """(modality,) bool: one of the subsets that the subject has."""
    has = {name for name, there in zip(MODALITIES, valid, strict=True) if there}
    possible = [(set(names), share) for names, share in subsets.items() if set(names) <= has]
    shares = np.array([share for _, share in possible])
    names, _ = possible[rng.choice(len(possible), p=shares / shares.sum())]
    return np.array([name in names for name in MODALITIES])


def drawn_window(subject: Slices, place: np.ndarray, subsets: Subsets, rng: np.random.Generator) -> Window:
    z, *centre = (int(v) for v in place)
    used = drawn_subset(subject.valid, subsets, rng)
    shift = rng.uniform(-0.3, 0.3, 2) * WINDOW
    angle, zoom = rng.uniform(-0.35, 0.35), np.exp(rng.uniform(-0.18, 0.18, 2))
    matrix = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) * zoom
    matrix[:, 0] *= rng.choice([-1, 1])
    offset = np.array(centre) + shift - matrix @ np.full(2, (WINDOW - 1) / 2)

    def warped(plane: np.ndarray, order: int) -> np.ndarray:
        return ndimage.affine_transform(
            plane.astype(np.float32), matrix, offset, (WINDOW, WINDOW), order=order, mode="constant"
        )

    brain = warped(subject.brain[z], 1) > rng.choice([0.5, 0.5, 0.5, 0.9, 0.1])
    if rng.random() < 0.25:  # the mask of a stranger's scan is not as good
        change = ndimage.binary_dilation if rng.random() < 0.6 else ndimage.binary_erosion
        brain = change(brain, iterations=int(rng.integers(1, 4)))
    label = warped(subject.label[z], 1) > 0.5
    scans = np.zeros((WINDOW, WINDOW, len(MODALITIES)), np.float32)
    for m in np.flatnonzero(used):
        plane = warped(subject.scans[z, ..., m], 1)
        if label.any() and rng.random() < 0.6:
            plane = with_other_contrast(plane, label, brain, rng)
        scans[..., m] = changed(plane, brain, rng)
    return Window(scans, used & scans.any(axis=(0, 1)), label.astype(np.int32))


def with_other_contrast(
    plane: np.ndarray, label: np.ndarray, brain: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """The plane with lesions (x, y) bool that stand out a third to four thirds as much from what lies around them.

    What lies around is taken from tissue near the brain's median, so not from fluid.
    """
    around = brain & ~ndimage.binary_dilation(label, iterations=1)
    if not around.any():
        return plane
    around &= np.abs(plane - np.median(plane[around])) < 0.8
    near = ndimage.gaussian_filter(around.astype(np.float32), 5)
    normal = ndimage.gaussian_filter(np.where(around, plane, 0), 5) / np.maximum(near, 1e-3)
    soft = ndimage.gaussian_filter(label.astype(np.float32), 0.7) * (near > 1e-2)
    return plane - rng.uniform(-0.35, 0.68) * soft * (plane - normal)


def changed(plane: np.ndarray, brain: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A whitened plane (x, y) as another scanner might have made it; 0 outside the brain."""
    if rng.random() < 0.35:
        plane = ndimage.gaussian_filter(plane, rng.uniform(0.3, 1.1, 2))
    elif rng.random() < 0.25:
        plane = plane + rng.uniform(0.3, 1.0) * (plane - ndimage.gaussian_filter(plane, 1.0))
    if rng.random() < 0.6:  # contrast: a bend between the darkest and the brightest of the brain
        low, high = -4.0, 5.0
        unit = np.clip((plane - low) / (high - low), 0, 1)
        bent = unit ** np.exp(rng.normal(0, 0.25))
        plane = plane + ((bent * (high - low) + low) - plane)
        centre, spread = (plane[brain].mean(), plane[brain].std()) if brain.any() else (0.0, 1.0)
        if rng.random() < 0.5 and spread > 0.3:
            plane = plane - 0.5 * centre
    if rng.random() < 0.5:
        x, y = np.meshgrid(*[np.linspace(-1, 1, WINDOW, dtype=np.float32)] * 2, indexing="ij")
        a, b, c, d, e = rng.normal(0, 0.12, 5)
        gain = a * x + b * y + c * x * y + d * x * x + e * y * y
        plane = plane + gain * (plane + 3.5)  # raw intensities are about 3.5 deviations above nothing
    # Scanners differ in how much brighter than the rest a lesion is, in units of the brain's deviation.
    plane = plane * np.exp(rng.normal(-0.1, 0.22)) + rng.normal(0, 0.2)
    if rng.random() < 0.4:
        plane = plane + rng.normal(0, rng.uniform(0.03, 0.25), plane.shape)
    return np.where(brain, np.clip(plane, -CLIP, CLIP), 0).astype(np.float32)
