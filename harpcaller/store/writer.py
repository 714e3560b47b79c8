"""The one thread that writes: what gathered while it wrote goes into its next commit.

It knows nothing of jobs. Operations are functions of the connection that can be run again, because
a group that fails is rolled back and its operations are tried one by one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import groupby
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Any, NamedTuple, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorFromThreads
from twisted.python.failure import Failure

from harpcaller.store.answers import fire
from harpcaller.store.database import transaction, translated_errors
from harpcaller.store.statements import Connection, Statement
from harpcaller.store.truncation import Truncation

T = TypeVar("T")

Rows = Sequence[Mapping[str, Any]]


class _Operation(NamedTuple):
    answer: Deferred[Any]
    function: Callable[[Connection], object]


class _Insertion(NamedTuple):
    answer: Deferred[Any]
    statement: Statement
    rows: Rows


class _Stop(NamedTuple):
    answer: Deferred[Any]
    before_closing: Callable[[], None]


_Write = _Operation | _Insertion


class Writer:
    """A thread and the connection that only it uses.

    :param reactor: where Deferreds are answered, once for each commit.
    """

    def __init__(self, reactor: IReactorFromThreads) -> None:
        self._reactor = reactor
        self._queue: SimpleQueue[_Write | _Stop] = SimpleQueue()

    def start(self, connect: Callable[[], Connection]) -> Deferred[None]:
        """Start the thread.

        :param connect: called in the thread.
        :return: fires when the connection is there, or fails with what ``connect`` raised; then
            the thread has ended and can be started again.
        """
        answer: Deferred[None] = Deferred()
        # A daemon, since a process that ends in a hurry must not wait for a thread that waits.
        Thread(target=self._work, args=(connect, answer), name="store-writer", daemon=True).start()
        return answer

    def stop(self, before_closing: Callable[[], None]) -> Deferred[None]:
        """Commit what was given so far, then end the thread.

        :param before_closing: called in the thread between the last commit and the end of the
            connection.
        """
        answer: Deferred[None] = Deferred()
        self._queue.put(_Stop(answer, before_closing))
        return answer

    def run(self, function: Callable[[Connection], T]) -> Deferred[T]:
        """Run an operation in the next transaction.

        :return: fires with what it returned when that is on disk; fails with what it raised, or
            with a `StoreError`, when nothing of it is.
        """
        answer: Deferred[T] = Deferred()
        self._queue.put(_Operation(answer, function))
        return answer

    def insert(self, statement: Statement, rows: Rows) -> Deferred[None]:
        """Execute a statement for each of many rows in the next transaction.

        Insertions by the same statement that follow each other are executed as one.

        :return: as for `run`.
        """
        answer: Deferred[None] = Deferred()
        self._queue.put(_Insertion(answer, statement, rows))
        return answer

    def _work(self, connect: Callable[[], Connection], started: Deferred[None]) -> None:
        try:
            connection = connect()
        except BaseException:
            self._fire([started], [Failure()])
            return
        self._fire([started], [None])
        stop = None
        truncation = Truncation(connection)
        while stop is None:
            group, stop = self._gather(truncation.wait())
            if group:
                self._fire([write.answer for write in group], _commit(connection, group))
            truncation.act()
        try:
            stop.before_closing()
            connection.close()
        except BaseException:
            self._fire([stop.answer], [Failure()])
        else:
            self._fire([stop.answer], [None])

    def _gather(self, wait: float | None) -> tuple[list[_Write], _Stop | None]:
        """Return what there is to write, nothing if there is none for so many seconds."""
        group: list[_Write] = []
        try:
            write = self._queue.get(timeout=wait)
        except Empty:
            return group, None
        while not isinstance(write, _Stop):
            group.append(write)
            try:
                write = self._queue.get_nowait()
            except Empty:
                return group, None
        return group, write

    def _fire(self, answers: Sequence[Deferred[Any]], outcomes: Sequence[object]) -> None:
        self._reactor.callFromThread(fire, answers, outcomes)


def _commit(connection: Connection, group: Sequence[_Write]) -> list[object]:
    """Run a group in one transaction and return what is to be answered to each of it."""
    try:
        with translated_errors(), transaction(connection):
            return _run(connection, group)
    except Exception:
        connection.has_wiped = True  # what was undone may be in the log
        if len(group) == 1:
            return [Failure()]
    return [outcome for write in group for outcome in _commit(connection, [write])]


def _run(connection: Connection, group: Sequence[_Write]) -> list[object]:
    outcomes: list[object] = []
    for statement, writes in groupby(group, _statement):
        if statement is None:
            outcomes.extend(
                write.function(connection) for write in writes if isinstance(write, _Operation)
            )
        else:
            insertions = [write for write in writes if isinstance(write, _Insertion)]
            rows = [row for insertion in insertions for row in insertion.rows]
            statement.run_many(connection, rows)
            outcomes.extend(None for _ in insertions)
    return outcomes


def _statement(write: _Write) -> Statement | None:
    return write.statement if isinstance(write, _Insertion) else None
