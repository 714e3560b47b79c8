"""Tests of ``harpcaller.store.readers``: reads in threads."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from threading import Barrier, Event, get_ident
from typing import cast

from twisted.internet.defer import gatherResults
from twisted.internet.interfaces import IReactorFromThreads
from twisted.trial.unittest import TestCase

from harpcaller.store.database import Database, StoreError
from harpcaller.store.readers import Readers
from harpcaller.store.statements import Connection
from tests.harpcaller.stores import real_reactor


def _one(connection: Connection) -> int:
    (one,) = connection.execute("SELECT 1").fetchone()
    assert isinstance(one, int)
    return one


def _fault(_: Connection) -> None:
    raise LookupError("on purpose")


class _CountingReactor:
    def __init__(self) -> None:
        self.calls = 0

    def callFromThread(self, function: Callable[..., object], *args: object) -> None:
        """Count it."""
        self.calls += 1
        real_reactor().callFromThread(function, *args)


class ReadersTests(TestCase):
    """Readers of a real database."""

    def setUp(self) -> None:
        """Make a database."""
        self.database = Database(f"sqlite:///{Path(self.mktemp())}")
        self.database.open_writer().close()

    def started(self, threads: int, together: int) -> Readers:
        """Return readers that are stopped when the test is over."""
        readers = Readers(real_reactor(), together)
        readers.start([self.database.open_reader() for _ in range(threads)])
        self.addCleanup(readers.stop)
        return readers

    def hold(self, readers: Readers) -> Event:
        """Keep a thread busy until the event."""
        busy, go_on = Event(), Event()

        def wait(_: Connection) -> None:
            busy.set()
            go_on.wait(60)

        readers.run(wait)
        busy.wait(60)
        return go_on

    async def test_threads(self) -> None:
        """Reads happen outside the reactor's thread, answers come inside it."""
        readers = self.started(1, 1)
        answer = readers.run(lambda _: get_ident()).addCallback(lambda read: (read, get_ident()))
        read, answered = await answer
        self.assertEqual(answered, get_ident())
        self.assertNotEqual(read, get_ident())

    async def test_beside_each_other(self) -> None:
        """As many reads go on at once as there are threads."""
        readers = self.started(3, 1)
        barrier = Barrier(3)
        reads = [readers.run(lambda _: barrier.wait(60)) for _ in range(3)]
        self.assertEqual(sorted(await gatherResults(reads)), [0, 1, 2])

    async def test_one_does_not_take_all(self) -> None:
        """Where reads may be long a thread takes one at a time and leaves the others to others."""
        readers = self.started(2, 1)
        first, second = self.hold(readers), self.hold(readers)
        barrier = Barrier(2)
        reads = [readers.run(lambda _: barrier.wait(60)) for _ in range(2)]
        first.set()
        second.set()
        await gatherResults(reads)

    async def test_failures(self) -> None:
        """A read that fails fails alone; a failure of the database is a StoreError."""
        readers = self.started(1, 10)
        go_on = self.hold(readers)
        good = [readers.run(_one)]
        bad = readers.run(_fault)
        worse = readers.run(lambda connection: connection.execute("SELECT nothing"))
        good.append(readers.run(_one))
        go_on.set()
        await self.assertFailure(bad, LookupError)
        await self.assertFailure(worse, StoreError)
        self.assertEqual(await gatherResults(good), [1, 1])

    async def test_answered_together(self) -> None:
        """What gathered while a thread was busy wakes the reactor once, up to a limit."""
        reactor = _CountingReactor()
        readers = Readers(cast(IReactorFromThreads, reactor), 10)
        readers.start([self.database.open_reader()])
        self.addCleanup(readers.stop)
        go_on = self.hold(readers)
        reads = [readers.run(_one) for _ in range(15)]
        go_on.set()
        self.assertEqual(await gatherResults(reads), [1] * 15)
        self.assertEqual(reactor.calls, 3)  # the one that held it up, ten and five

    async def test_stop_finishes(self) -> None:
        """What was asked for before the stop is read, and answered."""
        readers = Readers(real_reactor(), 2)
        readers.start([self.database.open_reader() for _ in range(2)])
        reads = [readers.run(_one) for _ in range(10)]
        readers.stop()
        self.assertEqual(await gatherResults(reads), [1] * 10)
