"""Tests of ``harpcaller.store.statements``: SQL that is written once and executed by the driver."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from sqlalchemy import Integer, bindparam, insert, select, update
from twisted.trial.unittest import SynchronousTestCase

from harp.wire.results import EndKind
from harpcaller.jobs import Capacity, JobState, WaitsFor
from harpcaller.store import changes
from harpcaller.store.database import Database, transaction
from harpcaller.store.schema import jobs, queues
from harpcaller.store.statements import Statement
from tests.harpcaller.stores import RESULT, new_job, submitted

NAMES = Statement(
    select(queues.c.name)
    .where(queues.c.concurrency >= bindparam("low"), queues.c.concurrency < bindparam("high"))
    .order_by(queues.c.id)
    .limit(bindparam("most", type_=Integer))
)
CREATE = Statement(insert(queues), "digest", "name", "concurrency")


class StatementTests(SynchronousTestCase):
    """Statements on a real database."""

    def setUp(self) -> None:
        """Open a database."""
        self.path = Path(self.mktemp())
        self.database = Database(f"sqlite:///{self.path}")
        self.connection = self.database.open_writer()
        self.addCleanup(self.connection.close)

    def create(self, *names: bytes) -> None:
        """Insert queues whose concurrency is 1, 2 and so on."""
        CREATE.run_many(
            self.connection,
            [{"digest": n, "name": n, "concurrency": c} for c, n in enumerate(names, 1)],
        )

    def test_parameters_by_name(self) -> None:
        """Each parameter reaches its place, whatever the order of the text."""
        self.create(b"a", b"b", b"c", b"d")
        found = NAMES.all(self.connection, most=5, high=4, low=2)
        self.assertEqual(found, [(b"b",), (b"c",)])
        self.assertEqual(NAMES.all(self.connection, low=2, most=1, high=4), [(b"b",)])

    def test_parameter_used_twice(self) -> None:
        """A parameter may stand in more than one place."""
        either = (queues.c.name == bindparam("x")) | (queues.c.digest == bindparam("x"))
        CREATE.run(self.connection, digest=b"1", name=b"2", concurrency=1)
        for name, count in ((b"1", 1), (b"2", 1), (b"3", 0)):
            found = Statement(select(queues.c.id).where(either)).all(self.connection, x=name)
            self.assertEqual(len(found), count)

    def test_missing_parameter(self) -> None:
        """A parameter that is forgotten is a mistake, not NULL."""
        with self.assertRaises(KeyError):
            NAMES.all(self.connection, low=1, high=2)

    def test_constants(self) -> None:
        """What the statement itself says need not be given."""
        self.create(b"a", b"b")
        rename = update(queues).where(queues.c.name == bindparam("old")).values(name=b"z")
        self.assertEqual(Statement(rename).run(self.connection, old=b"a"), 1)
        first = Statement(select(queues.c.name).order_by(queues.c.id).limit(1))
        self.assertEqual(first.scalar(self.connection), b"z")

    def test_first_of_none(self) -> None:
        """There may be no row."""
        self.assertIsNone(NAMES.first(self.connection, low=1, high=2, most=1))
        self.assertIsNone(NAMES.scalar(self.connection, low=1, high=2, most=1))
        self.create(b"a", b"b")
        self.assertEqual(NAMES.first(self.connection, low=1, high=9, most=9), (b"a",))

    def test_enumerations(self) -> None:
        """Members are stored as their values and come back as members, NULL as None."""
        with transaction(self.connection):
            job = submitted(self.connection, Capacity(), new_job())
            changes.end(self.connection, Capacity(), job.id, RESULT, None, 2.0, True)
            submitted(self.connection, Capacity(0), new_job())
        columns = (jobs.c.state, jobs.c.end_kind, jobs.c.waits_for, jobs.c.submitted)
        statement = Statement(select(*columns).where(jobs.c.state == bindparam("wanted")))
        ended = statement.all(self.connection, wanted=JobState.ENDED)
        self.assertEqual(ended, [(JobState.ENDED, EndKind.RESULT, None, 1.0)])
        waiting = statement.all(self.connection, wanted=JobState.WAITING)
        self.assertEqual(waiting, [(JobState.WAITING, None, WaitsFor.DISPATCHER, 1.0)])
        self.assertEqual(statement.all(self.connection, wanted=None), [])
        stored = self.connection.execute("SELECT state, end_kind FROM jobs").fetchone()
        self.assertEqual(stored, ("ended", "result"))

    def test_returning(self) -> None:
        """A change may return what it changed, converted too."""
        with transaction(self.connection):
            job = submitted(self.connection, Capacity(0), new_job())
            move = update(jobs).values(waits_for=bindparam("what")).returning(jobs.c.waits_for)
            moved = Statement(move.where(jobs.c.id == bindparam("job_id")))
            self.assertIs(
                moved.scalar(self.connection, what=WaitsFor.HOST, job_id=job.id), WaitsFor.HOST
            )

    def test_rows_end_their_read(self) -> None:
        """Rows that are not all taken do not keep the log from being written back."""
        self.create(b"a", b"b", b"c")
        reader = self.database.open_reader()
        self.addCleanup(reader.close)
        with NAMES.rows(reader, low=1, high=9, most=9) as rows:
            self.assertEqual(next(rows), (b"a",))
            self.assertEqual(self.checkpoint(), 1)
        self.assertEqual(self.checkpoint(), 0)

    def test_first_ends_its_read(self) -> None:
        """One row that is taken of many does not either."""
        self.create(b"a", b"b", b"c")
        reader = self.database.open_reader()
        self.addCleanup(reader.close)
        NAMES.first(reader, low=1, high=9, most=9)
        self.assertEqual(self.checkpoint(), 0)

    def checkpoint(self) -> int:
        """Return 1 if somebody reads, 0 if the whole log could be written back."""
        self.connection.execute("PRAGMA busy_timeout = 0")
        self.create(b"more")
        self.connection.execute("DELETE FROM queues WHERE name = 'more'")
        busy, _, _ = self.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        self.connection.execute("DELETE FROM queues WHERE digest = ?", (b"more",))
        assert isinstance(busy, int)
        return busy

    def test_errors(self) -> None:
        """The driver's errors come through, without parameters in their text."""
        self.create(b"secret")
        with self.assertRaises(sqlite3.IntegrityError) as raised:
            CREATE.run(self.connection, digest=b"secret", name=b"secret", concurrency=1)
        self.assertNotIn("secret", str(raised.exception))
