"""Scores of one subject, joining files by subject, and the results file."""

import dataclasses
import logging
import math

import numpy as np
import pytest

from pimms_tf.errors import InputError
from pimms_tf.evaluation import (
    METRICS,
    SubjectResult,
    SubjectScores,
    average_surface_distance_mm,
    dice,
    evaluate_subject,
    join_by_subject,
    read_results,
    write_results,
)

SPACING = (1.0, 2.0, 3.0)
SCORES = SubjectScores(0.5, 1.25, math.nan, 10.0, 1.0, 2 / 3, 4.2, 3.1)


def head():
    label = np.zeros((16, 16, 8), np.uint8)
    label[2:6, 2:6, 2:5] = 1
    label[10:13, 10:13, 2:5] = 2
    inferred = np.zeros_like(label)
    inferred[3:7, 2:6, 2:5] = 1
    return label, inferred


def as_tuple(result):
    return (
        result.subject_id,
        result.subset,
        *("nan" if math.isnan(v) else v for v in dataclasses.astuple(result.scores)),
    )


def test_a_subject_is_scored_by_every_metric():
    label, inferred = head()
    scores = evaluate_subject(label, inferred, SPACING)
    assert scores.dice == dice(label == 1, inferred)
    assert scores.asd_mm == average_surface_distance_mm(label == 1, inferred, SPACING)
    assert scores.hd95_mm == 1.0
    assert scores.volume_difference_percent == 0
    assert scores.lesion_recall == scores.lesion_f1 == 1
    assert scores.reference_ml == scores.inferred_ml == pytest.approx(48 * 6 / 1000)
    assert {type(value) for value in dataclasses.astuple(scores)} == {float}


def test_other_pathology_counts_neither_way():
    label, inferred = head()
    expected = evaluate_subject(label, inferred, SPACING)
    inferred[label == 2] = 1
    assert evaluate_subject(label, inferred, SPACING) == expected
    assert evaluate_subject(label, inferred, SPACING, ignored_label=None).lesion_f1 < 1


def test_probabilities_are_cut_at_a_half():
    label, inferred = head()
    probability = np.where(inferred == 1, 0.6, 0.4).astype(np.float32)
    assert evaluate_subject(label, probability, SPACING) == evaluate_subject(label, inferred, SPACING)


def test_voxels_outside_the_mask_do_not_count():
    label, inferred = head()
    expected = evaluate_subject(label, inferred, SPACING)
    inferred[14:, 14:] = 1
    mask = np.zeros(label.shape, bool)
    mask[:13, :13] = True
    assert evaluate_subject(label, inferred, SPACING, mask=mask) == expected
    assert evaluate_subject(label, inferred, SPACING).dice < expected.dice


def test_another_label_and_another_distance_can_be_asked_for():
    label, inferred = head()
    assert evaluate_subject(label, label == 2, SPACING, label=2, ignored_label=None).dice == 1
    distance = evaluate_subject(label, inferred, SPACING, surface_distance="niftynet").asd_mm
    assert distance == average_surface_distance_mm(label == 1, inferred, SPACING, "niftynet")


def test_an_empty_prediction_is_scored_without_an_error():
    label, inferred = head()
    scores = evaluate_subject(label, 0 * inferred, SPACING)
    assert (scores.dice, scores.volume_difference_percent, scores.lesion_recall, scores.lesion_f1) == (0, 100, 0, 0)
    assert math.isnan(scores.asd_mm)
    assert math.isnan(scores.hd95_mm)


def test_a_mask_of_another_shape_is_refused():
    label, inferred = head()
    with pytest.raises(InputError, match=r"mask has shape \(2, 2, 2\) and the reference \(16, 16, 8\)"):
        evaluate_subject(label, inferred, SPACING, mask=np.ones((2, 2, 2)))


# Joining


def test_files_are_joined_by_subject_and_the_others_named(tmp_path, caplog):
    references = {name: tmp_path / f"{name}_label.nii.gz" for name in ("s02", "s01", "s03")}
    inferred = {name: tmp_path / f"{name}_out.nii.gz" for name in ("s01", "s02", "s09")}
    with caplog.at_level(logging.WARNING):
        pairs = join_by_subject(references, inferred)
    assert [pair.subject_id for pair in pairs] == ["s01", "s02"]
    assert pairs[0].reference == references["s01"]
    assert pairs[0].inferred == inferred["s01"]
    assert "1 subject has no segmentation and is not evaluated: s03" in caplog.text
    assert "1 subject has no reference and is not evaluated: s09" in caplog.text


def test_no_common_subject_is_an_error_with_both_sides(tmp_path):
    references = {f"{number:03}": tmp_path / "a" for number in range(7)}
    with pytest.raises(InputError, match=r"references: 000, 001, 002, 003, 004 and 2 more; segmentations: none"):
        join_by_subject(references, {})


def test_a_copy_of_the_reference_is_warned_about(tmp_path, caplog):
    label, copied = tmp_path / "s01.nii.gz", tmp_path / "copied.nii.gz"
    label.write_bytes(b"mask")
    copied.write_bytes(b"mask")
    assert join_by_subject({"s01": label}, {"s01": copied})
    assert "1 segmentation is a copy of the reference, byte for byte, and will score 1: s01" in caplog.text
    copied.write_bytes(b"mesk")
    caplog.clear()
    assert join_by_subject({"s01": label}, {"s01": copied})
    assert not caplog.text


# Files


def test_results_survive_the_file(tmp_path):
    results = [
        SubjectResult("001", ("T1", "FLAIR"), SCORES),
        SubjectResult("001", (), SCORES),
        SubjectResult("=1+1|cmd", (), SCORES),
        SubjectResult("'=1", (), SCORES),
        SubjectResult('odd, "name"', ("T1",), dataclasses.replace(SCORES, dice=0.1 + 0.2)),
    ]
    path = tmp_path / "deep" / "evaluation.csv"
    write_results(path, results)
    assert list(map(as_tuple, read_results(path))) == list(map(as_tuple, results))


def test_the_file_has_a_subset_column_and_empty_cells_for_undefined_scores(tmp_path):
    path = tmp_path / "evaluation.csv"
    write_results(path, [SubjectResult("001", ("T1", "FLAIR"), SCORES)])
    assert path.read_text() == (
        "subject_id,subset,dice,asd_mm,hd95_mm,volume_difference_percent,lesion_recall,lesion_f1,reference_ml,inferred_ml\n"
        "001,T1+FLAIR,0.5,1.25,,10.0,1.0,0.6666666666666666,4.2,3.1\n"
    )


def test_a_file_without_subsets_and_with_further_columns_is_read(tmp_path):
    path = tmp_path / "evaluation.csv"
    path.write_text(f"site,subject_id,{','.join(METRICS)}\nA,001,1,0,0,0,1,1,2,2\n", encoding="utf-8-sig")
    assert read_results(path) == [SubjectResult("001", (), SubjectScores(1, 0, 0, 0, 1, 1, 2, 2))]


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "evaluation.csv"
    write_results(path, [SubjectResult("001", (), SCORES)])
    before = path.read_text()
    with pytest.raises(InputError, match="subject 002 has two results for T1; keep one of them"):
        write_results(path, [SubjectResult("002", ("T1",), SCORES)] * 2)
    assert path.read_text() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "missing columns subject_id, dice, .*found none"),
        ("subject_id,dice\n001,1\n", "missing columns asd_mm, hd95_mm, .*found subject_id, dice"),
        (f"subject_id,{','.join(METRICS)}\n", "no subject below the header"),
        (f"subject_id,{','.join(METRICS)}\n001,1,oops,0,0,1,1,2,2\n", 'line 2, column asd_mm: "oops" is not a number'),
        (f"subject_id,{','.join(METRICS)}\n001,1,0\n", "line 2, column hd95_mm: the line ends before this column"),
        (
            f"subject_id,{','.join(METRICS)}\n" + "001,1,0,0,0,1,1,2,2\n" * 2,
            "subject 001 has two results for all scans",
        ),
    ],
)
def test_a_damaged_file_is_refused_with_its_place(tmp_path, text, message):
    path = tmp_path / "evaluation.csv"
    path.write_text(text)
    with pytest.raises(InputError, match=f"evaluation.csv.*{message}"):
        read_results(path)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"nothing\.csv: there is no such file of results"):
        read_results(tmp_path / "nothing.csv")
