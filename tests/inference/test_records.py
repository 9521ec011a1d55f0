"""A record is worth something as long as it is whole and its result is what it was."""

import pytest

from pimms_tf.inference.records import Record, Records

ROWS = (("s1", "s1_T1.nii.gz", "1.000000", "0.000000", "T1"),)


@pytest.fixture
def records(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "s1.nii.gz").write_bytes(b"voxels")
    return Records.below(tmp_path / "model" / "records", tmp_path / "out")


def test_what_is_written_is_read_again_with_the_hash_of_the_result(records):
    record = Record("s1", "run", "content", "s1.nii.gz", scores=ROWS)
    records.write(record)
    found = records.read("s1")
    assert (found.run, found.content, found.result, found.scores) == ("run", "content", "s1.nii.gz", ROWS)
    assert len(found.digest) == 32
    bare = Record("s2", "run", "content")
    records.write(bare)
    assert records.read("s2") == bare


def test_a_changed_or_missing_result_makes_a_record_worthless(records):
    result = records.results / "s1.nii.gz"
    for spoil in (lambda: result.write_bytes(b"others"), result.unlink):
        records.write(Record("s1", "run", "content", "s1.nii.gz"))
        spoil()
        assert records.read("s1") is None


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "3", '{"subject_id": "s1"}', '{"scores": 3}', '{"scores": [], "x": 1}']
)
def test_what_is_no_record_is_none(records, text):
    records.write(Record("s1", "run", "content"))
    assert records.read("s1") is not None
    records.path("s1").write_text(text)
    assert records.read("s1") is None


def test_a_record_of_somebody_else_is_none(records):
    records.write(Record("s1", "run", "content"))
    records.path("s1").rename(records.path("s2"))
    assert records.read("s2") is None


def test_forgotten_records_are_gone_and_may_be_forgotten_again(records):
    records.write(Record("s1", "run", "content"))
    for _ in range(2):
        records.forget("s1")
        assert records.read("s1") is None


def test_folders_of_one_name_have_records_of_their_own(tmp_path):
    folders = {Records.below(tmp_path, tmp_path / parent / "out").folder for parent in "ab"}
    assert len(folders) == 2
    assert all(folder.name.startswith("out-") for folder in folders)
    assert Records.below(tmp_path, tmp_path / "a" / ".." / "a" / "out").folder in folders
