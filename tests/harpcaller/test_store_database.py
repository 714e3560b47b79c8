"""Tests of the file below ``harpcaller.store``: how it is made, opened, closed and survives."""

from __future__ import annotations

import os
import sqlite3
import stat
import subprocess
import sys
from pathlib import Path

from twisted.internet.defer import gatherResults
from twisted.trial.unittest import SynchronousTestCase, TestCase

from harpcaller.jobs import Capacity, JobState
from harpcaller.store import JobStore, StoreError, changes
from harpcaller.store.database import Database, transaction
from tests.harpcaller.packets import recorded
from tests.harpcaller.stores import (
    ONE_AT_A_TIME,
    RESULT,
    StoreTestCase,
    new_job,
    real_reactor,
    submitted,
)

# Both submit jobs and packets, say so, and leave without a word to the store.
SCRIPT = """
import os, sys
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from harpcaller.store import JobStore
from tests.harpcaller.packets import recorded
from tests.harpcaller.stores import ONE_AT_A_TIME, new_job

async def work():
    store = JobStore(sys.argv[1], reactor)
    await store.open()
    for job_id in ("runs", "waits"):
        await store.submit(new_job(ONE_AT_A_TIME, id=job_id), 1.0)
        print((await store.job(job_id)).id, flush=True)
    await store.append("runs", recorded(0, b"0", b"1"))
    print("packets", flush=True)
    {leave}

reactor.callWhenRunning(lambda: Deferred.fromCoroutine(work()).addErrback(lambda _: os._exit(1)))
reactor.run()
"""
DIE = SCRIPT.format(leave="os._exit(9)")
STOP = SCRIPT.format(leave="reactor.stop()")


def _run(script: str, url: str) -> tuple[int, bytes]:
    root = Path(__file__).parents[2]
    process = subprocess.run(
        [sys.executable, "-c", script, url],
        cwd=root,
        env=os.environ | {"PYTHONPATH": str(root)},
        stdout=subprocess.PIPE,
        timeout=60,
        check=False,
    )
    return process.returncode, process.stdout


class UrlTests(SynchronousTestCase):
    """Which databases are accepted."""

    def test_files_of_sqlite_only(self) -> None:
        """A URL that is not an SQLite file's is refused, without repeating a password in it."""
        for url in (
            "postgresql://user:secret@db/jobs",
            "sqlite://",
            "sqlite:///:memory:",
            "sqlite:///file:jobs.db?mode=ro&uri=true",
            "sqlite:///jobs.db?timeout=1",
            "sqlite://host/jobs.db",
            "/var/lib/jobs.db",
            "",
        ):
            with self.assertRaises(ValueError) as raised:
                JobStore(url, real_reactor())
            self.assertNotIn("secret", str(raised.exception))


class OpenTests(TestCase):
    """Opening a store."""

    async def test_private_files(self) -> None:
        """What holds the arguments of jobs can be read by its owner only."""
        path = Path(self.mktemp())
        umask = os.umask(0)
        try:
            store = JobStore(f"sqlite:///{path}", real_reactor())
            await store.open()
        finally:
            os.umask(umask)
        self.addCleanup(store.close)
        await store.submit(new_job(), 1.0)
        files = [path, Path(f"{path}-wal"), Path(f"{path}-shm")]
        self.assertEqual([stat.S_IMODE(file.stat().st_mode) for file in files], [0o600] * 3)

    async def test_directory_must_be_there(self) -> None:
        """A directory that is missing is named, not made; the store can still be closed."""
        store = JobStore(f"sqlite:///{self.mktemp()}/jobs.db", real_reactor())
        with self.assertRaisesRegex(StoreError, "jobs.db: can't be opened: No such file"):
            await store.open()
        await store.close()

    async def test_not_a_database(self) -> None:
        """A file that is something else is refused and left alone."""
        path = Path(self.mktemp())
        path.write_text("a letter" * 100)
        store = JobStore(f"sqlite:///{path}", real_reactor())
        await self.assertFailure(store.open(), StoreError)
        self.assertEqual(path.read_text(), "a letter" * 100)

    async def test_old_sqlite(self) -> None:
        """An SQLite that does not know every statement is refused at the start, and named."""
        path = Path(self.mktemp())
        self.patch(sqlite3, "sqlite_version_info", (3, 34, 1))
        store = JobStore(f"sqlite:///{path}", real_reactor())
        with self.assertRaisesRegex(StoreError, "SQLite 3.35 or newer is needed, not 3"):
            await store.open()
        self.assertFalse(path.exists())

    async def test_open_after_failure(self) -> None:
        """A store that could not be opened can be once the cause is gone."""
        directory = Path(self.mktemp())
        store = JobStore(f"sqlite:///{directory}/%41 ü?.db".replace("?", "%3F"), real_reactor())
        await self.assertFailure(store.open(), StoreError)
        directory.mkdir()
        await store.open()
        self.addCleanup(store.close)
        submission = await store.submit(new_job(), 1.0)
        self.assertEqual(await store.job(submission.job_id), submission.job)

    async def test_not_open(self) -> None:
        """A store that is not open fails what is asked of it, and closing it is no mistake."""
        store = JobStore(f"sqlite:///{self.mktemp()}", real_reactor())
        for answer in (store.submit(new_job(), 1.0), store.append("x", recorded(0, b"1"))):
            self.failureResultOf(answer, StoreError)
        self.failureResultOf(store.job("x"), StoreError)
        await store.close()
        self.failureResultOf(store.cancel("x", 1.0), StoreError)

    async def test_close_while_opening(self) -> None:
        """A store closed while it opens is closed in the end."""
        store = JobStore(f"sqlite:///{self.mktemp()}", real_reactor())
        await gatherResults([store.open(), store.close()])
        self.failureResultOf(store.job("x"), StoreError)


class LockTests(StoreTestCase):
    """One dispatcher at a time."""

    async def test_second_store(self) -> None:
        """A second store on the same file is refused before it has changed anything."""
        running = await self.running()
        second = JobStore(f"sqlite:///{self.path}", real_reactor())
        with self.assertRaisesRegex(StoreError, "another process has it open"):
            await second.open()
        job = await self.store.job(running)
        assert job is not None
        self.assertIs(job.state, JobState.RUNNING)
        await self.store.close()
        await second.open()
        await second.close()


class CloseTests(StoreTestCase):
    """Closing a store."""

    async def test_finishes(self) -> None:
        """What was asked for before the close is done, and nothing after it."""
        new = [new_job() for _ in range(20)]
        submitted = [self.store.submit(job, 1.0) for job in new]
        read = [self.store.job("none") for _ in range(20)]
        closed = self.store.close()
        self.failureResultOf(self.store.submit(new_job(), 1.0), StoreError)
        await closed
        self.assertEqual([self.successResultOf(answer) for answer in read], [None] * 20)
        for job, answer in zip(new, submitted, strict=True):
            self.assertEqual(self.successResultOf(answer).job_id, job.id)
        await self.store.open()
        for job in new:
            self.assertIsNotNone(await self.store.job(job.id))

    async def test_one_file_stays(self) -> None:
        """A store that was closed leaves its database whole, without companion files."""
        job_id = await self.running()
        await self.store.job(job_id)
        await self.store.close()
        self.assertEqual(list(self.path.parent.glob(f"{self.path.name}*")), [self.path])


class ConnectionTests(SynchronousTestCase):
    """The settings of the connections."""

    def setUp(self) -> None:
        """Open both kinds of connection."""
        database = Database(f"sqlite:///{self.mktemp()}")
        self.writer = database.open_writer()
        self.addCleanup(self.writer.close)
        self.reader = database.open_reader()
        self.addCleanup(self.reader.close)

    def test_writer_is_durable(self) -> None:
        """A commit is on disk when it returns, and references between tables hold."""
        for pragma, value in (("journal_mode", "wal"), ("synchronous", 2), ("foreign_keys", 1)):
            (found,) = self.writer.execute(f"PRAGMA {pragma}").fetchone()
            self.assertEqual(found, value, pragma)

    def test_readers_only_read(self) -> None:
        """No connection but the writer's can change anything."""
        with self.assertRaisesRegex(sqlite3.OperationalError, "readonly"):
            self.reader.execute("DELETE FROM jobs")

    def test_readers_hold_nothing(self) -> None:
        """A reader between two reads does not keep the log from being written back."""
        self.reader.execute("SELECT count(*) FROM jobs").fetchone()
        self.writer.execute("DELETE FROM jobs")
        busy, _, _ = self.writer.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        self.assertEqual(busy, 0)


class ConstraintTests(SynchronousTestCase):
    """What the database itself does not let happen to a job."""

    def setUp(self) -> None:
        """Open a database with a job that runs, one that waits and one that ended."""
        self.connection = Database(f"sqlite:///{self.mktemp()}").open_writer()
        self.addCleanup(self.connection.close)
        capacity = Capacity(1)
        with transaction(self.connection):
            for job_id in ("ended", "runs", "waits"):
                submitted(self.connection, capacity, new_job(ONE_AT_A_TIME, id=job_id))
            changes.end(self.connection, capacity, "ended", RESULT, None, 2.0, True)

    def test_illegal_rows(self) -> None:
        """A state without what belongs to it, or with what does not, is refused."""
        for job_id, illegal in (
            ("runs", "waits_for = 'host'"),
            ("runs", "started = NULL"),
            ("runs", "queue_id = NULL"),
            ("runs", "stream_ended = 3.0"),
            ("waits", "waits_for = NULL"),
            ("waits", "waits_for = 'nothing'"),
            ("waits", "queue = NULL, queue_id = NULL"),
            ("waits", "started = 3.0"),
            ("ended", "waits_for = 'queue'"),
            ("ended", "queue_id = 1"),
            ("ended", "end_kind = NULL"),
            ("ended", "end_origin = 'nowhere'"),
            ("ended", "stream_ended = 3.0"),
        ):
            statement = f"UPDATE jobs SET {illegal} WHERE id = '{job_id}'"
            with self.assertRaisesRegex(sqlite3.IntegrityError, "CHECK", msg=illegal):
                self.connection.execute(statement)

    def test_waiting_without_a_queue(self) -> None:
        """A job without a queue may wait for its host or for the dispatcher."""
        for what in ("host", "dispatcher"):
            self.connection.execute(
                "UPDATE jobs SET queue = NULL, queue_id = NULL, waits_for = ? WHERE id = 'waits'",
                (what,),
            )


class CrashTests(TestCase):
    """A process that dies without closing its store."""

    async def test_nothing_told_is_lost(self) -> None:
        """What a process was told of before it died is there for the next one."""
        path = Path(self.mktemp()).absolute()
        url = f"sqlite:///{path}"
        self.assertEqual(_run(DIE, url), (9, b"runs\nwaits\npackets\n"))
        store = JobStore(url, real_reactor())
        await store.open()
        self.addCleanup(store.close)
        page = await store.packets("runs", 0, 10, 1000)
        self.assertEqual(page, [recorded(0, b"0", b"1")])
        for job_id, state in (("runs", JobState.RUNNING), ("waits", JobState.WAITING)):
            job = await store.job(job_id)
            assert job is not None
            self.assertEqual((job.state, job.queue), (state, ONE_AT_A_TIME.name))
        recovery = await store.recover(2.0)
        self.assertEqual(recovery.closed, ["runs"])
        self.assertEqual([job.id for job in recovery.released], ["waits"])
        ending = await store.end("waits", RESULT, None, 3.0)
        self.assertIsNotNone(ending.job)

    def test_exit_waits_for_nobody(self) -> None:
        """A process that forgets to close its store ends all the same."""
        url = f"sqlite:///{Path(self.mktemp()).absolute()}"
        self.assertEqual(_run(STOP, url), (0, b"runs\nwaits\npackets\n"))
