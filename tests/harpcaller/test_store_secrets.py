"""Tests of secret arguments in ``harpcaller.store``: none is in the files longer than it must."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from random import Random

from twisted.internet import task
from twisted.trial.unittest import SynchronousTestCase

from harpcaller.jobs import Capacity, Job, JobState, NewJob
from harpcaller.store import Repeat, changes, secrets
from harpcaller.store.database import Database, transaction
from harpcaller.store.statements import Connection
from harpcaller.store.truncation import INTERVAL, Truncation
from tests.harpcaller.stores import (
    ONE_AT_A_TIME,
    RESULT,
    StoreTestCase,
    new_job,
    real_reactor,
    submitted,
)

SECRET = b"correct horse battery staple"
REAL, SHOWN = b'["root","%b"]' % SECRET, b'["root","(secret)"]'


def secret_job(secret: bytes = SECRET, **changed: object) -> NewJob:
    """Return a job of which an argument is secret."""
    given = {"arguments": REAL.replace(SECRET, secret), "shown_arguments": SHOWN}
    return new_job(ONE_AT_A_TIME, **(given | changed))


def files(path: Path) -> bytes:
    """Return all that is in a database and in what SQLite has beside it."""
    found = [path.with_name(path.name + suffix) for suffix in ("", "-wal", "-shm")]
    return b"".join(file.read_bytes() for file in found if file.exists())


class SecretTests(StoreTestCase):
    """Calls with secret arguments."""

    async def until_gone(self, secret: bytes = SECRET) -> None:
        """Wait until nothing of a secret is in the files; trial ends what takes for ever."""
        while secret in files(self.path):
            await task.deferLater(real_reactor(), 0.02, lambda: None)  # type: ignore[arg-type]

    async def waiting(self, **changed: object) -> tuple[Job, Job]:
        """Return a job that runs, and one with a secret that waits for it."""
        before = await self.submit(new_job(ONE_AT_A_TIME))
        job = await self.submit(secret_job(**changed))  # type: ignore[arg-type]
        self.assertIs(job.state, JobState.WAITING)
        self.assertIn(SECRET, files(self.path))
        return before, job

    async def test_started_at_once(self) -> None:
        """What runs at once never has its secrets on disk; it runs with them all the same."""
        job = await self.submit(secret_job())
        self.assertEqual((job.arguments, job.shown), (REAL, SHOWN))
        self.assertNotIn(SECRET, files(self.path))
        found = await self.store.job(job.id)
        assert found is not None
        self.assertEqual((found.arguments, found.shown), (SHOWN, SHOWN))

    async def test_started_later(self) -> None:
        """What waited runs with its secrets, of which nothing is left on disk then."""
        before, job = await self.waiting()
        self.assertEqual((job.arguments, job.shown), (SHOWN, SHOWN))
        self.assertEqual(await self.store.job(job.id), job)
        (started,) = (await self.store.end(before.id, RESULT, None, 2.0)).released
        self.assertEqual((started.arguments, started.shown), (REAL, SHOWN))
        await self.until_gone()
        found = await self.store.job(job.id)
        assert found is not None
        self.assertEqual(found.arguments, SHOWN)
        self.assertEqual(found, started.without_secrets())

    async def test_started_with_more_room(self) -> None:
        """The same where it is the dispatcher that has room again."""
        await self.store.set_capacity(Capacity(0), 1.0)
        job = await self.submit(secret_job())
        self.assertIn(SECRET, files(self.path))
        (started,) = await self.store.set_capacity(Capacity(1), 1.0)
        self.assertEqual((started.id, started.arguments), (job.id, REAL))
        await self.until_gone()

    async def test_cancelled(self) -> None:
        """What is cancelled while it waits needs its secrets no more."""
        _, job = await self.waiting()
        cancelled = (await self.store.cancel(job.id, 2.0)).job
        assert cancelled is not None
        self.assertEqual(cancelled.arguments, SHOWN)
        await self.until_gone()

    async def test_queue_cancelled(self) -> None:
        """Nor does what is cancelled with its queue."""
        await self.waiting()
        cancelled = await self.store.cancel_waiting(ONE_AT_A_TIME.name, 99, 9, 2.0)
        self.assertEqual([job.arguments for job in cancelled.jobs], [SHOWN])
        await self.until_gone()

    async def test_recovery(self) -> None:
        """What waited when the dispatcher stopped still knows its secrets, until it starts."""
        await self.waiting()
        await self.store.close()
        self.store = await self.opened()
        self.assertIn(SECRET, files(self.path))
        (started,) = (await self.store.recover(2.0)).released
        self.assertEqual((started.arguments, started.shown), (REAL, SHOWN))
        await self.until_gone()

    async def test_repeated(self) -> None:
        """A call that is sent again leaves nothing of its secrets, and learns of none."""
        before, job = await self.waiting(idempotency_key="k")
        await self.store.end(before.id, RESULT, None, 2.0)
        await self.until_gone()
        again = await self.store.submit(secret_job(idempotency_key="k"), 3.0)
        self.assertEqual((again.job_id, again.repeated), (job.id, Repeat.IDEMPOTENCY))
        assert again.job is not None
        self.assertEqual(again.job.arguments, SHOWN)
        self.assertNotIn(SECRET, files(self.path))

    async def test_pruned(self) -> None:
        """A job that had secrets can be removed."""
        _, job = await self.waiting()
        await self.store.cancel(job.id, 2.0)
        self.assertEqual((await self.store.prune_jobs(9.0)).removed, 1)
        await self.until_gone()

    async def test_replaced(self) -> None:
        """What turns out to be secret when it has been recorded is wiped."""
        job = await self.submit(new_job(arguments=REAL))
        self.assertIn(SECRET, files(self.path))
        await self.store.replace_arguments(job.id, SHOWN, wipe=True)
        found = await self.store.job(job.id)
        assert found is not None
        self.assertEqual(found.shown, SHOWN)
        await self.until_gone()

    async def test_held_back(self) -> None:
        """Somebody who reads holds the wiping back only until the reading ends."""
        before, _ = await self.waiting()
        with closing(sqlite3.connect(self.path)) as reader:
            rows = reader.execute("SELECT id FROM jobs")
            rows.fetchone()
            await self.store.end(before.id, RESULT, None, 2.0)
            # Others are not kept waiting by it.
            await self.submit(new_job(), 3.0)
            self.assertIn(SECRET, files(self.path))
            rows.close()
            await self.until_gone()

    async def test_undone(self) -> None:
        """What could not be committed is not left in the log; SQLite puts there what is long."""
        found = []

        def half(connection: Connection) -> None:
            secrets.keep(connection, 1, SECRET + bytes(8 * 1024 * 1024))
            found.append(SECRET in files(self.path))
            raise LookupError

        await self.running()
        await self.assertFailure(self.store._access.change(half), LookupError)
        self.assertEqual(found, [True])
        await self.until_gone()


class ProceduresTests(StoreTestCase):
    """What harpd has said of procedures."""

    async def test_kept(self) -> None:
        """It is there after a restart, in the order in which it was said last."""
        for procedure, has_secrets in (("a", True), ("b", True), ("c", True), ("a", True)):
            await self.store.note_secret_procedure("web01", procedure, has_secrets, 10)
        await self.store.note_secret_procedure("web01", "b", False, 10)
        await self.store.note_secret_procedure("web02", "c", False, 10)
        await self.store.close()
        self.store = await self.opened()
        known = await self.store.secret_procedures()
        self.assertEqual(known, [("web01", "c"), ("web01", "a")])

    async def test_bounded(self) -> None:
        """Only so many are kept, those that were added last."""
        for number in range(5):
            await self.store.note_secret_procedure("web01", str(number), True, 3)
        known = await self.store.secret_procedures()
        self.assertEqual([procedure for _, procedure in known], ["2", "3", "4"])


class FileTests(SynchronousTestCase):
    """What SQLite leaves in the file."""

    def setUp(self) -> None:
        """Open a database."""
        self.path = Path(self.mktemp()).absolute()
        self.connection = Database(f"sqlite:///{self.path}").open_writer()
        self.addCleanup(self.connection.close)

    def test_pages(self) -> None:
        """No secret is in a page whose rows SQLite moves, for it would leave copies behind."""
        with transaction(self.connection):
            submitted(self.connection, Capacity(0), secret_job())
        self.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").close()
        (size,) = self.connection.execute("PRAGMA page_size").fetchone()
        (root,) = self.connection.execute(
            "SELECT rootpage FROM sqlite_master WHERE name = 'secrets'"
        ).fetchone()
        text = files(self.path)
        self.assertEqual(text.count(SECRET), 1)
        # With a single row in it the table's first page is the only one that has rows.
        self.assertNotEqual(text.index(SECRET) // size, root - 1)

    def test_many(self) -> None:
        """However many come and go, and however long, only those that wait are in the file."""
        random, capacity = Random(4), Capacity(0)
        waiting: dict[str, bytes] = {}
        gone: list[bytes] = []

        def change(function: Callable[[], object]) -> None:
            with transaction(self.connection):
                function()

        def submit(number: int) -> None:
            secret = b"-secret-%d-" % number + b"x" * random.choice([0, 300, 900, 3000])
            job = submitted(self.connection, capacity, secret_job(secret))
            waiting[job.id] = b"-secret-%d-" % number

        def cancel() -> None:
            job_id = random.choice(list(waiting))
            gone.append(waiting.pop(job_id))
            changes.cancel(self.connection, capacity, job_id, 2.0, True)

        for number in range(600):
            change(lambda number=number: submit(number))  # type: ignore[misc]
            while len(waiting) > 40 or (waiting and random.random() < 0.45):
                change(cancel)
            if random.random() < 0.1:
                self.connection.execute("PRAGMA wal_checkpoint(PASSIVE)").close()
        self.connection.has_wiped = True
        Truncation(self.connection).act()
        self.assertFalse(self.connection.has_wiped)
        text = files(self.path)
        self.assertEqual([secret for secret in gone if secret in text], [])
        self.assertEqual([secret for secret in waiting.values() if secret not in text], [])


class TruncationTests(SynchronousTestCase):
    """When the log is emptied."""

    def setUp(self) -> None:
        """Open a database, on a clock."""
        path = Path(self.mktemp()).absolute()
        self.log = path.with_name(path.name + "-wal")
        self.connection = Database(f"sqlite:///{path}").open_writer()
        self.addCleanup(self.connection.close)
        self.clock = task.Clock()
        self.truncation = Truncation(self.connection, self.clock.seconds)
        self.other = sqlite3.connect(path, isolation_level=None)
        self.addCleanup(self.other.close)

    def write(self, wiped: bool) -> None:
        """Make a change."""
        with transaction(self.connection):
            submitted(self.connection, Capacity(), new_job())
        self.connection.has_wiped = wiped

    def size(self) -> int:
        """Return the size of the log."""
        return self.log.stat().st_size

    def test_at_start(self) -> None:
        """What a process that was killed may have left in the log is gone at the next start."""
        self.assertEqual(self.truncation.wait(), 0)
        self.assertGreater(self.size(), 0)
        self.truncation.act()
        self.assertEqual(self.size(), 0)

    def test_only_where_needed(self) -> None:
        """A log with nothing to be gone is left alone."""
        self.write(wiped=False)
        self.assertIsNone(self.truncation.wait())
        self.truncation.act()
        self.assertGreater(self.size(), 0)

    def test_interval(self) -> None:
        """It is emptied at once, but not again before its time."""
        self.write(wiped=True)
        self.assertEqual(self.truncation.wait(), 0)
        self.truncation.act()
        self.assertEqual((self.size(), self.truncation.wait()), (0, None))
        self.clock.advance(INTERVAL / 2)
        self.write(wiped=True)
        self.assertEqual(self.truncation.wait(), INTERVAL / 2)
        self.truncation.act()
        self.assertGreater(self.size(), 0)
        self.clock.advance(INTERVAL / 2)
        self.truncation.act()
        self.assertEqual((self.size(), self.truncation.wait()), (0, None))

    def test_again(self) -> None:
        """It is tried again when somebody reads, and then happens."""
        self.write(wiped=True)
        self.write(wiped=True)
        rows = self.other.execute("SELECT * FROM jobs")
        rows.fetchone()
        self.truncation.act()
        self.assertEqual(self.truncation.wait(), INTERVAL)
        self.assertGreater(self.size(), 0)
        rows.close()
        self.clock.advance(INTERVAL)
        self.truncation.act()
        self.assertEqual((self.size(), self.truncation.wait()), (0, None))

    def test_error(self) -> None:
        """It is tried again when it fails, and others still wait for a lock as before."""
        self.write(wiped=True)
        self.connection.set_authorizer(_deny_truncation)
        self.truncation.act()
        self.connection.set_authorizer(None)
        self.assertEqual(self.truncation.wait(), INTERVAL)
        (wait,) = self.connection.execute("PRAGMA busy_timeout").fetchone()
        self.assertEqual(wait, 5000)


def _deny_truncation(action: int, name: str | None, *others: str | None) -> int:
    denied = action == sqlite3.SQLITE_PRAGMA and name == "wal_checkpoint"
    return sqlite3.SQLITE_DENY if denied else sqlite3.SQLITE_OK
