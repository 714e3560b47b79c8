"""The job store of the simulation: the real statements on a real SQLite, when the seed says so.

A process that is killed loses what it has not committed, and the answers that had not come.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from functools import cache
from random import Random
from typing import Any, NamedTuple

from sqlalchemy import StaticPool, create_engine
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from harpcaller.jobs import Capacity
from harpcaller.store import KEY_LIFE, JobStore, StoreError
from harpcaller.store.access import Access
from harpcaller.store.answers import fire
from harpcaller.store.schema import metadata
from harpcaller.store.statements import Connection
from harpcaller.store.writer import Writer, _commit, _Write

READERS = 4


@cache
def _disk() -> Connection:
    raw = sqlite3.connect(
        ":memory:", isolation_level=None, cached_statements=1000, factory=Connection
    )
    metadata.create_all(create_engine("sqlite://", creator=lambda: raw, poolclass=StaticPool))
    raw.execute("PRAGMA foreign_keys = ON")
    raw.execute("PRAGMA secure_delete = ON")
    return raw


def blank_disk() -> Connection:
    """Return a disk without jobs; there is one for the whole process, as making it takes long."""
    disk = _disk()
    if disk.in_transaction:
        disk.execute("ROLLBACK")
    for table in ("packets", "running", "secrets", "jobs", "queues", "keys"):
        disk.execute(f"DELETE FROM {table}")
    return disk


class _Outcome(NamedTuple):
    answers: Sequence[Deferred[Any]]
    outcomes: Sequence[object]


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


class Threads(Access):
    """The threads of a store, as steps: what they do, and what the reactor hears of it.

    Between the two others may do and tell something, as with threads.

    :param slowness: how likely the writer tells something before a reader that could.
    """

    _writer: PatientWriter

    def __init__(self, disk: Connection, slowness: float) -> None:
        self._disk = disk
        self._slowness = slowness
        self._writer = PatientWriter()
        self._is_open = True
        self._asked: list[tuple[Deferred[Any], Callable[[], Any]]] = []
        # What is done and not told: the writer at most one thing, each reader one.
        self._committed: _Outcome | None = None
        self._found: list[_Outcome] = []

    @property
    def waiting(self) -> int:
        """How many changes wait for their commit."""
        return self._writer.waiting

    @property
    def is_idle(self) -> bool:
        """Whether nothing is asked for and everything is answered."""
        return not (self.waiting or self._committed or self._asked or self._found)

    @property
    def may_commit(self) -> bool:
        """Whether the writer has something to do and has told of what it did before."""
        return self._committed is None and self.waiting > 0

    def commit(self, count: int, disk_is_full: bool = False) -> None:
        """Commit the first changes that wait, as one group."""
        group = self._writer.take(min(count, self.waiting))
        if disk_is_full:
            outcomes: list[object] = [Failure(StoreError("disk is full")) for _ in group]
        else:
            outcomes = _commit(self._disk, group)
        self._committed = _Outcome([write.answer for write in group], outcomes)

    @property
    def may_look(self) -> bool:
        """Whether there is something to read, and a thread for it."""
        return bool(self._asked) and len(self._found) < READERS

    def look(self) -> None:
        """Do the oldest of the reads; any other may be answered before it."""
        answer, function = self._asked.pop(0)
        try:
            outcome = function()
        except Exception:
            outcome = Failure()
        self._found.append(_Outcome([answer], [outcome]))

    def answer(self, random: Random) -> bool:
        """Have one of the threads tell the reactor what it did; tell whether there was any."""
        outcome = self._committed
        if self._found and (outcome is None or random.random() > self._slowness):
            outcome = self._found.pop(int(random.random() * len(self._found)))
        elif outcome is not None:
            self._committed = None
        else:
            return False
        fire(*outcome)
        return True

    def shut(self, random: Random) -> None:
        """Take nothing more and finish what was asked for, as `close` does."""
        self._is_open = False
        while not self.is_idle:
            if self.may_commit:
                self.commit(self.waiting)
            if self.may_look:
                self.look()
            self.answer(random)

    def read(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Deferred[Any]:
        answer: Deferred[Any] = Deferred()
        if not self._is_open:
            answer.errback(StoreError("the store is not open"))
        else:
            self._asked.append((answer, lambda: function(self._disk, *args, **kwargs)))
        return answer


class PatientStore(JobStore):
    """A store for one life of the dispatcher: the real statements, and threads that wait."""

    def __init__(self, disk: Connection, capacity: Capacity, slowness: float) -> None:
        self.threads = self._access = Threads(disk, slowness)
        self._change = self.threads.change
        self._look_up = self.threads.read
        self._read = self.threads.read
        self.key_life = KEY_LIFE
        self._capacity = capacity
