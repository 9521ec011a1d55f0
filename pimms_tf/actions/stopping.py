"""How a training is asked to stop: signals, and what they may interrupt."""

import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TypeVar

Result = TypeVar("Result")

INTERRUPTED = 130  # 128 + SIGINT, what a shell reports for a program that Ctrl-C ended
_TERMINATED = 143  # 128 + SIGTERM
_GRACE_S = 5.0
_LOST_S = 20.0  # Slurm kills what has not ended 30 s after it was asked to

log = logging.getLogger(__name__)


class StopSignals(AbstractContextManager):
    """Turns SIGINT or SIGTERM into a request to stop after the current iteration; a second one stops at once.

    Until the first iteration is done there is nothing to save, so that the first one stops at once, too: by a
    KeyboardInterrupt, or, should the main thread not come back from TensorFlow within seconds, by the end of the
    process. Later, what `unless_asked` runs is left at once.

    A worker of several may wait inside TensorFlow for another that is gone. With `waits_for_others` the process ends if
    no iteration is done for `_LOST_S` seconds after it was asked to stop, or twice the longest iteration so far.
    """

    def __init__(self) -> None:
        # A worker that got no signal stops because of another one, which the queue told to end.
        self.exit_code = _TERMINATED
        self._asked, self._has_begun, self._at_once = False, False, True
        self.waits_for_others = False
        self._done_at, self._longest_s = 0.0, 0.0
        self._previous: dict[signal.Signals, object] = {}
        self._woken: tuple[socket.socket, socket.socket] | None = None
        self._left = threading.Event()

    def requested(self) -> bool:
        """Whether a stop was asked for."""
        return self._asked

    def begun(self) -> None:
        """To be called when an iteration is done: from then on there is something to save."""
        now = time.monotonic()
        if self._has_begun:
            self._longest_s = max(self._longest_s, now - self._done_at)
        self._has_begun, self._at_once, self._done_at = True, False, now

    def unless_asked(self, work: Callable[[], Result]) -> Result | None:
        """What `work` returns; None as soon as a stop is asked for, if an iteration is done.

        It is for what changes no weights, such as waiting for windows, so that these can be saved as they are.

        Raises:
            KeyboardInterrupt: a stop is asked for and no iteration is done.
        """
        if self._has_begun and self._asked:
            return None
        try:
            self._at_once = True
            result = work()
            self._at_once = not self._has_begun
        except KeyboardInterrupt:
            self._at_once = not self._has_begun
            if not self._has_begun:
                raise
            return None
        return result

    def farewell(self, is_saved: bool) -> str:
        """What to say of a training that stopped because it was asked to."""
        if not self._has_begun:
            return "stopped before the first iteration was done, so there is nothing to save"
        return f"stopped; --resume goes on from {'here' if is_saved else 'the last checkpoint'}"

    def __enter__(self) -> "StopSignals":
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._stop)
            # Python runs handlers in the main thread alone; a signal wakes this thread wherever the main one is.
            self._woken = socket.socketpair()
            self._woken[1].setblocking(False)
            signal.set_wakeup_fd(self._woken[1].fileno(), warn_on_full_buffer=False)
            threading.Thread(target=self._watch, args=(self._woken[0],), name="pimms-stop", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._left.set()
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        if self._woken is not None:
            signal.set_wakeup_fd(-1)
            self._woken[1].close()  # which ends the thread

    def _stop(self, number: int, frame: object) -> None:
        again = self._asked
        self.exit_code, self._asked = 128 + number, True
        if again or self._at_once:
            raise KeyboardInterrupt
        log.warning("stopping after this iteration; again to stop at once")

    def _watch(self, woken: socket.socket) -> None:
        with woken:
            for number in iter(lambda: woken.recv(1), b""):
                if number[0] in (signal.SIGINT, signal.SIGTERM):
                    self._see_it_end(128 + number[0])

    def _see_it_end(self, exit_code: int) -> None:
        asked_at = time.monotonic()
        if self._left.wait(_GRACE_S) or (self._has_begun and not self.waits_for_others):
            return
        while self._has_begun and time.monotonic() - max(asked_at, self._done_at) < max(_LOST_S, 2 * self._longest_s):
            if self._left.wait(_GRACE_S / 5):
                return
        log.warning("%s", self.farewell(is_saved=False))
        logging.shutdown()
        # The main thread is inside TensorFlow; nothing else can end it.
        os._exit(exit_code)
