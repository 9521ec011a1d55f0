"""Subsets, summaries, Table 1 and the comparison of two results files."""

import csv
import io
import logging
import math

import numpy as np
import pytest

from pimms_tf.errors import InputError
from pimms_tf.evaluation import (
    METRICS,
    SubjectResult,
    SubjectScores,
    compare,
    modality_subsets,
    paired_wilcoxon,
    table_1,
    write_results,
    write_summary,
)

BOTH, T1 = ("T1", "FLAIR"), ("T1",)


def scores(dice, asd_mm=1.0):
    return SubjectScores(dice, asd_mm, 2.0, 5.0, 1.0, 1.0, 3.0, 3.0)


def results(dices, subset=BOTH, asd_mm=1.0):
    return [SubjectResult(f"s{i:02}", subset, scores(value, asd_mm)) for i, value in enumerate(dices)]


def ramp(start, num=10):
    return list(np.linspace(start, start + 0.3, num))


def test_subsets_are_complete_distinct_and_largest_first():
    subsets = modality_subsets(["T1", "T2", "F"])
    assert subsets == [("T1", "T2", "F"), ("T1", "T2"), ("T1", "F"), ("T2", "F"), ("T1",), ("T2",), ("F",)]
    assert len(set(modality_subsets("abcd"))) == 15
    assert modality_subsets([]) == []


def test_the_summary_has_a_row_per_subset_and_score(tmp_path):
    path = tmp_path / "summary.csv"
    write_summary(path, [*results([0.2, 0.4]), *results([0.1], T1, asd_mm=math.nan)])
    rows = list(csv.DictReader(io.StringIO(path.read_text())))
    assert [(row["subset"], row["metric"]) for row in rows] == [
        (subset, metric) for subset in ("T1+FLAIR", "T1") for metric in METRICS
    ]
    first, distance = rows[0], rows[len(METRICS) + 1]
    assert float(first["mean"]) == pytest.approx(0.3)
    assert (first["num"], first["num_undefined"]) == ("2", "0")
    assert (distance["mean"], distance["num"], distance["num_undefined"]) == ("", "0", "1")


# Table 1


def test_the_table_is_bold_where_dice_beats_the_baseline():
    table = table_1({"hemis": results(ramp(0.3)), "soft": results(ramp(0.4)), "hard": results(ramp(0.2))})
    beats = {cell.variant: cell.beats_baseline for cell in table.cells}
    assert beats == {"hemis": False, "soft": True, "hard": False}
    lines = table.markdown().splitlines()
    assert lines[:3] == [
        "| T1 | FLAIR | Dice hemis | Dice soft | Dice hard | ASD/mm hemis | ASD/mm soft | ASD/mm hard |",
        "| :-: | :-: | --: | --: | --: | --: | --: | --: |",
        "| ● | ● | 0.45 (0.45) | **0.55 (0.55)** | 0.35 (0.35) | 1.00 | 1.00 | 1.00 |",
    ]
    assert "over 10 subjects" in lines[-2]
    assert "Bold: Dice above hemis" in lines[-1]


def test_a_table_of_one_variant_says_nothing_of_bold_marks_and_undefined_distances():
    notes = table_1({"hemis": results(ramp(0.3))}).markdown().rpartition("\n\n")[2]
    assert notes == "Dice: mean (median) over 10 subjects; ASD: median of the average surface distance.\n"


def test_subsets_are_rows_and_a_variant_without_one_leaves_a_gap():
    table = table_1({"hemis": [*results(ramp(0.3)), *results(ramp(0.1), T1)], "online": results(ramp(0.5, 6), T1)})
    rows = table.markdown().splitlines()[2:4]
    assert rows[0] == "| ● | ● | 0.45 (0.45) | – | 1.00 | – |"
    assert rows[1] == "| ● | ○ | 0.25 (0.25) | 0.65 (0.65) | 1.00 | 1.00 |"
    assert "6 to 10 subjects" in table.markdown()


def test_six_subjects_are_too_few_for_a_bold_mark_and_seven_are_enough():
    for num, bold in ((6, False), (7, True)):
        table = table_1({"hemis": results(ramp(0.3, num)), "soft": results(ramp(0.4, num))})
        assert table.cells[1].test.p == pytest.approx(2.0**-num)
        assert table.cells[1].beats_baseline is bold


def test_undefined_distances_are_counted():
    table = table_1({"hemis": results(ramp(0.3), asd_mm=math.nan)})
    assert "undefined in 10 results" in table.markdown()
    assert table.markdown().splitlines()[2].endswith("| – |")


def test_results_of_whole_subjects_fill_one_row():
    table = table_1({"hemis": results(ramp(0.3), ())})
    assert table.markdown().splitlines()[2] == "| ● | 0.45 (0.45) | 1.00 |"


def test_the_table_as_csv_has_every_summary_and_both_p_values():
    dices = ramp(0.3), ramp(0.4)
    table = table_1({"hemis": results(dices[0]), "soft": results(dices[1])})
    hemis, soft = csv.DictReader(io.StringIO(table.csv()))
    test = paired_wilcoxon(dices[1], dices[0])
    assert (hemis["subset"], hemis["variant"], hemis["p_against_hemis"]) == ("T1+FLAIR", "hemis", "")
    assert float(soft["dice_mean"]) == pytest.approx(0.55)
    assert soft["asd_mm_num"] == "10"
    assert float(soft["p_against_hemis"]) == test.p
    assert float(soft["p_two_sided_against_hemis"]) == test.p_two_sided
    assert soft["num_pairs_against_hemis"] == "10"


def test_another_baseline_can_be_named():
    table = table_1({"ours": results(ramp(0.4)), "theirs": results(ramp(0.3))}, baseline="theirs")
    assert table.cells[0].beats_baseline
    assert table.cells[1].test is None


def test_a_table_of_nothing_is_refused():
    with pytest.raises(InputError, match="no results to make a table of"):
        table_1({"hemis": []})


def test_a_missing_baseline_is_refused():
    with pytest.raises(InputError, match='baseline "hemis" has no results; there are results of soft, hard'):
        table_1({"soft": results([0.1]), "hard": results([0.1])})


def test_variants_on_different_subjects_are_refused_with_both_sides():
    strangers = [SubjectResult("x1", BOTH, scores(0.5))]
    message = r"soft and hemis have no subject in common for T1\+FLAIR: x1 against s00, s01"
    with pytest.raises(InputError, match=message):
        table_1({"hemis": results([0.1, 0.2]), "soft": strangers})


# Two files


@pytest.fixture
def files(tmp_path):
    def write(a, b):
        paths = tmp_path / "a.csv", tmp_path / "b.csv"
        for path, content in zip(paths, (a, b), strict=True):
            write_results(path, content)
        return paths

    return write


def test_two_files_are_joined_by_subject_and_subset(files, caplog):
    a = [*results(ramp(0.4, 8)), *results(ramp(0.2, 8), T1)]
    b = [*reversed(results(ramp(0.3, 8)[:7])), *results(ramp(0.3, 3), ("FLAIR",))]
    with caplog.at_level(logging.WARNING):
        (comparison,) = compare(*files(a, b))
    assert (comparison.subset, comparison.metric) == (BOTH, "dice")
    assert comparison.a.mean - comparison.b.mean == pytest.approx(0.1)
    assert comparison.test == paired_wilcoxon(ramp(0.4, 8)[:7], ramp(0.3, 8)[:7])
    assert "T1+FLAIR: 1 subject has results of one model only and is left out: s07" in caplog.text


def test_a_shorter_distance_is_the_better_one(files):
    a, b = results(ramp(0.3), asd_mm=1.0), results(ramp(0.3), asd_mm=2.0)
    assert compare(*files(a, b), metric="asd_mm")[0].test.p < 0.01
    assert compare(*files(a, b), metric="dice")[0].test.p == 1


def test_files_without_a_common_subject_are_refused_with_both_sides(files):
    paths = files(results([0.1, 0.2]), results([0.1, 0.2], T1))
    message = r"a\.csv and .*b\.csv have no subject in common .*s00 \(T1\+FLAIR\), .* against s00 \(T1\)"
    with pytest.raises(InputError, match=message):
        compare(*paths)


def test_an_unknown_score_is_refused(files):
    with pytest.raises(InputError, match='there is no score "Dice"; choose one of dice, asd_mm'):
        compare(*files(results([0.1]), results([0.1])), metric="Dice")
