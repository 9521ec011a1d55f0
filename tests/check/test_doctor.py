"""The doctor: machines described in a folder, installations with one thing broken, and the self-test of this one."""

import json
from pathlib import Path

import numpy as np
import pytest

from pimms_tf.check import doctor, machine, self_test
from pimms_tf.check.doctor import Diagnosis, Finding, citation, examine
from pimms_tf.commands.cli import main
from pimms_tf.errors import InputError
from pimms_tf.weights import files


def a_file(root: Path, name: str, text: str) -> None:
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_text(text)


def test_the_tightest_limit_on_processors_counts(tmp_path):
    assert machine.processor_limit({}, tmp_path) is None
    assert machine.processor_limit({"SLURM_CPUS_PER_TASK": "4"}, tmp_path) == (4.0, "SLURM_CPUS_PER_TASK")
    a_file(tmp_path, "proc/self/cgroup", "0::/jobs/one\n")
    a_file(tmp_path, "sys/fs/cgroup/jobs/cpu.max", "150000 100000\n")
    a_file(tmp_path, "sys/fs/cgroup/jobs/one/cpu.max", "max 100000\n")
    assert machine.processor_limit({"SLURM_CPUS_PER_TASK": "4"}, tmp_path) == (1.5, "control group")


def test_the_first_version_of_control_groups_is_read_too(tmp_path):
    a_file(tmp_path, "proc/self/cgroup", "4:cpu,cpuacct:/job\n7:memory:/job\n1:name=systemd:/x\n")
    a_file(tmp_path, "sys/fs/cgroup/cpu/job/cpu.cfs_quota_us", "-1")
    assert machine.processor_limit({}, tmp_path) is None
    a_file(tmp_path, "sys/fs/cgroup/cpu/job/cpu.cfs_quota_us", "200000")
    a_file(tmp_path, "sys/fs/cgroup/cpu/job/cpu.cfs_period_us", "100000")
    a_file(tmp_path, "sys/fs/cgroup/memory/job/memory.limit_in_bytes", "2000000000")
    a_file(tmp_path, "sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712")
    assert machine.processor_limit({}, tmp_path) == (2.0, "control group")
    assert machine.memory_limit_mb({}, tmp_path) == (2000.0, "control group")


def test_free_memory_and_slurm_limit_memory(tmp_path):
    a_file(tmp_path, "proc/meminfo", "MemTotal: 9000000 kB\nMemAvailable: 1000000 kB\n")
    assert machine.memory_limit_mb({"SLURM_MEM_PER_NODE": "4000"}, tmp_path) == (1024.0, "free memory")
    assert machine.memory_limit_mb({"SLURM_MEM_PER_NODE": "500"}, tmp_path).source == "SLURM_MEM_PER_NODE"


def test_the_processor_says_what_it_can(tmp_path):
    a_file(tmp_path, "proc/cpuinfo", "model name : A B\nflags : fpu avx2 fma\n\nmodel name : other\n")
    assert machine.processor_name(tmp_path) == "A B"
    assert machine.processor_features(tmp_path) == ("avx2", "fma")
    assert machine.processor_features(tmp_path / "none") == ()


def findings(tmp_path, environ=None):
    """What is found before TensorFlow, which cannot be loaded here."""

    def broken() -> None:
        raise ImportError("libfoo.so.1:\n cannot open")

    return {each.topic: each for each in examine(broken, environ or {}, tmp_path, tmp_path).findings}


def test_more_threads_than_processors_are_noted_with_the_remedy(tmp_path):
    found = findings(tmp_path, {"SLURM_CPUS_PER_TASK": "1", "TF_NUM_INTRAOP_THREADS": "8"})["threads"]
    assert found.state == "note"
    assert "SLURM_CPUS_PER_TASK allows 1 of" in found.text
    assert "set TF_NUM_INTRAOP_THREADS=1" in found.text
    assert findings(tmp_path, {"SLURM_CPUS_PER_TASK": "9", "TF_NUM_INTRAOP_THREADS": "8"})["threads"].state == "fine"


def test_what_is_broken_is_named_in_one_line_and_by_the_exit_code(tmp_path, monkeypatch):
    found = findings(tmp_path)
    assert found["tensorflow"].text == "it cannot be loaded: ImportError: libfoo.so.1: cannot open"
    assert found["weights"].state == "fine"
    assert Diagnosis(tuple(found.values()), 1.0).exit_code == 1
    assert Diagnosis(tuple(found.values()), 1.0).text().endswith("broken: tensorflow (1 s)")

    def damaged():
        raise InputError("bundled.npz of the installed package is not what was released; install pimms-tf again")

    monkeypatch.setattr(doctor, "bundled_arrays", damaged)
    assert findings(tmp_path)["weights"].state == "broken"
    monkeypatch.setattr(doctor, "installed_version", lambda name: "1.0" if name == "numpy" else "not installed")
    assert findings(tmp_path)["libraries"].state in ("broken", "note")  # a note where only the sources are there


def test_notes_alone_break_nothing():
    noted = Diagnosis((Finding("gpu", "note", "x"),), 2.0)
    assert noted.exit_code == 0
    assert json.loads(noted.json())["is_well"] is True
    assert "all is well" in noted.text()


def test_the_paragraph_for_a_paper_names_versions_weights_and_paper(capsys):
    assert main(["doctor", "--cite"]) == 0
    said = capsys.readouterr().out
    assert said.strip() == citation()
    assert "TensorFlow 2." in said
    assert files.bundled_preparation().modalities == ("T1", "T2", "FLAIR")
    assert "Varsavsky" in said


def test_this_machine_comes_near_the_recorded_answer():
    error, tolerance = self_test.network_error()
    assert 0 < tolerance < 1e-4
    assert error <= tolerance


def test_a_network_that_computes_otherwise_is_found_out(monkeypatch):
    right = self_test.recorded_answer()
    monkeypatch.setattr(self_test, "recorded_answer", lambda: right + np.float32(1e-3))
    error, tolerance = self_test.network_error()
    assert error > tolerance


def test_files_are_tried_where_temporary_files_go(tmp_path, monkeypatch):
    monkeypatch.setattr(self_test.tempfile, "tempdir", str(tmp_path))
    assert self_test.files_keep_every_bit()
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_the_verb_examines_this_machine(capsys):
    assert main(["doctor", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["is_well"] is True
    topics = {each["topic"] for each in told["findings"]}
    assert {"libraries", "threads", "weights", "self-test: network", "self-test: order"} <= topics
