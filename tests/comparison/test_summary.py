"""From result files to the report: tables, trends and confusion of a comparison small enough to type."""

import json

import numpy as np
import pytest

from pimms_tf.commands.cli import main
from pimms_tf.comparison import read_comparison, write_comparison
from pimms_tf.comparison.plan import HOLDOUT_SUBSETS, NETWORKS
from pimms_tf.comparison.summary import report_text, trends
from pimms_tf.data import Image, write_image
from pimms_tf.errors import InputError
from pimms_tf.evaluation import SubjectResult, SubjectScores, write_results

SUBJECTS = ("sim01", "sim02", "sim03")
DICE = {"hemis": 0.5, "hard": 0.51, "soft": 0.6, "online": 0.7}


def scores(dice: float) -> SubjectScores:
    return SubjectScores(dice, 1 / dice, 3.0, 10.0, 0.5, 0.5, 4.0, 4.0)


@pytest.fixture
def folder(tmp_path):
    """A comparison of one holdout whose stages are done; Online is worse than all others on T1+T2."""
    record = {"scale": "tiny", "seed": 0, "holdouts": ["mixed"], "networks": list(NETWORKS), "stages": ["train_hemis"]}
    (tmp_path / "comparison.json").write_text(json.dumps(record))
    (tmp_path / "done").mkdir()
    (tmp_path / "done" / "train_hemis.json").write_text(json.dumps({"command": [], "seconds": 61.0}))
    for network in NETWORKS:
        place = tmp_path / "results" / "mixed" / network
        results = [
            SubjectResult(name, subset, scores(0.1 if (network, subset) == ("online", ("T1", "T2")) else DICE[network]))
            for subset in HOLDOUT_SUBSETS["mixed"]
            for name in SUBJECTS
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
    counts = read_comparison(folder).confusion["mixed"]["soft"]
    assert counts.tolist() == [[1, 0, 0], [1, 0, 0], [0, 0, 1]]


def test_the_table_has_the_rows_of_the_paper_in_their_order(folder):
    cells = read_comparison(folder).tables["mixed"].cells
    assert tuple(dict.fromkeys(cell.subset for cell in cells)) == HOLDOUT_SUBSETS["mixed"]
    assert [cell.variant for cell in cells[:4]] == list(NETWORKS)


def test_the_report_stands_beside_the_published_numbers(folder):
    lines = report_text(read_comparison(folder)).splitlines()
    assert "| T1+T2+FLAIR | 0.50 / 0.47 | 0.60 / 0.51 | 0.51 / 0.48 | 0.70 / 0.54 |" in lines
    assert "| T2 | 1 | 0 | 0 |" in lines
    assert "mixed, soft: 2 of 3 scans right (66.7 %)" in lines
    assert "| train_hemis | 61 |" in lines


def test_the_report_is_written_again_from_the_folder_alone(folder, capsys):
    assert main(["report", str(folder)]) == 0
    assert capsys.readouterr().out == f"Saved {folder / 'report.md'}\n"
    for name in ("boxes.png", "contours.png"):
        assert (folder / name).read_bytes().startswith(b"\x89PNG")
    assert len((folder / "table_mixed.csv").read_text().splitlines()) == 1 + 7 * 4
    before = (folder / "report.md").read_bytes()
    write_comparison(read_comparison(folder), folder)
    assert (folder / "report.md").read_bytes() == before


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
        assert read_comparison(folder).confusion["mixed"]["hard"].tolist() == [[0, 0, 1], [0, 0, 0], [0, 0, 0]]
