"""Workers: threads that make numbered results ahead of the code that takes them."""

import atexit
import threading
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

Result = TypeVar("Result")


class Stopped(Exception):  # noqa: N818  (an event, not a mistake)
    """The threads were stopped while their result was awaited."""


class Workers(Generic[Result]):
    """Threads that work off an agenda of numbers, at most ``ahead`` of them beyond those released."""

    def __init__(self, work: Callable[[int], Result], agenda: Iterator[int], ahead: int, num_threads: int) -> None:
        self._work, self._agenda, self._ahead = work, agenda, threading.Semaphore(ahead)
        self._done: dict[int, Result | Exception] = {}
        self._awaited: int | None = None
        self._change, self._stopped = threading.Condition(), False
        # Daemons, because the owner may be an iterator that is never closed; at exit each may finish what it is at.
        self._threads = [
            threading.Thread(target=self._run, name=f"pimms-batches-{n}", daemon=True) for n in range(num_threads)
        ]
        for thread in self._threads:
            thread.start()
        atexit.register(self._finish)

    def take(self, number: int) -> Result:
        """The result of a number on the agenda, once it is there; raises what its work raised, or Stopped.

        One thread at a time may wait.
        """
        with self._change:
            self._awaited = number
            self._change.wait_for(lambda: self._stopped or number in self._done)
            self._awaited = None
            if self._stopped:
                raise Stopped
            outcome = self._done.pop(number)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    def release(self, count: int) -> None:
        """Lets the threads begin ``count`` more."""
        if count:
            self._ahead.release(count)

    def stop(self) -> None:
        """Lets every thread end after what it is at, without waiting for it, and a waiting `take` raise Stopped."""
        with self._change:
            self._stopped = True
            self._done.clear()
            self._change.notify_all()
        self._ahead.release(len(self._threads))
        atexit.unregister(self._finish)

    def _finish(self) -> None:
        self.stop()
        for thread in self._threads:
            thread.join()

    def _run(self) -> None:
        while True:
            self._ahead.acquire()
            with self._change:
                number = None if self._stopped else next(self._agenda, None)
            if number is None:
                return
            try:
                outcome = self._work(number)
            except Exception as error:  # raised where the result is taken
                outcome = error
            with self._change:
                self._done[number] = outcome
                # Waking a thread that waits for another number costs more than cutting a window.
                if number == self._awaited:
                    self._change.notify_all()
