"""The job store of the simulation: the real statements on a real SQLite, when the seed says so.

A process that is killed loses what it has not committed, and the answers that had not come.
"""

from __future__ import annotations

import sqlite3
from collections import deque
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, NamedTuple

from sqlalchemy import Connection, NullPool, create_engine
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from harpcaller.jobs import Capacity
from harpcaller.store import KEY_LIFE, JobStore, StoreError
from harpcaller.store.database import transaction
from harpcaller.store.schema import metadata
from harpcaller.store.writer import Writer, _commit, _fire, _Write

READERS = 4


class Disk(NamedTuple):
    """What survives the death of a dispatcher.

    :param writer: changes it.
    :param reader: reads it.
    :param raw: what the invariants are read with.
    """

    writer: Connection
    reader: Connection
    raw: sqlite3.Connection


@cache
def _disk() -> Disk:
    raw = sqlite3.connect(":memory:", isolation_level=None, cached_statements=1000)
    engine = create_engine("sqlite://", creator=lambda: raw, poolclass=NullPool)
    writer, reader = engine.connect(), engine.connect()
    with transaction(writer):
        metadata.create_all(writer)
    raw.execute("PRAGMA foreign_keys = ON")
    return Disk(writer, reader, raw)


def blank_disk() -> Disk:
    """Return a disk without jobs; there is one for the whole process, as making it takes long."""
    disk = _disk()
    if disk.raw.in_transaction:
        disk.raw.execute("ROLLBACK")
    for table in ("packets", "jobs", "queues", "keys"):
        disk.raw.execute(f"DELETE FROM {table}")
    return disk


class PatientWriter(Writer):
    """Writes when it is told to, instead of in a thread."""

    def __init__(self) -> None:
        super().__init__(None)  # type: ignore[arg-type]  # nothing comes from a thread

    @property
    def waiting(self) -> int:
        """How many writes wait."""
        return self._queue.qsize()

    def take(self, count: int) -> list[_Write]:
        """Return the group of the next commit, so many writes."""
        return [self._queue.get_nowait() for _ in range(count)]  # type: ignore[misc]


class PatientStore(JobStore):
    """A store for one life of the dispatcher: the methods are the real ones, the threads are not."""

    _writer: PatientWriter

    def __init__(self, disk: Disk, capacity: Capacity) -> None:
        self._disk = disk
        self._capacity = capacity
        self._key_life = KEY_LIFE
        self._writer = PatientWriter()
        self._is_open = True
        self._asked: list[tuple[Deferred[Any], Callable[[], Any]]] = []
        # Both kinds of threads answer through the one queue of the reactor.
        self._answers: deque[tuple[Sequence[Deferred[Any]], Sequence[object]]] = deque()

    @property
    def waiting(self) -> int:
        """How many changes wait for their commit."""
        return self._writer.waiting

    @property
    def is_written(self) -> bool:
        """Whether no change waits for its commit."""
        return not self._writer.waiting

    def commit(self, count: int, disk_is_full: bool = False) -> None:
        """Commit the first changes that wait, as one group."""
        group = self._writer.take(min(count, self._writer.waiting))
        if disk_is_full:
            outcomes: list[object] = [Failure(StoreError("disk is full")) for _ in group]
        else:
            outcomes = _commit(self._disk.writer, group)
        self._answers.append(([write.answer for write in group], outcomes))

    @property
    def reads(self) -> int:
        """How many reads the threads are about to do."""
        return min(READERS, len(self._asked))

    def read(self, index: int) -> None:
        """Do one of the reads."""
        answer, function = self._asked.pop(index)
        try:
            outcome = function()
        except Exception:
            outcome = Failure()
        self._answers.append(([answer], [outcome]))

    def answer(self) -> bool:
        """Give the reactor the oldest answer; tell whether there was one."""
        if not self._answers:
            return False
        _fire(*self._answers.popleft())
        return True

    def shut(self) -> None:
        """Take nothing more and finish what was asked for, as `close` does."""
        self._is_open = False
        while self._writer.waiting or self._answers:
            if self._writer.waiting:
                self.commit(self._writer.waiting)
            self.answer()

    def _read(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Deferred[Any]:
        answer: Deferred[Any] = Deferred()
        if not self._is_open:
            answer.errback(StoreError("the store is not open"))
        else:
            self._asked.append((answer, lambda: function(self._disk.reader, *args, **kwargs)))
        return answer
