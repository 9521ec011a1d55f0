"""Pictures of heads: which way they lie, what they show, and outlines that can be drawn by hand."""

import nibabel as nib
import numpy as np
import pytest

from pimms_tf.clinic import pictures

AFFINE = np.diag([1.0, 2.0, 3.0, 1.0])  # grows to the right, front and top


def one_voxel(x, y, z, shape=(6, 5, 4)):
    volume = np.zeros(shape, np.uint8)
    volume[x, y, z] = 1
    return volume


@pytest.mark.parametrize(
    ("plane", "voxel", "corner"),
    [
        ("axial", (5, 4, 2), "upper left"),  # right and front
        ("axial", (0, 0, 2), "lower right"),  # left and back
        ("coronal", (5, 2, 3), "upper left"),  # right and top
        ("coronal", (0, 2, 0), "lower right"),
        ("sagittal", (3, 4, 3), "upper left"),  # front and top
        ("sagittal", (3, 0, 0), "lower right"),
    ],
)
@pytest.mark.parametrize("axcodes", ["RAS", "LPS", "SAR", "PIR"])
def test_directions_are_those_of_radiologists_however_voxels_are_stored(plane, voxel, corner, axcodes):
    volume = one_voxel(*voxel)
    turn = nib.orientations.ornt_transform(nib.io_orientation(AFFINE), nib.orientations.axcodes2ornt(axcodes))
    affine = AFFINE @ nib.orientations.inv_ornt_aff(turn, volume.shape)
    stored = nib.orientations.apply_orientation(volume, turn)
    stage = pictures.stage_for(np.zeros(stored.shape, bool), affine)
    shown = pictures.staged(stored, affine, stage)
    place = int(np.argwhere(shown)[0][pictures.PLANES.index(plane)])
    picture = pictures.cut(shown, stage, place, plane)
    assert np.argwhere(picture).tolist() == [[0, 0] if corner == "upper left" else [n - 1 for n in picture.shape]]
    columns, rows = stage.size_mm(plane)
    assert rows / columns == pytest.approx(
        picture.shape[0]
        * {"axial": 2, "coronal": 3, "sagittal": 3}[plane]
        / picture.shape[1]
        / (2 if plane == "sagittal" else 1)
    )


@pytest.mark.parametrize(
    ("spacing", "plane"), [((1, 1, 1), "axial"), ((1, 1, 5), "axial"), ((5, 1, 1), "sagittal"), ((1, 4, 1), "coronal")]
)
def test_slices_are_shown_as_they_were_taken(spacing, plane):
    stage = pictures.stage_for(np.ones((4, 4, 4), bool), np.diag([*spacing, 1.0]))
    assert stage.plane == plane


def test_the_stage_is_the_brain_with_a_margin_within_the_plane_alone():
    brain = np.zeros((40, 40, 40), bool)
    brain[10:20, 12:30, 5:9] = True
    stage = pictures.stage_for(brain, np.diag([-1.0, -1.0, 1.0, 1.0]))
    assert stage.box == (slice(2, 28), slice(4, 38), slice(5, 9))


def test_outlines_go_around_voxels():
    mask = np.array([[0, 0, 0], [0, 1, 0], [0, 0, 0]], bool)
    (line,) = pictures.outlines(mask, (6.0, 3.0))
    assert sorted(map(tuple, line[:-1])) == [(2.0, 1.5), (3.0, 1.0), (3.0, 2.0), (4.0, 1.5)]
    assert pictures.svg_path([line]).startswith("M")
    assert pictures.outlines(mask & False, (6.0, 3.0)) == []
    (edge,) = pictures.outlines(np.ones((3, 3), bool), (3.0, 3.0))  # closed at the border, too
    assert edge.min() == 0
    assert edge.max() == 3


def test_squares_of_a_checkerboard_come_from_both_in_turn():
    board = pictures.checkerboard(np.zeros((50, 75)), np.ones((50, 75)), (75.0, 50.0))
    np.testing.assert_array_equal(board[::25, ::25], [[0, 1, 0], [1, 0, 1]])
    assert board.mean() == 0.5


def test_brightness_spans_what_the_brain_has():
    rng = np.random.default_rng(0)
    brain = np.zeros((8, 8, 8), bool)
    brain[2:6, 2:6, 2:6] = True
    volume = np.where(brain, rng.uniform(100, 200, brain.shape), 0)
    volume[0, 0, 0] = 1e6  # fat, or an artefact
    shown = pictures.brightness(volume, brain)
    assert shown[brain].min() > 100
    assert 200 < shown[brain].max() < 255
    assert shown[0, 0, 0] == 255
    assert pictures.brightness(np.ones((2, 2, 2)), np.ones((2, 2, 2), bool)).max() == 0


def test_slices_with_lesions_are_shown_first():
    stage = pictures.stage_for(np.ones((4, 4, 20), bool), np.eye(4))
    mask = np.zeros((4, 4, 20), bool)
    assert len(pictures.telling_slices(mask, stage, 6)) == 6
    mask[0, 0, [7, 9]] = True
    assert {7, 9} < set(pictures.telling_slices(mask, stage, 6))
    mask[0, 0, 2:18] = True
    assert pictures.telling_slices(mask, stage, 6) == [2, 5, 8, 11, 14, 17]
    assert pictures.evenly(3, 6) == [0, 1, 2]


def test_pictures_have_square_pixels():
    assert pictures.scaled(np.zeros((10, 20), np.uint8), (40.0, 60.0)).shape == (30, 20)
    assert max(pictures.scaled(np.zeros((900, 600), np.uint8), (60.0, 90.0)).shape) == pictures.MOST_PIXELS
