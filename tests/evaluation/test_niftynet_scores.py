"""NiftyNet's evaluation tables against the CSV files it wrote, and what is mended in them."""

import csv
import io
import math
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from pimms_tf.errors import InputError
from pimms_tf.evaluation import NIFTYNET_METRICS, LabelPair, niftynet_metrics, niftynet_tables

GOLDENS = Path(__file__).parents[1] / "goldens" / "08_evaluation"
RECORDED_METRICS = [
    name for name in NIFTYNET_METRICS if name not in ("Dice", "Jaccard", "intersection_over_union", "com_ref")
]
RUNS = {
    "foreground": ("data", "foreground", 2),
    "label": ("data", "label", 2),
    "cc": ("data", "cc", 2),
    "foreground_default_metrics": ("data", "foreground", 2),
    "foreground_resampled": ("data", "foreground", 2),
    "multiclass_foreground": ("data_multiclass", "foreground", 3),
    "multiclass_label": ("data_multiclass", "label", 3),
}


def recorded_subjects(folder, resampled=False):
    for path in sorted((GOLDENS / folder).glob("*_ref.nii.gz")):
        subject_id = path.name.removesuffix("_ref.nii.gz")
        images = [nib.load(path.with_name(f"{subject_id}_{role}.nii.gz")) for role in ("ref", "seg")]
        arrays = [np.asarray(image.dataobj) for image in images]
        if resampled:  # to 1 mm; the images are in (R, A, S) already
            arrays = [ndimage.zoom(array, images[0].header.get_zooms(), order=0) for array in arrays]
        yield LabelPair(subject_id, *arrays)


def assert_same_cells(text, recorded):
    rows, expected = (list(csv.reader(io.StringIO(content))) for content in (text, recorded))
    assert rows[0] == expected[0]
    assert len(rows) == len(expected)
    num_index = 2 if rows[0][0] == "subject_id" else 1
    for row, wanted in zip(rows[1:], expected[1:], strict=True):
        assert row[:num_index] == wanted[:num_index]
        for cell, number in zip(row[num_index:], wanted[num_index:], strict=True):
            # Sums over border voxels only and over the whole volume differ in the last digit.
            assert cell == number or float(cell) == pytest.approx(float(number), rel=1e-14)


@pytest.mark.parametrize("run", RUNS)
def test_the_tables_equal_the_recorded_files(run):
    folder, unit, num_classes = RUNS[run]
    metrics = {} if "default" in run else {"metrics": RECORDED_METRICS}
    subjects = recorded_subjects(folder, "resampled" in run)
    tables = niftynet_tables(subjects, [unit], num_classes=num_classes, as_recorded=True, **metrics)
    recorded = {path.name.removeprefix(f"{run}__"): path.read_text() for path in GOLDENS.glob(f"{run}__*.csv")}
    assert {table.file_name for table in tables} == set(recorded)
    for table in tables:
        assert_same_cells(table.csv(), recorded[table.file_name])


def two_lesions():
    reference, inferred = np.zeros((2, 12, 6, 6), np.uint8)
    reference[1:3, 1:3, 1:3] = 1
    reference[6:9, 1:3, 1:3] = 1
    inferred[6, 1:3, 1:3] = inferred[8, 1:3, 1:3] = 1  # the second lesion in two pieces
    inferred[11, 5, 5] = 1
    return reference, inferred


def test_components_are_paired_with_all_that_overlap_them():
    table = niftynet_tables([LabelPair("s1", *two_lesions())], ["cc"], ["n_pos_ref", "n_pos_seg", "tp"])[0]
    assert table.columns == ("n_pos_ref", "n_pos_seg", "tp")
    assert table.rows == ((("s1", "r1_s"), (8.0, 0.0, 0.0)), (("s1", "r2_s1&2"), (12.0, 8.0, 8.0)))


def test_distances_to_an_empty_mask_are_undefined_unless_as_recorded():
    full, empty = two_lesions()[0], np.zeros((12, 6, 6), np.uint8)
    names = ["average_distance", "hausdorff_distance", "hausdorff95_distance"]
    assert all(math.isnan(value) for value in niftynet_metrics(full, empty, names).values())
    recorded = niftynet_metrics(full, empty, names, as_recorded=True)
    assert recorded["hausdorff_distance"] == pytest.approx(math.sqrt(81 + 4 + 4))
    assert math.isnan(recorded["hausdorff95_distance"])


def test_means_are_taken_over_defined_values_unless_as_recorded():
    reference, inferred = two_lesions()
    empty = np.zeros_like(reference)
    subjects = [LabelPair("a", reference, reference), LabelPair("b", empty, empty), LabelPair("c", reference, inferred)]
    means = niftynet_tables(subjects, metrics=["dice"])[1]
    scores = [1.0, 2 * 8 / (20 + 9)]
    assert means.columns == ("mean_dice", "stdev_dice")
    np.testing.assert_allclose(means.rows[0][1], [np.mean(scores), np.std(scores)], rtol=1e-12)
    recorded = niftynet_tables(subjects, metrics=["dice"], as_recorded=True)[1]
    assert recorded.csv() == "label,mean_dice,stdev_dice\n1,,\n"


def test_the_centre_of_the_reference_fills_three_columns():
    reference, _ = two_lesions()
    values = niftynet_metrics(reference == 1, reference == 1, ["com_ref"])
    assert values == {"com_ref_X": (8 * 1.5 + 12 * 7) / 20, "com_ref_Y": 1.5, "com_ref_Z": 1.5}
    nothing = niftynet_metrics(reference == 2, reference == 1, ["com_ref"])
    assert all(math.isnan(value) for value in nothing.values())


def test_every_metric_of_niftynet_is_known_and_its_aliases_share_a_column():
    reference, inferred = two_lesions()
    values = niftynet_metrics(reference, inferred, NIFTYNET_METRICS)
    assert len(values) == len(NIFTYNET_METRICS) - 3 + 2  # three aliases; com_ref has three columns
    assert niftynet_metrics(reference, inferred, ["Dice", "dice"]) == {"dice": values["dice"]}
    assert list(niftynet_metrics(reference, inferred, ["intersection_over_union"])) == ["jaccard"]


def test_several_units_give_several_tables():
    tables = niftynet_tables([LabelPair("s1", *two_lesions())], ["foreground", "cc"])
    names = [table.file_name for table in tables]
    assert names == ["eval_subject_id_label.csv", "eval_label.csv", "eval_subject_id_cc_id.csv"]


def test_a_table_is_written_under_its_name(tmp_path):
    table = niftynet_tables([LabelPair("007", *two_lesions())], metrics=["tp"])[0]
    path = table.write(tmp_path / "evaluation")
    assert path == tmp_path / "evaluation" / "eval_subject_id_label.csv"
    assert path.read_text() == "subject_id,label,tp\n007,1,8.0\n"


@pytest.mark.parametrize(
    ("metric", "hint"), [("dices", 'did you mean "dice"?'), ("volume", "choose from n_pos_ref, .*com_ref")]
)
def test_an_unknown_metric_is_refused_with_a_suggestion(metric, hint):
    with pytest.raises(
        InputError, match=f'evaluations = "{metric}" is not a segmentation metric; {hint}'.replace("?", ".")
    ):
        niftynet_tables([], metrics=["dice", metric])


def test_an_unknown_unit_is_refused():
    with pytest.raises(InputError, match='evaluation_units = "voxel" is none of foreground, label, cc'):
        niftynet_tables([], ["voxel"])


def test_label_maps_of_different_shape_are_refused_with_the_subject():
    pair = LabelPair("s012", np.zeros((3, 4, 5)), np.zeros((3, 4, 6)))
    with pytest.raises(InputError, match=r"subject s012: .*\(3, 4, 6\) and the reference \(3, 4, 5\)"):
        niftynet_tables([pair])
