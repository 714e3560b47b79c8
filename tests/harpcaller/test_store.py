"""Tests of ``harpcaller.store``: jobs and packets, kept and given back."""

from __future__ import annotations

import msgspec

from harp import errors
from harp.wire.packets import PACKET_COST
from harp.wire.results import CANCELLED, EndKind
from harpcaller.jobs import Job, JobState, QueueSpec
from harpcaller.store import Cancellation, Ending, StoreError
from harpcaller.store.packets import ROW_COST
from tests.harpcaller.packets import recorded
from tests.harpcaller.stores import ONE_AT_A_TIME, RESULT, StoreTestCase, new_job

UNKNOWN = ("", "no such job", "a'b\"c;--", "\x00", "ä\U0001f600", "x" * 100_000)


class JobTests(StoreTestCase):
    """One job from its submission to its end."""

    async def test_submitted_job_is_kept(self) -> None:
        """A job comes back as it was submitted, every field and byte of it."""
        new = new_job(
            host="ä.example",
            arguments=b'{"a" : 1.0e0, "b": "\\u00e4"}',
            info=b"[ ]",
            timeout=0.25,
            max_exec_time=1e9,
        )
        submitted = await self.submit(new, 1700000000.125)
        self.assertEqual(
            submitted,
            Job(
                id=new.id,
                host=new.host,
                procedure=new.procedure,
                arguments=new.arguments,
                info=new.info,
                timeout=new.timeout,
                max_exec_time=new.max_exec_time,
                queue=None,
                state=JobState.RUNNING,
                submitted=1700000000.125,
                started=1700000000.125,
            ),
        )
        self.assertEqual(await self.store.job(new.id), submitted)

    async def test_owners(self) -> None:
        """Whose job one is can be had without the rest of it."""
        for submitter, on_behalf_of in ((None, None), ("anna", None), ("panel", "anna")):
            job = await self.submit(new_job(submitter=submitter, on_behalf_of=on_behalf_of), 1.0)
            self.assertEqual(await self.store.owners(job.id), (submitter, on_behalf_of))
        for job_id in UNKNOWN:
            self.assertIsNone(await self.store.owners(job_id))

    async def test_jobs_of_a_queue_are_kept(self) -> None:
        """A job knows its queue's name, waiting, running and when the queue is gone."""
        first = await self.submit(new_job(ONE_AT_A_TIME), 1.0)
        second = await self.submit(new_job(ONE_AT_A_TIME), 2.0)
        self.assertEqual(first.state, JobState.RUNNING)
        self.assertEqual((second.state, second.started), (JobState.WAITING, None))
        for job in (first, second):
            self.assertEqual(job.queue, ONE_AT_A_TIME.name)
            self.assertEqual(await self.store.job(job.id), job)
        for job in (first, second):
            ending = await self.store.end(job.id, RESULT, None, 3.0)
            self.assertEqual(await self.store.job(job.id), ending.job)
            assert ending.job is not None
            self.assertEqual(ending.job.queue, ONE_AT_A_TIME.name)

    async def test_end_is_kept(self) -> None:
        """A job ends with its result, whatever kind that is, and at its time."""
        for kind in (EndKind.RESULT, EndKind.EXCEPTION, EndKind.ERROR):
            job = await self.submit(new_job(), 1.0)
            result = msgspec.structs.replace(RESULT, kind=kind)
            ending = await self.store.end(job.id, result, None, 2.5)
            ended = msgspec.structs.replace(job, state=JobState.ENDED, ended=2.5, end=result)
            self.assertEqual(ending, Ending(ended, []))
            self.assertEqual(await self.store.job(job.id), ended)

    async def test_first_end_counts(self) -> None:
        """Nothing that comes after a job's end changes it."""
        job_id = await self.running()
        await self.store.end(job_id, RESULT, None, 2.0)
        ended = await self.store.job(job_id)
        late = msgspec.structs.replace(RESULT, value=b"2")
        self.assertEqual(await self.store.end(job_id, late, None, 3.0), Ending(None, []))
        cancellation = await self.store.cancel(job_id, 3.0)
        self.assertEqual(cancellation, Cancellation(JobState.ENDED, ended, []))
        self.assertEqual(await self.store.job(job_id), ended)

    async def test_waiting_job_has_no_end(self) -> None:
        """A job that waits can't be ended by a result: it has not run."""
        await self.submit(new_job(ONE_AT_A_TIME), 1.0)
        waiting = await self.submit(new_job(ONE_AT_A_TIME), 1.0)
        self.assertEqual(await self.store.end(waiting.id, RESULT, None, 2.0), Ending(None, []))
        self.assertEqual(await self.store.job(waiting.id), waiting)

    async def test_cancel_running(self) -> None:
        """A cancelled job ends as such, and its conversation's owner is told that it ran."""
        job = await self.submit(new_job(), 1.0)
        ended = msgspec.structs.replace(job, state=JobState.ENDED, ended=2.0, end=CANCELLED)
        cancellation = await self.store.cancel(job.id, 2.0)
        self.assertEqual(cancellation, Cancellation(JobState.RUNNING, ended, []))
        self.assertEqual(await self.store.job(job.id), ended)

    async def test_cancel_waiting(self) -> None:
        """A job cancelled while it waited has never started."""
        await self.submit(new_job(ONE_AT_A_TIME), 1.0)
        waiting = await self.submit(new_job(ONE_AT_A_TIME), 1.0)
        ended = msgspec.structs.replace(
            waiting, state=JobState.ENDED, waits_for=None, ended=2.0, end=CANCELLED
        )
        cancellation = await self.store.cancel(waiting.id, 2.0)
        self.assertEqual(cancellation, Cancellation(JobState.WAITING, ended, []))
        self.assertIsNone(ended.started)
        self.assertEqual(await self.store.job(waiting.id), ended)

    async def test_unknown_jobs(self) -> None:
        """Any text can be asked for as a job's id; it is not found and nothing happens."""
        for job_id in UNKNOWN:
            self.assertIsNone(await self.store.job(job_id))
            self.assertEqual(await self.store.end(job_id, RESULT, None, 1.0), Ending(None, []))
            self.assertEqual(await self.store.cancel(job_id, 1.0), Cancellation(None, None, []))
            self.assertEqual(await self.store.packets(job_id, 0, 10, 1000), [])
            self.assertEqual(await self.store.packet_count(job_id), 0)
            await self.store.append(job_id, recorded(0, b"1", at=1.0))

    async def test_id_taken(self) -> None:
        """An id stands for one job only; the failure shows nothing of a job, it may be secret."""
        job = await self.submit(new_job(), 1.0)
        other = new_job(id=job.id, procedure="secret", arguments=b'["secret"]')
        with self.assertRaises(StoreError) as raised:
            await self.store.submit(other, 2.0)
        self.assertNotIn("secret", f"{raised.exception} {raised.exception.__cause__}")
        self.assertEqual(await self.store.job(job.id), job)

    async def test_vast_concurrency(self) -> None:
        """A concurrency beyond what a column can hold is no limit at all."""
        queue = QueueSpec(b"{}", 10**40)
        for _ in range(3):
            job = await self.submit(new_job(queue))
            self.assertIs(job.state, JobState.RUNNING)


class PacketTests(StoreTestCase):
    """The packets of one job."""

    async def test_packets_are_kept(self) -> None:
        """Packets come back with their numbers, in their order, as the bytes that they were."""
        job_id, other = await self.running(), await self.running()
        batches = [recorded(0, b'{"a" : 1}', b"2", at=1.0), recorded(2, b"3", at=2.5)]
        await self.store.append(job_id, batches[0])
        await self.store.append(other, recorded(0, b"9"))
        await self.store.append(job_id, batches[1])
        self.assertEqual(await self.store.packets(job_id, 0, 10, 1000), batches)
        self.assertEqual(await self.store.packet_count(job_id), 3)
        self.assertEqual(await self.store.packet_count(other), 1)

    async def test_pages(self) -> None:
        """A page has as many batches as were asked for, from the one with the packet wanted."""
        job_id = await self.running()
        batches = [recorded(first, b"1", b"2", b"3") for first in (0, 3, 6)]
        for batch in batches:
            await self.store.append(job_id, batch)
        for since, limit, expected in (
            (0, 2, batches[:2]),
            (2, 2, batches[:2]),
            (3, 9, batches[1:]),
            (5, 1, [batches[1]]),
            (8, 9, [batches[2]]),
            (9, 9, []),
            (10**40, 9, []),
        ):
            self.assertEqual(await self.store.packets(job_id, since, limit, 1000), expected, since)

    async def test_pages_are_bounded(self) -> None:
        """A page costs no more than was asked for, but one batch always fits."""
        job_id = await self.running()
        cost = 10 + PACKET_COST
        for first in range(3):
            await self.store.append(job_id, recorded(first, b"x" * 10))
        for most, expected in ((1, 1), (2 * cost - 1, 1), (2 * cost, 2), (3 * cost, 3)):
            page = await self.store.packets(job_id, 0, 10, most)
            self.assertEqual(len(page), expected, most)

    async def test_rows_are_bounded(self) -> None:
        """What is recorded at once is divided if it is much; a long packet is left whole."""
        job_id = await self.running()
        long = b"x" * ROW_COST
        texts = [b"%d" % number for number in range(5000)] + [long, b"0"]
        await self.store.append(job_id, recorded(0, *texts))
        page = await self.store.packets(job_id, 0, 10, 10 * ROW_COST)
        self.assertEqual([text for batch in page for text in batch.packets.texts], texts)
        self.assertEqual([batch.first for batch in page], [0, *(batch.end for batch in page[:-1])])
        for batch in page:
            self.assertTrue(batch.packets.cost <= ROW_COST or batch.packets.texts == [long])
        self.assertEqual(len(page), 4)

    async def test_dropped_unless_running(self) -> None:
        """Packets of a job that waits or has ended are dropped without a failure."""
        running = await self.submit(new_job(ONE_AT_A_TIME), 1.0)
        waiting = await self.submit(new_job(ONE_AT_A_TIME), 1.0)
        await self.store.append(waiting.id, recorded(0, b"1", at=1.0))
        self.assertEqual(await self.store.packet_count(waiting.id), 0)
        await self.store.append(running.id, recorded(0, b"1", at=1.0))
        await self.store.cancel(running.id, 2.0)
        await self.store.append(running.id, recorded(1, b"2", at=3.0))
        page = await self.store.packets(running.id, 0, 10, 1000)
        self.assertEqual(page, [recorded(0, b"1", at=1.0)])

    async def test_numbers_without_gap_or_repeat(self) -> None:
        """A batch that does not follow what is recorded is not recorded."""
        job_id = await self.running()
        kept = recorded(0, b"1", b"2")
        await self.store.append(job_id, kept)
        for first in (0, 1, 3):
            wrong = self.store.append(job_id, recorded(first, b"x", b"y"))
            await self.assertFailure(wrong, StoreError)
        self.assertEqual(await self.store.packets(job_id, 0, 10, 1000), [kept])
        await self.store.append(job_id, recorded(2, b"3"))
        self.assertEqual(await self.store.packet_count(job_id), 3)


class RecoveryTests(StoreTestCase):
    """A store whose dispatcher stopped, opened by the next one."""

    async def test_recover(self) -> None:
        """What ran is closed with missing_result; what waited goes on in its order."""
        queues = [QueueSpec(b'{"n":%d}' % number, number) for number in (1, 2)]
        ended = await self.running()
        await self.store.end(ended, RESULT, None, 2.0)
        ran = [await self.running()]
        waiting: list[str] = []
        for _ in range(4):
            for queue in reversed(queues):
                job = await self.submit(new_job(queue), 1.0)
                (ran if job.state is JobState.RUNNING else waiting).append(job.id)
        await self.store.close()

        self.store = await self.opened()
        recovery = await self.store.recover(9.0)
        self.assertEqual(recovery.closed, ran)
        # Waiting are the first queue's 2nd, 3rd and 4th job and the second's 3rd and 4th.
        expected = [waiting[0], waiting[1], waiting[3]]
        self.assertEqual([job.id for job in recovery.released], expected)
        for job in recovery.released:
            self.assertEqual((job.state, job.started), (JobState.RUNNING, 9.0))
            self.assertEqual(await self.store.job(job.id), job)
        for job_id in ran:
            closed = await self.store.job(job_id)
            assert closed is not None and closed.end is not None
            self.assertEqual((closed.state, closed.ended), (JobState.ENDED, 9.0))
            self.assertIs(closed.end.kind, EndKind.ERROR)
            self.assertEqual(
                msgspec.json.decode(closed.end.value)["type"], errors.MISSING_RESULT.name
            )
        before = await self.store.job(ended)
        assert before is not None
        self.assertEqual((before.end, before.ended), (RESULT, 2.0))

    async def test_end_without_release(self) -> None:
        """An end that is to release nobody leaves them waiting until a recovery."""
        first = await self.submit(new_job(ONE_AT_A_TIME), 1.0)
        second = await self.submit(new_job(ONE_AT_A_TIME), 1.0)
        ending = await self.store.end(first.id, RESULT, None, 2.0, release=False)
        self.assertEqual(ending.released, [])
        self.assertEqual(await self.store.job(second.id), second)
        third = await self.submit(new_job(ONE_AT_A_TIME), 2.0)
        self.assertIs(third.state, JobState.WAITING)
        recovery = await self.store.recover(3.0)
        self.assertEqual([job.id for job in recovery.released], [second.id])

    async def test_cancellation_without_release(self) -> None:
        """A cancellation that is to release nobody leaves them waiting too."""
        first = await self.submit(new_job(ONE_AT_A_TIME), 1.0)
        second = await self.submit(new_job(ONE_AT_A_TIME), 1.0)
        cancellation = await self.store.cancel(first.id, 2.0, release=False)
        self.assertEqual(cancellation.released, [])
        self.assertEqual(await self.store.job(second.id), second)

    async def test_nothing_to_recover(self) -> None:
        """A new store has nothing to recover."""
        recovery = await self.store.recover(1.0)
        self.assertEqual((recovery.closed, recovery.released), ([], []))
