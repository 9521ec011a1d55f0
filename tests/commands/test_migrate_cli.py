"""`pimms-tf migrate`, `config show` and `config explain` as a user types them."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from niftynet_compat import load_config
from pimms_tf.commands.cli import main

ROOT = Path(__file__).parents[2]
CLEAN = """[T1]
path_to_search = ./nowhere
spatial_window_size = (16, 16, 1)
[SYSTEM]
model_dir = m
[NETWORK]
name = pimms_online
whitening = True
window_sampling = resize
[PIMMS]
preset = niftynet2018
[TRAINING]
[INFERENCE]
[SEGMENTATION]
image = T1
label = T1
num_classes = 2
"""
CHANGED = CLEAN.replace("[TRAINING]", "[TRAINING]\nvars_to_restore = x")
BROKEN = CLEAN.replace("pimms_online", "unet")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("niftynet_config_home", str(tmp_path / "none"))
    (tmp_path / "sub").mkdir()
    (tmp_path / "clean.ini").write_text(CLEAN)
    (tmp_path / "sub" / "changed.ini").write_text(CHANGED)
    (tmp_path / "sub" / "broken.ini").write_text(BROKEN)
    return tmp_path


@pytest.mark.parametrize(
    ("paths", "code"),
    [(["clean.ini"], 0), (["clean.ini", "sub/changed.ini"], 1), (["."], 2), (["sub/broken.ini"], 2), (["no.ini"], 2)],
)
def test_the_exit_code_is_that_of_the_worst_file(folder, paths, code):
    assert main(["migrate", *paths]) == code


def test_the_gravest_stands_first_and_a_summary_last(folder, capsys):
    main(["migrate", "sub/changed.ini"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].endswith("sub/changed.ini: results change")
    titles = [line.strip() for line in lines if line.startswith("  ") and not line.startswith("   ")]
    assert titles.index("changes results") < titles.index("honoured with a difference") < titles.index("honoured")
    assert any("[TRAINING] vars_to_freeze — unset, it freezes nothing" in line for line in lines)
    assert "1 file: 1 results change" in lines


def test_folders_are_searched_below_and_brief_counts_honoured_keys(folder, capsys):
    main(["migrate", ".", "--brief"])
    out = capsys.readouterr().out
    assert "3 files: 1 clean, 1 results change, 1 cannot run" in out
    assert "as in NiftyNet:" not in out


def test_equal_keys_of_several_sections_share_a_line(folder, capsys):
    (folder / "two.ini").write_text(CLEAN.replace("[SYSTEM]", "[T2]\npath_to_search = ./nowhere\n[SYSTEM]"))
    main(["migrate", "two.ini"])
    assert "lines 2, 5: [T1] [T2] path_to_search = ./nowhere" in capsys.readouterr().out


def test_json_has_every_key_of_every_file(folder, capsys):
    assert main(["migrate", "sub", "--json"]) == 2
    report = json.loads(capsys.readouterr().out)
    assert report["exit_code"] == 2
    assert [Path(row["path"]).name for row in report["files"]] == ["broken.ini", "changed.ini"]
    assert report["files"][0]["keys"][0] == {
        "section": "T1",
        "key": "path_to_search",
        "line": 2,
        "text": "./nowhere",
        "verdict": "honoured with a difference",
        "sentence": "hidden files are passed over, and a missing folder of a section in use is an error at once",
        "changes_results": False,
        "stops": False,
        "verbs": ["train", "inference", "evaluation"],
    }
    assert report["files"][1]["actions"][0] == {
        "verb": "train",
        "outcome": "results change",
        "reasons": [],
        "is_meant": True,
    }


def test_files_of_one_name_do_not_replace_each_other(folder, capsys):
    (folder / "other").mkdir()
    (folder / "other" / "clean.ini").write_text(CLEAN.replace("name = pimms_online", "name = hemis"))
    assert main(["migrate", "clean.ini", "other/clean.ini", "--write", "out"]) == 2
    out = capsys.readouterr().out
    target = folder / "out" / "clean.ini"
    assert f"not written: {target} was just written from {folder / 'clean.ini'}" in out
    assert load_config(target).network.name == "pimms_online"
    assert main(["migrate", "other/clean.ini", "--write", "out"]) == 0


def test_a_file_that_could_not_be_written_is_no_success(folder, capsys):
    (folder / "out").mkdir()
    (folder / "out" / "clean.ini").write_text("mine")
    assert main(["migrate", "clean.ini", "--write", "out", "--json"]) == 2
    report = json.loads(capsys.readouterr().out)
    assert report["exit_code"] == 2
    assert report["files"][0]["exit_code"] == 0
    assert (folder / "out" / "clean.ini").read_text() == "mine"


def test_write_goes_beside_the_original_or_into_a_folder_that_mirrors_the_search(folder, capsys):
    main(["migrate", "clean.ini", "--write"])
    assert "written to" in capsys.readouterr().out
    assert load_config(folder / "clean_migrated.ini").remarks == ()
    main(["migrate", ".", "--write", "out"])
    out = capsys.readouterr().out
    assert "not written: " in out
    assert sorted(path.relative_to(folder / "out") for path in (folder / "out").rglob("*.ini")) == [
        Path("clean.ini"),
        Path("sub/changed.ini"),
    ]
    assert (folder / "clean.ini").read_text() == CLEAN


def test_files_of_other_programs_in_a_folder_are_passed_over_and_one_that_is_named_is_not(folder, capsys):
    (folder / "sub" / "broken.ini").unlink()
    (folder / "tox.ini").write_text("[tox]\nenvlist = py3\n[testenv]\ncommands = pytest\n")
    (folder / "pytest.ini").write_text("[pytest]\naddopts = -q\n")
    (folder / "main.ini").write_text("[config]\nversion = 1.0\n[weights]\nurl = x\naction = expand\n")
    (folder / "image.ini").write_bytes(b"\x93\xff\x00")
    assert main(["migrate", "."]) == 1
    out = capsys.readouterr().out
    for name in ("tox", "pytest", "main", "image"):
        assert f"{name}.ini: passed over, since it has no section of NiftyNet\n" in out
    assert "2 files: 1 clean, 1 results change" in out
    assert main(["migrate", "tox.ini"]) == 2
    assert "requires the section [SEGMENTATION]" in capsys.readouterr().out


def test_a_folder_of_written_files_is_reported_on_and_one_beside_its_original_is_not(folder, capsys):
    main(["migrate", "sub/changed.ini", "clean.ini", "--write", "out"])
    capsys.readouterr()
    assert main(["migrate", "out", "--json"]) == 1
    report = json.loads(capsys.readouterr().out)
    assert [Path(row["path"]).name for row in report["files"]] == ["changed.ini", "clean.ini"]
    assert [row["outcome"] for row in report["files"]] == ["results change", "clean"]
    assert main(["migrate", "clean.ini", "--write"]) == 0
    capsys.readouterr()
    assert main(["migrate", ".", "--json"]) == 2
    others = json.loads(capsys.readouterr().out)["passed_over"]
    assert [Path(row["path"]).name for row in others] == ["clean_migrated.ini", "changed.ini", "clean.ini"]
    assert others[0]["why"] == "since migrate wrote it from clean.ini"


def test_where_nothing_is_found_json_says_so(folder, capsys):
    (folder / "empty").mkdir()
    assert main(["migrate", "empty", "--json"]) == 2
    assert json.loads(capsys.readouterr().out) == {"exit_code": 2, "files": [], "passed_over": []}
    (folder / "empty" / "tox.ini").write_text("[tox]\n")
    assert main(["migrate", "empty"]) == 2
    assert "1 .ini files there, none of NiftyNet; empty/tox.ini is passed over" in capsys.readouterr().err


def test_an_edit_outlives_the_next_write_and_is_said(folder, capsys):
    main(["migrate", "clean.ini", "--write"])
    target = folder / "clean_migrated.ini"
    target.write_text(target.read_text().replace("num_classes = 2", "num_classes = 3"))
    capsys.readouterr()
    assert main(["migrate", "clean.ini", "--write"]) == 2
    assert "not written: " in capsys.readouterr().out
    assert load_config(target).task.num_classes == 3


def test_the_first_line_the_line_of_each_action_and_the_exit_code_agree(folder, capsys):
    text = CLEAN.replace("[TRAINING]", "[TRAINING]\nloss_type = DicePlusXEntTopK")
    (folder / "x.ini").write_text(text)
    assert main(["migrate", "x.ini"]) == 2
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].endswith("x.ini: cannot run")
    assert any(line.startswith("  pimms-tf train       cannot run: [TRAINING] loss_type: ") for line in lines)
    assert "  pimms-tf inference   clean" in lines
    (evaluation,) = [line for line in lines if line.startswith("  pimms-tf evaluation  cannot run: requires")]
    assert evaluation.endswith(" (the file has no settings for it)")
    assert "1 file: 1 cannot run" in lines


def test_a_folder_without_files_and_a_file_after_write_are_mistakes(folder, capsys):
    (folder / "empty").mkdir()
    assert main(["migrate", "empty"]) == 2
    assert "no .ini file there" in capsys.readouterr().err
    assert main(["migrate", "clean.ini", "--write", "clean.ini"]) == 2
    assert "takes a folder" in capsys.readouterr().err


def test_an_application_of_the_fork_is_understood(folder):
    assert main(["migrate", "clean.ini", "-a", "niftynet.contrib.hemis.hemis_app.BRATSApp"]) == 0
    assert main(["migrate", "clean.ini", "-a", "net_gan"]) == 2


def test_show_prints_every_value_with_its_origin(folder, capsys):
    assert main(["config", "show", "clean.ini", "--lr", "0.5"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["lr", "=", "0.5", "--lr"] in lines
    assert ["model_dir", "=", "m", "clean.ini:5"] in lines
    assert ["batch_size", "=", "2", "default"] in lines


def test_show_needs_a_file_and_refuses_wrong_keys(folder, capsys):
    assert main(["config", "show"]) == 2
    assert main(["config", "show", "clean.ini", "--lerning_rate", "1"]) == 2
    assert "lr" in capsys.readouterr().err


def test_explain_prints_a_key_or_the_nearest_one(folder, capsys):
    assert main(["config", "explain", "window_sampling"]) == 0
    out = capsys.readouterr().out
    assert "[NETWORK] window_sampling: where windows are cut" in out
    assert "patch: unsupported" in out
    assert main(["config", "explain", "windowsampling"]) == 2
    assert "did you mean window_sampling?" in capsys.readouterr().err
    assert main(["config", "explain"]) == 2


def test_explain_markdown_is_the_documentation(capsys):
    assert main(["config", "explain", "--markdown"]) == 0
    assert capsys.readouterr().out == (ROOT / "docs" / "keys.md").read_text(encoding="utf-8")


def test_the_help_of_train_lists_the_keys_by_section(capsys):
    with pytest.raises(SystemExit):
        main(["train", "--help"])
    out = capsys.readouterr().out
    assert out.index("keys of [SYSTEM]") < out.index("keys of [TRAINING]") < out.index("--lr 0.01")


def test_nothing_heavy_is_imported_for_a_report(folder):
    program = (
        "import sys; from pimms_tf.commands.cli import main; main(['migrate', 'clean.ini']);"
        "sys.exit(bool({'tensorflow', 'keras', 'nibabel', 'scipy'} & set(sys.modules)))"
    )
    environment = {"PYTHONPATH": str(ROOT), "PATH": ""}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_reader_that_stops_early_is_no_fault(folder):
    command = f"{sys.executable} -m pimms_tf config explain --markdown | head -1"
    environment = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(command, shell=True, env=environment, capture_output=True, check=False)
    assert done.stderr == b""
