"""Tests of ``harpcaller.store.writer``: commits in groups."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from functools import partial
from pathlib import Path
from threading import Event, get_ident
from typing import Any

from sqlalchemy import insert
from twisted.internet.defer import Deferred, gatherResults
from twisted.trial.unittest import TestCase

from harpcaller.store.database import StoreError
from harpcaller.store.schema import queues
from harpcaller.store.statements import Connection, Statement
from harpcaller.store.writer import Writer
from tests.harpcaller.stores import noted_connection, real_reactor

INSERT = Statement(insert(queues), "digest", "name", "concurrency")


def _row(name: bytes) -> dict[str, Any]:
    return {"digest": name, "name": name, "concurrency": 1}


def _insert(name: bytes) -> Callable[[Connection], None]:
    def operation(connection: Connection) -> None:
        INSERT.run(connection, **_row(name))

    return operation


def _return(number: int, _: Connection) -> int:
    return number


def _fault(_: Connection) -> None:
    raise LookupError("on purpose")


class WriterTests(TestCase):
    """Operations that gather while the writer is busy."""

    async def setUp(self) -> None:  # type: ignore[override]  # trial waits for it
        """Start a writer on a database of its own and note what it executes."""
        self.path = Path(self.mktemp())
        self.writer = Writer(real_reactor())
        await self.writer.start(self.connect)
        self.addCleanup(self.stop)

    def connect(self) -> Connection:
        """Open the database, with an ear to it."""
        self.connection = noted_connection(self.path)
        return self.connection

    def executed(self, text: str) -> list[int]:
        """Return for how many rows a statement was executed, each time."""
        return [len(rows) for executed, rows in self.connection.executed if executed == text]

    def stop(self) -> Deferred[None]:
        """Stop the writer."""
        return self.writer.stop(lambda: None)

    def hold(self) -> tuple[Event, Deferred[None]]:
        """Keep the writer busy, so that what comes next makes one group, until the event."""
        busy, go_on = Event(), Event()

        def wait(_: Connection) -> None:
            busy.set()
            go_on.wait(60)

        held = self.writer.run(wait)
        busy.wait(60)
        return go_on, held

    def names(self) -> list[bytes]:
        """Return what another connection sees on disk."""
        connection = sqlite3.connect(self.path)
        try:
            return [name for (name,) in connection.execute("SELECT name FROM queues ORDER BY id")]
        finally:
            connection.close()

    async def test_one_commit(self) -> None:
        """What gathers while the writer is busy shares one commit, in its order."""
        go_on, held = self.hold()
        names = [b"%d" % number for number in range(50)]
        answers = [self.writer.run(_insert(name)) for name in names]
        go_on.set()
        await gatherResults([held, *answers])
        self.assertEqual(self.names(), names)
        self.assertEqual(self.executed("COMMIT"), [1, 1])

    async def test_answer_after_commit(self) -> None:
        """Nobody is told of a change before every other connection can see it."""
        go_on, held = self.hold()
        seen = [
            self.writer.run(_insert(name)).addCallback(lambda _: self.names())
            for name in (b"a", b"b")
        ]
        go_on.set()
        await held
        self.assertEqual(await gatherResults(seen), [[b"a", b"b"], [b"a", b"b"]])

    async def test_one_bad_operation(self) -> None:
        """An operation that fails fails alone; the others of its group are on disk."""
        go_on, held = self.hold()
        good = [self.writer.run(_insert(b"a")), self.writer.insert(INSERT, [_row(b"b")])]
        bad = self.writer.run(_fault)
        good.append(self.writer.run(_insert(b"c")))
        go_on.set()
        await self.assertFailure(bad, LookupError)
        await gatherResults([held, *good])
        self.assertEqual(self.names(), [b"a", b"b", b"c"])

    async def test_bad_operation_leaves_nothing(self) -> None:
        """An operation that fails half-way leaves nothing of its first half."""

        def half(connection: Connection) -> None:
            INSERT.run(connection, **_row(b"half"))
            _fault(connection)

        await self.assertFailure(self.writer.run(half), LookupError)
        await self.assertFailure(self.writer.insert(INSERT, [_row(b"x"), _row(b"x")]), StoreError)
        self.assertEqual(self.names(), [])

    async def test_operations_return(self) -> None:
        """Each operation is answered with what it returned, not with another's answer."""
        go_on, held = self.hold()
        answers = [self.writer.run(partial(_return, number)) for number in range(10)]
        go_on.set()
        await held
        self.assertEqual(await gatherResults(answers), list(range(10)))

    async def test_insertions_are_joined(self) -> None:
        """Insertions that follow each other are executed as one, and in their place."""
        go_on, held = self.hold()
        answers = [
            self.writer.insert(INSERT, [_row(b"a"), _row(b"b")]),
            self.writer.insert(INSERT, []),
            self.writer.insert(INSERT, [_row(b"c")]),
            self.writer.run(_insert(b"d")),
            self.writer.insert(INSERT, [_row(b"e")]),
        ]
        go_on.set()
        await gatherResults([held, *answers])
        self.assertEqual(self.executed(INSERT.text), [3, 1, 1])
        self.assertEqual(self.names(), [b"a", b"b", b"c", b"d", b"e"])

    async def test_database_errors(self) -> None:
        """A failure of the database is a StoreError and does not end the writer."""
        failing = self.writer.run(lambda connection: connection.execute("SELECT nothing"))
        await self.assertFailure(failing, StoreError)
        await self.writer.run(_insert(b"a"))
        self.assertEqual(self.names(), [b"a"])

    async def test_threads(self) -> None:
        """Operations run outside the reactor's thread, answers come inside it."""
        operation = self.writer.run(lambda _: get_ident())
        answer = operation.addCallback(lambda ident: (ident, get_ident()))
        operated, answered = await answer
        self.assertEqual(answered, get_ident())
        self.assertNotEqual(operated, get_ident())

    async def test_stop_finishes(self) -> None:
        """What was asked for before the stop is on disk after it, and answered."""
        go_on, held = self.hold()
        answers = [self.writer.run(_insert(b"%d" % number)) for number in range(10)]
        seen_before_closing: list[int] = []
        stopped = self.writer.stop(lambda: seen_before_closing.append(len(self.names())))
        go_on.set()
        await stopped
        for answer in [held, *answers]:
            self.successResultOf(answer)
        self.assertEqual(seen_before_closing, [10])
        await self.writer.start(self.connect)
