"""Writing text without ever leaving half a file, and how light the package is."""

import os
import subprocess
import sys

import pytest

import niftynet_compat
from pimms_tf.files import write_text


def test_text_is_written_as_given_below_folders_that_are_made(tmp_path):
    path = write_text(tmp_path / "a" / "b.txt", "é\r\nx\n")
    assert path.read_bytes() == "é\r\nx\n".encode()
    assert os.listdir(path.parent) == ["b.txt"]


def test_a_file_is_replaced_as_a_whole_and_keeps_its_permissions(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old, and longer")
    path.chmod(0o640)
    write_text(path, "new")
    assert path.read_text() == "new"
    assert path.stat().st_mode & 0o777 == 0o640


def test_a_new_file_can_be_read_by_whoever_the_system_allows(tmp_path):
    plain = tmp_path / "plain"
    plain.write_text("")
    assert write_text(tmp_path / "a", "").stat().st_mode == plain.stat().st_mode


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "a.txt"
    path.write_text("old")

    def fail(*args):
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        write_text(path, "new")
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_importing_the_package_loads_nothing_heavy_and_of_the_other_package_only_what_both_share():
    code = "import sys, niftynet_compat; print(*sys.modules)"
    environment = os.environ | {"PYTHONPATH": os.path.dirname(os.path.dirname(niftynet_compat.__file__))}
    loaded = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    modules = set(loaded.stdout.split())
    assert not {"tensorflow", "keras", "scipy", "nibabel"} & modules
    shared = {"pimms_tf", "pimms_tf.errors", "pimms_tf.files", "pimms_tf.wording"}
    assert {name for name in modules if name.partition(".")[0] == "pimms_tf"} <= shared


def test_the_public_names_are_listed_and_there():
    assert sorted(niftynet_compat.__all__) == sorted(set(niftynet_compat.__all__))
    assert all(hasattr(niftynet_compat, name) for name in niftynet_compat.__all__)
