"""What the tests of the job store share: a real store in a real file, and shorthands for jobs."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any, cast

from twisted.internet.interfaces import IReactorFromThreads
from twisted.trial.unittest import TestCase

from harp.wire.results import EndKind, EndResult
from harpcaller.jobs import NewJob, QueueSpec
from harpcaller.store import JobStore

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

    async def running(self) -> str:
        """Return the id of a job that runs."""
        return (await self.store.submit(new_job(), 1.0)).id
