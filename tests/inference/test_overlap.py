"""Three steps side by side: every item goes through all of them in order, and only its own mistake can stop it."""

import threading
import time

import pytest

from pimms_tf.errors import InputError
from pimms_tf.inference.overlap import overlapped

LETTERS = "abcdef"


def outcomes(*steps, items=LETTERS):
    return list(overlapped(items, *steps))


def test_results_are_written_in_order_whatever_takes_long():
    waits, written = {"a": 0.03, "c": 0.02, "e": 0.01}, []

    def read(item):
        time.sleep(waits.get(item, 0))
        return item.upper()

    def write(item, result):
        time.sleep(0.03 - waits.get(item, 0.01))
        written.append((item, result))

    found = outcomes(read, lambda item, content: item + content, write)
    assert written == [(letter, letter + letter.upper()) for letter in LETTERS]
    assert found == [(letter, None) for letter in LETTERS]


@pytest.mark.parametrize("kind", [InputError, OSError, MemoryError, ZeroDivisionError])
@pytest.mark.parametrize("step", ["read", "compute", "write"])
def test_a_mistake_ends_its_own_item_and_no_other(step, kind):
    written = []

    def fails(name, item):
        if name == step and item in "adf":
            raise kind(f"{item} fails to {name}")

    def read(item):
        fails("read", item)
        return item

    def compute(item, content):
        fails("compute", item)
        return content

    def write(item, result):
        fails("write", item)
        written.append(result)

    found = outcomes(read, compute, write)
    assert [item for item, _ in found] == list(LETTERS)
    assert [item for item, mistake in found if mistake is None] == written == list("bce")
    assert [str(mistake) for _, mistake in found if mistake] == [f"{letter} fails to {step}" for letter in "adf"]


@pytest.mark.parametrize("step", [0, 1, 2])
def test_an_interrupt_ends_the_loop_after_what_is_being_written(step):
    written = []
    steps = [lambda item: item, lambda item, content: content, lambda item, result: written.append(item)]

    def interrupted(item, *others):
        if item == "c":
            raise KeyboardInterrupt
        return steps[step](item, *others)

    with pytest.raises(KeyboardInterrupt):
        outcomes(*(interrupted if number == step else each for number, each in enumerate(steps)))
    assert written[:2] == ["a", "b"]
    assert "f" not in written


def test_while_one_item_is_computed_the_next_is_read_and_the_last_is_written_and_no_more():
    log, computing = [], threading.Event()

    def read(item):
        log.append(("read", item))
        return item

    def compute(item, content):
        if item == "b":
            computing.set()
            time.sleep(0.05)
        log.append(("computed", item))
        return item

    def write(item, result):
        if item == "a":
            assert computing.wait(5)
        log.append(("written", item))

    outcomes(read, compute, write)
    before = log[: log.index(("computed", "b"))]
    assert ("read", "c") in before
    assert ("read", "d") not in before
    assert ("written", "a") in before


def test_no_items_are_no_outcomes():
    assert outcomes(None, None, None, items="") == []
