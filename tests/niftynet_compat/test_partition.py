"""Drawing, reading and using a split of the subjects."""

import csv
import json
import logging
import math
import random
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from niftynet_compat.subjects.partition import (
    Phase,
    phase_subjects,
    read_split,
    shuffled_phases,
    split_subjects,
    write_split,
)
from pimms_tf.errors import ConfigError

GOLDEN = Path(__file__).parents[1] / "goldens" / "02_subjects"
CASES = [case for case in json.loads((GOLDEN / "cases.json").read_text())["partition"] if "n" in case]
IDS = [f"sub{number:02d}" for number in (*range(1, 13), 99)]


@given(st.integers(1, 40), st.floats(0, 1), st.floats(0, 1), st.integers(0, 5))
def test_a_split_is_complete_disjoint_repeatable_and_has_the_counts_of_niftynet(num, valid, infer, seed):
    num_valid, num_infer = math.ceil(num * valid), math.ceil(num * infer)
    assume(num_valid + num_infer < num)
    ids = [f"s{number}" for number in range(num)]
    split = split_subjects(ids, valid, infer, seed)
    assert list(split) == sorted(ids)
    counts = [list(split.values()).count(phase) for phase in Phase]
    assert counts == [num - num_valid - num_infer, num_valid, num_infer]
    assert split == split_subjects(ids[::-1], valid, infer, seed)


def test_another_seed_draws_another_split_and_the_global_generator_is_left_alone():
    random.seed(3)
    expected = random.random()
    random.seed(3)
    first, second = split_subjects(IDS, 0.3, 0.3, 0), split_subjects(IDS, 0.3, 0.3, 1)
    assert first != second
    assert random.random() == expected


@pytest.mark.parametrize(
    ("num", "valid", "infer", "counts"),
    [(6, 0.2, 0.2, [2, 2, 2]), (10, 0.1, 0.1, [8, 1, 1]), (3, 0.1, 0, [2, 1, 0]), (5, 0, 0, [5, 0, 0])],
)
def test_fractions_are_rounded_up(num, valid, infer, counts):
    split = split_subjects(IDS[:num], valid, infer, 0)
    assert [list(split.values()).count(phase) for phase in Phase] == counts


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["file"])
def test_every_recorded_split_is_drawn_again_from_its_seed(case, tmp_path):
    valid, infer, seed = case["valid_fraction"], case["infer_fraction"], case["python_random_seed"]
    num_valid, num_infer = math.ceil(13 * valid), math.ceil(13 * infer)
    split = shuffled_phases(IDS, 13 - num_valid - num_infer, num_valid, seed)
    assert write_split(tmp_path / "s.csv", split).read_text() == (GOLDEN / case["file"]).read_text()
    assert {phase: count for phase, count in case["n_files"].items() if phase != "all"} == {
        phase.value: list(split.values()).count(phase) for phase in Phase
    }
    if "training" in case["counts"]:
        assert split_subjects(IDS, valid, infer, seed) == split
    else:
        # The original trains on everybody when the split leaves nobody for training.
        with pytest.raises(ConfigError, match="leaves none for training"):
            split_subjects(IDS, valid, infer, seed)


@pytest.mark.parametrize(
    ("ids", "valid", "infer", "words"),
    [
        (["a", "b", "c"], 0.34, 0.34, "of 3 subjects 2 would be for validation .* and 2 for inference"),
        ([], 0, 0, "of 0 subjects"),
        (["a", "a"], 0, 0, "subject a occurs twice"),
        (["a"], 1.5, 0, "exclude_fraction_for_validation = 1.5"),
        (["a"], 0, -0.1, "exclude_fraction_for_inference = -0.1"),
        (["a"], float("nan"), 0, "is not a fraction"),
    ],
)
def test_a_split_that_cannot_be_is_refused_with_both_numbers(ids, valid, infer, words):
    with pytest.raises(ConfigError, match=words):
        split_subjects(ids, valid, infer, 0)


@given(
    st.dictionaries(st.text("ab0_-. é", min_size=1).filter(lambda text: text == text.strip()), st.sampled_from(Phase))
)
def test_a_written_split_reads_the_same(tmp_path_factory, split):
    assume(split)
    path = tmp_path_factory.mktemp("split") / "new" / "s.csv"
    assert read_split(write_split(path, split)) == split


def test_phases_are_read_in_any_case_with_blanks_and_by_their_short_names(tmp_path):
    path = tmp_path / "s.csv"
    path.write_text("001,Training\n\n002, validation\n# note\n003 ,INFERENCE\n4,train\n5,Valid\n6,test\n")
    assert {key: phase.value for key, phase in read_split(path).items()} == {
        "001": "training",
        "002": "validation",
        "003": "inference",
        "4": "training",
        "5": "validation",
        "6": "inference",
    }


def test_the_recorded_existing_split_is_read_and_ids_without_data_are_ignored(caplog):
    split = read_split(GOLDEN / "split_existing.csv")
    with caplog.at_level(logging.WARNING):
        assert phase_subjects(IDS, split, "training") == ["sub01"]
    assert phase_subjects(IDS, split, "validation") == ["sub02"]
    assert phase_subjects(IDS, split) == ["sub03"]
    assert "does not list 10 subjects, such as sub04" in caplog.text
    assert "lists 1 subject without data, such as not_a_subject" in caplog.text


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ((GOLDEN / "split_bad_phase.csv").read_text(), "line 2: 'testing' of subject sub02 is not a phase"),
        ("a,inferenc\n", "did you mean inference"),
        ("a,all\n", "'all' of subject a"),
        ("a,training\nb\n", "line 2: 'b' is not `subject,phase`"),
        ("a,training,1\n", "line 1: 'a,training,1'"),
        ("a,training\na,inference\n", "line 2: subject a is listed twice"),
        ("\n# x\n", "is empty"),
    ],
)
def test_a_faulty_split_file_is_refused_with_its_line(tmp_path, text, words):
    path = tmp_path / "s.csv"
    path.write_text(text)
    with pytest.raises(ConfigError, match=words) as caught:
        read_split(path)
    assert f"dataset_split_file {path}" in str(caught.value)


def test_a_missing_split_file_and_an_unwritable_id_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="there is no such file"):
        read_split(tmp_path / "no.csv")
    with pytest.raises(ConfigError, match="'a,b' cannot stand in a list"):
        write_split(tmp_path / "s.csv", {"a,b": Phase.TRAINING})
    assert list(tmp_path.iterdir()) == []


SPLIT = {"a": Phase.TRAINING, "b": Phase.VALIDATION, "c": Phase.INFERENCE, "d": Phase.TRAINING}


@pytest.mark.parametrize(
    ("phases", "ids"),
    [
        ("", "c"),
        ("all", "abcd"),
        ("Training", "ad"),
        ("validation, inference", "bc"),
        (["training", "validation"], "abd"),
        (Phase.VALIDATION, "b"),
        ("test", "c"),
    ],
)
def test_the_phases_asked_for_choose_the_subjects(phases, ids):
    assert phase_subjects("abcd", SPLIT, phases) == list(ids)


def test_all_means_everybody_whatever_the_split_lists():
    assert phase_subjects(["001", "002"], SPLIT, "all") == ["001", "002"]
    with pytest.raises(ConfigError, match="none are in common; to segment .* dataset_to_infer = all"):
        phase_subjects(["001", "002"], SPLIT)


def test_without_a_split_everybody_trains_or_is_inferred_and_named_phases_are_refused():
    assert phase_subjects("ab", None) == ["a", "b"]
    assert phase_subjects("ab", None, "all") == ["a", "b"]
    assert phase_subjects("ab", None, "training") == ["a", "b"]
    with pytest.raises(ConfigError, match="validation subjects are wanted, but there is no split.csv"):
        phase_subjects("ab", None, "validation", "split.csv")


def test_a_split_without_inference_subjects_infers_everybody_only_if_none_were_named(caplog):
    split = {"a": Phase.TRAINING, "b": Phase.TRAINING}
    with caplog.at_level(logging.WARNING):
        assert phase_subjects("ab", split) == ["a", "b"]
    assert "has no inference subject, so all 2 subjects are taken, 2 of which training has looked at" in caplog.text
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        assert phase_subjects("abc", split) == ["a", "b", "c"]
    assert "does not list 1 subject, such as c, taken all the same" in caplog.text
    assert "left out" not in caplog.text
    with pytest.raises(ConfigError, match=r"no inference subject among the 2 found \(2 training, 0 validation"):
        phase_subjects("ab", split, "inference")


def test_nobody_is_put_into_a_phase_to_make_up_for_an_empty_one():
    with pytest.raises(ConfigError, match="no training subject"):
        phase_subjects("ab", {"a": Phase.VALIDATION, "b": Phase.INFERENCE}, "training")
    with pytest.raises(ConfigError, match=r"lists 4 subjects such as a, but the data has 2 such as 001"):
        phase_subjects(["001", "002"], SPLIT, "training")
    with pytest.raises(ConfigError, match="dataset_to_infer = tset is not a phase"):
        phase_subjects("ab", SPLIT, "tset")


def test_the_recorded_table_of_subjects_and_its_splits_agree():
    with open(GOLDEN / "table_four_sections.csv", newline="") as file:
        assert [row["subject_id"] for row in csv.DictReader(file)] == IDS
