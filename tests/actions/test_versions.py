"""A folder that cannot take an export is told before anything is loaded."""

import subprocess
import sys

import pytest

from pimms_tf.actions.versions import check_output
from pimms_tf.commands.cli import main
from pimms_tf.errors import InputError


def test_a_new_folder_and_one_of_versions_take_an_export(tmp_path):
    check_output(tmp_path / "new" / "one")
    check_output(tmp_path)
    for name in ("1", "notes", ".lock"):
        (tmp_path / name).mkdir()
    check_output(tmp_path)
    check_output(tmp_path, 2)


def test_a_file_is_no_place_for_versions(tmp_path, capsys):
    file = tmp_path / "file"
    file.write_text("x")
    for path in (file, file / "below"):
        assert main(["export", "--weights", "bundled", "--output", str(path)]) == 2
        assert f"{file} is no folder; give the folder that is to hold" in capsys.readouterr().err


def test_versions_do_not_go_among_other_things(tmp_path):
    for name in ("a", "b", "c", "d"):
        (tmp_path / name).touch()
    with pytest.raises(InputError, match=r"holds a, b, c … and no exported version.* such as .*/export"):
        check_output(tmp_path)


def test_a_version_that_is_there_is_told_with_the_next_number(tmp_path):
    for name in ("2", "10"):
        (tmp_path / name).mkdir()
    with pytest.raises(InputError, match="version 2 is already in .*; give version 11"):
        check_output(tmp_path, 2)


def test_nothing_is_loaded_before(tmp_path):
    program = (
        "import sys\nfrom pimms_tf.commands.cli import main\n"
        f"assert main(['export', '--weights', 'bundled', '--output', {str(tmp_path / 'x')!r}]) == 2\n"
        "assert 'tensorflow' not in sys.modules"
    )
    (tmp_path / "x").touch()
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_two_words_for_which_network_are_one_too_many(tmp_path, capsys):
    argv = ["export", "--weights", "bundled", "--model", str(tmp_path), "--output", str(tmp_path / "new")]
    assert main(argv) == 2
    assert "give one of them" in capsys.readouterr().err
