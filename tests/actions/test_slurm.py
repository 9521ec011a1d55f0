"""The batch scripts on a Slurm that answers here, be it of one machine; their program only says what it is told."""

import shutil
import subprocess
import time

import pytest

from pimms_tf.actions.sharding import write_batch_scripts

# Shard 2 breaks at its first try; the merge wants a result of every shard. Others wait as long as there is a file.
PROGRAM = """#!/bin/bash
echo "called with $*, ${SLURM_CPUS_PER_TASK:-no} processors"
while [ -e wait ]; do sleep 0.2; done
case "$*" in
    *--merge*) [ -e done.1 ] && [ -e done.2 ] && [ -e done.3 ] && touch lists ;;
    *2/3*) if [ -e broken ]; then touch done.2; else touch broken; exit 2; fi ;;
    *) number=${*: -2:1}; touch "done.${number%/*}" ;;
esac
"""


def run(*words, check=True):
    return subprocess.run(words, capture_output=True, text=True, check=check, timeout=60).stdout.strip()


def answers():
    return shutil.which("sbatch") is not None and run("sinfo", "--noheader", "--states=idle", check=False) != ""


pytestmark = [pytest.mark.slow, pytest.mark.skipif(not answers(), reason="no Slurm with an idle node answers here")]


@pytest.fixture
def scripts(tmp_path):
    program = tmp_path / "program"
    program.write_text(PROGRAM)
    program.chmod(0o755)
    return write_batch_scripts(tmp_path / "run.sbatch", [str(program), "inference", "x.ini"], tmp_path, 3, at_once=2)


def submit(folder, *words):
    return run("sbatch", "--parsable", f"--chdir={folder}", *map(str, words))


def state(job):
    return dict(word.split("=", 1) for word in run("scontrol", "--oneliner", "show", "job", job).split() if "=" in word)


def await_state(job, *wanted):
    for _ in range(600):
        if state(job)["JobState"] in wanted:
            return
        time.sleep(0.2)
    raise TimeoutError(f"job {job} is {state(job)['JobState']}")


def logs(folder, pattern):
    return "".join(path.read_text() for path in sorted(folder.glob(pattern)))


def test_the_merge_runs_behind_a_failed_shard_and_succeeds_behind_the_one_sent_again(scripts, tmp_path):
    run_script, merge_script = scripts
    job = submit(tmp_path, run_script)
    merge = submit(tmp_path, f"--dependency=afterany:{job}", merge_script)
    await_state(merge, "FAILED")  # neither waits for ever nor succeeds
    assert not (tmp_path / "lists").exists()
    assert state(merge)["JobName"] == "pimms-tf-merge"
    said = logs(tmp_path, f"pimms-tf-{job}_*.log")
    for number in (1, 2, 3):
        assert f"--shard {number}/3 --resume, 4 processors" in said
    again = submit(tmp_path, "--array=2", run_script)
    merge = submit(tmp_path, f"--dependency=afterany:{again}", merge_script)
    await_state(merge, "COMPLETED")
    assert (tmp_path / "lists").exists()


def test_a_requeued_shard_goes_on_in_its_log(scripts, tmp_path):
    (tmp_path / "wait").touch()
    job = submit(tmp_path, "--array=1", scripts[0])
    await_state(f"{job}_1", "RUNNING")
    while "called" not in logs(tmp_path, f"pimms-tf-{job}_1.log"):
        time.sleep(0.2)
    run("scontrol", "requeue", f"{job}_1")
    await_state(f"{job}_1", "PENDING")
    (tmp_path / "wait").unlink()
    run("scontrol", "update", f"JobId={job}_1", "StartTime=now")
    await_state(f"{job}_1", "COMPLETED")
    assert logs(tmp_path, f"pimms-tf-{job}_1.log").count("called with") == 2
