"""Tests of ``harpcaller.store.migrations``: they lead to the code's schema."""

import re
import sqlite3
from pathlib import Path

import msgspec
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from sqlalchemy import create_engine
from twisted.trial.unittest import SynchronousTestCase

from harp.wire.results import EndKind, EndResult
from harpcaller.jobs import Capacity, Job, JobState, WaitsFor
from harpcaller.packets import Recorded
from harpcaller.store import KEY_LIFE, changes, packets, records
from harpcaller.store.database import Database, StoreError, transaction
from harpcaller.store.schema import metadata
from tests.harpcaller.packets import recorded
from tests.harpcaller.stores import new_job


def _schema(path: Path) -> dict[str, str]:
    connection = sqlite3.connect(path)
    try:
        rows = connection.execute(
            "SELECT name, sql FROM sqlite_master"
            " WHERE sql IS NOT NULL AND name <> 'alembic_version'"
        )
        # One order of the constraints, which the two ways of writing them need not share.
        return {name: "\n".join(sorted(_lines(sql))) for name, sql in rows}
    finally:
        connection.close()


def _lines(sql: str) -> list[str]:
    # The name of a table that was renamed is quoted; columns that were added share a line.
    lines = re.sub(r'TABLE "(\w+)"', r"TABLE \1", sql).splitlines()
    lines = [line.strip().removesuffix(",") for line in lines]
    return [part for line in lines for part in ([line] if "(" in line else line.split(", "))]


class MigrationTests(SynchronousTestCase):
    """The migrations and the schema of the code."""

    def setUp(self) -> None:
        """Bring an empty database to this version."""
        self.path = Path(self.mktemp())
        self.database = Database(f"sqlite:///{self.path}")
        self.database.open_writer().close()

    def test_equal_to_fresh_schema(self) -> None:
        """A migrated database has the very schema of a new one, constraints and indexes too."""
        fresh = Path(self.mktemp())
        engine = create_engine(f"sqlite:///{fresh}")
        metadata.create_all(engine)
        engine.dispose()
        self.assertEqual(_schema(self.path), _schema(fresh))
        self.assertIn("jobs", _schema(self.path))

    def test_no_difference_found(self) -> None:
        """Alembic finds nothing that would need another migration."""
        engine = create_engine(f"sqlite:///{self.path}")
        self.addCleanup(engine.dispose)
        with engine.connect() as connection:
            context = MigrationContext.configure(connection)
            self.assertEqual(compare_metadata(context, metadata), [])

    def test_unknown_version(self) -> None:
        """A database of a version that is not known is refused and left as it is."""
        connection = sqlite3.connect(self.path)
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
        connection.commit()
        connection.close()
        before = _schema(self.path)
        with self.assertRaisesRegex(StoreError, "9999"):
            self.database.open_writer()
        self.assertEqual(_schema(self.path), before)

    def test_failed_migration_leaves_nothing(self) -> None:
        """A migration happens whole or not at all."""
        path = Path(self.mktemp())
        connection = sqlite3.connect(path)
        connection.execute("CREATE TABLE packets (unexpected)")
        connection.close()
        with self.assertRaisesRegex(StoreError, "packets already exists"):
            Database(f"sqlite:///{path}").open_writer()
        self.assertEqual(set(_schema(path)), {"packets"})


def _database_of(path: Path, version: str) -> sqlite3.Connection:
    """Return a connection with a new database of an earlier version."""
    engine = create_engine(f"sqlite:///{path}")
    with engine.connect() as connection:
        config = Config()
        config.set_main_option("script_location", "harpcaller.store:migrations")
        config.attributes["connection"] = connection
        command.upgrade(config, version)
        connection.commit()
    engine.dispose()
    return sqlite3.connect(path)


# What the first version wrote: a queue of one that runs and one that waits; one with packets that
# ended.
_FIRST_JOBS = """
INSERT INTO queues VALUES (3, X'00', CAST('{}' AS BLOB), 1);
INSERT INTO jobs VALUES (1, 'ran', 'web01', 'df', X'5b5d', X'31', 30.0, 60.0,
    NULL, NULL, 'ended', 1.0, 1.5, 2.0, 'result', X'32');
INSERT INTO packets VALUES (1, 0, X'33', 1.75);
INSERT INTO jobs VALUES (2, 'runs', 'web01', 'df', X'5b5d', X'31', 30.0, 60.0,
    CAST('{}' AS BLOB), 3, 'running', 3.0, 3.0, NULL, NULL, NULL);
INSERT INTO jobs VALUES (3, 'waits', 'web01', 'df', X'5b5d', X'31', 30.0, 60.0,
    CAST('{}' AS BLOB), 3, 'waiting', 4.0, NULL, NULL, NULL, NULL);
"""


class FirstVersionTests(SynchronousTestCase):
    """A database that the first version left behind."""

    def setUp(self) -> None:
        """Bring a database with jobs in it from the first version to this one."""
        path = Path(self.mktemp())
        first = _database_of(path, "0001")
        first.executescript(_FIRST_JOBS)
        first.close()
        self.connection = Database(f"sqlite:///{path}").open_writer()
        self.addCleanup(self.connection.close)

    def test_jobs_are_kept(self) -> None:
        """Every job is there with all that was known of it; what waited waits for its queue."""
        with transaction(self.connection):
            same = (b"[]", b"1", 30.0, 60.0)
            expected = [
                Job("ran", "web01", "df", *same, None, JobState.ENDED, 1.0, 1.5, 2.0),
                Job("runs", "web01", "df", *same, b"{}", JobState.RUNNING, 3.0, 3.0),
                Job("waits", "web01", "df", *same, b"{}", JobState.WAITING, 4.0),
            ]
            result = EndResult(EndKind.RESULT, b"2")
            expected[0] = msgspec.structs.replace(expected[0], end=result)
            expected[2] = msgspec.structs.replace(expected[2], waits_for=WaitsFor.QUEUE)
            self.assertEqual([records.job(self.connection, job.id) for job in expected], expected)
            page = packets.page(self.connection, "ran", 0, 9, 9)
            self.assertEqual(page, [recorded(0, b"3", at=1.75)])

    def test_references_hold(self) -> None:
        """No row refers to one that is not there, and none can be made to."""
        check = self.connection.execute("PRAGMA foreign_key_check")
        self.assertEqual(check.fetchall(), [])
        with self.assertRaisesRegex(sqlite3.IntegrityError, "FOREIGN KEY"):
            self.connection.execute("INSERT INTO packets VALUES (99, 0, 1, X'30', 1.0)")

    def test_queues_go_on(self) -> None:
        """What waited starts when the dispatcher does."""
        with transaction(self.connection):
            recovery = changes.recover(self.connection, Capacity(), 9.0)
        self.assertEqual(recovery.closed, ["runs"])
        self.assertEqual([job.id for job in recovery.released], ["waits"])


class PackedPacketsTests(SynchronousTestCase):
    """Packets that had a row each."""

    def migrated(self, *rows: tuple[int, int, bytes, float]) -> list[Recorded]:
        """Return a job's packets when a database that had these rows is of this version."""
        path = Path(self.mktemp())
        old = _database_of(path, "0001")
        old.executescript(_FIRST_JOBS)
        old.execute("DELETE FROM packets")
        old.executemany("INSERT INTO packets VALUES (?, ?, ?, ?)", rows)
        old.commit()
        old.close()
        connection = Database(f"sqlite:///{path}").open_writer()
        self.addCleanup(connection.close)
        self.assertEqual(connection.execute("PRAGMA foreign_key_check").fetchall(), [])
        return packets.page(connection, "ran", 0, 10**6, 10**9)

    def test_recorded_together(self) -> None:
        """What was recorded at one time shares a row; every packet keeps its number and time."""
        found = self.migrated(
            *((1, number, b"%d" % number, 1.0) for number in (2, 0, 1)),
            (1, 3, b"3", 2.0),
            (2, 0, b'"another"', 2.0),
            (1, 7, b'{"a": 7}', 2.0),
            (1, 8, b"[8]", 2.0),
        )
        expected = [
            recorded(0, b"0", b"1", b"2", at=1.0),
            recorded(3, b"3", at=2.0),
            recorded(7, b'{"a": 7}', b"[8]", at=2.0),
        ]
        self.assertEqual(found, expected)

    def test_many(self) -> None:
        """No row is larger than rows may be, unless it is one packet."""
        texts = [b"x" * 100] * 5000 + [b"y" * (packets.ROW_COST + 1), b"z"]
        found = self.migrated(*((1, number, text, 1.0) for number, text in enumerate(texts)))
        self.assertEqual([text for batch in found for text in batch.packets.texts], texts)
        for batch in found:
            cost = batch.packets.cost
            self.assertTrue(cost <= packets.ROW_COST or batch.packets.count == 1)
        self.assertLess(len(found), 8)


class SubmitterTests(SynchronousTestCase):
    """A database in which nothing had a submitter."""

    def test_keys_are_kept(self) -> None:
        """A key stands for its job, in a call of nobody in particular."""
        path = Path(self.mktemp())
        old = _database_of(path, "0004")
        old.executescript("INSERT INTO keys VALUES ('k', 'the-job', 1.0)")
        old.close()
        connection = Database(f"sqlite:///{path}").open_writer()
        self.addCleanup(connection.close)
        for submitter, found in ((None, "the-job"), ("joe", "new-job")):
            new = new_job(id="new-job", idempotency_key="k", submitter=submitter)
            with transaction(connection):
                submission = changes.submit(connection, Capacity(), new, 2.0, KEY_LIFE)
            self.assertEqual(submission.job_id, found)
