"""The way to the database: changes go through the one thread that writes, reads through others.

It knows nothing of jobs.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Concatenate, ParamSpec, TypeVar

from twisted.internet.defer import Deferred, DeferredLock, fail, succeed
from twisted.internet.interfaces import IReactorFromThreads

from harpcaller.store.database import Database, StoreError
from harpcaller.store.readers import Readers
from harpcaller.store.statements import Connection, Statement
from harpcaller.store.writer import Rows, Writer

P = ParamSpec("P")
T = TypeVar("T")

TOGETHER = 50
"""The short reads that are answered at once."""


class Access:
    """A database and the threads that use it.

    Each Deferred fails with a `StoreError` if the database fails or is not open.

    :param reactor: where the Deferreds fire.
    :param readers: how many threads read what can be long; one more reads what is short.
    """

    def __init__(self, database: Database, reactor: IReactorFromThreads, readers: int) -> None:
        self._database = database
        self._writer = Writer(reactor)
        self._looking_up = Readers(reactor, TOGETHER)
        self._reading = Readers(reactor, 1)
        self._reader_count = readers
        self._is_open = False
        # Who closes the database while it opens waits for that.
        self._lock = DeferredLock()

    def open(self) -> Deferred[None]:
        """Open the database and start the threads."""
        return self._lock.run(self._open)

    def close(self) -> Deferred[None]:
        """Finish what was asked for so far, then stop the threads and close the database."""
        return self._lock.run(self._close)

    def insert(self, statement: Statement, rows: Rows) -> Deferred[None]:
        """Execute a statement for each of many rows, see `Writer.insert`."""
        if not self._is_open:
            return fail(_not_open())
        return self._writer.insert(statement, rows)

    def change(
        self,
        function: Callable[Concatenate[Connection, P], T],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> Deferred[T]:
        """Run a function with the writer's connection, see `Writer.run`."""
        if not self._is_open:
            return fail(_not_open())
        return self._writer.run(lambda connection: function(connection, *args, **kwargs))

    def look_up(
        self,
        function: Callable[Concatenate[Connection, P], T],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> Deferred[T]:
        """Run a function that reads few rows and is short; return what it returned."""
        if not self._is_open:
            return fail(_not_open())
        return self._looking_up.run(lambda connection: function(connection, *args, **kwargs))

    def read(
        self,
        function: Callable[Concatenate[Connection, P], T],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> Deferred[T]:
        """Run a function that may read for a while; return what it returned."""
        if not self._is_open:
            return fail(_not_open())
        return self._reading.run(lambda connection: function(connection, *args, **kwargs))

    def _open(self) -> Deferred[None]:
        def opened(_: None) -> None:
            self._is_open = True

        return self._writer.start(self._connect).addCallback(opened)

    def _connect(self) -> Connection:
        """Open every connection now, so that what the store holds does not depend on its load."""
        with ExitStack() as opened:
            writer = self._database.open_writer()
            opened.callback(writer.close)
            readers = []
            for _ in range(1 + self._reader_count):
                readers.append(self._database.open_reader())
                opened.callback(readers[-1].close)
            opened.pop_all()
        self._looking_up.start(readers[:1])
        self._reading.start(readers[1:])
        return writer

    def _close(self) -> Deferred[None]:
        if not self._is_open:
            return succeed(None)
        self._is_open = False
        return self._writer.stop(self._stop_reading)

    def _stop_reading(self) -> None:
        # Before the writer's connection is closed: the last one to close must be one that can
        # write, or the write-ahead log stays behind.
        self._looking_up.stop()
        self._reading.stop()


def _not_open() -> StoreError:
    return StoreError("the store is not open")
