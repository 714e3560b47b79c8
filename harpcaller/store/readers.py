"""Threads that read, each with a connection of its own; they take what is asked for from one queue.

They know nothing of jobs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Any, NamedTuple, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorFromThreads
from twisted.python.failure import Failure

from harpcaller.store.answers import fire
from harpcaller.store.database import translated_errors
from harpcaller.store.statements import Connection

T = TypeVar("T")


class _Read(NamedTuple):
    answer: Deferred[Any]
    function: Callable[[Connection], object]


class Readers:
    """Some threads and their connections.

    :param reactor: where Deferreds are answered.
    :param together: how many reads that wait a thread answers at once. It wakes the reactor once
        for all of them, but the first has to wait for the last.
    """

    def __init__(self, reactor: IReactorFromThreads, together: int) -> None:
        self._reactor = reactor
        self._together = together
        self._queue: SimpleQueue[_Read | None] = SimpleQueue()
        self._threads: list[Thread] = []

    def start(self, connections: Sequence[Connection]) -> None:
        """Start a thread for each connection."""
        # Daemons, since a process that ends in a hurry must not wait for threads that wait.
        self._threads = [
            Thread(target=self._work, args=(connection,), name="store-reader", daemon=True)
            for connection in connections
        ]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Read what was asked for so far, then end the threads and close their connections."""
        for _ in self._threads:
            self._queue.put(None)
        for thread in self._threads:
            thread.join()

    def run(self, function: Callable[[Connection], T]) -> Deferred[T]:
        """Run a function with a connection.

        :return: fires with what it returned, or fails with what it raised or a `StoreError`.
        """
        answer: Deferred[T] = Deferred()
        self._queue.put(_Read(answer, function))
        return answer

    def _work(self, connection: Connection) -> None:
        is_open = True
        while is_open:
            group, is_open = self._gather()
            outcomes = [_outcome(connection, read) for read in group]
            self._reactor.callFromThread(fire, [read.answer for read in group], outcomes)
        connection.close()

    def _gather(self) -> tuple[list[_Read], bool]:
        group: list[_Read] = []
        read = self._queue.get()
        while read is not None:
            group.append(read)
            if len(group) == self._together:
                return group, True
            try:
                read = self._queue.get_nowait()
            except Empty:
                return group, True
        return group, False


def _outcome(connection: Connection, read: _Read) -> object:
    try:
        with translated_errors():
            return read.function(connection)
    except BaseException:
        return Failure()
