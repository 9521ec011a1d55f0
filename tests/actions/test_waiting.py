import threading

import pytest

from pimms_tf.actions.waiting import Waits

SOON = 60.0  # seconds in which a thread that is told at once has surely said something


class Heard:
    """Collects what is said, and tells when something was."""

    def __init__(self):
        self.texts, self.seconds, self._news = [], [], threading.Semaphore(0)

    def __call__(self, what, seconds):
        self.texts.append(what)
        self.seconds.append(seconds)
        self._news.release()

    def await_one(self):
        assert self._news.acquire(timeout=SOON)


def test_what_takes_long_is_said_again_and_again_with_the_time_it_took():
    heard, numbers = Heard(), iter(range(100))
    with Waits(heard, every_s=0.01) as waits, waits.on(lambda: f"{next(numbers)} of 100"):
        for _ in range(3):
            heard.await_one()
    assert heard.texts[:3] == ["0 of 100", "1 of 100", "2 of 100"]
    assert heard.seconds == sorted(heard.seconds)
    assert heard.seconds[0] >= 0.01


def test_nothing_is_said_of_what_is_quick_or_over():
    heard = Heard()
    with Waits(heard, every_s=60.0) as waits:
        with waits.on("a moment"):
            pass
        assert waits.saying("a moment", lambda value: value + 1)(1) == 2
    assert heard.texts == []


def test_the_innermost_wait_is_said_and_the_outer_one_after_it():
    heard = Heard()
    with Waits(heard, every_s=0.01) as waits, waits.on("outer"):
        heard.await_one()
        with waits.on("inner"):
            while "inner" not in heard.texts:
                heard.await_one()
        num = len(heard.texts)
        heard.await_one()
        heard.await_one()
    assert heard.texts[0] == "outer"
    assert heard.texts[num + 1 :] == ["outer"] * len(heard.texts[num + 1 :])


def test_a_wait_that_fails_is_no_wait_any_more():
    heard = Heard()
    with Waits(heard, every_s=0.01) as waits:
        with pytest.raises(RuntimeError), waits.on("it"):
            raise RuntimeError
        with waits.on("after it"):
            heard.await_one()
    assert set(heard.texts) == {"after it"}
