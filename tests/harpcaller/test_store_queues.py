"""Tests of the queues of ``harpcaller.store``: which job starts when."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, event, func, select
from twisted.trial.unittest import SynchronousTestCase

from harpcaller.jobs import Job, JobState, QueueSpec
from harpcaller.store import changes, reads
from harpcaller.store.database import Database, transaction
from harpcaller.store.schema import queues
from tests.harpcaller.stores import ONE_AT_A_TIME, RESULT, StoreTestCase, new_job

TWO_AT_A_TIME = QueueSpec(b'{"disk":"sdb"}', 2)


def _ids(jobs: list[Job]) -> list[str]:
    return [job.id for job in jobs]


class QueueTests(StoreTestCase):
    """Jobs that wait for each other."""

    async def submitted(self, queue: QueueSpec, count: int) -> list[Job]:
        """Return so many new jobs of a queue."""
        return [await self.store.submit(new_job(queue), 1.0) for _ in range(count)]

    async def test_concurrency(self) -> None:
        """As many jobs run as the queue allows, and the others wait."""
        jobs = await self.submitted(TWO_AT_A_TIME, 4)
        running, waiting = JobState.RUNNING, JobState.WAITING
        self.assertEqual([job.state for job in jobs], [running, running, waiting, waiting])

    async def test_order_of_submission(self) -> None:
        """Each end releases the job that waited longest, and says so."""
        jobs = await self.submitted(TWO_AT_A_TIME, 5)
        for ended, released in ((1, 2), (0, 3), (3, 4)):
            ending = await self.store.end(jobs[ended].id, RESULT, 7.0)
            self.assertEqual(_ids(ending.released), [jobs[released].id])
            job = await self.store.job(jobs[released].id)
            self.assertEqual(ending.released, [job])
            assert job is not None
            self.assertEqual((job.state, job.submitted, job.started), (JobState.RUNNING, 1.0, 7.0))
        for ended in (2, 4):
            ending = await self.store.end(jobs[ended].id, RESULT, 8.0)
            self.assertEqual(ending.released, [])

    async def test_cancel_in_the_middle(self) -> None:
        """A job cancelled in the middle of its queue is passed over and releases nobody."""
        jobs = await self.submitted(ONE_AT_A_TIME, 4)
        cancellation = await self.store.cancel(jobs[1].id, 2.0)
        self.assertEqual(cancellation.released, [])
        ending = await self.store.end(jobs[0].id, RESULT, 3.0)
        self.assertEqual(_ids(ending.released), [jobs[2].id])

    async def test_cancel_of_a_running_job(self) -> None:
        """A cancelled job makes room like one that ended."""
        jobs = await self.submitted(ONE_AT_A_TIME, 3)
        cancellation = await self.store.cancel(jobs[0].id, 2.0)
        self.assertEqual(_ids(cancellation.released), [jobs[1].id])

    async def test_queues_are_apart(self) -> None:
        """A queue waits for none but its own jobs."""
        first = await self.submitted(ONE_AT_A_TIME, 2)
        other = await self.submitted(TWO_AT_A_TIME, 1)
        self.assertIs(other[0].state, JobState.RUNNING)
        ending = await self.store.end(other[0].id, RESULT, 2.0)
        self.assertEqual(ending.released, [])
        still = await self.store.job(first[1].id)
        assert still is not None
        self.assertIs(still.state, JobState.WAITING)

    async def test_creator_sets_concurrency(self) -> None:
        """A queue keeps the concurrency of its first job until its last one ends."""
        wider = QueueSpec(ONE_AT_A_TIME.name, 5)
        jobs = await self.submitted(ONE_AT_A_TIME, 1)
        jobs += await self.submitted(wider, 2)
        self.assertIs(jobs[1].state, JobState.WAITING)
        for job in jobs:
            await self.store.end(job.id, RESULT, 2.0)
        jobs = await self.submitted(wider, 2)
        self.assertEqual([job.state for job in jobs], [JobState.RUNNING] * 2)

    async def test_queue_ends_with_its_last_job(self) -> None:
        """No row of a queue stays behind when its last job ends, however it ended."""
        ended = await self.submitted(ONE_AT_A_TIME, 1)
        cancelled = await self.submitted(TWO_AT_A_TIME, 1)
        self.assertEqual(self.count_queues(), 2)
        await self.store.end(ended[0].id, RESULT, 2.0)
        self.assertEqual(self.count_queues(), 1)
        await self.store.cancel(cancelled[0].id, 2.0)
        self.assertEqual(self.count_queues(), 0)

    def count_queues(self) -> int:
        """Return how many queues the database has."""
        connection = sqlite3.connect(self.path)
        try:
            (count,) = connection.execute("SELECT count(*) FROM queues").fetchone()
        finally:
            connection.close()
        return int(count)


class _Model:
    """Queues as lists: what the store must agree with."""

    def __init__(self) -> None:
        self.states: dict[str, JobState] = {}
        self.queue_of: dict[str, str | None] = {}
        self.concurrency: dict[str, int] = {}

    def living(self, queue: str, state: JobState) -> list[str]:
        return [
            job_id
            for job_id, its_queue in self.queue_of.items()
            if its_queue == queue and self.states[job_id] is state
        ]

    def submit(self, job_id: str, queue: str | None, concurrency: int) -> None:
        self.queue_of[job_id] = queue
        self.states[job_id] = JobState.RUNNING if queue is None else JobState.WAITING
        if queue is not None:
            self.concurrency.setdefault(queue, concurrency)
            self.release(queue)

    def end(self, job_id: str) -> list[str]:
        self.states[job_id] = JobState.ENDED
        queue = self.queue_of[job_id]
        return [] if queue is None else self.release(queue)

    def recover(self) -> tuple[list[str], list[str]]:
        closed = [job for job, state in self.states.items() if state is JobState.RUNNING]
        for job_id in closed:
            self.states[job_id] = JobState.ENDED
        released = {job for queue in list(self.concurrency) for job in self.release(queue)}
        return closed, [job_id for job_id in self.states if job_id in released]

    def release(self, queue: str) -> list[str]:
        room = self.concurrency[queue] - len(self.living(queue, JobState.RUNNING))
        released = self.living(queue, JobState.WAITING)[:room]
        for job_id in released:
            self.states[job_id] = JobState.RUNNING
        if not self.living(queue, JobState.RUNNING):
            del self.concurrency[queue]
        return released


_QUEUES = st.sampled_from([None, '{"q":1}', '{"q":2}'])
_STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("submit"), _QUEUES, st.integers(1, 3)),
        st.tuples(st.sampled_from(["end", "cancel"]), st.integers(0, 20), st.none()),
        st.tuples(st.just("recover"), st.none(), st.none()),
    ),
    max_size=40,
)


class ModelTests(SynchronousTestCase):
    """The store's queues against queues that are lists."""

    def setUp(self) -> None:
        """Open a database that every example leaves empty."""
        self.connection = Database(f"sqlite:///{self.mktemp()}").open_writer()
        self.addCleanup(self.connection.close)

    @settings(deadline=None, max_examples=60)
    @given(_STEPS)
    def test_agrees_with_model(self, steps: list[tuple[str, Any, Any]]) -> None:
        """Whatever is submitted, ended and cancelled: the right jobs run, in the right order."""
        with self.assertRaises(_Undo), transaction(self.connection):
            self.compare(steps)
            raise _Undo

    def compare(self, steps: list[tuple[str, Any, Any]]) -> None:
        """Do the steps in the store and in the model."""
        model = _Model()
        for step, argument, concurrency in steps:
            known = list(model.states)
            if step == "submit":
                spec = None if argument is None else QueueSpec(argument.encode(), concurrency)
                job = changes.submit(self.connection, new_job(spec), 1.0)
                model.submit(job.id, argument, concurrency)
            elif step == "recover":
                recovery = changes.recover(self.connection, 2.0)
                self.assertEqual((recovery.closed, _ids(recovery.released)), model.recover())
            elif known:
                self.finish(model, step, known[argument % len(known)])
            found = {job_id: self.state(job_id) for job_id in model.states}
            self.assertEqual(found, model.states)
            count = self.connection.execute(select(func.count()).select_from(queues)).scalar_one()
            self.assertEqual(count, len(model.concurrency))

    def finish(self, model: _Model, step: str, job_id: str) -> None:
        """End or cancel a job, whatever state it is in."""
        before = model.states[job_id]
        if step == "cancel":
            cancellation = changes.cancel(self.connection, job_id, 2.0, True)
            self.assertIs(cancellation.before, before)
            released = _ids(cancellation.released)
            changed = before is not JobState.ENDED
        else:
            ending = changes.end(self.connection, job_id, RESULT, 2.0, True)
            released = _ids(ending.released)
            changed = before is JobState.RUNNING
            self.assertEqual(ending.job is not None, changed)
        self.assertEqual(released, model.end(job_id) if changed else [])

    def state(self, job_id: str) -> JobState:
        """Return the state of a job that is there."""
        job = reads.job(self.connection, job_id)
        assert job is not None
        return job.state


class _Undo(Exception):
    """Raised to roll an example back."""


class ScaleTests(SynchronousTestCase):
    """What the store does when there are very many jobs and queues."""

    def setUp(self) -> None:
        """Note every statement that is executed."""
        self.connection = Database(f"sqlite:///{Path(self.mktemp())}").open_writer()
        self.addCleanup(self.connection.close)
        self.statements: dict[str, Any] = {}

        def note(_: Connection, __: Any, text: str, parameters: Any, *___: Any) -> None:
            if text.startswith(("SELECT", "INSERT", "UPDATE", "DELETE")):
                self.statements[text] = parameters[0] if parameters and ___[1] else parameters

        event.listen(self.connection.engine, "before_cursor_execute", note)

    def plans(self) -> str:
        """Return how SQLite executes the statements noted so far, one step a line."""
        steps = []
        for statement, parameters in self.statements.items():
            plan = self.connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)
            steps += [f"{row.detail}  <- {' '.join(statement.split())}" for row in plan]
        return "\n".join(steps)

    def test_no_scans(self) -> None:
        """No statement of a job's life looks at more rows than it needs, nor sorts any."""
        connection = self.connection
        with transaction(connection):
            jobs = [changes.submit(connection, new_job(TWO_AT_A_TIME), 1.0) for _ in range(5)]
            rows = [{"job_id": jobs[0].id, "number": 0, "data": b"1", "recorded": 1.0}]
            connection.execute(changes.INSERT_PACKET, rows)
            reads.page(connection, jobs[0].id, 0, 10, 10)
            reads.packet_count(connection, jobs[0].id)
            changes.end(connection, jobs[0].id, RESULT, 2.0, True)
            for job in jobs:
                changes.cancel(connection, job.id, 2.0, True)
        plans = self.plans()
        self.assertGreaterEqual(len(self.statements), 11)
        self.assertIn("ix_jobs_queue_id_state_seq (queue_id=? AND state=?)", plans)
        self.assertNotIn("SCAN", plans.replace("SCAN CONSTANT ROW", ""))
        self.assertNotIn("TEMP B-TREE", plans)

    def test_recovery_follows_the_living(self) -> None:
        """Recovery looks at jobs that run and queues that are, not at all that ever was."""
        with transaction(self.connection):
            changes.submit(self.connection, new_job(ONE_AT_A_TIME), 1.0)
            self.statements.clear()
            changes.recover(self.connection, 2.0)
        scans = [plan for plan in self.plans().splitlines() if plan.startswith("SCAN")]
        self.assertEqual(len(scans), 3, scans)
        for scan in scans:
            self.assertRegex(scan, "^SCAN (jobs USING INDEX ix_jobs_running|queues) ")
