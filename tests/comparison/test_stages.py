"""Stages: each once, in order, going on after a stop, a mistake in one sentence."""

import json

import pytest

from pimms_tf.commands.cli import main
from pimms_tf.comparison import Plan, Stage, run_stages
from pimms_tf.errors import InputError


def plan(*stages: Stage, seed: int = 0) -> Plan:
    return Plan("tiny", seed, {"a.ini": "[SYSTEM]\n"}, stages, {"mixed": ("hemis",)})


VERSION = Stage("first", ("--version",))
WRONG = Stage("second", ("trian", "a.ini"))


def test_a_stage_that_is_done_is_not_run_again(tmp_path):
    said = []
    run_stages(plan(VERSION), tmp_path / "x", said.append, "one small machine")
    assert said == ["1 of 1: pimms-tf --version"]
    record = json.loads((tmp_path / "x/done/first.json").read_text())
    assert (record["command"], record["machine"]) == (["pimms-tf", "--version"], "one small machine")
    assert record["processor_seconds"] > 0
    assert "pimms-tf" in (tmp_path / "x/logs/first.log").read_text()
    run_stages(plan(VERSION), tmp_path / "x", said.append)
    assert said[1].startswith("1 of 1: pimms-tf --version (done, ")


def test_a_command_that_fails_is_named_with_its_last_line_and_its_log(tmp_path):
    with pytest.raises(InputError, match=r"trian a.ini ended with code 2 .*did you mean train\?.*second.log"):
        run_stages(plan(VERSION, WRONG), tmp_path / "x", lambda line: None)
    assert (tmp_path / "x/done/first.json").is_file()
    assert not (tmp_path / "x/done/second.json").exists()


def test_files_that_were_changed_by_hand_stay(tmp_path):
    run_stages(plan(), tmp_path / "x", lambda line: None)
    (tmp_path / "x/a.ini").write_text("mine")
    run_stages(plan(), tmp_path / "x", lambda line: None)
    assert (tmp_path / "x/a.ini").read_text() == "mine"


def test_another_comparison_and_other_files_are_not_written_over(tmp_path):
    run_stages(plan(), tmp_path / "x", lambda line: None)
    with pytest.raises(InputError, match=r"holds another comparison \(seed 0\)"):
        run_stages(plan(seed=1), tmp_path / "x", lambda line: None)
    (tmp_path / "y").mkdir()
    (tmp_path / "y/file").touch()
    with pytest.raises(InputError, match="exists and is no comparison"):
        run_stages(plan(), tmp_path / "y", lambda line: None)


@pytest.mark.slow
def test_the_smallest_scale_runs_from_simulation_to_report(tmp_path):
    """An hour's work of the paper's in minutes: what it shows is that every command finds what it needs."""
    assert main(["study", str(tmp_path / "x"), "--scale", "tiny"]) == 0
    assert "## What the paper found" in (tmp_path / "x/report.md").read_text()
