"""Which file belongs to which subject."""

import csv
import json
import logging
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from niftynet_compat.schema.sections import InputSection
from niftynet_compat.subjects.discovery import SubjectFiles, discover, find_subjects, select_subjects
from niftynet_compat.subjects.lists import read_file_list
from niftynet_compat.subjects.names import candidate_ids, subject_ids_of
from pimms_tf.errors import ConfigError

GOLDEN = Path(__file__).parents[1] / "goldens" / "02_subjects"
CASES = json.loads((GOLDEN / "cases.json").read_text())["discovery"]

REFUSALS = {
    "no_exclusion_brainmask_kept": ["[T1]", "filename_contains = _T1", "sub01_T1.nii.gz", "sub01_T1_brainmask.nii.gz"],
    "duplicate_ids": ["[all]", "sub01_T1.nii.gz", "both belong to subject 'sub01'", "csv_file"],
    "missing_folder": ["[X]", "nowhere", "is not there"],
}


def touch(folder, *names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")


def section(folder, *contains, **more):
    return InputSection(path_to_search=str(folder), filename_contains=contains, **more)


@pytest.fixture
def tree(tmp_path, monkeypatch):
    touch(tmp_path, *(GOLDEN / "files.txt").read_text().split())
    monkeypatch.chdir(tmp_path)
    return tmp_path


def golden_inputs(case):
    lists = ("filename_contains", "filename_not_contains")
    return {
        name: InputSection(
            **{key: tuple(value) if key in lists else value for key, value in case["sections"][name].items()},
            # The original goes on without a section that finds nothing; here it may if nothing refers to it.
            referenced=(case["case"], name) != ("nothing_found", "X"),
        )
        for name in case["section_order"]
    }


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["case"])
def test_every_recorded_search_gives_the_same_table_or_a_refusal(case, tree):
    if "error" in case:
        with pytest.raises(ConfigError) as caught:
            find_subjects(golden_inputs(case))
        assert all(words in str(caught.value) for words in REFUSALS[case["case"]]), caught.value
        return
    with open(GOLDEN / case["table"], newline="") as file:
        rows = list(csv.DictReader(file))
    expected = [
        SubjectFiles(row["subject_id"], {name: tree / row[name] for name in case["section_order"] if row.get(name)})
        for row in rows
    ]
    assert len(expected) == case["n_rows"]
    assert find_subjects(golden_inputs(case)) == expected


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["case"])
def test_every_recorded_file_has_the_same_candidate_ids(case):
    for name, files in case["candidate_ids"].items():
        spec = case["sections"][name]
        for file, expected in [] if isinstance(files, str) else files:
            ours = candidate_ids(file, spec["filename_contains"], spec.get("filename_removefromid", ""))
            assert ours == expected


@pytest.mark.parametrize(
    ("contains", "remove", "names", "ids"),
    [
        (["T1"], "", ["T1_001.nii.gz", "T1_002.nii.gz"], ["_001", "_002"]),
        (["T1"], "", ["001_T1.nii.gz"], ["001_"]),
        (["T1", "img"], "", ["T1_001_img.nii.gz"], ["_001_"]),
        (["T1"], "", ["sub_001_T1_brain.nii.gz", "sub_002_T1_brain.nii.gz"], ["sub_001_", "sub_002_"]),
        (["T1w"], "", ["sub-01_ses-1_T1w.nii.gz"], ["sub01_ses1_"]),
        (["BFCorr_T1"], "", ["abc_BFCorr_T1_x.nii.gz", "abd_BFCorr_T1_x.nii.gz"], ["abc_", "abd_"]),
        (["_T1_"], "", ["a_T1_b.nii.gz", "b_T1_a.nii.gz"], ["ab", "ba"]),
        (["_T1_"], "", ["s1_T1_axial.nii.gz", "s2_T1_cor.nii.gz"], ["s1", "s2"]),
        (["T1"], "", ["BRATS_T1_001.nii.gz"], ["BRATS_"]),
        (["T1"], "", ["HGG1_T1.nii.gz"], ["HGG1_"]),
        (["T1"], "", ["T1.nii.gz", "T1_a.nii.gz"], [None, "_a"]),
        ([], "", ["p1.nii.gz", "p2.nii"], ["p1", "p2"]),
        (["T1w"], "_T1w", ["sub-01_T1w.nii.gz"], ["sub-01"]),
        (["T1w"], "sub-|_T1w", ["sub-01_T1w.nii.gz"], ["01"]),
        (["T1", "T1c"], "", ["a_T1c.nii", "b_T1c.nii"], ["a_", "b_"]),
        (["x"], "", ["é.1_x.NII.GZ"], ["é1_"]),
        (["_input0"], "", ["s1_input0.nii.gz"], ["s1"]),
    ],
)
def test_the_subject_id_is_what_remains_of_the_name(contains, remove, names, ids):
    found, reasons, _ = subject_ids_of(names, contains, remove)
    assert [found.get(name) for name in names] == ids
    assert set(reasons) == {name for name, subject_id in zip(names, ids, strict=True) if subject_id is None}


@pytest.mark.parametrize(
    ("contains", "names"),
    [
        (["_T1_"], ["s1_T1_axial.nii.gz", "s1_T1_cor.nii.gz", "s2_T1_axial.nii.gz"]),
        (["T1"], ["BRATS_T1_001.nii.gz", "BRATS_T1_002.nii.gz"]),
        (["T1"], ["HGG1_T1.nii.gz", "HGG1_T1c.nii.gz"]),
        (["T1"], ["a/T1_001.nii.gz", "b/T1_001.nii.gz"]),
    ],
)
def test_two_names_that_begin_alike_are_refused(contains, names):
    with pytest.raises(ValueError, match="both belong to subject"):
        subject_ids_of(names, contains)


def test_names_of_which_every_piece_is_shared_get_no_id_and_a_reason():
    ids, reasons, _ = subject_ids_of(["a_x_b.nii", "b_x_a.nii", "ab_x.nii"], ["_x_", "_x"])
    assert ids == {"b_x_a.nii": "ba"}
    assert set(reasons) == {"a_x_b.nii", "ab_x.nii"}
    assert "occurs in others" in reasons["ab_x.nii"]


@given(st.sets(st.text("abc_1", min_size=1, max_size=4), min_size=1), st.sampled_from(["T1", "_T2", "FLAIR_"]))
def test_ids_of_one_section_are_unique_and_recover_names_built_around_the_keyword(stems, keyword):
    names = [f"{stem}{keyword}.nii.gz" for stem in sorted(stems)]
    try:
        ids, *_ = subject_ids_of(names, [keyword])
    except ValueError:
        return
    assert len(set(ids.values())) == len(ids)
    assert set(ids.values()) <= stems


def test_the_names_of_the_released_experiments_join_on_their_subject(tmp_path):
    touch(
        tmp_path, "sub1_BFCorr_T1.nii.gz", "sub1_BFCorr_T2.nii.gz", "sub1_BFCorr_FLAIR.nii.gz", "sub1_BinLesion.nii.gz"
    )
    words = {"T1": "BFCorr_T1", "T2": "BFCorr_T2", "Flair": "BFCorr_FLAIR", "label": "BinLesion"}
    (subject,) = find_subjects({name: section(tmp_path, word) for name, word in words.items()})
    assert subject.subject_id == "sub1_"
    assert list(subject.images) == list(words)
    other = tmp_path / "pimms"
    touch(other, *(f"s1_input{slot}.nii.gz" for slot in range(9)), "s1_BinLesion.nii.gz", "s1_modalities.nii.gz")
    words = {f"input{slot}": f"_input{slot}" for slot in range(9)} | {"binlesion": "_BinLesion", "label": "_modalities"}
    (subject,) = find_subjects({name: section(other, word) for name, word in words.items()})
    assert subject.subject_id == "s1"
    assert len(subject.images) == 11


def test_folders_are_searched_in_the_order_written_once_each_and_not_below(tmp_path):
    touch(tmp_path, "b/1_T1.nii", "a/2_T1.nii", "a/deep/3_T1.nii", "a/.4_T1.nii")
    (tmp_path / "a" / "5_T1").mkdir()
    b, a = tmp_path / "b", tmp_path / "a"
    found = discover({"T1": section(f"{b} , {a}/,{b},", "_T1")})
    assert [(subject.subject_id, subject.images["T1"]) for subject in found.subjects] == [
        ("1", b / "1_T1.nii"),
        ("2", a / "2_T1.nii"),
    ]
    assert found.found == {"T1": 2}


def test_every_word_must_occur_none_of_the_others_may_and_case_counts(tmp_path):
    touch(tmp_path, "1_FLAIR.nii", "2_Flair.nii", "3_FLAIR_old.nii", "4_FLAIR.txt")
    found = find_subjects({"x": section(tmp_path, "FLAIR", ".nii", filename_not_contains=("old", ""))})
    assert [subject.subject_id for subject in found] == ["1_"]


def test_sections_are_joined_on_the_id_sorted_as_text_and_keep_what_only_some_have(tmp_path):
    touch(tmp_path, "10_T1.nii", "9_T1.nii", "9_T2.nii", "a_T2.nii")
    found = find_subjects({"T1": section(tmp_path, "_T1"), "T2": section(tmp_path, "_T2")})
    assert [(subject.subject_id, list(subject.images)) for subject in found] == [
        ("10", ["T1"]),
        ("9", ["T1", "T2"]),
        ("a", ["T2"]),
    ]


def test_files_without_an_id_are_reported(tmp_path):
    touch(tmp_path, "T1.nii", "T1_a.nii")
    (leftover,) = discover({"T1": section(tmp_path, "T1")}).unmatched
    assert (leftover.section, leftover.file) == ("T1", tmp_path / "T1.nii")
    assert "nothing is left" in leftover.reason


def test_ids_that_differ_only_by_underscores_are_warned_of(tmp_path, caplog):
    touch(tmp_path, "1_T1.nii", "1_T2.nii", "2_T1.nii", "2_T2.nii")
    with caplog.at_level(logging.WARNING):
        found = find_subjects({"T1": section(tmp_path, "T1"), "T2": section(tmp_path, "_T2")})
    assert len(found) == 4
    assert "2 subjects of [T1] and [T2] would match but for underscores, such as 1_ and 1;" in caplog.text


def test_sections_that_nothing_refers_to_may_find_nothing_with_a_warning(tmp_path, caplog):
    touch(tmp_path, "1_T1.nii")
    inputs = {
        "T1": section(tmp_path, "_T1"),
        "P": section(tmp_path / "nowhere", "p", referenced=False),
        "GAN": InputSection(referenced=False),
    }
    with caplog.at_level(logging.WARNING):
        found = discover(inputs)
    assert [subject.subject_id for subject in found.subjects] == ["1"]
    assert [item.section for item in found.unmatched] == ["P", "GAN"]
    assert "[P] is left aside" in caplog.text


def test_sections_of_values_are_passed_over(tmp_path):
    touch(tmp_path, "1_T1.nii")
    inputs = {"T1": section(tmp_path, "_T1"), "m": InputSection(csv_data_file="m.csv", path_to_search="x")}
    assert discover(inputs).found == {"T1": 1}


def test_no_section_gives_no_subject_and_no_file_at_all_is_refused(tmp_path):
    assert find_subjects({}) == []
    with pytest.raises(ConfigError, match="no input section finds any file"):
        find_subjects({"T1": section(tmp_path, "T1", referenced=False)})


@pytest.mark.parametrize(
    ("files", "spec", "parts"),
    [
        ([], {"filename_contains": ("T1",)}, ["[T1] path_to_search = ", "no file name contains T1", "holds no file"]),
        (["1_t1.nii"], {"filename_contains": ("_T1",)}, ["1_t1.nii differs only by them"]),
        (["1_T2.nii"], {"filename_contains": ("_T1",)}, ["1 other files such as 1_T2.nii"]),
        (
            ["1_T1.nii"],
            {"filename_contains": ("_T1",), "filename_not_contains": ("1_",)},
            ["without 1_", "filename_not_contains excludes 1_T1.nii"],
        ),
        (
            ["a_T1.nii", "a_T1.txt"],
            {"filename_contains": ("_T1",)},
            ["a_T1.nii and", "exclude one by filename_not_contains"],
        ),
        (["T1.nii"], {"filename_contains": ("T1",)}, ["tells subjects apart"]),
        (["T1.nii"], {"filename_removefromid": "("}, ["filename_removefromid = (", "no regular expression"]),
        (["1.nii"], {"path_to_search": ""}, ["[T1] says neither path_to_search nor csv_file"]),
    ],
)
def test_a_search_that_fails_names_section_folder_keyword_and_remedy(tmp_path, files, spec, parts):
    touch(tmp_path, *files)
    with pytest.raises(ConfigError) as caught:
        find_subjects({"T1": InputSection(**({"path_to_search": str(tmp_path)} | spec))})
    assert all(part in str(caught.value) for part in parts), caught.value


def test_a_file_instead_of_a_folder_is_named_and_all_failing_sections_are_reported(tmp_path):
    touch(tmp_path, "x")
    with pytest.raises(ConfigError) as caught:
        find_subjects({"A": section(tmp_path / "x", "a"), "B": section(tmp_path / "y", "b")})
    first, second = str(caught.value).split("\n")
    assert "x is a file" in first
    assert "y is not there" in second


# ---- lists


def write_list(folder, text):
    path = folder / "l.csv"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_list_keeps_ids_as_text_and_ignores_blanks_comments_and_blank_lines(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    touch(tmp_path, "a.nii.gz", "b.nii", "NA", "d e.nii")
    path = write_list(tmp_path, '\ufeff001, a.nii.gz\n\n# note\n002 ,b.nii \nNA,NA\nx,"d e.nii"\n')
    assert read_file_list(path) == {
        "001": tmp_path / "a.nii.gz",
        "002": tmp_path / "b.nii",
        "NA": tmp_path / "NA",
        "x": tmp_path / "d e.nii",
    }


def test_relative_paths_start_from_the_working_directory_and_then_from_the_list(tmp_path, monkeypatch):
    lists, work = tmp_path / "lists", tmp_path / "work"
    touch(lists, "a.nii", "b.nii")
    touch(work, "b.nii")
    monkeypatch.chdir(work)
    assert read_file_list(write_list(lists, "1,a.nii\n2,b.nii\n")) == {"1": lists / "a.nii", "2": work / "b.nii"}


def test_a_section_with_a_list_is_not_searched(tmp_path):
    touch(tmp_path, "a.nii", "2_T1.nii")
    path = write_list(tmp_path, f"1,{tmp_path / 'a.nii'}\n")
    (subject,) = find_subjects({"T1": section(tmp_path, "_T1", csv_file=str(path))})
    assert subject.images == {"T1": tmp_path / "a.nii"}


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("1,a.nii,3\n", ["line 1:", "'1,a.nii,3' has 3 columns"]),
        ("1;a.nii\n", ["line 1:", "separates its columns by ';'"]),
        ("1,a.nii\n\n1,b.nii\n", ["line 3: subject 1 stands in line 1 already"]),
        ("1,\n", ["line 1:", "empty column"]),
        ("subject,file\n1,a.nii\n", ["line 1: subject,file looks like a header"]),
        ("1,a.nii\n2,x.nii\n3,y.nii\n", ["lists 3 files, of which 2 do not exist", "x.nii (2)", "y.nii (3)"]),
        ("# nothing\n", ["lists no file"]),
    ],
)
def test_a_faulty_list_is_refused_with_its_line(tmp_path, monkeypatch, text, parts):
    monkeypatch.chdir(tmp_path)
    touch(tmp_path, "a.nii", "b.nii")
    path = write_list(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        find_subjects({"T1": InputSection(csv_file=str(path))})
    assert f"[T1] csv_file = {path}" in str(caught.value)
    assert all(part in str(caught.value) for part in parts), caught.value


def test_a_missing_or_unreadable_list_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"\[T1\] csv_file = .*no\.csv: there is no such list"):
        find_subjects({"T1": InputSection(csv_file=str(tmp_path / "no.csv"))})
    (tmp_path / "b.csv").write_bytes(b"1,\xff\xfe\n")
    with pytest.raises(ConfigError, match="not a text file"):
        read_file_list(tmp_path / "b.csv")


# ---- selection


def test_subjects_are_kept_if_they_have_all_required_files_and_one_of_the_others():
    subjects = [
        SubjectFiles("a", {"T1": Path("1"), "T2": Path("2"), "L": Path("3")}),
        SubjectFiles("b", {"T2": Path("2"), "L": Path("3")}),
        SubjectFiles("c", {"L": Path("3")}),
        SubjectFiles("d", {"T1": Path("1")}),
    ]
    kept, dropped = select_subjects(subjects, ["L"], ["T1", "T2"])
    assert [subject.subject_id for subject in kept] == ["a", "b"]
    assert dropped == [("c", "has no file in any of [T1], [T2]"), ("d", "has no file in [L]")]
    kept, dropped = select_subjects(subjects, ["T1", "T2", "L"])
    assert [subject.subject_id for subject in kept] == ["a"]
    assert dropped[1].reason == "has no file in [T1] and [T2]"
    assert select_subjects(subjects, [], []) == (subjects, [])
