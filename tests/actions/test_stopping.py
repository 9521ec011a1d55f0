"""A stop that is asked for: what it interrupts at once and what it lets finish."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pimms_tf.actions.stopping import StopSignals

CODES = [(signal.SIGINT, 130), (signal.SIGTERM, 143)]


def ask(number=signal.SIGTERM):
    os.kill(os.getpid(), number)
    return "done"


@pytest.fixture
def stop():
    with StopSignals() as signals:
        yield signals


@pytest.mark.parametrize(("number", "code"), CODES)
def test_before_an_iteration_is_done_a_stop_interrupts_at_once(stop, number, code):
    with pytest.raises(KeyboardInterrupt):
        ask(number)
    assert stop.requested()
    assert stop.exit_code == code
    assert "nothing to save" in stop.farewell(is_saved=False)


@pytest.mark.parametrize(("number", "code"), CODES)
def test_after_an_iteration_a_stop_lets_the_next_one_finish_and_a_second_does_not(stop, number, code):
    stop.begun()
    assert ask(number) == "done"
    assert stop.requested()
    assert stop.exit_code == code
    with pytest.raises(KeyboardInterrupt):
        ask(number)


def test_waiting_is_left_at_once_and_what_comes_after_is_not_begun(stop):
    stop.begun()
    assert stop.unless_asked(lambda: 3) == 3
    assert not stop.requested()
    reached = []
    assert stop.unless_asked(lambda: (ask(), reached.append("end"))) is None
    assert stop.unless_asked(lambda: reached.append("again")) is None
    assert reached == []
    assert stop.requested()


def test_waiting_for_the_first_iteration_ends_all(stop):
    with pytest.raises(KeyboardInterrupt):
        stop.unless_asked(ask)


def test_an_exception_of_what_is_run_is_its_own(stop):
    stop.begun()
    with pytest.raises(ZeroDivisionError):
        stop.unless_asked(lambda: 1 / 0)


def test_the_signals_are_as_before_in_the_end():
    before = [signal.getsignal(number) for number, _ in CODES]
    with StopSignals():
        assert [signal.getsignal(number) for number, _ in CODES] != before
    assert [signal.getsignal(number) for number, _ in CODES] == before


@pytest.mark.parametrize(("number", "code"), CODES)
@pytest.mark.parametrize("when", ["first", "later"])
def test_a_process_whose_main_thread_does_not_come_back_ends_all_the_same(number, code, when):
    program = Path(__file__).with_name("deaf.py")
    environment = os.environ | {"PYTHONPATH": str(program.parents[2])}
    command = [sys.executable, program, when]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout.readline() == "computing\n"
        process.send_signal(number)
        assert process.wait(timeout=60) == code
