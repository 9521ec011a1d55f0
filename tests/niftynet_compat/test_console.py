"""The form of log lines, against logs that NiftyNet left, and the file that a run's lines go to."""

import logging
import re
from pathlib import Path

import pytest

from niftynet_compat.runs.console import (
    JOURNAL,
    ConsoleFormatter,
    FileFormatter,
    RunLog,
    begin_log,
    is_ours,
    is_text,
    iteration_line,
    partition_lines,
)
from niftynet_compat.subjects.lists import read_file_list, write_file_list

GOLDENS = Path(__file__).parents[1] / "goldens" / "09_endtoend"
LOGS = sorted(GOLDENS.glob("model__*_niftynet_log"))
PREFIX = re.compile(r"(?P<level>\w+):niftynet:(?P<time>\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3}): (?P<message>.*)")
# What programs that read logs look for, once the prefix is gone.
ITERATION = re.compile(r"^\s*(training|validation|inference) iter (\d+), (.*) \(([\d.]+)s\)$")


def record(message, level=logging.INFO, name=JOURNAL, **more):
    made = logging.LogRecord(name, level, "", 0, message, (), None)
    made.__dict__.update(more)
    return made


@pytest.fixture
def journal():
    log = logging.getLogger(JOURNAL)
    before = log.level, log.propagate
    log.setLevel(logging.INFO)
    yield log
    log.handlers.clear()
    log.setLevel(before[0])


# ---- lines


def test_there_are_recorded_logs_of_every_action():
    assert [path.name.split("__")[1] for path in LOGS] == [
        f"{action}_niftynet_log" for action in ("evaluation", "inference", "training")
    ]


@pytest.mark.parametrize("path", LOGS, ids=lambda path: path.name)
def test_our_file_lines_are_the_recorded_ones_of_the_same_messages(path):
    num_lines = 0
    for line in path.read_text().splitlines():
        match = PREFIX.fullmatch(line)
        if not match:
            continue
        num_lines += 1
        formatter = FileFormatter()
        formatter.formatTime = lambda record, match=match: match["time"]
        assert formatter.format(record(match["message"], getattr(logging, match["level"]))) == line
    assert num_lines > 30


def test_our_file_lines_have_the_recorded_prefix():
    match = PREFIX.fullmatch(FileFormatter().format(record("cleaning up...", logging.WARNING)))
    assert match["level"] == "WARNING"
    assert match["message"] == "cleaning up..."


def test_console_lines_have_their_prefix_in_bold():
    assert ConsoleFormatter().format(record("using ToyNet")) == "\033[1mINFO:niftynet:\033[0m using ToyNet"


def test_a_saved_checkpoint_is_named_without_its_number():
    formatted = ConsoleFormatter().format(record("iter 10 saved: /m/models/model.ckpt-10"))
    assert formatted.endswith(" iter 10 saved: /m/models/model.ckpt")
    assert ConsoleFormatter().format(record("iter 1 saved: /m/model.ckpt-10")).endswith("model.ckpt-10")


def test_a_traceback_follows_its_line():
    try:
        raise ValueError("odd")
    except ValueError as error:
        text = FileFormatter().format(record("failed", exc_info=(type(error), error, error.__traceback__)))
    assert text.splitlines()[-1] == "ValueError: odd"


@pytest.mark.parametrize("path", LOGS, ids=lambda path: path.name)
def test_iteration_lines_are_written_as_recorded(path):
    found = 0
    for line in path.read_text().splitlines():
        message = line.partition(": ")[2]
        match = ITERATION.match(message)
        if match is None:
            continue
        found += 1
        phase, iteration, values, seconds = match.groups()
        pairs = dict(pair.split("=") for pair in values.split(", ") if pair)
        written = iteration_line(
            phase, int(iteration), {key: float(text) for key, text in pairs.items()}, float(seconds)
        )
        assert written == message
    assert found > 25 or "evaluation" in path.name


def test_the_block_of_subjects_is_the_recorded_one():
    text = (GOLDENS / "model__training_niftynet_log").read_text()
    counts = {"training": 2, "validation": 2, "inference": 2}
    assert f": {partition_lines(['T1', 'T2', 'label'], 6, counts)}\n" in text


def test_subjects_that_are_not_divided_are_said_to_be_used_all():
    assert partition_lines(["T1"], 3, None) == (
        "\n\nNumber of subjects 3, input section names: ['subject_id', 'T1']\n"
        "-- using all subjects (without data partitioning).\n"
    )
    assert "-- training 0 cases (0.00%),\n" in partition_lines([], 0, {"training": 0, "validation": 0})


# ---- the log file of a run


def test_lines_before_the_file_is_known_go_into_it_and_runs_are_appended(tmp_path, journal):
    path = tmp_path / "training_niftynet_log"
    for number in (1, 2):
        handler = RunLog()
        journal.addHandler(handler)
        journal.info("starting %d", number)
        assert path.exists() == (number == 2)
        begin_log(path)
        journal.warning("odd")
        journal.removeHandler(handler)
        handler.close()
    messages = [PREFIX.fullmatch(line)["message"] for line in path.read_text().splitlines()]
    assert messages == ["starting 1", "odd", "starting 2", "odd"]


def test_lines_are_on_disk_as_soon_as_they_are_logged(tmp_path, journal):
    handler = RunLog()
    journal.addHandler(handler)
    begin_log(tmp_path / "log")
    journal.info("one")
    assert (tmp_path / "log").read_text().endswith(": one\n")
    handler.close()


def test_a_run_that_never_knows_its_file_leaves_none(tmp_path, journal):
    handler = RunLog()
    journal.addHandler(handler)
    journal.info("starting")
    handler.close()
    assert list(tmp_path.iterdir()) == []


def test_a_log_that_cannot_be_written_ends_no_run(tmp_path, journal, monkeypatch):
    monkeypatch.setattr(logging, "raiseExceptions", False)
    handler = RunLog()
    journal.addHandler(handler)
    begin_log(tmp_path / "nowhere" / "log")
    journal.info("going on")
    assert list(tmp_path.iterdir()) == []
    # Nothing is lost: the lines wait for a file that can be written.
    begin_log(tmp_path / "log")
    handler.close()
    assert (tmp_path / "log").read_text().endswith(": going on\n")


def test_consoles_tell_journal_and_marks_from_other_records():
    assert is_text(record("a"))
    assert not is_text(record("", log_file="x"))
    assert is_ours(record("a", name="pimms_tf.actions.train"))
    assert not is_ours(record("a"))


# ---- lists of files


def test_a_list_of_files_reads_back_as_it_was_written(tmp_path):
    files = {name: tmp_path / f"{name}.nii" for name in ("001", 'a,"b"', "é")}
    for path in files.values():
        path.touch()
    assert read_file_list(write_file_list(tmp_path / "T1.csv", files)) == files
    assert (tmp_path / "T1.csv").read_text().splitlines()[0] == f"001,{tmp_path / '001.nii'}"
