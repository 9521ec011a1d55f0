"""Pictures of a head in slices: which slices are shown, how bright, how they are cut, and the outlines drawn over them.

Axial slices are seen from the feet, as radiologists see them: the patient's right is on the left, the front on top.
Coronal ones have the patient's right on the left too, sagittal ones the front on the left. A picture is (row, column)
uint8; outlines are SVG paths in mm from its upper left corner.
"""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import contourpy
import numpy as np
from PIL import Image as Picture
from PIL import ImageDraw

from pimms_tf.data.images import Image, reorient

Plane = Literal["sagittal", "coronal", "axial"]  # in the order of the axes L, P, S

PLANES: tuple[Plane, ...] = ("sagittal", "coronal", "axial")
MOST_PIXELS = 256  # along an edge of a slice
GAP = 2  # columns between pictures side by side
_THICK = 1.5  # times the other edges of a voxel: slices are shown as they were taken
_MARGIN_MM = 8.0  # around the brain
_TILE_MM = 25.0  # of the checkerboard


@dataclass(frozen=True)
class Stage:
    """The part of a grid that is shown, turned to L, P, S: a box of voxels around the brain, and how it is sliced."""

    plane: Plane
    box: tuple[slice, slice, slice]
    spacing_mm: tuple[float, float, float]

    @property
    def axis(self) -> int:
        """The axis across the slices."""
        return PLANES.index(self.plane)

    @property
    def num_slices(self) -> int:
        """How many slices the box has."""
        return self.box[self.axis].stop - self.box[self.axis].start

    def size_mm(self, plane: Plane | None = None) -> tuple[float, float]:
        """Width and height of a picture."""
        edges = [(side.stop - side.start) * mm for side, mm in zip(self.box, self.spacing_mm, strict=True)]
        across, down = _in_plane(plane or self.plane)
        return edges[across], edges[down]


def staged(volume: np.ndarray, affine: np.ndarray, stage: Stage) -> np.ndarray:
    """Returns the part of a volume (x, y, z) that is shown, turned to L, P, S."""
    return _turned(volume, affine)[0][stage.box]


def stage_for(brain: np.ndarray, affine: np.ndarray) -> Stage:
    """Returns what to show of a head: the brain (x, y, z) bool and a margin in the plane, or all where it is empty.

    Slices are axial, unless voxels are much longer along another axis.
    """
    turned, spacing_mm = _turned(brain, affine)
    longest = int(np.argmax(spacing_mm))
    others = [mm for axis, mm in enumerate(spacing_mm) if axis != longest]
    plane = PLANES[longest if spacing_mm[longest] > _THICK * max(others) else 2]
    box = []
    for axis, length in enumerate(turned.shape):
        shown = np.flatnonzero(turned.any(axis=tuple(other for other in range(3) if other != axis)))
        if not len(shown):
            box.append(slice(0, length))
            continue
        margin = 0 if axis == PLANES.index(plane) else int(np.ceil(_MARGIN_MM / spacing_mm[axis]))
        box.append(slice(max(0, int(shown[0]) - margin), min(length, int(shown[-1]) + 1 + margin)))
    return Stage(plane, tuple(box), spacing_mm)


def brightness(volume: np.ndarray, brain: np.ndarray) -> np.ndarray:
    """Returns a scan (x, y, z) as uint8: black is its darkest per cent, white a little above what the brain has."""
    inside = volume[brain] if brain.any() else volume[volume != 0]
    low, high = float(np.percentile(volume, 1)), float(np.percentile(inside, 99.7)) if inside.size else 0.0
    high += 0.1 * max(high - low, 0.0)
    if high <= low:
        return np.zeros(volume.shape, np.uint8)
    return (np.clip((volume - low) / (high - low), 0, 1) * 255).round().astype(np.uint8)


def evenly(num_slices: int, most: int) -> list[int]:
    """Returns up to `most` of the slices, evenly spread, the first and the last among them."""
    return sorted({round(place) for place in np.linspace(0, num_slices - 1, min(most, num_slices))})


def telling_slices(mask: np.ndarray, stage: Stage, count: int) -> list[int]:
    """Returns `count` slices for a mosaic: spread over those with lesions, or over the middle of the brain without any.

    `mask` is staged. Fewer if there are fewer slices.
    """
    other_axes = tuple(axis for axis in range(3) if axis != stage.axis)
    marked = np.flatnonzero(mask.any(axis=other_axes)).tolist()
    if len(marked) >= count:
        return [marked[place] for place in evenly(len(marked), count)]
    first, last = int(0.15 * stage.num_slices), max(int(0.9 * stage.num_slices), 1)
    chosen, spare = list(marked), [place + first for place in evenly(last - first, count)]
    for place in spare:
        if len(chosen) < count and place not in chosen:
            chosen.append(place)
    return sorted(chosen)


def cut(volume: np.ndarray, stage: Stage, place: int, plane: Plane | None = None) -> np.ndarray:
    """Returns one slice (row, column) of a staged volume, turned as the module says; `place` counts within the box."""
    plane = plane or stage.plane
    taken = np.take(volume, place, axis=PLANES.index(plane))
    across, down = _in_plane(plane)
    picture = taken.T if across < down else taken  # (row, column)
    return picture if plane == "axial" else picture[::-1]  # the head is on top, and S grows upwards


def scaled(picture: np.ndarray, size_mm: tuple[float, float], most_pixels: int = MOST_PIXELS) -> np.ndarray:
    """Returns a picture with square pixels, at most so many along an edge."""
    per_pixel = max(min(size_mm[0] / picture.shape[1], size_mm[1] / picture.shape[0]), max(size_mm) / most_pixels)
    shape = tuple(max(1, round(edge / per_pixel)) for edge in size_mm)
    return np.asarray(Picture.fromarray(picture).resize(shape, Picture.Resampling.BICUBIC))


def outlines(mask: np.ndarray, size_mm: tuple[float, float]) -> list[np.ndarray]:
    """Returns the outlines of a slice (row, column) bool: closed lines, (point, 2) of x and y in mm."""
    if not mask.any():
        return []
    step = np.array([size_mm[0] / mask.shape[1], size_mm[1] / mask.shape[0]])
    lines = contourpy.contour_generator(z=np.pad(mask, 1).astype(np.float32)).lines(0.5)
    # Padded by one voxel, whose centre lies half a voxel outside.
    return [(line - 0.5) * step for line in lines]


def svg_path(lines: Sequence[np.ndarray]) -> str:
    """Returns lines as the `d` of an SVG path, to a tenth of a mm."""
    return "".join("M" + " ".join(f"{x:.1f},{y:.1f}" for x, y in line[:-1]) + "Z" for line in lines)


def checkerboard(one: np.ndarray, other: np.ndarray, size_mm: tuple[float, float]) -> np.ndarray:
    """Returns squares of 25 mm from two slices of one shape (row, column) in turn: where edges go on, they agree."""
    rows = (np.arange(one.shape[0]) * size_mm[1] / one.shape[0] // _TILE_MM).astype(int)
    columns = (np.arange(one.shape[1]) * size_mm[0] / one.shape[1] // _TILE_MM).astype(int)
    return np.where((rows[:, np.newaxis] + columns) % 2 == 0, one, other)


def side_by_side(pictures: Sequence[np.ndarray]) -> np.ndarray:
    """Returns pictures of one height as one, with dark columns between them."""
    gap = np.zeros((pictures[0].shape[0], GAP, *pictures[0].shape[2:]), np.uint8)
    return np.concatenate([part for picture in pictures for part in (gap, picture)][1:], axis=1)


def of_one_height(pictures: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Returns pictures with black rows added above and below, so that all are as high as the highest."""
    highest = max(len(picture) for picture in pictures)
    missing = [highest - len(picture) for picture in pictures]
    return [
        np.pad(picture, ((rows // 2, rows - rows // 2), (0, 0)))
        for picture, rows in zip(pictures, missing, strict=True)
    ]


def with_outlines(
    picture: np.ndarray, lines: Sequence[np.ndarray], size_mm: tuple[float, float], colour: tuple[int, int, int]
) -> np.ndarray:
    """Returns a picture (row, column) with lines drawn on it, (row, column, 3)."""
    image = Picture.fromarray(picture).convert("RGB")
    draw = ImageDraw.Draw(image)
    step = np.array([image.width / size_mm[0], image.height / size_mm[1]])
    for line in lines:
        draw.line([tuple(point) for point in line * step - 0.5], fill=colour)
    return np.asarray(image)


def png(picture: np.ndarray) -> bytes:
    """Returns a picture as the content of a PNG file."""
    return _encoded(picture, format="PNG", optimize=True)


def jpeg_uri(picture: np.ndarray, quality: int) -> str:
    """Returns a picture as a `data:` address, JPEG of a quality up to 95."""
    content = _encoded(picture, format="JPEG", quality=quality, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(content).decode("ascii")


def _encoded(picture: np.ndarray, **how) -> bytes:
    file = io.BytesIO()
    Picture.fromarray(picture).save(file, **how)
    return file.getvalue()


def _in_plane(plane: Plane) -> tuple[int, int]:
    """The axes of L, P, S that run across and down a picture."""
    return {"sagittal": (1, 2), "coronal": (0, 2), "axial": (0, 1)}[plane]


def _turned(volume: np.ndarray, affine: np.ndarray) -> tuple[np.ndarray, tuple[float, float, float]]:
    image = reorient(Image(volume[..., np.newaxis], affine), ("L", "P", "S"))
    return image.data[..., 0], image.spacing_mm
