"""Tests of the queues of ``harpcaller.store``: which job starts when."""

from __future__ import annotations

import sqlite3

from harpcaller.jobs import Capacity, Job, JobState, QueueSpec
from tests.harpcaller.stores import ONE_AT_A_TIME, RESULT, StoreTestCase, new_job

CAPACITY = Capacity()
TWO_AT_A_TIME = QueueSpec(b'{"disk":"sdb"}', 2)


def _ids(jobs: list[Job]) -> list[str]:
    return [job.id for job in jobs]


class QueueTests(StoreTestCase):
    """Jobs that wait for each other."""

    async def submitted(self, queue: QueueSpec, count: int) -> list[Job]:
        """Return so many new jobs of a queue."""
        return [await self.submit(new_job(queue), 1.0) for _ in range(count)]

    async def test_concurrency(self) -> None:
        """As many jobs run as the queue allows, and the others wait."""
        jobs = await self.submitted(TWO_AT_A_TIME, 4)
        running, waiting = JobState.RUNNING, JobState.WAITING
        self.assertEqual([job.state for job in jobs], [running, running, waiting, waiting])

    async def test_order_of_submission(self) -> None:
        """Each end releases the job that waited longest, and says so."""
        jobs = await self.submitted(TWO_AT_A_TIME, 5)
        for ended, released in ((1, 2), (0, 3), (3, 4)):
            ending = await self.store.end(jobs[ended].id, RESULT, None, 7.0)
            self.assertEqual(_ids(ending.released), [jobs[released].id])
            job = await self.store.job(jobs[released].id)
            self.assertEqual(ending.released, [job])
            assert job is not None
            self.assertEqual((job.state, job.submitted, job.started), (JobState.RUNNING, 1.0, 7.0))
        for ended in (2, 4):
            ending = await self.store.end(jobs[ended].id, RESULT, None, 8.0)
            self.assertEqual(ending.released, [])

    async def test_cancel_in_the_middle(self) -> None:
        """A job cancelled in the middle of its queue is passed over and releases nobody."""
        jobs = await self.submitted(ONE_AT_A_TIME, 4)
        cancellation = await self.store.cancel(jobs[1].id, 2.0)
        self.assertEqual(cancellation.released, [])
        ending = await self.store.end(jobs[0].id, RESULT, None, 3.0)
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
        ending = await self.store.end(other[0].id, RESULT, None, 2.0)
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
            await self.store.end(job.id, RESULT, None, 2.0)
        jobs = await self.submitted(wider, 2)
        self.assertEqual([job.state for job in jobs], [JobState.RUNNING] * 2)

    async def test_queue_ends_with_its_last_job(self) -> None:
        """No row of a queue stays behind when its last job ends, however it ended."""
        ended = await self.submitted(ONE_AT_A_TIME, 1)
        cancelled = await self.submitted(TWO_AT_A_TIME, 1)
        self.assertEqual(self.count_queues(), 2)
        await self.store.end(ended[0].id, RESULT, None, 2.0)
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
