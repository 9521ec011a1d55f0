"""Parts of a cohort: disjoint, complete, of one size, the same for all; and the script that starts them."""

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from pimms_tf.actions.sharding import (
    Shard,
    batch_script,
    environment_command,
    read_shard,
    remarks_on_count,
    shards_of,
    write_batch_scripts,
)
from pimms_tf.errors import InputError


@dataclass(frozen=True)
class Files:
    subject_id: str


COHORT = [Files(f"sub{number}") for number in np.random.default_rng(0).permutation(21)]


@pytest.mark.parametrize("count", [1, 3, 8, 21, 30])
def test_every_subject_is_in_one_shard_and_shards_are_equal_to_one(count):
    parts = [Shard(number, count).part_of(COHORT) for number in range(1, count + 1)]
    assert sorted(sum(parts, []), key=COHORT.index) == COHORT
    sizes = [len(part) for part in parts]
    assert max(sizes) - min(sizes) <= 1


def test_whose_turn_it_is_does_not_depend_on_the_order_of_discovery_but_the_order_is_kept():
    shard = Shard(2, 3)
    there, back = shard.part_of(COHORT), shard.part_of(COHORT[::-1])
    assert there == back[::-1]
    assert shards_of(["c", "a", "b"], 2) == {"a": Shard(1, 2), "b": Shard(2, 2), "c": Shard(1, 2)}
    assert shard.suffix == ".shard-2-of-3"


@pytest.mark.parametrize(("text", "shard"), [("1/1", (1, 1)), ("2/8", (2, 8)), (" 12/12 ", (12, 12))])
def test_shards_are_written_as_number_and_count(text, shard):
    assert read_shard(text, {}) == shard


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("3", "--shard 3 is not of the form i/n, such as 2/8, nor slurm"),
        ("a/b", "not of the form"),
        ("-1/3", "not of the form"),
        ("0/3", "numbered from 1 to 3"),
        ("4/3", "numbered from 1 to 3"),
        ("0/0", "numbered from 1 to 1"),
    ],
)
def test_what_is_no_shard_is_refused(text, says):
    with pytest.raises(InputError, match=says):
        read_shard(text, {})


def task(number, first, last, count):
    names = ("ID", "MIN", "MAX", "COUNT")
    return {f"SLURM_ARRAY_TASK_{name}": str(n) for name, n in zip(names, (number, first, last, count), strict=True)}


def test_a_task_of_a_slurm_array_knows_its_shard():
    assert read_shard("slurm", task(3, 1, 8, 8)) == (3, 8)
    assert read_shard("SLURM", task(0, 0, 4, 5)) == (1, 5)


def test_a_task_that_cannot_know_its_shard_says_so():
    with pytest.raises(InputError, match="SLURM_ARRAY_TASK_ID is not set"):
        read_shard("slurm", {})
    with pytest.raises(InputError, match="2 tasks from 3 to 5; give --shard i/n"):
        read_shard("slurm", task(5, 3, 5, 2))


def run_script(path, tmp_path, *words, **environment):
    """Runs a batch script with programs that only say how they were called, each word in brackets."""
    programs = tmp_path / "bin"
    programs.mkdir(exist_ok=True)
    for name in ("srun", "pimms-tf"):
        program = programs / name
        program.write_text(f'#!/bin/bash\necho "$PWD: {name}" "${{@/#/<}}"\n')
        program.chmod(0o755)
    given = {"PATH": f"{programs}{os.pathsep}{os.environ['PATH']}", **environment}
    return subprocess.run(["bash", str(path), *words], env=given, capture_output=True, text=True, check=False)


def test_the_batch_scripts_run_one_shard_per_task_and_then_the_merge(tmp_path):
    folder = tmp_path / "a folder"
    folder.mkdir()
    command = ["pimms-tf", "inference", "my x.ini", "--save_seg_dir", "out"]
    path, merge = write_batch_scripts(tmp_path / "run.sbatch", command, folder, 8, at_once=3)
    assert merge == tmp_path / "run.merge.sbatch"
    for script in (path, merge):
        assert subprocess.run(["bash", "-n", str(script)], check=False).returncode == 0
        assert "#SBATCH --open-mode=append\n" in script.read_text(encoding="utf-8")
    assert "#SBATCH --array=1-8%3\n" in path.read_text(encoding="utf-8")
    assert "--array" not in merge.read_text(encoding="utf-8")
    done = run_script(path, tmp_path, SLURM_ARRAY_TASK_ID="3")
    call = "<inference <my x.ini <--save_seg_dir <out"
    assert done.stdout == f"{folder}: srun <pimms-tf {call} <--shard <3/8 <--resume\n"
    done = run_script(merge, tmp_path)
    assert done.stdout == f"{folder}: pimms-tf {call} <--merge <8\n"


def test_a_batch_script_outside_an_array_fails_instead_of_running_something_else(tmp_path):
    path = tmp_path / "run.sbatch"
    path.write_text(batch_script(["pimms-tf", "inference", "x.ini"], tmp_path, 2), encoding="utf-8")
    done = run_script(path, tmp_path)
    assert done.returncode != 0
    assert "SLURM_ARRAY_TASK_ID" in done.stderr
    assert done.stdout == ""


def test_a_script_finds_the_environment_that_wrote_it():
    program = environment_command()
    assert Path(program[0]).is_absolute()
    done = subprocess.run([*program, "--version"], capture_output=True, text=True, check=True, env={})
    assert done.stdout.strip()


@pytest.mark.parametrize("name", ["run.sbatch", "run.merge.sbatch"])
def test_scripts_that_are_there_are_left_alone(tmp_path, name):
    (tmp_path / name).write_text("edited")
    with pytest.raises(InputError, match=f"{name} is there already and may have been edited"):
        write_batch_scripts(tmp_path / "run.sbatch", ["pimms-tf"], tmp_path, 2)
    assert (tmp_path / name).read_text() == "edited"
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize(("options", "sentence"), [((0,), "--shards 0"), ((2, -1), "--at-once -1")])
def test_numbers_of_shards_out_of_range_are_refused(tmp_path, options, sentence):
    with pytest.raises(InputError, match=sentence):
        write_batch_scripts(tmp_path / "run.sbatch", ["pimms-tf"], tmp_path, *options)


def test_more_shards_than_subjects_or_than_a_queue_takes_are_remarked_on():
    assert remarks_on_count(8, 8) == remarks_on_count(8, None) == remarks_on_count(1000, 5000) == []
    assert remarks_on_count(8, 5) == ["there are 5 subjects, so that 3 of the 8 shards are idle"]
    (remark,) = remarks_on_count(2000, 100_000)
    assert "MaxArraySize above 2000" in remark
