"""The weeks of jobs that a benchmark invents: the database takes them for those of its own."""

from __future__ import annotations

from bench.history import multiply
from harp.wire.results import EndKind, EndResult
from harpcaller.store.listing import JobFilter
from tests.harpcaller.stores import StoreTestCase, new_job

ENDED = 50


class HistoryTests(StoreTestCase):
    """What is put before the jobs that there are."""

    async def test_invented(self) -> None:
        """The copies fit the schema as it is, keys included, and are found as jobs are."""
        job = await self.submit(new_job(idempotency_key="k"), 1_700_000_000.0)
        await self.store.end(job.id, EndResult(EndKind.RESULT, b"1"), None, 1_700_000_001.0)
        await self.store.close()
        ids = multiply(self.path, ENDED)
        self.store = await self.opened()
        page = await self.store.jobs(JobFilter(), 2 * ENDED)
        self.assertEqual(len(page.items), ENDED + 1)
        found = await self.store.job(ids[0])
        assert found is not None
        self.assertEqual(found.arguments, job.arguments)
        self.assertEqual(await self.store.prune_keys(1_900_000_000.0, ENDED + 1), ENDED + 1)
