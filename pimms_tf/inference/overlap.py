"""Subjects one after the other, but reading the next and writing the last while one is being computed."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple, TypeVar

Item = TypeVar("Item")
Content = TypeVar("Content")
Result = TypeVar("Result")


class Outcome(NamedTuple):
    """How it went with one item: the exception that ended it, None if there was none."""

    item: object
    mistake: Exception | None


def overlapped(
    items: Iterable[Item],
    read: Callable[[Item], Content],
    compute: Callable[[Item, Content], Result],
    write: Callable[[Item, Result], None],
) -> Iterator[Outcome]:
    """Yields an `Outcome` for each item in order, once `write(item, compute(item, read(item)))` is done or has failed.

    `compute` runs in the caller's thread, `read` and `write` in one thread each, so at most one item is read ahead, one
    computed and one being written. Within each of the three, items come in their order. Whatever goes wrong with one
    item ends that item alone, be it a mistake in its files or a fault of ours; an interrupt ends the loop after what is
    being written.
    """
    with ThreadPoolExecutor(1, "read") as reader, ThreadPoolExecutor(1, "write") as writer:
        waiting = iter(items)
        ahead = _next(waiting, read, reader)
        behind: tuple[Item, Future] | None = None
        try:
            while ahead is not None:
                (item, content), ahead = ahead, _next(waiting, read, reader)
                future = _computed(item, content, compute, write, writer, behind)
                del content  # or its scans would stay in memory while the next ones are computed
                if behind is not None:
                    yield _outcome(*behind)
                behind = item, future
            if behind is not None:
                yield _outcome(*behind)
        finally:
            reader.shutdown(wait=False, cancel_futures=True)


def _next(waiting: Iterator[Item], read: Callable, reader: ThreadPoolExecutor) -> tuple[Item, Future] | None:
    for item in waiting:
        return item, reader.submit(read, item)
    return None


def _computed(
    item: Item,
    content: Future,
    compute: Callable,
    write: Callable,
    writer: ThreadPoolExecutor,
    behind: tuple[Item, Future] | None,
) -> Future:
    """The writing of an item, or a future that holds its mistake."""
    failed: Future = Future()
    try:
        result = compute(item, content.result())
    except Exception as mistake:
        failed.set_exception(mistake)
        return failed
    if behind is not None:
        behind[1].exception()  # waits: results do not pile up before a slow disk
    return writer.submit(write, item, result)


def _outcome(item: Item, written: Future) -> Outcome:
    try:
        written.result()
    except Exception as mistake:
        return Outcome(item, mistake)
    return Outcome(item, None)
