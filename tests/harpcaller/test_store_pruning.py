"""Tests of ``harpcaller.store.pruning``: what is old goes, in portions."""

from __future__ import annotations

from harp.wire.results import EndKind, EndResult
from harpcaller.store import Pruned
from harpcaller.store.portions import ROW_BYTES
from tests.harpcaller.packets import recorded
from tests.harpcaller.stores import ONE_AT_A_TIME, RESULT, StoreTestCase, new_job


class PruningTests(StoreTestCase):
    """Jobs that ended long ago, and others."""

    async def ended(self, at: float, packets: int = 0) -> str:
        """Return the id of a job that ended at a time; its packets were recorded one by one."""
        job_id = await self.running()
        for number in range(packets):
            await self.store.append(job_id, recorded(number, b"1", at=1.0))
        await self.store.end(job_id, RESULT, None, at)
        return job_id

    async def test_jobs(self) -> None:
        """Jobs that ended before a time go with their packets; all others stay."""
        old = [await self.ended(5.0, packets=2), await self.ended(6.0)]
        runs = await self.submit(new_job(ONE_AT_A_TIME))
        waits = await self.submit(new_job(ONE_AT_A_TIME))
        young = await self.ended(7.0, packets=1)
        self.assertEqual(await self.store.prune_jobs(7.0), Pruned(2, False))
        for job_id in old:
            self.assertIsNone(await self.store.job(job_id))
            self.assertEqual(await self.store.packets(job_id, 0, 10, 100), [])
        for job_id in (runs.id, waits.id, young):
            self.assertIsNotNone(await self.store.job(job_id))
        self.assertEqual(await self.store.packets(young, 0, 10, 100), [recorded(0, b"1", at=1.0)])

    async def test_portions_of_jobs(self) -> None:
        """A portion has no more rows than were asked for, packets counted, the oldest first."""
        first, second = await self.ended(5.0, packets=5), await self.ended(6.0, packets=1)
        rest = [await self.ended(7.0) for _ in range(3)]
        portions = [await self.store.prune_jobs(9.0, 3) for _ in range(5)]
        # Two packets and a job: the portion after three packets.
        self.assertEqual([portion.removed for portion in portions], [0, 1, 2, 2, 0])
        self.assertEqual([portion.more for portion in portions], [True, True, True, False, False])
        for job_id in (first, second, *rest):
            self.assertIsNone(await self.store.job(job_id))

    async def test_whole_until_its_packets_are_gone(self) -> None:
        """A job is there until its last packet has gone."""
        job_id = await self.ended(5.0, packets=3)
        await self.store.prune_jobs(9.0, 2)
        self.assertIsNotNone(await self.store.job(job_id))
        self.assertEqual(await self.store.packets(job_id, 0, 10, 100), [recorded(2, b"1", at=1.0)])

    async def test_streams(self) -> None:
        """Packets of jobs that ended before a time go; the jobs stay, with their results."""
        old, young = await self.ended(5.0, packets=3), await self.ended(7.0, packets=1)
        runs = await self.running()
        await self.store.append(runs, recorded(0, b"1", at=1.0))
        before = await self.store.job(old)
        self.assertEqual(await self.store.prune_streams(7.0), Pruned(3, False))
        self.assertEqual(await self.store.packets(old, 0, 10, 100), [])
        self.assertEqual(await self.store.job(old), before)
        for job_id in (young, runs):
            self.assertEqual(await self.store.packet_count(job_id), 1)
        self.assertEqual(await self.store.prune_streams(7.0), Pruned(0, False))
        self.assertEqual(await self.store.prune_jobs(7.0), Pruned(1, False))

    async def test_packed_packets(self) -> None:
        """Packets that were recorded together go together, and count as one row."""
        job_id = await self.running()
        for first in (0, 100, 200):
            await self.store.append(job_id, recorded(first, *[b"1"] * 100))
        await self.store.end(job_id, RESULT, None, 5.0)
        self.assertEqual(await self.store.prune_streams(9.0, 2), Pruned(200, True))
        page = await self.store.packets(job_id, 0, 9, 100_000)
        self.assertEqual(page, [recorded(200, *[b"1"] * 100)])
        self.assertEqual(await self.store.prune_streams(9.0, 3), Pruned(100, False))

    async def test_portions_of_streams(self) -> None:
        """Of one long stream and of many short ones no more goes at once than was asked for."""
        for count in (5, 1, 1, 0):
            await self.ended(5.0, packets=count)
        removed = 0
        portion = Pruned(0, True)
        while portion.more:
            portion = await self.store.prune_streams(9.0, 2)
            self.assertLessEqual(portion.removed, 2)
            removed += portion.removed
        self.assertEqual(removed, 7)

    async def test_long_values(self) -> None:
        """Long packets, arguments and results count as several rows; the last may be too long."""
        job_id = await self.ended(5.0)
        streamed = await self.running()
        for number in range(3):
            await self.store.append(streamed, recorded(number, bytes(3 * ROW_BYTES)))
        await self.store.end(streamed, RESULT, None, 6.0)
        long = EndResult(EndKind.RESULT, bytes(3 * ROW_BYTES))
        for _ in range(2):
            await self.store.end(await self.running(), long, None, 7.0)
        asked = (await self.submit(new_job(arguments=bytes(9 * ROW_BYTES)))).id
        await self.store.end(asked, RESULT, None, 8.0)
        self.assertEqual(await self.store.prune_streams(9.0, 5), Pruned(2, True))
        self.assertEqual(await self.store.packet_count(streamed), 3)
        portions = [await self.store.prune_jobs(9.0, 5) for _ in range(5)]
        self.assertEqual([portion.removed for portion in portions], [1, 2, 2, 0, 0])
        self.assertIsNone(await self.store.job(job_id))

    async def test_closed_by_recovery(self) -> None:
        """The stream of a job that a crash cut off is pruned like any other."""
        job_id = await self.running()
        await self.store.append(job_id, recorded(0, b"1", at=1.0))
        await self.store.recover(5.0)
        self.assertEqual(await self.store.prune_streams(6.0), Pruned(1, False))
