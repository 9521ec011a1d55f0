"""A simulated subject: a head bent into another one, lesions in it, and the scans that a hospital takes of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import nibabel as nib
import numpy as np
from scipy import ndimage

from pimms_tf.data.grids import Grid
from pimms_tf.data.intensity import foreground_masks, whiten
from pimms_tf.data.subjects import UNKNOWN, Subject
from pimms_tf.errors import InputError
from pimms_tf.simulation.fields import along_axes, smooth_noise
from pimms_tf.simulation.heads import Head, LesionMask
from pimms_tf.simulation.lesions import Lesions, draw_lesions
from pimms_tf.simulation.protocols import Contrast, Hospital, Protocol
from pimms_tf.simulation.scans import Body, scan
from pimms_tf.simulation.tissues import BRAIN, FLUID, GREY, INDEX, draw_tissues

FINE_MM, MOST_PARTS = 1.1, 4  # voxels of the grid longer than this are simulated in parts, up to four
BEND_MM = 20  # distance of the nodes of the random deformation
MODALITY: Mapping[Contrast, int] = {"T1": 0, "T1ce": 0, "T2": 1, "FLAIR": 2}


@dataclass(frozen=True, eq=False)
class SimulatedSubject:
    """Scans (x, y, z, scan) float32 in arbitrary units on one RAS grid, as taken by `protocols`, in their order.

    `head` names the label map. `lesion` and `brain` are (x, y, z) bool; `tissue` (x, y, z) uint8 indexes TISSUES,
    lesions left out; `affine` (4, 4) in mm. Stripped scans are exactly 0 outside the brain.
    """

    subject_id: str
    head: str
    scans: np.ndarray
    protocols: tuple[Protocol, ...]
    hospital: Hospital
    lesion: np.ndarray
    brain: np.ndarray
    tissue: np.ndarray
    affine: np.ndarray

    @property
    def contrasts(self) -> tuple[Contrast, ...]:
        return tuple(protocol.contrast for protocol in self.protocols)

    @property
    def lesion_ml(self) -> float:
        return float(self.lesion.sum() * np.abs(np.linalg.det(self.affine[:3, :3])) / 1000)

    def subject(
        self,
        modality: Mapping[Contrast, int] = MODALITY,
        unlisted: int = UNKNOWN,
        foreground: str | None = "threshold_plus",
        fusion: str = "and",
    ) -> Subject:
        """The subject as a SubjectLoader would prepare it: axes L, P, S, scans whitened over their foreground.

        `modality` gives the class of each contrast, those not in it get `unlisted`.
        """
        scans = np.ascontiguousarray(self.scans[::-1, ::-1])
        masks = None if foreground is None else foreground_masks(scans, foreground, fusion)
        for number in range(scans.shape[-1]):
            mask = None if masks is None else masks[..., number]
            scans[..., number] = whiten(scans[..., number], mask)
        x, y, _ = self.lesion.shape
        affine = self.affine @ nib.affines.from_matvec(np.diag([-1, -1, 1]), (x - 1, y - 1, 0))
        return Subject(
            subject_id=self.subject_id,
            scans=scans,
            valid=np.ones(scans.shape[-1], bool),
            modality=np.array([modality.get(contrast, unlisted) for contrast in self.contrasts], np.int32),
            label=np.ascontiguousarray(self.lesion[::-1, ::-1]).astype(np.int32),
            affine=affine,
            original=Grid(self.lesion.shape, affine),
        )


def simulate(
    head: Head,
    hospital: Hospital,
    rng: np.random.Generator,
    *,
    masks: Sequence[LesionMask] = (),
    load_ml: float | None = None,
    lesions: Lesions | None = None,
    num_slices: int | None = None,
    subject_id: str = "",
) -> SimulatedSubject:
    """One subject of a hospital; an equal `rng` gives an equal subject.

    `masks` and `load_ml` are those of `draw_lesions`, whose result `lesions` may also be given, to scan one patient
    again. `num_slices` limits the scans to that many axial slices, somewhere in the brain, which saves time.

    Raises:
        InputError: `num_slices` below 1, or a hospital that keeps skulls and a head without one.
    """
    if num_slices is not None and num_slices < 1:
        raise InputError(f"num_slices = {num_slices}: give 1 or more")
    if lesions is None:
        lesions = draw_lesions(head, rng, masks, load_ml)
    if not head.whole and "stripped" not in hospital.head:
        hospital = replace(hospital, head="stripped")
    treatment = hospital.head
    grid_mm = np.asarray(hospital.grid_mm, float)
    factor = tuple(int(n) for n in np.clip(np.rint(grid_mm / FINE_MM), 1, MOST_PARTS))
    spacing_mm = grid_mm / factor
    shape, corner_mm = _field_of_view(head, grid_mm, treatment, num_slices, rng)
    fine = tuple(n * f for n, f in zip(shape, factor, strict=True))
    places = _places(head, fine, spacing_mm, corner_mm, rng)

    tissue = ndimage.map_coordinates(head.tissue, places, order=0, mode="constant", cval=0, prefilter=False)
    brain_mm = _read(head.brain_mm, places, 50.0)
    body, label = _body(head, lesions, tissue, places, spacing_mm, factor, hospital, rng)
    to_grid = [None if f == 1 else _mean_weights(n, f) for n, f in zip(shape, factor, strict=True)]
    lesion = along_axes(label, to_grid) >= 0.5
    brain_mm = along_axes(brain_mm, to_grid)
    scans = np.stack([scan(body, protocol, rng) for protocol in hospital.protocols], axis=-1)
    if "stripped" in treatment:
        scans *= _stripped(brain_mm, treatment == "badly stripped", grid_mm, rng)[..., None]
    elif treatment == "defaced":
        scans *= _defaced(head, [along_axes(axis, to_grid) for axis in places], brain_mm)[..., None]
    middle = np.ascontiguousarray(tissue[tuple(slice(f // 2, None, f) for f in factor)])
    affine = nib.affines.from_matvec(np.diag(grid_mm), -(np.array(shape) - 1) / 2 * grid_mm)
    brain = (brain_mm < rng.uniform(0, 1)) | lesion
    return SimulatedSubject(subject_id, head.name, scans, hospital.protocols, hospital, lesion, brain, middle, affine)


def _field_of_view(
    head: Head, grid_mm: np.ndarray, treatment: str, num_slices: int | None, rng: np.random.Generator
) -> tuple[tuple[int, int, int], np.ndarray]:
    """Shape of the grid and the place of its corner in mm from the middle of the head's brain."""
    brain = ndimage.find_objects((head.brain_mm < 0).astype(np.uint8))[0]
    middle = np.array([(side.start + side.stop - 1) / 2 for side in brain])
    half_mm = np.array([(side.stop - side.start) / 2 for side in brain])
    low, high = -half_mm - 6, half_mm + 6
    if "stripped" not in treatment:
        around = ndimage.find_objects((head.tissue > 0).astype(np.uint8))[0]
        low = np.maximum(
            [side.start for side in around] - middle - 3, -half_mm - rng.uniform([12, 20, 5], [30, 40, 60])
        )
        high = np.minimum(
            [side.stop for side in around] - middle + 3, half_mm + rng.uniform([12, 15, 10], [30, 50, 25])
        )
    shape = np.ceil((high - low) / grid_mm).astype(int)
    if num_slices is not None and num_slices < shape[2]:
        # Lesions are rare low down; the brain's slices alone are worth simulating.
        start = rng.uniform(-half_mm[2] + 10, max(half_mm[2] - 5 - num_slices * grid_mm[2], -half_mm[2] + 11))
        low[2], shape[2] = start, num_slices
    return tuple(int(n) for n in shape), low


def _places(
    head: Head, shape: tuple[int, int, int], spacing_mm: np.ndarray, corner_mm: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Voxel of the head (3, x, y, z) float32 that each voxel shows: size, tilt, mirror, bends over some 4 cm."""
    brain = ndimage.find_objects((head.brain_mm < 0).astype(np.uint8))[0]
    middle = np.array([(side.start + side.stop - 1) / 2 for side in brain])
    pitch, roll, yaw = rng.normal(0, np.deg2rad([8, 4, 4]))
    turn = _rotation(pitch, 0) @ _rotation(roll, 1) @ _rotation(yaw, 2)
    matrix = turn @ np.diag(1 / rng.uniform(0.92, 1.1, 3)) @ (np.eye(3) + rng.normal(0, 0.02, (3, 3)))
    if rng.random() < 0.5:
        matrix = np.diag([-1, 1, 1]) @ matrix
    index = [(np.arange(n) + 0.5) * mm + low for n, mm, low in zip(shape, spacing_mm, corner_mm, strict=True)]
    grid = np.meshgrid(*[axis.astype(np.float32) for axis in index], indexing="ij", sparse=True)
    rows = matrix.astype(np.float32)
    bent = np.stack(
        [r[0] * grid[0] + r[1] * grid[1] + r[2] * grid[2] + np.float32(m) for r, m in zip(rows, middle, strict=True)]
    )
    nodes = [int(np.ceil(n * mm / BEND_MM)) + 4 for n, mm in zip(shape, spacing_mm, strict=True)]
    weights = [
        _spline_weights((np.arange(n) + 0.5) * mm / BEND_MM + 1, count)
        for n, mm, count in zip(shape, spacing_mm, nodes, strict=True)
    ]
    size_mm = rng.uniform(2, 6)
    for axis in bent:
        axis += along_axes(rng.normal(0, size_mm, nodes).astype(np.float32), weights)
    return bent


def _spline_weights(places: np.ndarray, size: int) -> np.ndarray:
    """Weights (place, node) float32 of cubic B-splines centred on `size` nodes."""
    away = np.abs(np.arange(size)[None] - places[:, None])
    inner, outer = 2 / 3 - away**2 + away**3 / 2, np.clip(2 - away, 0, None) ** 3 / 6
    return np.where(away < 1, inner, outer).astype(np.float32)


def _mean_weights(size: int, factor: int) -> np.ndarray:
    return np.kron(np.eye(size, dtype=np.float32), np.full((1, factor), 1 / factor, np.float32))


def _rotation(angle: float, axis: int) -> np.ndarray:
    turn = np.eye(3)
    first, second = (i for i in range(3) if i != axis)
    turn[first, first] = turn[second, second] = np.cos(angle)
    turn[first, second], turn[second, first] = -np.sin(angle), np.sin(angle)
    return turn


def _read(volume: np.ndarray, places: np.ndarray, outside: float) -> np.ndarray:
    return ndimage.map_coordinates(
        volume, places, order=1, mode="constant", cval=outside, output=np.float32, prefilter=False
    )


def _body(
    head: Head,
    lesions: Lesions,
    tissue: np.ndarray,
    places: np.ndarray,
    spacing_mm: np.ndarray,
    factor: tuple[int, int, int],
    hospital: Hospital,
    rng: np.random.Generator,
) -> tuple[Body, np.ndarray]:
    """What the scanner sees, and the label (x, y, z) float32 on the same fine grid."""
    table = draw_tissues(rng, hospital.protocols[0].field_t)
    t1, t2, t2_star, water, diffusion = (np.take(column, tissue) for column in table.T)
    scale = 1 / float(np.mean(spacing_mm))
    wide, fine = smooth_noise(tissue.shape, 14 * scale, rng), smooth_noise(tissue.shape, 2.5 * scale, rng)
    slow = smooth_noise(tissue.shape, 7 * scale, rng)
    t2 *= 1 + np.float32(0.03) * wide + np.float32(0.025) * fine
    t1 *= 1 + np.float32(0.025) * slow + np.float32(0.02) * fine
    grey = tissue == GREY
    # Cortex differs from lobe to lobe; insula and cingulum are bright on FLAIR.
    t2 = np.where(grey, t2 * (1 + np.float32(0.07) * slow), t2)
    water = np.minimum(water * (1 + np.float32(0.015) * wide), 1)

    inside = np.isin(tissue, [t for t in BRAIN if t != FLUID]) & (tissue != INDEX["choroid plexus"])
    at = places[:, inside] - np.array(lesions.start, np.float32)[:, None]
    share = lesions.share
    rest = (1 - share) * lesions.normal
    longer_t1 = _read(share * lesions.t1 + 0.5 * rest + 2.5 * lesions.fluid, at, 0)
    longer_t2 = _read(share * lesions.t2 + rest + 4 * lesions.fluid, at, 0)
    wetter = _read(np.minimum(share * lesions.water + 0.2 * rest + lesions.fluid, 1), at, 0)
    t1[inside] *= 1 + longer_t1
    t2[inside] *= 1 + longer_t2
    t2_star[inside] *= 1 + longer_t2
    water[inside] += wetter * (1 - water[inside])
    diffusion[inside] *= 1 + longer_t1
    enhancing = np.zeros(tissue.shape, np.float32)
    if lesions.enhancing.any():
        enhancing[inside] = _read(lesions.enhancing, at, 0)
    label = np.zeros(tissue.shape, np.float32)
    label[inside] = _read(lesions.label.astype(np.float32), at, 0)
    return Body(tissue, t1, t2, t2_star, water, diffusion, enhancing, spacing_mm, factor), label


def _stripped(brain_mm: np.ndarray, badly: bool, grid_mm: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The mask (x, y, z) float32 of a brain extraction, which errs by some millimetres if done badly."""
    scale = 1 / float(np.mean(grid_mm))
    edge_mm = rng.uniform(0.3, 3.5) + rng.uniform(0.2, 0.6) * smooth_noise(brain_mm.shape, 3 * scale, rng)
    if badly:
        edge_mm += rng.uniform(2, 4) * smooth_noise(brain_mm.shape, 12 * scale, rng) + rng.uniform(0, 2)
    return (brain_mm < np.maximum(edge_mm, -3)).astype(np.float32)


def _defaced(head: Head, places: list[np.ndarray], brain_mm: np.ndarray) -> np.ndarray:
    """The mask (x, y, z) float32 that defacing leaves: all but what lies in front of and below the forehead."""
    brain = ndimage.find_objects((head.brain_mm < 0).astype(np.uint8))[0]
    ahead = places[1] - (brain[1].stop - 8)
    above = places[2] - (0.5 * brain[2].start + 0.5 * brain[2].stop)
    return ((ahead < 0.7 * above + 10) | (above > 0) | (brain_mm < 4)).astype(np.float32)
