"""Clients that do the same thing again and again: threads of several processes.

In processes, so that one interpreter for all of them is not what is measured.
"""

from __future__ import annotations

import math
import multiprocessing
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Barrier

from bench.figures import WrongResultError

Step = Callable[[], object]
Prepare = Callable[[int], Step]
"""Makes a client, told its number from 0, and returns what it does once."""

PROCESSES, THREADS = 4, 4
CLIENTS = PROCESSES * THREADS


@dataclass(frozen=True)
class Outcome:
    """What many clients did.

    :param took: from the first one's beginning to the last one's end, in seconds.
    :param times: how long each step took, in seconds, sorted.
    """

    took: float
    times: list[float]

    @property
    def rate(self) -> float:
        """Steps a second, of all clients together."""
        return len(self.times) / self.took

    def milliseconds(self, part: float) -> float:
        """Return the time within which this part of the steps was done."""
        return 1000 * percentile(self.times, part)


def percentile(ordered: list[float], part: float) -> float:
    """Return the value that this part of the sorted ones does not exceed."""
    return ordered[max(0, math.ceil(part * len(ordered)) - 1)]


def repeat(step: Step, times: int) -> Outcome:
    """Do a step again and again in this thread."""
    taken = []
    begin = before = time.perf_counter()
    for _ in range(times):
        step()
        after = time.perf_counter()
        taken.append(after - before)
        before = after
    return Outcome(before - begin, sorted(taken))


def in_processes(
    prepare: Prepare, steps: int, processes: int = PROCESSES, threads: int = THREADS
) -> Outcome:
    """Have clients do their step again and again, all beginning at once.

    :param steps: of each client.
    :raises WrongResultError: if one of them raises anything.
    """
    context = multiprocessing.get_context("fork")
    barrier = context.Barrier(processes * threads)
    running = []
    for number in range(processes):
        ours, theirs = context.Pipe(duplex=False)
        first = number * threads
        process = context.Process(
            target=_be_clients, args=(theirs, barrier, prepare, steps, first, threads)
        )
        process.start()
        theirs.close()
        running.append((process, ours))
    reports = [_taken(ours) for _, ours in running]
    for process, ours in running:
        process.join()
        ours.close()
    if failures := [report for report in reports if isinstance(report, str)]:
        raise WrongResultError(failures[0])
    clients = [client for report in reports if not isinstance(report, str) for client in report]
    took = max(end for _, end, _ in clients) - min(begin for begin, _, _ in clients)
    return Outcome(took, sorted(time for *_, times in clients for time in times))


_Report = list[tuple[float, float, list[float]]]


def _taken(pipe: Connection) -> _Report | str:
    try:
        return pipe.recv()  # type: ignore[no-any-return]
    except EOFError:
        return "a process of clients died"


def _be_clients(
    pipe: Connection, barrier: Barrier, prepare: Prepare, steps: int, first: int, threads: int
) -> None:
    report: _Report = []
    failures: list[str] = []

    def work(number: int) -> None:
        try:
            step = prepare(number)
            barrier.wait()
            begin = time.perf_counter()
            times = repeat(step, steps).times
            report.append((begin, time.perf_counter(), times))
        except threading.BrokenBarrierError:
            pass  # another client has failed and says why
        except Exception:
            failures.append(traceback.format_exc())
            barrier.abort()

    started = [threading.Thread(target=work, args=(first + n,)) for n in range(threads)]
    for thread in started:
        thread.start()
    for thread in started:
        thread.join()
    pipe.send(failures[0] if failures else report)
