"""What the tests of the job store share: a real store in a real file, and shorthands for jobs."""

from __future__ import annotations

import itertools
import sqlite3
from collections.abc import Iterable
from pathlib import Path
from typing import Any, cast

from twisted.internet.interfaces import IReactorFromThreads
from twisted.trial.unittest import TestCase

from harp.wire.results import EndKind, EndResult
from harpcaller.jobs import Capacity, Job, NewJob, QueueSpec
from harpcaller.store import KEY_LIFE, JobStore, changes
from harpcaller.store.database import Database
from harpcaller.store.statements import Connection

RESULT = EndResult(EndKind.RESULT, b'{"free":12}')
ONE_AT_A_TIME = QueueSpec(b'{"disk":"sda"}', 1)

_numbers = itertools.count()


def real_reactor() -> IReactorFromThreads:
    """Return the reactor that trial runs."""
    from twisted.internet import reactor

    return cast(IReactorFromThreads, reactor)


def new_job(queue: QueueSpec | None = None, **changes: Any) -> NewJob:
    """Return a job with an id of its own."""
    fields: dict[str, Any] = {
        "id": f"job-{next(_numbers)}",
        "host": "web01",
        "procedure": "df",
        "arguments": b'["/srv"]',
        "info": b'{"ticket": 7}',
        "timeout": 30.0,
        "max_exec_time": 600.0,
        "queue": queue,
    }
    return NewJob(**(fields | changes))


class NotedConnection(Connection):
    """Notes what is executed on it."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.executed: list[tuple[str, list[Any]]] = []
        super().__init__(*args, **kwargs)

    def execute(self, text: str, parameters: Any = (), /) -> sqlite3.Cursor:
        """Note a statement with its parameters."""
        self.executed.append((text, [parameters]))
        return super().execute(text, parameters)

    def executemany(self, text: str, rows: Iterable[Any], /) -> sqlite3.Cursor:
        """Note a statement with all its parameters."""
        self.executed.append((text, many := list(rows)))
        return super().executemany(text, many)


def noted_connection(path: Path | str) -> NotedConnection:
    """Return a connection that writes and notes it, to a database made anew if need be."""
    Database(f"sqlite:///{path}").open_writer().close()
    return sqlite3.connect(path, isolation_level=None, factory=NotedConnection)


def submitted(connection: Connection, capacity: Capacity, new: NewJob) -> Job:
    """Return a new job, recorded in the transaction of a connection."""
    job = changes.submit(connection, capacity, new, 1.0, KEY_LIFE).job
    assert job is not None
    return job


class StoreTestCase(TestCase):
    """A test with a store that is open."""

    async def setUp(self) -> None:  # type: ignore[override]  # trial waits for it
        """Open a store in a file of its own."""
        self.path = Path(self.mktemp()).absolute()
        self.store = await self.opened()

    async def opened(self) -> JobStore:
        """Return another store on the same file, closed when the test is over."""
        store = JobStore(f"sqlite:///{self.path}", real_reactor())
        self.addCleanup(store.close)
        await store.open()
        return store

    async def submit(self, new: NewJob, now: float = 1.0) -> Job:
        """Return a new job, recorded."""
        submission = await self.store.submit(new, now)
        assert submission.job is not None
        self.assertIsNone(submission.repeated)
        return submission.job

    async def running(self) -> str:
        """Return the id of a job that runs."""
        return (await self.submit(new_job())).id
