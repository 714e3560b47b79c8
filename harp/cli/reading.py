"""Packets and ends of jobs, read in threads, so that whoever shows them can do more than wait.

A conversation that breaks is taken up where it was: the dispatcher has every packet and the end.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from queue import Empty, Queue
from typing import Any

from harp import CALL_CANCELLED, CancelledException, CommunicationError, HarpException, RemoteCall

RETRIES = (0.25, 1.0, 3.0)
"""Seconds before each further attempt: enough for a dispatcher that is started again."""

_AT_ONCE = 32  # connections, and threads

_MOST = 100  # packets that nobody has taken; a slow terminal slows the conversation, not the job


@dataclass(frozen=True)
class Packet:
    """A packet of a job."""

    job: RemoteCall
    number: int
    value: Any


@dataclass(frozen=True)
class Lost:
    """The conversation broke; it will be tried again."""

    job: RemoteCall
    error: CommunicationError


@dataclass(frozen=True)
class End:
    """How a job ended, or why nobody can tell.

    :param result: what the procedure returned; None if there is an error.
    :param was_there: whether a dispatcher that can't be reached had been there before.
    """

    job: RemoteCall
    result: Any
    error: HarpException | None
    was_there: bool = False


Event = Packet | Lost | End
Start = dict[str, int]
"""Where packets begin: ``since`` or ``recent``, as `harp.RemoteCall.follow` has them."""


class Reading:
    """Reads several jobs to their ends, many of them at once.

    :param start: which packets come first; None if none is to come.
    """

    def __init__(self, jobs: Sequence[RemoteCall], start: Start | None) -> None:
        self._queue: Queue[Event | Exception] = Queue(_MOST)
        left = iter(jobs)  # of which each thread takes the next
        for _ in range(min(len(jobs), _AT_ONCE)):
            threading.Thread(target=self._read, args=(left, start), daemon=True).start()

    def next(self, limit: float | None) -> Event | None:
        """Return what happened next, None if nothing did.

        :param limit: how long to wait for it, in seconds; None: for ever.
        """
        try:
            found = self._queue.get(timeout=limit)
        except Empty:
            return None
        if isinstance(found, Exception):
            raise found
        return found

    def _read(self, jobs: Iterator[RemoteCall], start: Start | None) -> None:
        try:
            for job in jobs:
                for event in _events(job, start):
                    self._queue.put(event)
        except Exception as error:  # whoever takes the events has to hear of it
            self._queue.put(error)


def _events(job: RemoteCall, start: Start | None) -> Iterator[Event]:
    delays = iter(RETRIES)
    has_been_there = False
    while True:
        try:
            if start is not None:
                with job.follow(**start, numbered=True) as packets:
                    has_been_there = True
                    for number, value in packets:
                        yield Packet(job, number, value)
                        start = {"since": number + 1}
                        delays = iter(RETRIES)
                start = None
            yield _end(job, job.result(wait=True))
            return
        except CommunicationError as error:
            has_been_there = has_been_there or error.may_have_run
            delay = next(delays, None) if has_been_there else None
            if delay is None:
                yield replace(_end(job, error), was_there=has_been_there)
                return
            yield Lost(job, error)
            time.sleep(delay)
        except HarpException as error:
            yield _end(job, error)
            return


def _end(job: RemoteCall, outcome: Any) -> End:
    if outcome is CALL_CANCELLED:
        outcome = CancelledException(f"job {job.id()} was cancelled")
    if isinstance(outcome, HarpException):
        return End(job, None, outcome)
    return End(job, outcome, None)


class States:
    """What the dispatcher tells of a job (`harp.RemoteCall.detail`), asked again and again.

    :param every: so many seconds.
    :ivar known: the last of it; nothing if nothing could be learnt.
    """

    def __init__(self, every: float) -> None:
        self._every = every
        self.known: dict[str, Any] = {}
        self._answered = math.inf
        self._is_over = threading.Event()

    @property
    def silence(self) -> float:
        """For how many seconds the dispatcher has told nothing, below 0 if it is not asked."""
        return time.monotonic() - self._answered

    def watch(self, job: RemoteCall, wanted: Callable[[RemoteCall], bool]) -> None:
        """Begin to ask, in a thread.

        :param wanted: whether the job is still of interest.
        """
        self._answered = time.monotonic()
        threading.Thread(target=self._ask, args=(job, wanted), daemon=True).start()

    def close(self) -> None:
        """Ask no more."""
        self._is_over.set()

    def _ask(self, job: RemoteCall, wanted: Callable[[RemoteCall], bool]) -> None:
        while wanted(job) and not self._is_over.is_set():
            try:
                self.known = job.detail()
                self._answered = time.monotonic()
            except CommunicationError:
                pass  # who reads the job tells of that
            except Exception:
                # It is not for the caller, or the dispatcher can't tell; or the command has ended
                # and its connections are gone. Nobody needs to hear of it: the line tells less.
                self._answered = math.inf
                return
            self._is_over.wait(self._every)
