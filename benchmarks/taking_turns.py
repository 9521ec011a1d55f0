"""Times programs against each other: each in a process of its own, one step of each in turn, medians at the end.

Whatever else a machine does while a benchmark runs then hits all of them alike, and ratios can be trusted where seconds
cannot.
"""

import multiprocessing
import os
import resource
import statistics
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

# So that the scripts run from a checkout; a new process imports this module before anything else.
sys.path.insert(0, str(Path(__file__).parents[1]))


@dataclass(frozen=True)
class Timing:
    """What one contestant took."""

    seconds: tuple[float, ...]  # of every round
    of_processor: tuple[float, ...]  # of every round: seconds of all cores together
    peak_gib: float  # largest resident memory of its process

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    @property
    def median_of_processor(self) -> float:
        return statistics.median(self.of_processor)


def take_turns(
    contestants: Mapping[str, Callable[[], Callable[[], object]]], rounds: int, warmup: int = 2
) -> dict[str, Timing]:
    """Returns the time of each contestant's steps; one that cannot start, for want of a library say, is left out.

    A contestant is a function of a module that, called in a new process, prepares everything and returns the step.
    """
    context = multiprocessing.get_context("spawn")
    running = {}
    for name, prepare in contestants.items():
        ours, theirs = context.Pipe()
        process = context.Process(target=_serve, args=(prepare, theirs, warmup), daemon=True)
        process.start()
        ready = ours.recv()
        if ready is not None:
            print(f"{name} is left out: {ready}", flush=True)
            process.join()
            continue
        running[name] = process, ours
    rows: dict[str, list[tuple[float, float]]] = {name: [] for name in running}
    for _ in range(rounds):
        for name, (_, pipe) in running.items():
            pipe.send(True)
            rows[name].append(pipe.recv())
    timings = {}
    for name, (process, pipe) in running.items():
        pipe.send(False)
        timings[name] = Timing(*zip(*rows[name], strict=True), pipe.recv())
        process.join()
    return timings


def _serve(prepare: Callable[[], Callable[[], object]], pipe, warmup: int) -> None:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        step = prepare()
        for _ in range(warmup):
            step()
    except ImportError as error:
        pipe.send(f"{error}")
        return
    except Exception:
        pipe.send(traceback.format_exc())
        return
    pipe.send(None)
    while pipe.recv():
        began, began_of_processor = time.perf_counter(), time.process_time()
        step()
        pipe.send((time.perf_counter() - began, time.process_time() - began_of_processor))
    pipe.send(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20)
