"""Tests of repeated calls in ``harpcaller.store``: none starts what an earlier one has started."""

from __future__ import annotations

from threading import Event
from typing import Any

from twisted.internet.defer import gatherResults

from harpcaller.jobs import Dedup
from harpcaller.store import KEY_LIFE, Repeat, StoreError, Submission
from harpcaller.store.statements import Connection
from tests.harpcaller.stores import ONE_AT_A_TIME, RESULT, StoreTestCase, new_job

SECONDS = 60.0
DEDUP = Dedup(b'{"disk":"sda"}', SECONDS)


WHOSE: tuple[dict[str, Any], ...] = (
    {},
    {"submitter": "panel"},
    {"submitter": "panel", "on_behalf_of": "joe"},
    {"submitter": "panel", "on_behalf_of": "ann"},
    {"submitter": "joe"},
    {"submitter": "null"},
    {"submitter": None, "on_behalf_of": "joe"},
)
"""Some who call, and for whom."""


class IdempotencyTests(StoreTestCase):
    """Calls with an idempotency key."""

    async def test_of_others(self) -> None:
        """The same key is another one in a call of somebody else, or on behalf of another."""
        first = [(await self.submit(new_job(idempotency_key="k", **whose))).id for whose in WHOSE]
        self.assertEqual(len(set(first)), len(WHOSE))
        for whose, job_id in zip(WHOSE, first, strict=True):
            again = await self.store.submit(new_job(idempotency_key="k", **whose), 2.0)
            self.assertEqual((again.job_id, again.repeated), (job_id, Repeat.IDEMPOTENCY))
        self.assertEqual(await self.store.prune_keys(1.0 + KEY_LIFE, 3), 3)
        self.assertEqual(await self.store.prune_keys(1.0 + KEY_LIFE, 9), len(WHOSE) - 3)

    async def test_repeated(self) -> None:
        """A repeated call gets the first one's job as it is now, and starts nothing."""
        first = await self.submit(new_job(idempotency_key="k"))
        again = await self.store.submit(new_job(idempotency_key="k"), 2.0)
        self.assertEqual(again, Submission(first.id, first, Repeat.IDEMPOTENCY))
        await self.store.end(first.id, RESULT, None, 3.0)
        again = await self.store.submit(new_job(idempotency_key="k"), 4.0)
        self.assertEqual(again.job, await self.store.job(first.id))

    async def test_at_once(self) -> None:
        """Two that come at once, and so share a commit, make one job."""
        go_on = Event()

        def hold(_: Connection) -> None:
            go_on.wait(60)

        held = self.store._access.change(hold)
        new = [new_job(idempotency_key="k") for _ in range(5)]
        answers = [self.store.submit(each, 1.0) for each in new]
        go_on.set()
        await held
        found = await gatherResults(answers)
        self.assertEqual({each.job_id for each in found}, {new[0].id})
        self.assertEqual([each.repeated for each in found], [None] + [Repeat.IDEMPOTENCY] * 4)
        self.assertIsNone(await self.store.job(new[1].id))

    async def test_beside_a_failure(self) -> None:
        """The same holds where another write of the commit fails and each is done by itself."""
        first = await self.submit(new_job())
        new = [new_job(idempotency_key="k") for _ in range(2)]
        answers = [self.store.submit(each, 1.0) for each in new]
        taken = self.store.submit(new_job(id=first.id, idempotency_key="other"), 1.0)
        answers.append(self.store.submit(new_job(idempotency_key="k"), 1.0))
        await self.assertFailure(taken, StoreError)
        found = await gatherResults(answers)
        self.assertEqual({each.job_id for each in found}, {new[0].id})
        # Nothing of the call that failed is noted.
        await self.submit(new_job(idempotency_key="other"))

    async def test_waiting_job(self) -> None:
        """A repeated call takes no place in the queue."""
        await self.submit(new_job(ONE_AT_A_TIME))
        waiting = await self.submit(new_job(ONE_AT_A_TIME, idempotency_key="k"))
        again = await self.store.submit(new_job(ONE_AT_A_TIME, idempotency_key="k"), 2.0)
        self.assertEqual(again.job, waiting)

    async def test_life(self) -> None:
        """A key stands for its job for a day, then for the next one."""
        first = await self.submit(new_job(idempotency_key="k"), 1.0)
        late = await self.store.submit(new_job(idempotency_key="k"), KEY_LIFE)
        self.assertEqual(late.job_id, first.id)
        second = await self.submit(new_job(idempotency_key="k"), 1.0 + KEY_LIFE)
        later = await self.store.submit(new_job(idempotency_key="k"), 2.0 + KEY_LIFE)
        self.assertEqual(later.job_id, second.id)

    async def test_prune(self) -> None:
        """Only keys whose life is over are removed, and no more than were asked for."""
        for number in range(5):
            await self.submit(new_job(idempotency_key=f"old-{number}"), 1.0)
        young = await self.submit(new_job(idempotency_key="young"), 2.0)
        now = 1.0 + KEY_LIFE
        for removed in (2, 2, 1, 0):
            self.assertEqual(await self.store.prune_keys(now, 2), removed)
        again = await self.store.submit(new_job(idempotency_key="young"), now)
        self.assertEqual(again.job_id, young.id)


class DedupTests(StoreTestCase):
    """Calls that would rather have the job of an equal one."""

    async def test_within(self) -> None:
        """The latest job with the key is taken if it was submitted less than that long ago."""
        await self.submit(new_job(dedup=DEDUP), 1.0)
        latest = await self.submit(new_job(dedup=DEDUP), 1.0 + SECONDS)
        found = await self.store.submit(new_job(dedup=DEDUP), SECONDS * 2)
        self.assertEqual(found, Submission(latest.id, latest, Repeat.DEDUP))
        longer = Dedup(DEDUP.key, SECONDS * 10)
        found = await self.store.submit(new_job(dedup=longer), SECONDS * 5)
        self.assertEqual(found.job_id, latest.id)
        await self.submit(new_job(dedup=DEDUP), 1.0 + SECONDS * 2)

    async def test_clock_set_back(self) -> None:
        """A job of the future does not suppress calls for longer than about the time asked for."""
        future = await self.submit(new_job(dedup=DEDUP), 10 * SECONDS)
        soon = await self.store.submit(new_job(dedup=DEDUP), 9 * SECONDS + 1)
        self.assertEqual(soon.job_id, future.id)
        own = await self.submit(new_job(dedup=DEDUP), 5 * SECONDS)
        again = await self.store.submit(new_job(dedup=DEDUP), 5 * SECONDS + 1)
        self.assertEqual(again.job_id, own.id)

    async def test_ended_job(self) -> None:
        """A job that has ended is as good as one that runs."""
        first = await self.submit(new_job(dedup=DEDUP), 1.0)
        await self.store.end(first.id, RESULT, None, 2.0)
        found = await self.store.submit(new_job(dedup=DEDUP), 3.0)
        self.assertEqual(found.job, await self.store.job(first.id))

    async def test_other_keys(self) -> None:
        """Jobs with another key, or with none, are none of its."""
        await self.submit(new_job(), 1.0)
        await self.submit(new_job(dedup=Dedup(b"{}", SECONDS)), 1.0)
        await self.submit(new_job(dedup=DEDUP), 1.0)

    async def test_of_others(self) -> None:
        """Nobody gets a job of somebody else, or for another, by a key that is the same."""
        first = [(await self.submit(new_job(dedup=DEDUP, **whose))).id for whose in WHOSE]
        for whose, job_id in zip(WHOSE, first, strict=True):
            again = await self.store.submit(new_job(dedup=DEDUP, **whose), 2.0)
            self.assertEqual((again.job_id, again.repeated), (job_id, Repeat.DEDUP))

    async def test_key_is_handed_over(self) -> None:
        """What a dedup finds stands for the caller's own key, not for one of somebody else."""
        whose: dict[str, Any] = {"submitter": "panel", "on_behalf_of": "joe"}
        first = await self.submit(new_job(dedup=DEDUP, **whose))
        other = await self.submit(new_job(idempotency_key="k"))
        found = await self.store.submit(new_job(dedup=DEDUP, idempotency_key="k", **whose), 2.0)
        self.assertEqual(found.job_id, first.id)
        nobody: dict[str, Any] = {}
        for asked, job in ((whose, first), (nobody, other)):
            found = await self.store.submit(new_job(idempotency_key="k", **asked), 999.0)
            self.assertEqual(found.job_id, job.id)

    async def test_with_idempotency_key(self) -> None:
        """A call that got an earlier job gets the same one when it is sent again, however late."""
        first = await self.submit(new_job(dedup=DEDUP), 1.0)
        for now, by in ((2.0, Repeat.DEDUP), (2.0 + SECONDS, Repeat.IDEMPOTENCY)):
            found = await self.store.submit(new_job(dedup=DEDUP, idempotency_key="k"), now)
            self.assertEqual(found, Submission(first.id, first, by))
