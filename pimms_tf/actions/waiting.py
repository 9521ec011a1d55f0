"""Waits that are not silent: what a run waits for, said every few seconds while it says nothing else."""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TypeVar

Result = TypeVar("Result")
What = str | Callable[[], str]

log = logging.getLogger(__name__)

_EVERY_S = 4.5  # so that with all delays nothing is silent for five seconds


class Waits(AbstractContextManager):
    """Says what is waited for and for how long already: ``with Waits() as waits, waits.on("the first batch"): ...``.

    `say` is given both, by a thread of its own; unless given, it logs. Of waits within waits the innermost is said.
    """

    def __init__(self, say: Callable[[str, float], None] | None = None, every_s: float = _EVERY_S) -> None:
        self._say, self._every_s = say or _log, every_s
        self._waits: list[tuple[What, float]] = []
        self._said, self._over = time.monotonic(), threading.Event()
        self._thread = threading.Thread(target=self._watch, name="pimms-waits", daemon=True)

    def __enter__(self) -> "Waits":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    @contextmanager
    def on(self, what: What) -> Iterator[None]:
        """Says ``what``, a text or what returns one, should the block take seconds."""
        wait = (what, time.monotonic())
        self._waits.append(wait)
        self._said = wait[1]
        try:
            yield
        finally:
            self._waits.remove(wait)
            self._said = time.monotonic()

    def saying(self, what: What, work: Callable[..., Result]) -> Callable[..., Result]:
        """Returns ``work`` as something that says ``what`` while it takes seconds."""

        def said(*values: object) -> Result:
            with self.on(what):
                return work(*values)

        return said

    def _watch(self) -> None:
        while not self._over.wait(self._every_s / 9):
            waits, now = list(self._waits), time.monotonic()
            if waits and now - self._said >= self._every_s:
                what, began = waits[-1]
                self._say(what if isinstance(what, str) else what(), now - began)
                self._said = now


def _log(what: str, seconds: float) -> None:
    log.info("%s, for %.0f s so far", what, seconds)
