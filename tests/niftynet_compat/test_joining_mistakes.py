"""What is wrong with the files of one subject: it is said, and no other subject gets other files by it."""

import logging
import os

import pytest

from niftynet_compat.schema.sections import InputSection
from niftynet_compat.subjects.discovery import discover, find_subjects
from niftynet_compat.subjects.lists import read_file_list, read_value_list
from niftynet_compat.subjects.names import id_complaint
from pimms_tf.errors import ConfigError


def touch(folder, *names):
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).write_bytes(b"")


def sections(folder, *names, **more):
    return {name: InputSection(path_to_search=str(folder), filename_contains=(f"_{name}",), **more) for name in names}


def files_of(found):
    return {subject.subject_id: [path.name for path in subject.images.values()] for subject in found}


def refusal(inputs, may_lack=()):
    with pytest.raises(ConfigError) as caught:
        discover(inputs, may_lack)
    return str(caught.value)


# ---- two files for one scan


@pytest.mark.parametrize(
    ("second", "remedy"),
    [
        ("s2_T1.nii", "remove one, or exclude one by filename_not_contains"),
        ("s2_T1_brainmask.nii.gz", "exclude one by filename_not_contains"),
        ("s-2_T1.nii.gz", "punctuation does not count; set filename_removefromid"),
    ],
)
def test_two_files_for_one_scan_are_an_error_that_names_both_even_where_a_section_may_find_nothing(
    tmp_path, second, remedy
):
    touch(tmp_path, "s1_T1.nii.gz", "s2_T1.nii.gz", "s1_T2.nii.gz", "s2_T2.nii.gz", second)
    for may_lack in ((), ("T1", "T2")):
        text = refusal(sections(tmp_path, "T1", "T2"), may_lack)
        assert all(words in text for words in ("[T1]", "s2_T1.nii.gz", second, "both belong to subject 's2'", remedy))


def test_a_clash_counts_the_others(tmp_path):
    touch(tmp_path, *(f"s{number}_T1{more}.nii" for number in range(4) for more in ("", "_old", "_new")))
    text = refusal(sections(tmp_path, "T1"))
    assert "s0_T1.nii and " in text
    assert "(1 more of its files; so do files of s1, s2, s3)" in text


def test_a_section_that_may_lack_files_finds_none_with_a_warning_but_needs_its_folder(tmp_path, caplog):
    touch(tmp_path, "s1_T1.nii")
    with caplog.at_level(logging.WARNING):
        found = discover(sections(tmp_path, "T1", "T2"), ("T1", "T2"))
    assert files_of(found.subjects) == {"s1": ["s1_T1.nii"]}
    assert "[T2] is left aside" in caplog.text
    lost = sections(tmp_path, "T1") | sections(tmp_path / "nowhere", "T2")
    assert "nowhere is not there" in refusal(lost, ("T1", "T2"))


def test_the_error_says_why_no_section_finds_a_file(tmp_path):
    touch(tmp_path, "s1_t1.nii")
    text = refusal(sections(tmp_path, "T1", "T2"), ("T1", "T2"))
    assert text.startswith("no input section finds any file; [T1] path_to_search")
    assert "s1_t1.nii differs only by them" in text


# ---- several files that are one image


@pytest.mark.parametrize(
    ("names", "kept"),
    [
        (["s1_T1.hdr", "s1_T1.img"], "s1_T1.img"),
        (["s1_T1.hdr", "s1_T1.img", "s1_T1.mat"], "s1_T1.img"),
        (["s1_T1.HDR", "s1_T1.IMG"], "s1_T1.IMG"),
        (["s1_T1.hdr.gz", "s1_T1.img.gz"], "s1_T1.img.gz"),
        (["s1_T1.mhd", "s1_T1.raw"], "s1_T1.mhd"),
        (["s1_T1.mhd", "s1_T1.zraw"], "s1_T1.mhd"),
        (["s1_T1.nhdr", "s1_T1.raw.gz"], "s1_T1.nhdr"),
        (["s1_T1.hdr"], "s1_T1.hdr"),
        (["s1_T1.nii.gz", "s1_T1.json"], "s1_T1.nii.gz"),
        (["s1_T1.nii", "s1_T1.json", "s1_T1.bval", "s1_T1.bvec"], "s1_T1.nii"),
        (["s1_T1.raw"], "s1_T1.raw"),
    ],
)
def test_header_and_voxels_in_two_files_are_one_image(tmp_path, names, kept):
    touch(tmp_path, *names, "s2_T1.nii")
    assert files_of(find_subjects(sections(tmp_path, "T1"))) == {"s1": [kept], "s2": ["s2_T1.nii"]}


def test_a_header_of_another_subject_is_no_part(tmp_path):
    touch(tmp_path, "s1_T1.hdr", "s2_T1.img")
    assert files_of(find_subjects(sections(tmp_path, "T1"))) == {"s1": ["s1_T1.hdr"], "s2": ["s2_T1.img"]}


# ---- names that take another subject's id away


def test_a_name_that_has_the_id_of_another_subject_in_it_is_an_error_and_does_not_move_that_subject(tmp_path):
    touch(tmp_path, "s1_T1_axial.nii", "s2_T1_cor.nii", "s1_T2_.nii", "s2_T2_.nii")
    inputs = {
        name: InputSection(path_to_search=str(tmp_path), filename_contains=(f"_{name}_",)) for name in ("T1", "T2")
    }
    assert list(files_of(find_subjects(inputs))) == ["s1", "s2"]
    touch(tmp_path, "x_T1_s1.nii")
    text = refusal(inputs)
    assert "s1_T1_axial.nii belongs to subject 's1' of other sections" in text
    assert "x_T1_s1.nii has 's1' in its name" in text


def test_names_made_of_shared_pieces_go_by_all_of_them_if_all_sections_do(tmp_path):
    touch(tmp_path, *(f"{pair[0]}_{name}_{pair[1]}.nii" for pair in ("ab", "ba") for name in ("T1", "T2")))
    inputs = {
        name: InputSection(path_to_search=str(tmp_path), filename_contains=(f"_{name}_",)) for name in ("T1", "T2")
    }
    assert list(files_of(find_subjects(inputs))) == ["ab", "ba"]


def test_files_that_only_punctuation_would_tell_apart_are_joined_with_a_warning(tmp_path, caplog):
    touch(tmp_path, "sub-1-1_T1.nii", "sub-11_T2.nii", "sub-2_T1.nii", "sub-2_T2.nii")
    with caplog.at_level(logging.WARNING):
        assert list(files_of(find_subjects(sections(tmp_path, "T1", "T2")))) == ["sub11", "sub2"]
    assert "1 subject has files whose names differ in punctuation" in caplog.text
    assert "sub-1-1_T1.nii and sub-11_T2.nii of subject sub11" in caplog.text
    caplog.clear()
    apart = sections(tmp_path, "T1", "T2", filename_removefromid="_T[12]")
    assert list(files_of(find_subjects(apart))) == ["sub-1-1", "sub-11", "sub-2"]
    assert "punctuation" not in caplog.text


# ---- what bears the name of a scan and is no file


def test_links_that_lead_nowhere_and_pipes_belong_to_their_subject_like_any_other_file(tmp_path):
    touch(tmp_path, "s1_T1.nii")
    (tmp_path / "s2_T1.nii").symlink_to("../annex/s2_T1.nii")
    (tmp_path / "s3_T1.nii").symlink_to("s3_T1.nii")
    os.mkfifo(tmp_path / "s4_T1.nii")
    assert list(files_of(find_subjects(sections(tmp_path, "T1")))) == ["s1", "s2", "s3", "s4"]


def test_folders_that_are_called_like_scans_are_leftovers_with_a_reason(tmp_path):
    touch(tmp_path, "s1_T1.nii")
    (tmp_path / "s2_T1.nii").mkdir()
    found = discover(sections(tmp_path, "T1"))
    assert list(files_of(found.subjects)) == ["s1"]
    assert [(item.file.name, "is a folder" in item.reason) for item in found.unmatched] == [("s2_T1.nii", True)]


def test_a_list_says_what_is_wrong_with_each_file_that_cannot_be_read(tmp_path):
    touch(tmp_path, "a.nii")
    (tmp_path / "b.nii").symlink_to("nowhere.nii")
    (tmp_path / "c.nii").mkdir()
    os.mkfifo(tmp_path / "d.nii")
    path = tmp_path / "l.csv"
    path.write_text("".join(f"{name},{tmp_path / name}.nii\n" for name in "abcde"))
    with pytest.raises(ConfigError) as caught:
        read_file_list(path)
    text = str(caught.value)
    assert "5 files, of which 4 do not exist" in text
    assert "b.nii (b), which is a link to nowhere.nii, where no file is" in text
    assert "c.nii (c), which is a folder" in text
    assert "d.nii (d), which is no regular file" in text
    assert "e.nii (e);" in text
    assert list(read_file_list(path, must_exist=False)) == list("abcde")


# ---- ids that cannot be names of results


@pytest.mark.parametrize(
    "subject_id",
    ["../../up", "/abs/path", "../model/models/model", "a\\b", "..", "a\nb", "a\0", "=1+1|cmd", "+1", "@x", "-1+1"]
    + ["é" * 91],
)
def test_ids_that_would_leave_the_output_folder_or_be_computed_are_refused_where_they_are_read(tmp_path, subject_id):
    touch(tmp_path, "a.nii")
    path = tmp_path / "l.csv"
    path.write_text(f'1,{tmp_path / "a.nii"}\n"{subject_id}",{tmp_path / "a.nii"}\n')
    with pytest.raises(ConfigError, match="line [23]: the subject id|not a text file"):
        read_file_list(path)
    path.write_text(f'1,x\n"{subject_id}",y\n')
    with pytest.raises(ConfigError, match="line [23]: the subject id|not a text file"):
        read_value_list(path)


@pytest.mark.parametrize("subject_id", ["001", "sub-01", "-01", "_a", "é1", "a b", "a=b", "NA", "1.2", ".a", "é" * 90])
def test_other_ids_are_taken_as_they_are(subject_id):
    assert id_complaint(subject_id) == ""


def test_names_that_give_such_an_id_are_leftovers_with_a_reason(tmp_path):
    touch(tmp_path, "s1_T1.nii", "=1+1|cmd_T1.nii")
    found = discover(sections(tmp_path, "T1", filename_removefromid="_T1"))
    assert list(files_of(found.subjects)) == ["s1"]
    assert "begins like a formula" in found.unmatched[0].reason
