"""The tables beside segmentations, and the picture of three planes."""

import csv
from pathlib import Path

import numpy as np
import pytest

from pimms_tf.inference import ResultFolder, image_name, orthogonal_slices, write_class_table
from pimms_tf.inference.records import Record

SCORES = np.array([[0.25, 0.75], [1.0, 0.0]], np.float32)


def add(folder, subject_id, path, names, scores, valid):
    rows = folder.rows(subject_id, names, scores, valid)
    folder.take(Record(subject_id, "run", "content", "" if path is None else path.name, scores=rows))
    folder.write()


def read(path):
    with path.open(newline="") as file:
        return list(csv.reader(file))


def test_tables_are_complete_after_every_subject(tmp_path):
    folder = ResultFolder(tmp_path / "out", ("T1", "FLAIR"))
    for number in (1, 2):
        path = tmp_path / "out" / f"s{number}_niftynet_out.nii.gz"
        add(folder, f"s{number}", path, ["a.nii", "b.nii"], SCORES, np.array([True, True]))
        assert read(tmp_path / "out" / "inferred.csv") == [
            [f"s{n}", str(tmp_path / "out" / f"s{n}_niftynet_out.nii.gz")] for n in range(1, number + 1)
        ]
        table = read(tmp_path / "out" / "modality_scores.csv")
        assert table[0] == ["subject_id", "scan", "T1", "FLAIR", "best"]
        assert table[1:3] == [
            ["s1", "a.nii", "0.250000", "0.750000", "FLAIR"],
            ["s1", "b.nii", "1.000000", "0.000000", "T1"],
        ]
        assert len(table) == 1 + 2 * number == 1 + folder.num_scans


def test_names_of_files_that_a_spreadsheet_would_compute_are_marked_as_text(tmp_path):
    folder = ResultFolder(tmp_path, ("T1", "FLAIR"))
    add(folder, "s1", tmp_path / "s1.nii.gz", ["=1+1|cmd_T1.nii", "b.nii"], SCORES, np.array([True, True]))
    assert [row[1] for row in read(tmp_path / "modality_scores.csv")[1:]] == ["'=1+1|cmd_T1.nii", "b.nii"]


def test_absent_scans_have_no_line(tmp_path):
    folder = ResultFolder(tmp_path, ("T1", "FLAIR"))
    add(folder, "s1", tmp_path / "s1.nii.gz", ["", "b.nii"], SCORES, np.array([False, True]))
    assert [row[1] for row in read(tmp_path / "modality_scores.csv")[1:]] == ["b.nii"]


def test_a_model_that_only_classifies_lists_no_segmentation(tmp_path):
    folder = ResultFolder(tmp_path, ("T1", "FLAIR"))
    add(folder, "s1", None, ["a.nii", "b.nii"], SCORES, np.array([True, True]))
    assert [path.name for path in tmp_path.iterdir()] == ["modality_scores.csv"]


def test_a_part_of_the_subjects_has_tables_of_its_own_and_no_subjects_have_none(tmp_path):
    folder = ResultFolder(tmp_path, ("T1", "FLAIR"), ".shard-2-of-8")
    add(folder, "s0", None, [], SCORES[:0], np.array([], bool))
    assert not list(tmp_path.iterdir())
    add(folder, "s1", tmp_path / "s1.nii.gz", ["a.nii", "b.nii"], SCORES, np.array([True, True]))
    names = ["inferred.shard-2-of-8.csv", "modality_scores.shard-2-of-8.csv"]
    assert sorted(path.name for path in tmp_path.iterdir()) == names


def test_paths_are_listed_absolute_and_ids_with_commas_are_quoted(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    add(ResultFolder(Path("out"), ("T1",)), "s,1", Path("out/s.nii.gz"), ["a"], SCORES[:1, :1], np.array([True]))
    assert read(tmp_path / "out" / "inferred.csv") == [["s,1", str(tmp_path / "out" / "s.nii.gz")]]


# Names


@pytest.mark.parametrize(
    ("subject_id", "postfix", "form", "name"),
    [
        ("_sub04", "_foo", "niftynet05", "_sub04_foo.nii.gz"),
        ("_sub04", "_foo", "niftynet06", "window_seg__sub04__foo.nii.gz"),
        ("case00", "_niftynet_out", "niftynet06", "window_seg_case00__niftynet_out.nii.gz"),
        ("case00", "", "niftynet05", "case00.nii.gz"),
        ("case00", "", "niftynet06", "window_seg_case00_.nii.gz"),
    ],
)
def test_a_segmentation_is_named_as_the_release_asked_for_names_it(subject_id, postfix, form, name):
    assert image_name(subject_id, postfix, form) == name


def test_names_are_by_default_those_that_the_published_code_wrote():
    assert image_name("s1", "_niftynet_out") == "s1_niftynet_out.nii.gz"


def test_a_table_of_classes_has_the_best_class_or_all_probabilities_of_each_scan_that_is_there(tmp_path):
    best = write_class_table(tmp_path, "s1", "_niftynet_out", SCORES, np.array([True, True]), probabilities=False)
    assert best == tmp_path / "csv_s1__niftynet_out.csv"
    assert best.read_text() == ",csv\n0,1\n1,0\n"
    every = write_class_table(tmp_path, "s1", "_p", SCORES, np.array([False, True]), probabilities=True)
    assert every.read_text() == ",csv_0,csv_1\n0,1.000000,0.000000\n"


# Picture


def masks(shape, *voxels):
    mask = np.zeros(shape, np.int32)
    for voxel in voxels:
        mask[voxel] = 1
    return mask


def test_three_planes_stand_side_by_side():
    shape = (4, 5, 6)
    picture = orthogonal_slices(np.zeros(shape, np.float32), None, masks(shape))
    # (x, y), (x, z) and (y, z), as high as the highest of them
    assert picture.shape == (6, 4 + 4 + 5, 3)
    assert picture.dtype == np.float32


def test_planes_cross_in_the_reference_which_is_green_the_segmentation_red_and_both_yellow():
    shape = (4, 4, 4)
    scan = np.zeros(shape, np.float32)
    reference, inferred = masks(shape, (1, 2, 3), (1, 1, 3)), masks(shape, (1, 1, 3), (3, 3, 3))
    axial = orthogonal_slices(scan, reference, inferred)[:, :4]
    # x to the right, y upwards
    np.testing.assert_array_equal(axial[3 - 2, 1], (0, 1, 0))
    np.testing.assert_array_equal(axial[3 - 1, 1], (1, 1, 0))
    np.testing.assert_array_equal(axial[3 - 3, 3], (1, 0, 0))
    assert axial.sum() == 4


@pytest.mark.parametrize("reference", [None, np.zeros((4, 4, 4), np.int32)])
def test_without_a_reference_planes_cross_in_the_segmentation_and_else_in_the_middle(reference):
    shape = (4, 4, 4)
    scan = np.zeros(shape, np.float32)
    scan[:, :, 2] = 1
    picture = orthogonal_slices(scan, reference, masks(shape))
    assert picture[:, :4].min() == 1  # the slice in the middle
    picture = orthogonal_slices(scan, reference, masks(shape, (0, 0, 0)))
    np.testing.assert_array_equal(picture[3, 0], (1, 0, 0))
    assert picture[:, :4].sum() == 1


def test_grey_values_run_from_the_first_to_the_last_percentile():
    scan = np.broadcast_to(np.linspace(-5, 5, 64, dtype=np.float32), (4, 4, 64))
    picture = orthogonal_slices(scan, None, masks(scan.shape))
    assert picture.min() == 0
    assert picture.max() == 1
    constant = orthogonal_slices(np.full((4, 4, 4), 7, np.float32), None, masks((4, 4, 4)))
    assert np.isfinite(constant).all()
