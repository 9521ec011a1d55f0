"""What decides about a scan: which is the reference, which belong to no modality, what is unusual about one."""

from collections.abc import Mapping, Sequence

import numpy as np

from pimms_tf.clinic.intake import SetAside
from pimms_tf.clinic.results import ScanResult
from pimms_tf.data.grids import Grid, corners
from pimms_tf.data.images import Image, reorient
from pimms_tf.inference.preparation import Preparation

DOUBTFUL_SCORE = 0.6  # below, a modality is a guess by itself: 48 of 50 real scans of all three had this much and more
# In nats, once registered. T1 or T2 with FLAIR of the same patient: 0.25 and more in 41 of 41 pairs; of two patients:
# 0.17 at most in 11 of 11; docs/segment.md.
LEAST_SIMILARITY = 0.21
LEAST_CORRELATION = 0.3  # of a scan in the brain with the surest one that is taken for the same modality
_FINE_MM = 2.0  # voxels in the axial plane, in which lesions are outlined
_THICK_MM = 8.5
_LEAST_COVERED = 0.9  # of the brain
_SMALLEST_BRAIN_ML, _LARGEST_BRAIN_ML = 800.0, 2000.0  # with the fluid in it
_FAR_MM = 10.0
_PLACES = 20_000  # in the brain, enough to say how much of it a scan covers


def chosen_reference(grids: Sequence[Grid], scores: np.ndarray, modalities: Sequence[str]) -> tuple[int, str]:
    """Returns the place of the scan whose grid the mask lies on, and why it is that one.

    A FLAIR scan, since lesions are outlined there, unless its voxels are coarse in the axial plane and those of others
    are not; then a T2 scan, then any. Of several the one with the smallest voxels; of equals the first.
    """
    wish = {name: rank for rank, name in enumerate(("FLAIR", "T2", "T1"))}
    taken_for = [modalities[best] for best in scores.argmax(axis=1)]
    spacings = [axial_spacing_mm(grid) for grid in grids]

    def rank(place: int) -> tuple:
        (x, y, z), name = spacings[place], taken_for[place]
        return max(x, y) > _FINE_MM, wish.get(name, len(wish)), round(x * y * z, 2), place

    place = min(range(len(grids)), key=rank)
    if len(grids) == 1:
        return place, "it is the only scan"
    coarse, preferred, _, _ = rank(place)
    same = sum(name == taken_for[place] for name in taken_for)
    what = f"a {taken_for[place]} scan" if preferred < len(wish) else "the scan"
    reason = f"it is {what}" if same == 1 else f"of {same} {taken_for[place]} scans it has the smallest voxels"
    if not coarse and any(rank(other)[0] and rank(other)[1] < preferred for other in range(len(grids))):
        reason += " whose axial slices are not coarse"
    return place, reason


def axial_spacing_mm(grid: Grid) -> tuple[float, float, float]:
    """The voxel size to the left, to the back and upwards."""
    spacing = np.abs(grid.affine[:3, :3] @ np.eye(3))
    axes = spacing.argmax(axis=0)  # the direction that each axis of the array follows most
    lengths = dict(zip(axes, grid.spacing_mm, strict=True))
    if len(lengths) == 3:
        return tuple(lengths[axis] for axis in range(3))
    return grid.spacing_mm


def isotropic(image: Image, space_mm: float) -> Grid:
    """A grid of cubes of `space_mm` over the field of view of an image, in the orientation R, A, S."""
    turned = reorient(image, ("R", "A", "S"))
    edges = np.array(turned.shape) * turned.spacing_mm
    shape = tuple(int(max(1, round(edge / space_mm))) for edge in edges)
    directions = turned.affine[:3, :3] / turned.spacing_mm
    corner = turned.affine[:3, 3] - turned.affine[:3, :3] @ np.full(3, 0.5)
    affine = np.eye(4)
    affine[:3, :3] = directions * space_mm
    affine[:3, 3] = corner + affine[:3, :3] @ np.full(3, 0.5)
    return Grid(shape, affine)


def foreign(scans: np.ndarray, scores: np.ndarray, names: Sequence[str], preparation: Preparation) -> Mapping[int, str]:
    """Returns the places of prepared scans (x, y, z, scan) that are none of the modalities, and why.

    Either they do not belong by their scores (scan, modality), as `Preparation.belonging` says it: no modality has
    enough, or another scan is much surer to be of the modality that this one is taken for. Or the scan looks unlike the
    surest of those that are taken for the same modality: their brightness in the brain does not go together.
    """
    modalities = preparation.modalities
    found = {place: reason for place, row in enumerate(scores) if (reason := why_none(row, preparation))}
    best, belongs = scores.argmax(axis=1), preparation.belonging(scores)
    for modality, modality_name in enumerate(modalities):
        members = [place for place in np.flatnonzero(best == modality) if place not in found]
        members.sort(key=lambda place: (-round(float(scores[place, modality]), 4), place))
        for place in members[1:]:
            if not belongs[place]:
                score, most = scores[place, modality], scores[members[0], modality]
                surest = f"{names[members[0]]}, a surer {modality_name} scan with {most:.2f}"
                found[place] = f"is a guess, with a score of {score:.2f}, beside {surest}"
            elif _correlation(scans[..., members[0]], scans[..., place]) < LEAST_CORRELATION:
                found[place] = f"does not look like {names[members[0]]}, the surest {modality_name} scan"
    return found


def why_none(row: np.ndarray, preparation: Preparation) -> str:
    """Returns why a scan with these scores (modality,) is none of the modalities, "" for one that is."""
    if row.max() >= preparation.least_score:
        return ""
    return f"is none of {', '.join(preparation.modalities)}: the best score is {row.max():.2f}"


def warnings_about(grid: Grid, row: np.ndarray, brain: np.ndarray, brain_affine: np.ndarray) -> tuple[str, ...]:
    """Returns in which ways a scan is unlike those that the network learnt from, if in any.

    `row` are its scores, `brain` (x, y, z) lies where `brain_affine` says, after registration into the scan's own
    coordinates.
    """
    said = []
    if row.max() < DOUBTFUL_SCORE:
        said.append(f"its modality is a guess: the best score is {row.max():.2f}")
    spacing = axial_spacing_mm(grid)
    if max(spacing) > _THICK_MM:
        said.append(f"its voxels are up to {max(spacing):.1f} mm long")
    share = covered(grid, brain, brain_affine)
    if share < _LEAST_COVERED:
        said.append(f"it covers {100 * share:.0f} % of the brain")
    return tuple(said)


def flags_on(
    set_aside: Sequence[SetAside],
    scans: "Sequence[ScanResult]",
    modalities: Sequence[str],
    brain_ml: float,
    is_marked: bool,
) -> tuple[str, ...]:
    """Returns what a reader of a result should look at first, in whole sentences."""
    said = [f"{one.name} could not be read: it {one.reason}." for one in set_aside if one.is_damaged]
    used = [scan for scan in scans if scan.used]
    if "FLAIR" in modalities and not any(scan.taken_for == "FLAIR" for scan in used):
        if {scan.taken_for for scan in used} == {"T1"}:
            said.append("T1 alone was used; most lesions will be missed, and much of what is marked is none.")
        else:
            said.append("No FLAIR scan was used; without one, much of what there is goes unseen.")
    if not brain_ml:
        said.append("No brain was found in the scans.")
    elif not _SMALLEST_BRAIN_ML <= brain_ml <= _LARGEST_BRAIN_ML:
        said.append(f"The brain that was found measures {brain_ml:.0f} ml, which is unusual; look at its outline.")
    for scan in used:
        if scan.registration is not None and scan.registration.kept and scan.registration.shift_mm > _FAR_MM:
            said.append(f"{scan.name} was moved by {scan.registration.shift_mm:.0f} mm; check that it lies right.")
        if brain_ml and scan.registration is not None and scan.registration.after < LEAST_SIMILARITY:
            said.append(f"{scan.name} resembles the reference no more than another head would; is it of this patient?")
    if not is_marked:
        said.append("Nothing was marked.")
    return tuple(said)


def covered(grid: Grid, brain: np.ndarray, brain_affine: np.ndarray) -> float:
    """Returns which part of the brain, 0 to 1, lies within a grid; 1 where there is no brain."""
    places = np.argwhere(brain)
    if not len(places):
        return 1.0
    places = places[:: max(1, len(places) // _PLACES)]
    to_grid = np.linalg.inv(grid.affine) @ brain_affine
    voxels = places @ to_grid[:3, :3].T + to_grid[:3, 3]
    upper = corners(grid.shape).max(axis=0) + 0.5
    return float(((voxels >= -0.5) & (voxels <= upper)).all(axis=1).mean())


def _correlation(one: np.ndarray, other: np.ndarray) -> float:
    both = (one != 0) & (other != 0)
    if np.count_nonzero(both) < 2:
        return 1.0
    first, second = one[both], other[both]
    if first.std() == 0 or second.std() == 0:
        return 0.0
    return float(np.corrcoef(first, second)[0, 1])
