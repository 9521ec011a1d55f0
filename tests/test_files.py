"""Writing files completely or not at all."""

import errno
import os
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from pimms_tf import files
from pimms_tf.files import csv_text, disk_complaint, is_formula, replacing, sweep, tsv_text, write_text


def test_a_file_takes_its_place_when_the_block_ends_and_leaves_nothing_else(tmp_path):
    path = tmp_path / "new" / "folder" / "a.nii.gz"
    with replacing(path) as temporary:
        assert temporary.name == path.name  # image writers choose the format by the suffix
        temporary.write_text("whole")
        assert not path.exists()
    assert path.read_text() == "whole"
    assert [item.name for item in path.parent.iterdir()] == ["a.nii.gz"]


def test_an_exception_leaves_what_was_there_before(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("before")
    with pytest.raises(UnicodeEncodeError), replacing(path) as temporary:
        temporary.write_text("half\ud800", encoding="utf-8")
    assert path.read_text() == "before"
    assert [item.name for item in tmp_path.iterdir()] == ["a.txt"]


def test_a_block_that_writes_nothing_is_a_fault_and_leaves_what_was_there(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("before")
    with pytest.raises(FileNotFoundError), replacing(path):
        pass
    assert path.read_text() == "before"


def test_a_folder_appears_with_everything_in_it_and_replaces_none(tmp_path):
    path = tmp_path / "model"
    for text in ("first", "second"):
        with suppress(OSError), replacing(path) as temporary:
            (temporary / "variables").mkdir(parents=True)
            (temporary / "variables" / "data").write_text(text)
    # A folder cannot take the place of another in one moment.
    assert (path / "variables" / "data").read_text() == "first"
    assert [item.name for item in tmp_path.iterdir()] == ["model"]


def test_a_file_replaces_a_file_whatever_links_to_it(tmp_path):
    path, link = tmp_path / "a.txt", tmp_path / "link.txt"
    path.write_text("before")
    link.hardlink_to(path)
    with replacing(path) as temporary:
        temporary.write_text("after")
    assert path.read_text() == "after"
    assert link.read_text() == "before"


def test_a_folder_in_the_place_of_a_file_is_named_and_left(tmp_path):
    (tmp_path / "a.txt").mkdir()
    with pytest.raises(IsADirectoryError) as caught:
        write_text(tmp_path / "a.txt", "new")
    assert caught.value.filename == str(tmp_path / "a.txt")
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


def test_a_place_that_cannot_be_written_is_an_error_of_the_system(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(FileExistsError), replacing(tmp_path / "file" / "a.txt"):
        pytest.fail("the block must not run")


@pytest.mark.parametrize(("error", "named"), [(OSError(errno.ENOSPC, "full"), True), (OSError("something"), False)])
def test_a_full_disk_is_named_by_what_did_not_fit(tmp_path, error, named):
    path = tmp_path / "a.txt"
    with pytest.raises(OSError, match="full|something") as complaint, replacing(path):
        raise error
    assert complaint.value.filename == (str(path) if named else None)
    assert not list(tmp_path.iterdir())


def test_a_full_disk_leaves_what_was_there_before_and_says_so(small_disk):
    path = small_disk("100k") / "a.txt"
    write_text(path, "before")
    with pytest.raises(OSError, match="No space left") as complaint:
        write_text(path, "x" * 200_000)
    assert complaint.value.filename == str(path)
    assert disk_complaint(complaint.value) == "No space left on device"
    assert path.read_text() == "before"
    assert [item.name for item in path.parent.iterdir()] == ["a.txt"]


def test_a_complaint_of_the_disk_is_found_within_other_words():
    assert disk_complaint(ValueError("in node X: /a/b; No space left on device [Op:SaveV2]")) == os.strerror(28)
    assert disk_complaint(ValueError("shapes do not fit")) == ""


WRITER = """
import sys, time
from pimms_tf.files import replacing
with replacing(sys.argv[1]) as temporary:
    temporary.write_text("half")
    print("writing", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def writer(tmp_path):
    """A process that is at writing tmp_path / "a.txt"."""
    path, environment = tmp_path / "a.txt", os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    with subprocess.Popen([sys.executable, "-c", WRITER, path], stdout=subprocess.PIPE, env=environment) as process:
        assert process.stdout.readline() == b"writing\n"
        yield process
        process.kill()


def test_what_a_killed_writer_left_is_swept_and_what_a_living_one_writes_is_not(tmp_path, writer):
    for name in (".git", ".a.txt.abcdefgh_no", "b.txt.abcdefgh"):
        (tmp_path / name).mkdir()
    others = tmp_path / ".b.txt.abcdefgh"
    others.mkdir()
    (others / "something else").touch()
    kept = {".git", ".a.txt.abcdefgh_no", "b.txt.abcdefgh", ".b.txt.abcdefgh"}
    (scratch,) = tmp_path.glob(".a.txt.????????")
    sweep(tmp_path)
    assert (scratch / "a.txt").read_text() == "half"
    writer.kill()
    writer.wait()
    sweep(tmp_path)
    assert {item.name for item in tmp_path.iterdir()} == kept


@pytest.mark.parametrize("mark", [None, "", "another kernel"])
def test_what_no_lock_speaks_for_is_swept_after_an_hour(tmp_path, monkeypatch, mark):
    scratch = tmp_path / ".a.txt.x7_k2abc"
    scratch.mkdir()
    (scratch / "a.txt").write_text("half")
    if mark is not None:
        (scratch / ".writer").write_text(mark)
    sweep(tmp_path)
    assert scratch.exists()
    now = time.time()
    monkeypatch.setattr(files.time, "time", lambda: now + 4000)
    sweep(tmp_path)
    assert not scratch.exists()


def test_a_folder_that_is_not_there_needs_no_sweeping(tmp_path):
    sweep(tmp_path / "nowhere")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("text", ["=1+1|cmd", "+1", "@sum", "-1+1|cmd", "-(1)", "\t=1"])
def test_cells_that_a_spreadsheet_would_compute_are_marked_as_text(text):
    assert is_formula(text)
    assert csv_text([["a", text]]) == f"a,'{text}\n"


@pytest.mark.parametrize("text", ["", "sub-01", "-01", "-1.5", "-1e-05", "_a", "1+1", "é", "a=b", "-T1.nii.gz"])
def test_numbers_and_names_stand_in_tables_as_they_are(text):
    assert not is_formula(text)
    assert csv_text([["a", text]]) == f"a,{text}\n"


def test_tables_between_tabs_keep_rows_and_columns_whatever_the_cells_hold():
    assert tsv_text([["a\tb", "c\r\nd"], ["=1+1", "-3.5"]]) == "a b\tc d\n'=1+1\t-3.5\n"
