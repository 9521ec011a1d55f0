"""Windows of a prepared volume: where to cut, cutting, and pasting back.

A location is a row ``x0 y0 z0 x1 y1 z1`` (int32, start and stop) in voxels of the prepared grid. Samplers differ only
in how they draw the centre ``start + window // 2``:

    uniform      every window equally likely                      grid      overlapping tiles, for inference
    foreground   every window centred in a slice with brain       resize    the whole volume zoomed to the window
    weighted     centre drawn in proportion to a prior map
    balanced     every value of a label map equally often
"""

import weakref
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from pimms_tf.data.images import FarPlane, zoom_to
from pimms_tf.data.moving import MovedVolume, Volume
from pimms_tf.errors import InputError

Axes3 = tuple[int, int, int]


def resolve_window(shape: Sequence[int], window: Sequence[int]) -> Axes3:
    """The window in voxels: entries <= 0 become the full length of their axis, missing trailing ones become 1.

    Raises: InputError if the window has more than three entries or is larger than the volume.
    Source: ``spatial_window_size``; NiftyNet resolves full lengths once, on its first image, this function on each.
    """
    shape, window = tuple(int(n) for n in shape), tuple(int(n) for n in window)
    if len(shape) != 3 or len(window) > 3:
        raise InputError(f"a window has at most three entries and a volume three axes, not {window} and {shape}")
    padded = window + (1,) * (3 - len(window))
    full = tuple(length if size <= 0 else size for size, length in zip(padded, shape, strict=True))
    if any(size > length for size, length in zip(full, shape, strict=True)):
        raise InputError(
            f"window {full} is larger than volume {shape}: choose a smaller spatial_window_size, write 0 for the full "
            "length of an axis, or enlarge the volume with volume_padding_size"
        )
    return full


def uniform_locations(shape: Sequence[int], window: Sequence[int], num: int, rng: np.random.Generator) -> np.ndarray:
    """Locations (num, 6) of windows drawn uniformly among all that fit, int32.

    Raises: InputError if the window is larger than the volume.
    Source: niftynet/engine/sampler_uniform_v2.py; one draw per axis for all windows, in the order x, y, z.

    >>> uniform_locations((10, 8, 1), (10, 8, 1), num=1, rng=np.random.default_rng(0)).tolist()
    [[0, 0, 0, 10, 8, 1]]
    """
    window = resolve_window(shape, window)
    start = [rng.integers(0, length - size + 1, num) for length, size in zip(shape, window, strict=True)]
    return _locations(np.stack(start, axis=-1), window)


def foreground_locations(
    shape: Sequence[int], window: Sequence[int], num: int, foreground: Volume, rng: np.random.Generator
) -> np.ndarray:
    """Locations (num, 6) uniform over windows whose centre lies in a slice that holds foreground, int32.

    ``foreground`` is a (x, y, z) bool mask, or scans (x, y, z, scan), which show brain wherever one of them exceeds its
    own mean, whitened or not. Slices lie across the last axis along which the window has length 1, and across z for a
    window that is thick everywhere. If no slice with foreground can be a centre, because the window is too thick, the
    possible centres nearest to the foreground are used.

    Raises: InputError if nothing is foreground, for another shape, or if the window is larger than the volume.
    """
    window = resolve_window(shape, window)
    _check_on(shape, foreground.shape[:3], "foreground mask")
    axis = max((axis for axis in range(3) if window[axis] == 1), default=2)
    first, last = window[axis] // 2, shape[axis] - window[axis] + window[axis] // 2
    shows = _foreground_test(foreground, axis)
    # Slices are looked at as they are drawn: a window seldom needs two looks, and a volume has a hundred times more.
    known: dict[int, bool] = {}
    chosen: list[int] = []
    while len(chosen) < num and len(known) <= last - first:
        index = int(rng.integers(first, last + 1))
        if index not in known:
            known[index] = shows(index)
        if known[index]:
            chosen.append(index)
    if len(chosen) < num:
        possible = [index for index, shown in known.items() if shown]
        possible = possible or sorted({min(max(i, first), last) for i in range(shape[axis]) if shows(i)})
        if not possible:
            raise InputError("nothing is foreground: check the scans, or draw windows from the whole volume")
        chosen += rng.choice(sorted(possible), num - len(chosen)).tolist()
    locations = uniform_locations(shape, window, num, rng)
    locations[:, axis] = np.asarray(chosen, np.int32) - first
    locations[:, axis + 3] = locations[:, axis] + window[axis]
    return locations


def weighted_locations(
    shape: Sequence[int], window: Sequence[int], num: int, prior: Volume, rng: np.random.Generator
) -> np.ndarray:
    """Locations (num, 6) of windows whose centre is drawn in proportion to ``prior`` (x, y, z), int32.

    The draw is stratified: voxels are sorted by weight and window s of num falls in the s-th share of the total weight,
    heaviest first. A negative minimum is subtracted; a map that sums to 0 gives uniform draws among the valid centres.

    Raises: InputError if the map has another shape or is not finite, or if the window is larger than the volume.
    Source: niftynet/engine/sampler_weighted_v2.py. Its sort leaves the order of equal weights open; here it is their
    order in memory.
    """
    window = resolve_window(shape, window)
    centres = _valid_centres(shape, window)
    # float64: the sum of millions of small weights is compared with a ratio near 1.
    weight = _map_on(shape, prior, "sampling prior")[centres].astype(np.float64)
    if not np.isfinite(weight).all():
        raise InputError("the sampling prior holds values that are not finite: mend the map of the section 'sampler'")
    flat = weight.ravel() - min(weight.min(), 0.0)
    total = flat.sum()
    if total == 0:
        index = rng.integers(0, flat.size, num)
    else:
        ratio = 1 - (rng.random(num) + np.arange(num)) / num
        positive = np.flatnonzero(flat)
        order = positive[np.argsort(flat[positive], kind="stable")]
        share = np.cumsum(flat[order] / total)
        # The last share may stay a rounding error below 1.
        index = order[np.searchsorted(share, ratio).clip(max=order.size - 1)]
    return _around(index, weight.shape, window)


def balanced_locations(
    shape: Sequence[int], window: Sequence[int], num: int, label: Volume, rng: np.random.Generator
) -> np.ndarray:
    """Locations (num, 6) of windows whose centre carries each value of ``label`` (x, y, z) equally often, int32.

    Values that occur at a valid centre share the windows by an even multinomial draw; rows are sorted by value.

    Raises: InputError if the map has another shape or the window is larger than the volume.
    Source: niftynet/engine/sampler_balanced_v2.py.
    """
    window = resolve_window(shape, window)
    values = _map_on(shape, label, "label map")[_valid_centres(shape, window)]
    flat = values.ravel()
    labels = np.unique(flat)
    counts = rng.multinomial(num, np.full(labels.size, 1 / labels.size))
    index = []
    for value, count in zip(labels, counts, strict=True):
        voxels = np.flatnonzero(flat == value)
        index.append(voxels[rng.integers(0, voxels.size, count)])
    return _around(np.concatenate(index), values.shape, window)


def grid_locations(shape: Sequence[int], window: Sequence[int], border: Sequence[int]) -> np.ndarray:
    """Locations (n, 6) of the tiles that cover a volume, int32; with ``border`` cropped on both sides they still touch.

    Along an axis the step is ``max(window - 2 border, 1)``, the last tile ends at the far edge, and two tiles get a
    third between them, after them, unless they are one voxel apart. Tiles loop over y (slowest), x, z (fastest); later
    tiles overwrite earlier ones. A border that swallows the window is accepted, as in NiftyNet, and refused by
    `check_border` and `GridAggregator`.

    Raises: InputError if the window is larger than the volume.
    Source: niftynet/engine/sampler_grid_v2.py.

    >>> grid_locations((10, 8, 1), window=(6, 8, 1), border=(1, 0, 0)).tolist()
    [[0, 0, 0, 6, 8, 1], [4, 0, 0, 10, 8, 1], [2, 0, 0, 8, 8, 1]]
    """
    window, border = resolve_window(shape, window), _three(border, "border")
    start = [_steps(length, size, size - 2 * b) for length, size, b in zip(shape, window, border, strict=True)]
    # The default indexing of meshgrid puts y first, and NiftyNet's order of windows rests on it.
    return _locations(np.stack([axis.ravel() for axis in np.meshgrid(*start)], axis=-1), window)


def check_border(window: Sequence[int], border: Sequence[int]) -> None:
    """Nothing, for a border that leaves a core of the window.

    Raises: InputError if 2 border >= window along an axis that has a border.
    """
    window, border = tuple(int(n) for n in window), _three(border, "border")
    swallowed = [2 * b >= size for b, size in zip(border, window, strict=True)]
    if any(b and bad for b, bad in zip(border, swallowed, strict=True)):
        legal = tuple(0 if bad else b for b, bad in zip(border, swallowed, strict=True))
        raise InputError(
            f"border {border} leaves nothing of window {window}: it must be smaller than half the window on every "
            f"axis, for example border = {legal}"
        )


def crop(volume: np.ndarray, location: Sequence[int]) -> np.ndarray:
    """The window of ``volume`` (x, y, z, ...) at ``location``, as a view; trailing axes are kept.

    Raises: InputError if the location reaches outside the volume.

    >>> crop(np.arange(10).reshape(10, 1, 1), (2, 0, 0, 5, 1, 1)).ravel().tolist()
    [2, 3, 4]
    """
    x0, y0, z0, x1, y1, z1 = (int(n) for n in location)
    inside = all(0 <= a < b <= n for a, b, n in zip((x0, y0, z0), (x1, y1, z1), volume.shape, strict=False))
    if not inside:
        raise InputError(f"location {(x0, y0, z0, x1, y1, z1)} is not inside the volume {volume.shape[:3]}")
    return volume[x0:x1, y0:y1, z0:z1]


def resize_window(
    volume: np.ndarray, window: Sequence[int], order: int, far_plane: FarPlane = "interpolated"
) -> np.ndarray:
    """``volume`` (x, y, z, ...) zoomed to ``window`` by splines of ``order``; the way back is a zoom to the old shape.

    Entries <= 0 keep the length of their axis. First and last voxels keep their centres. A volume of the right shape
    already, or an ``order`` below 0, is returned as it is. An all-zero channel stays all zero. For ``far_plane`` see
    `zoom_to`.

    Source: niftynet/engine/sampler_resize_v2.py, windows_aggregator_resize.py.
    """
    target = tuple(
        n if size <= 0 else int(size) for size, n in zip(_three(window, "window"), volume.shape, strict=False)
    )
    if volume.shape[:3] == target or order < 0:
        return volume
    resized = zoom_to(volume.reshape(*volume.shape[:3], -1), target, order, far_plane)
    return resized.reshape(target + volume.shape[3:]).astype(volume.dtype, copy=False)


class GridAggregator:
    """Windows pasted into a volume: ``GridAggregator(shape, border).add(window, location).result()``.

    Each window loses ``border`` on both sides and overwrites what is there. Voxels within ``border`` of the volume's
    edge are never written and keep ``fill``, so pad the volume by at least the border first.

    Source: niftynet/engine/windows_aggregator_grid.py.
    """

    def __init__(self, shape: Sequence[int], border: Sequence[int], fill: float = 0.0) -> None:
        self.shape = _three(shape, "volume shape")
        self.border = _three(border, "border")
        self.fill = fill
        self._volume: np.ndarray | None = None

    def add(self, window: np.ndarray, location: Sequence[int]) -> "GridAggregator":
        """This aggregator, after pasting ``window`` (x, y, z) or (x, y, z, channel) at the uncropped ``location``.

        A window smaller than its location is centred: a network may already have lost up to the border on both sides.

        Raises: InputError if nothing is left of the window, or if the window is too small or its channels change.
        """
        location = np.asarray(location, dtype=np.int64)
        extent, border = location[3:] - location[:3], np.asarray(self.border)
        check_border(tuple(extent), self.border)
        start, core = location[:3] + border, extent - 2 * border
        content = np.asarray(window.shape[:3])
        if (content < core).any():
            raise InputError(
                f"window {tuple(window.shape[:3])} is smaller than the core {tuple(core.tolist())} of location "
                f"{tuple(location.tolist())} after a border of {self.border}"
            )
        if self._volume is None:
            self._volume = np.full(self.shape + window.shape[3:], self.fill, dtype=window.dtype)
        left = (content - core) // 2
        target = crop(self._volume, (*start, *(start + core)))
        if target.shape[3:] != window.shape[3:]:
            raise InputError(f"window has channels {window.shape[3:]}, those before it {target.shape[3:]}")
        target[...] = crop(window, (*left, *(left + core)))
        return self

    def result(self) -> np.ndarray:
        """The volume (x, y, z) or (x, y, z, channel) in the windows' type; all ``fill``, float32, if none was added."""
        return np.full(self.shape, self.fill, np.float32) if self._volume is None else self._volume


def _steps(length: int, size: int, step: int) -> np.ndarray:
    last = length - size
    start = np.unique(np.append(np.arange(0, last + 1, max(step, 1)), last))
    # Two tiles meet in a seam in the middle of the brain; NiftyNet covers it with a third, if there is room for one.
    return np.append(start, round(start.sum() / 2)) if start.size == 2 and last > 1 else start


def _foreground_test(foreground: Volume, axis: int) -> Callable[[int], bool]:
    if isinstance(foreground, MovedVolume):
        return _moved_foreground_test(foreground, axis)
    planes = np.moveaxis(foreground, axis, 0)
    if foreground.dtype == bool:
        return lambda index: bool(planes[index].any())
    known = _brightness_of(foreground)

    def shows(index: int) -> bool:
        if (axis, index) not in known.shown:
            known.shown[axis, index] = bool((planes[index].max(axis=(0, 1)) > known.mean).any())
        return known.shown[axis, index]

    return shows


def _moved_foreground_test(scans: MovedVolume, axis: int) -> Callable[[int], bool]:
    """Nearest voxels tell brain from air, and some 60 along each axis do: a brain is no thinner than they lie apart."""
    mean = _brightness_of(scans.source).mean

    def shows(index: int) -> bool:
        place = [slice(None, None, max(length // 64, 1)) for length in scans.shape[:3]]
        place[axis] = index
        return bool((scans.nearest[tuple(place)].max(axis=(0, 1)) > mean).any())

    return shows


class _Brightness(NamedTuple):
    """What is known of scans: the mean of each, and of some slices (axis, index) whether a scan exceeds it there."""

    mean: np.ndarray
    shown: dict[tuple[int, int], bool]


# To look at a slice takes as long as to cut ten windows, so it is done once for scans that cannot be changed.
_known_scans: dict[int, tuple[weakref.ref, _Brightness]] = {}


def _brightness_of(scans: np.ndarray) -> _Brightness:
    number = id(scans)
    reference, known = _known_scans.get(number, (lambda: None, None))
    if reference() is scans:
        return known
    # The mean of every scan over some 30 voxels an axis is near enough to tell head from air.
    sample = scans[tuple(slice(None, None, max(length // 32, 1)) for length in scans.shape[:3])]
    known = _Brightness(sample.mean(axis=(0, 1, 2), dtype=np.float64), {})
    if not scans.flags.writeable:
        _known_scans[number] = (weakref.ref(scans, lambda _: _known_scans.pop(number, None)), known)
    return known


def _valid_centres(shape: Sequence[int], window: Axes3) -> tuple[slice, slice, slice]:
    # For even windows the last possible start is left out, as in NiftyNet's crop of the sampling map.
    return tuple(
        slice(size // 2, max(length - size + int(size / 2 + 0.6), size // 2 + 1))
        for length, size in zip(shape, window, strict=True)
    )


def _around(index: np.ndarray, centres_shape: Axes3, window: Axes3) -> np.ndarray:
    # A valid centre minus half a window is the start, and the map of valid centres begins half a window in.
    return _locations(np.stack(np.unravel_index(index, centres_shape), axis=-1), window)


def _locations(start: np.ndarray, window: Axes3) -> np.ndarray:
    return np.concatenate([start, start + np.asarray(window)], axis=-1).astype(np.int32)


def _map_on(shape: Sequence[int], volume: Volume, name: str) -> Volume:
    _check_on(shape, volume.shape, name)
    return volume


def _check_on(shape: Sequence[int], other: Sequence[int], name: str) -> None:
    if tuple(other) != tuple(shape):
        raise InputError(f"the {name} has shape {tuple(other)}, the scans {tuple(shape)}: put both on one grid")


def _three(values: Sequence[int], name: str) -> Axes3:
    three = tuple(int(n) for n in values)
    if len(three) != 3:
        raise InputError(f"{name} needs three entries, not {three}")
    if name != "window" and any(n < 0 for n in three):
        raise InputError(f"{name} {three} has a negative entry")
    return three
