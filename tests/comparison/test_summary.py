"""From result files to the report: tables, trends and confusion of a comparison small enough to type."""

import json
from pathlib import Path

import numpy as np
import pytest

from pimms_tf.commands.cli import main
from pimms_tf.comparison import fill_page, keep, read_comparison, report_text, with_parts, write_comparison
from pimms_tf.comparison.scales import HOLDOUT_SUBSETS, NETWORKS, UNLABELLED, VOLUMES
from pimms_tf.comparison.summary import Sorted, trends
from pimms_tf.data import Image, write_image
from pimms_tf.errors import InputError
from pimms_tf.evaluation import SubjectResult, SubjectScores, write_results

SUBJECTS = ("sim01", "sim02", "sim03")
DICE = {"hemis": 0.5, "soft": 0.6, "hard": 0.51, "online": 0.7, UNLABELLED: 0.65, VOLUMES: 0.4}
DICE |= {"hemis_seed1": 0.55, "online_seed1": 0.45, "hemis_seed2": 0.5}


def scores(dice: float) -> SubjectScores:
    return SubjectScores(dice, 1 / dice, 3.0, 10.0, 0.5, 0.5, 4.0, 4.0)


@pytest.fixture
def folder(tmp_path):
    """A comparison of one holdout whose stages are done; Online is worse than all others on T1+T2."""
    stages = ["train_hemis", *(f"evaluation_mixed_{network}" for network in DICE)]
    record = {"scale": "tiny", "seed": 0, "networks": {"mixed": list(DICE)}, "stages": stages, "version": "1.2"}
    (tmp_path / "comparison.json").write_text(json.dumps(record))
    (tmp_path / "done").mkdir()
    spent = {"command": [], "seconds": 61.0, "processor_seconds": 98.0, "machine": "one small machine"}
    for stage in stages:
        (tmp_path / "done" / f"{stage}.json").write_text(json.dumps(spent))
    for network in DICE:
        place = tmp_path / "results" / "mixed" / network
        results = [
            SubjectResult(name, subset, scores(0.1 if (network, subset) == ("online", ("T1", "T2")) else DICE[network]))
            for subset in HOLDOUT_SUBSETS["mixed"]
            for name in (SUBJECTS[:2] if network == VOLUMES else SUBJECTS)
        ]
        write_results(place / "evaluation.csv", results)
        for subset, best in (("T1_T2_FLAIR", ("T1", "T1", "FLAIR")), ("T1", ("FLAIR",))):
            rows = [f"sim01,sim01_{m}.nii.gz,1,0,0,{b}" for m, b in zip(("T1", "T2", "FLAIR"), best, strict=False)]
            (place / f"subset_{subset}").mkdir()
            text = "\n".join(["subject_id,scan,T1,T2,FLAIR,best", *rows, ""])
            (place / f"subset_{subset}" / "modality_scores.csv").write_text(text)
    mask = np.zeros((6, 5, 4, 1), np.float32)
    mask[2:4, 2:4, 2] = 1
    for name in SUBJECTS:
        for scan in ("T1", "T2", "FLAIR", "lesion"):
            write_image(Image(mask, np.eye(4)), tmp_path / "mixed" / "data" / f"{name}_{scan}.nii.gz")
        inferred = tmp_path / "results/mixed/online/subset_T1_T2_FLAIR" / f"{name}_niftynet_out.nii.gz"
        write_image(Image(mask, np.eye(4)), inferred)
    return tmp_path


def test_a_trend_counts_the_rows_that_agree(folder):
    found = {trend.text: (trend.num_agreeing, trend.num_rows, trend.holds) for trend in trends(read_comparison(folder))}
    assert found["Mixed: Dice of Hard within 0.02 of HeMIS"] == (7, 7, True)
    assert found["Mixed: Dice of Soft not below HeMIS"] == (7, 7, True)
    assert found["Mixed: Dice of Online the highest (paper: 6 of 7 rows)"] == (6, 7, False)
    assert found["One scan alone: Dice of Online the highest, in all holdouts"] == (3, 3, True)
    # 1 / Dice: longer only where Dice is 0.1.
    assert found["Surface distance of Online above that of HeMIS"] == (1, 7, False)


def test_modalities_are_counted_where_all_scans_were_given(folder):
    found = read_comparison(folder).modalities["mixed"]["soft"]
    assert found.counts.tolist() == [[1, 0, 0], [1, 0, 0], [0, 0, 1]]
    assert found.accuracy == pytest.approx(2 / 3)
    assert found.confidence == pytest.approx(2 / 3)  # the best scores of the fixture are 1, 1 and 0


def test_classes_without_names_get_those_that_most_scans_agree_with():
    turned = Sorted(np.array([[0, 9, 1], [0, 0, 10], [8, 2, 0]]), 0.9)
    assert turned.accuracy == 0
    assert turned.best_order() == (1, 2, 0)
    assert turned.best_accuracy() == pytest.approx(27 / 30)
    # One slot for all is what no attention gives; scans at random do a little better, since the best order is taken.
    alone = Sorted(np.array([[10, 0, 0], [10, 0, 0], [10, 0, 0]]), 1.0)
    assert alone.best_accuracy() == pytest.approx(1 / 3)
    assert 1 / 3 < alone.accuracy_by_chance() < 0.55
    assert alone.accuracy_by_chance() == turned.accuracy_by_chance()
    assert 1 / 3 < Sorted(np.full((3, 3), 1000), 1.0).accuracy_by_chance() < 0.35


def test_the_table_has_the_rows_of_the_paper_in_their_order(folder):
    cells = read_comparison(folder).tables["mixed"].cells
    assert tuple(dict.fromkeys(cell.subset for cell in cells)) == HOLDOUT_SUBSETS["mixed"]
    assert [cell.variant for cell in cells[:5]] == [*NETWORKS, UNLABELLED]
    assert len(cells) == 7 * 5


def test_volumes_stand_beside_slices_of_the_same_subjects(folder):
    cells = read_comparison(folder).volumes.cells
    assert [(cell.variant, cell.dice.num) for cell in cells[:2]] == [("hemis", 2), (VOLUMES, 2)]


def test_seeds_stand_side_by_side_where_both_networks_have_them(folder):
    comparison = read_comparison(folder)
    assert list(comparison.repeats["mixed"]) == [0, 1]  # Online of the third is not there
    assert "| T1 | 0.500 → 0.700 (0.25) | 0.550 → 0.450 (0.25) |" in report_text(comparison).splitlines()


def test_the_report_stands_beside_the_published_numbers(folder):
    lines = report_text(read_comparison(folder)).splitlines()
    dice, distance = "0.50 / 0.47 | 0.60 / 0.51 | 0.51 / 0.48 | 0.70 / 0.54", "2.00 / 0.71 | 1.67 / 0.65"
    assert any(line.startswith(f"| T1+T2+FLAIR | {dice} | {distance} |") for line in lines)
    assert (
        "| T1+T2 | online | 0.100 (0.100) | 10.00 (10.00) | 3.0 (3.0) | 0.50 (0.50) | 0.50 (0.50) | 0 | 1 | 0.25 |"
        in lines
    )
    assert "| T2 | 1 | 0 | 0 |" in lines
    assert "| mixed | soft | 3 | 66.7 % | 99 % |" in lines
    assert "| train_hemis | 61 | 98 |" in lines
    assert "On one small machine; pimms-tf 1.2." in lines


def test_a_page_gets_the_parts_that_it_marks_and_keeps_the_rest(folder):
    comparison = read_comparison(folder)
    page = "Before.\n<!-- report: Cost -->\nold\n<!-- end -->\nAfter.\n"
    made = with_parts(page, comparison)
    assert made.startswith("Before.\n<!-- report: Cost -->\n\n| stage |")
    assert made.endswith("\n<!-- end -->\nAfter.\n")
    assert "old" not in made
    assert with_parts(made, comparison) == made
    with pytest.raises(ValueError, match="has no part Costs; it has"):
        with_parts(page.replace("Cost", "Costs"), comparison)
    (folder / "page.md").write_text(page)
    assert fill_page(folder / "page.md", comparison).read_text() == made
    with pytest.raises(InputError, match="--page nowhere.md: "):
        fill_page(Path("nowhere.md"), comparison)


def test_the_report_is_written_again_from_the_folder_alone(folder, capsys):
    assert main(["report", str(folder)]) == 0
    assert capsys.readouterr().out == f"Saved {folder / 'report.md'}\n"
    for name in ("boxes.png", "contours.png"):
        assert (folder / name).read_bytes().startswith(b"\x89PNG")
    assert len((folder / "table_mixed.csv").read_text().splitlines()) == 1 + 7 * 5
    assert len((folder / "scores_mixed.csv").read_text().splitlines()) == 1 + 7 * len(DICE)
    before = (folder / "report.md").read_bytes()
    write_comparison(read_comparison(folder), folder)
    assert (folder / "report.md").read_bytes() == before


def test_what_is_kept_gives_the_same_report_without_scans(folder, tmp_path, capsys):
    assert main(["report", str(folder), "--keep", str(tmp_path / "kept")]) == 0
    assert f"Saved {tmp_path / 'kept'}" in capsys.readouterr().out
    kept = {path.relative_to(tmp_path / "kept").as_posix() for path in (tmp_path / "kept").rglob("*") if path.is_file()}
    assert not [name for name in kept if name.endswith(".gz")]
    assert {"comparison.json", "done/train_hemis.json", "report.md", "contours.png", "scores_mixed.csv"} <= kept
    assert {"results/mixed/soft/evaluation.csv", "results/mixed/soft/subset_T1_T2_FLAIR/modality_scores.csv"} <= kept
    assert "results/mixed/soft/subset_T1/modality_scores.csv" not in kept
    report = (tmp_path / "kept" / "report.md").read_bytes()
    assert main(["report", str(tmp_path / "kept")]) == 0
    assert (tmp_path / "kept" / "report.md").read_bytes() == report
    with pytest.raises(InputError, match="is the folder of the comparison itself"):
        keep(folder, folder)


def test_stages_that_are_not_done_are_named_and_left_out(folder):
    (folder / "done" / "evaluation_mixed_online.json").unlink()
    comparison = read_comparison(folder)
    assert comparison.missing == ("evaluation_mixed_online",)
    assert "online" not in comparison.results["mixed"]
    assert "- evaluation_mixed_online" in report_text(comparison)
    assert {trend.num_rows for trend in trends(comparison)} == {0}  # rows without Online say nothing of it
    (folder / "done" / "evaluation_mixed_hemis.json").unlink()
    with pytest.raises(InputError, match="HeMIS is scored on no holdout yet"):
        read_comparison(folder)


@pytest.mark.parametrize(
    ("missing", "says"),
    [
        ("comparison.json", "holds no comparison; pimms-tf study"),
        ("results/mixed/hard/evaluation.csv", "no such file of results"),
        ("results/mixed/hard/subset_T1_T2_FLAIR/modality_scores.csv", ""),
    ],
)
def test_what_is_missing_is_named(folder, missing, says):
    (folder / missing).unlink()
    if says:
        with pytest.raises(InputError, match=says):
            read_comparison(folder)
    else:  # a cohort without all three scans has its scores in smaller subsets
        counts = read_comparison(folder).modalities["mixed"]["hard"].counts
        assert counts.tolist() == [[0, 0, 1], [0, 0, 0], [0, 0, 0]]
