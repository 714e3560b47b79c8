"""Tests of the queues of ``harpcaller.store``: which job starts when."""

from __future__ import annotations

import sqlite3

from harp.wire.results import CANCELLED
from harpcaller.jobs import Capacity, Job, JobState, QueueSpec, WaitsFor
from harpcaller.store import JobStore
from harpcaller.store.portions import ROW_BYTES
from tests.harpcaller.stores import ONE_AT_A_TIME, RESULT, StoreTestCase, new_job, real_reactor

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

    async def test_cancel_waiting(self) -> None:
        """What waits can be cancelled in portions, from the end on; what runs goes on."""
        jobs = await self.submitted(ONE_AT_A_TIME, 6)
        summary = await self.store.queue(ONE_AT_A_TIME.name)
        assert summary is not None
        later = await self.submitted(ONE_AT_A_TIME, 1)
        for expected in (jobs[5:3:-1], jobs[3:1:-1], jobs[1:2], []):
            portion = await self.store.cancel_waiting(ONE_AT_A_TIME.name, summary.last_seq, 2, 5.0)
            self.assertEqual(_ids(portion.jobs), _ids(expected))
            for job in portion.jobs:
                self.assertEqual((job.end, job.ended), (CANCELLED, 5.0))
                self.assertEqual(await self.store.job(job.id), job)
        ending = await self.store.end(jobs[0].id, RESULT, None, 6.0)
        self.assertEqual(_ids(ending.released), _ids(later))

    async def test_cancel_long_ones(self) -> None:
        """Jobs with long arguments count as several; the last of a portion may be too long."""
        runs = await self.submit(new_job(ONE_AT_A_TIME))
        waits = [
            await self.submit(new_job(ONE_AT_A_TIME, arguments=bytes(size * ROW_BYTES)))
            for size in (0, 0, 9, 3, 0)
        ]
        for expected in (waits[:1:-1], waits[1::-1], []):
            portion = await self.store.cancel_waiting(ONE_AT_A_TIME.name, 100, 6, 5.0)
            self.assertEqual(_ids(portion.jobs), _ids(expected))
        job = await self.store.job(runs.id)
        assert job is not None
        self.assertIs(job.state, JobState.RUNNING)

    def count_queues(self) -> int:
        """Return how many queues the database has."""
        connection = sqlite3.connect(self.path)
        try:
            (count,) = connection.execute("SELECT count(*) FROM queues").fetchone()
        finally:
            connection.close()
        return int(count)


class CapacityTests(StoreTestCase):
    """Jobs that wait for more than their queue."""

    async def opened(self) -> JobStore:
        """Return a store in which four can run, two of them on one host."""
        store = JobStore(f"sqlite:///{self.path}", real_reactor(), Capacity(4, 2))
        self.addCleanup(store.close)
        await store.open()
        return store

    async def submitted(self, *hosts: str, queue: QueueSpec | None = None) -> list[Job]:
        """Return new jobs of hosts."""
        return [await self.submit(new_job(queue, host=host)) for host in hosts]

    async def waits_for(self, *jobs: Job) -> list[WaitsFor | None]:
        """Return what the jobs wait for now."""
        found = [await self.store.job(job.id) for job in jobs]
        return [job.waits_for for job in found if job]

    async def test_busy_host(self) -> None:
        """What is over the limit of its host waits for it, and holds nobody else up."""
        jobs = await self.submitted("a", "a", "a", "a", "b", "b")
        self.assertEqual(
            [job.waits_for for job in jobs],
            [None, None, WaitsFor.HOST, WaitsFor.HOST, None, None],
        )
        ending = await self.store.end(jobs[4].id, RESULT, None, 2.0)
        self.assertEqual(ending.released, [])
        ending = await self.store.end(jobs[1].id, RESULT, None, 2.0)
        self.assertEqual(_ids(ending.released), [jobs[2].id])
        self.assertEqual(ending.released, [await self.store.job(jobs[2].id)])

    async def test_busy_dispatcher(self) -> None:
        """What is over the limit of all waits its turn in the order of submission."""
        jobs = await self.submitted("a", "a", "b", "b", "c", "c", "d")
        self.assertEqual([job.waits_for for job in jobs[4:]], [WaitsFor.DISPATCHER] * 3)
        for ended, released in ((0, 4), (4, 5), (1, 6)):
            ending = await self.store.end(jobs[ended].id, RESULT, None, 2.0)
            self.assertEqual(_ids(ending.released), [jobs[released].id])

    async def test_no_place_in_the_queue(self) -> None:
        """A job that waits for its host takes no place of its queue, but keeps its turn."""
        await self.submitted("a", "a")
        first, second = await self.submitted("a", "b", queue=ONE_AT_A_TIME)
        self.assertEqual((first.waits_for, second.waits_for), (WaitsFor.HOST, WaitsFor.QUEUE))
        summary = await self.store.queue(ONE_AT_A_TIME.name)
        assert summary is not None
        self.assertEqual((summary.running, summary.waiting), (0, 2))
        cancellation = await self.store.cancel(first.id, 2.0)
        self.assertEqual(_ids(cancellation.released), [second.id])

    async def test_next_of_the_queue(self) -> None:
        """When a job starts that waited for its host, the next of its queue has its turn."""
        busy = await self.submitted("a", "a")
        queued = await self.submitted("a", "b", "b", queue=TWO_AT_A_TIME)
        self.assertEqual(
            [job.waits_for for job in queued], [WaitsFor.HOST, WaitsFor.QUEUE, WaitsFor.QUEUE]
        )
        ending = await self.store.end(busy[0].id, RESULT, None, 2.0)
        self.assertEqual(_ids(ending.released), _ids(queued[:2]))

    async def test_cancel_before_the_dispatcher(self) -> None:
        """A job cancelled before the dispatcher gives up its place on its host."""
        jobs = await self.submitted("a", "b", "b", "c", "a", "a")
        self.assertEqual([job.waits_for for job in jobs[4:]], [WaitsFor.DISPATCHER, WaitsFor.HOST])
        cancellation = await self.store.cancel(jobs[4].id, 2.0)
        self.assertEqual(cancellation.released, [])
        self.assertEqual(await self.waits_for(jobs[5]), [WaitsFor.DISPATCHER])

    async def test_nobody_jumps_the_line(self) -> None:
        """Where nobody was released a new job waits behind others although there is room."""
        jobs = await self.submitted("a", "a", "b", "b", "c", "a")
        waiting = [WaitsFor.DISPATCHER, WaitsFor.HOST]
        self.assertEqual([job.waits_for for job in jobs[4:]], waiting)
        await self.store.end(jobs[0].id, RESULT, None, 2.0, release=False)
        new = await self.submitted("d", "a")
        self.assertEqual([job.waits_for for job in new], waiting)

    async def test_raised(self) -> None:
        """More start when a limit is raised or taken away."""
        jobs = await self.submitted("a", "a", "a", "a", "b", "b", "c", "d")
        released = await self.store.set_capacity(Capacity(5, 3), 7.0)
        self.assertEqual(_ids(released), [jobs[2].id])
        self.assertEqual(released[0].started, 7.0)
        released = await self.store.set_capacity(Capacity(7), 8.0)
        self.assertEqual(_ids(released), [jobs[3].id, jobs[6].id])
        self.assertEqual((await self.submitted("e"))[0].waits_for, WaitsFor.DISPATCHER)

    async def test_lowered(self) -> None:
        """What runs goes on when a limit is lowered; what waits keeps to the new one."""
        jobs = await self.submitted("a", "a", "b", "b", "c", "c", "d")
        self.assertEqual(await self.store.set_capacity(Capacity(2, 1), 7.0), [])
        self.assertEqual(await self.waits_for(*jobs[:4]), [None] * 4)
        dispatcher, host = WaitsFor.DISPATCHER, WaitsFor.HOST
        self.assertEqual(await self.waits_for(*jobs[4:]), [dispatcher, host, dispatcher])
        released = []
        for job in jobs[:4]:
            released += (await self.store.end(job.id, RESULT, None, 8.0)).released
        self.assertEqual(_ids(released), [jobs[4].id, jobs[6].id])

    async def test_vast(self) -> None:
        """A limit beyond what a column can hold is no limit at all."""
        jobs = await self.submitted("a", "a", "a", "a", "b")
        released = await self.store.set_capacity(Capacity(10**40, 10**40), 2.0)
        self.assertEqual(_ids(released), [jobs[2].id, jobs[3].id])

    async def test_recovery(self) -> None:
        """A dispatcher that starts again keeps to its limits, which may be others."""
        jobs = await self.submitted("a", "a", "a", "a", "b", "b", "c")
        await self.store.close()
        self.store = JobStore(f"sqlite:///{self.path}", real_reactor(), Capacity(2, 1))
        self.addCleanup(self.store.close)
        await self.store.open()
        recovery = await self.store.recover(9.0)
        self.assertEqual(len(recovery.closed), 4)
        self.assertEqual(_ids(recovery.released), [jobs[2].id, jobs[6].id])
        self.assertEqual(await self.waits_for(jobs[3]), [WaitsFor.HOST])
