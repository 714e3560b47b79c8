"""The way to the database: changes go through the one thread that writes, reads through others.

It knows nothing of jobs.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from threading import Thread
from typing import Any, Concatenate, ParamSpec, TypeVar

from sqlalchemy import Connection, Insert
from twisted.internet.defer import Deferred, DeferredLock, fail, succeed
from twisted.internet.interfaces import IReactorFromThreads
from twisted.internet.threads import deferToThreadPool
from twisted.python.threadpool import ThreadPool

from harpcaller.store.database import Database, StoreError, translated_errors
from harpcaller.store.writer import Rows, Writer

P = ParamSpec("P")
T = TypeVar("T")


class _ReaderThread(Thread):
    # A process that ends without closing the store must not wait for threads that wait.
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs, daemon=True)


class _ReaderPool(ThreadPool):
    threadFactory = _ReaderThread


class Access:
    """A database and the threads that use it.

    Each Deferred fails with a `StoreError` if the database fails or is not open.

    :param reactor: where the Deferreds fire.
    :param readers: how many threads read.
    """

    def __init__(self, database: Database, reactor: IReactorFromThreads, readers: int) -> None:
        self._database = database
        self._reactor = reactor
        self._writer = Writer(reactor)
        self._reader_count = readers
        self._readers = database.readers(readers)
        self._threads: ThreadPool
        self._is_open = False
        # Who closes the database while it opens waits for that.
        self._lock = DeferredLock()

    def open(self) -> Deferred[None]:
        """Open the database and start the threads."""
        return self._lock.run(self._open)

    def close(self) -> Deferred[None]:
        """Finish what was asked for so far, then stop the threads and close the database."""
        return self._lock.run(self._close)

    def insert(self, statement: Insert, rows: Rows) -> Deferred[None]:
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

    def read(
        self,
        function: Callable[Concatenate[Connection, P], T],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> Deferred[T]:
        """Run a function with a reader's connection; return what it returned."""

        def read() -> T:
            with translated_errors(), self._readers.connect() as connection:
                return function(connection, *args, **kwargs)

        if not self._is_open:
            return fail(_not_open())
        return deferToThreadPool(self._reactor, self._threads, read)

    def _open(self) -> Deferred[None]:
        def opened(_: None) -> None:
            # A pool that was stopped can't be started again.
            self._threads = _ReaderPool(0, self._reader_count, "store-readers")
            self._threads.start()
            self._is_open = True

        return self._writer.start(self._connect).addCallback(opened)

    def _connect(self) -> Connection:
        """Open every connection now, so that what the store holds does not depend on its load."""
        writer = self._database.open_writer()
        try:
            with translated_errors(), ExitStack() as taken:
                for _ in range(self._reader_count):
                    reader = taken.enter_context(self._readers.connect())
                    # Only a read opens the write-ahead log.
                    reader.exec_driver_sql("SELECT count(*) FROM sqlite_master").close()
        except BaseException:
            writer.close()
            raise
        return writer

    def _close(self) -> Deferred[None]:
        if not self._is_open:
            return succeed(None)
        self._is_open = False
        return self._writer.stop(self._stop_reading)

    def _stop_reading(self) -> None:
        # Before the writer's connection is closed: the last one to close must be one that can
        # write, or the write-ahead log stays behind.
        self._threads.stop()
        self._readers.dispose()


def _not_open() -> StoreError:
    return StoreError("the store is not open")
