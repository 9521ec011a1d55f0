"""Writing files completely or not at all."""

import errno

import pytest

from pimms_tf.files import replacing


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


def test_a_folder_replaces_a_folder_with_everything_in_it(tmp_path):
    path = tmp_path / "model"
    for text in ("first", "second"):
        with replacing(path) as temporary:
            (temporary / "variables").mkdir(parents=True)
            (temporary / "variables" / "data").write_text(text)
            (temporary / f"only_{text}").write_text("")
    assert sorted(item.name for item in path.iterdir()) == ["only_second", "variables"]
    assert (path / "variables" / "data").read_text() == "second"
    assert [item.name for item in tmp_path.iterdir()] == ["model"]


def test_a_file_replaces_a_file_whatever_links_to_it(tmp_path):
    path, link = tmp_path / "a.txt", tmp_path / "link.txt"
    path.write_text("before")
    link.hardlink_to(path)
    with replacing(path) as temporary:
        temporary.write_text("after")
    assert path.read_text() == "after"
    assert link.read_text() == "before"


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
