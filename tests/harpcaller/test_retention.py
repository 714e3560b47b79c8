"""Tests of ``harpcaller.retention``: what is old is forgotten, in portions, on a clock."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from harpcaller.retention import INTERVAL, PAUSE, PORTION, Ages, Retention
from harpcaller.store import Pruned, StoreError
from tests.harpcaller.memory import PatientStore
from tests.harpcaller.packets import recorded
from tests.harpcaller.stores import RESULT, StoreTestCase, new_job

NOW = 1_000_000.0
NOTHING = Pruned(0, False)


class RetentionTestCase(SynchronousTestCase):
    """A test with a store that answers when told to."""

    def setUp(self) -> None:
        """Have a clock and a store."""
        self.clock = Clock()
        self.store = PatientStore()

    def begun(self, jobs: float | None, streams: float | None) -> Retention:
        """Return a retention that runs."""
        made = Retention(self.clock, lambda: NOW, self.store.real, Ages(jobs, streams))
        made.startService()
        return made

    def assert_idle(self) -> None:
        """Check that the store is asked nothing until the next look."""
        self.clock.advance(PAUSE)
        self.assertEqual(self.store.questions, [])


class LookTests(RetentionTestCase):
    """What happens by itself."""

    def test_one_after_the_other(self) -> None:
        """Keys, then jobs, then packets of streams, each by its own age."""
        self.begun(jobs=7200.0, streams=3600.0)
        self.assertEqual(self.store.answer("prune_keys", 0)["now"], NOW)
        self.assertEqual(self.store.answer("prune_jobs", NOTHING)["ended_before"], NOW - 7200)
        self.assertEqual(self.store.answer("prune_streams", NOTHING)["ended_before"], NOW - 3600)
        self.assert_idle()

    def test_for_ever(self) -> None:
        """What has no age is kept; keys have one of their own."""
        for jobs, streams, methods in (
            (None, None, []),
            (1.0, None, ["prune_jobs"]),
            (None, 1.0, ["prune_streams"]),
        ):
            made = self.begun(jobs, streams)
            self.store.answer("prune_keys", 0)
            for method in methods:
                self.store.answer(method, NOTHING)
            self.assert_idle()
            made.stopService()

    def test_portions(self) -> None:
        """It goes on after a pause as long as there is more, and never asks for more at once."""
        self.begun(jobs=1.0, streams=1.0)
        self.assertEqual(self.store.answer("prune_keys", PORTION)["limit"], PORTION)
        self.clock.advance(PAUSE)
        self.store.answer("prune_keys", PORTION - 1)
        for method in ("prune_jobs", "prune_streams"):
            for removed in (PORTION, 0, 3):
                self.store.answer(method, Pruned(removed, True))
                self.assertEqual(self.store.questions, [])
                self.clock.advance(PAUSE * 0.9)
                self.assertEqual(self.store.questions, [])
                self.clock.advance(PAUSE * 0.2)
                self.assertEqual(len(self.store.questions), 1)
            self.store.answer(method, NOTHING)
        self.assert_idle()

    def test_next_look(self) -> None:
        """It looks again after a while, not sooner, and by the ages that there are by then."""
        made = self.begun(jobs=None, streams=None)
        self.store.answer("prune_keys", 0)
        self.clock.advance(INTERVAL - 1)
        self.assertEqual(self.store.questions, [])
        made.ages = Ages(5.0, None)
        self.clock.advance(1)
        self.store.answer("prune_keys", 0)
        self.assertEqual(self.store.answer("prune_jobs", NOTHING)["ended_before"], NOW - 5)

    def test_long_look(self) -> None:
        """A look that takes longer than the interval is not begun a second time beside it."""
        self.begun(jobs=None, streams=None)
        self.clock.advance(3 * INTERVAL)
        self.assertEqual(len(self.store.questions), 1)

    def test_failure(self) -> None:
        """What the store fails at is logged, and tried again at the next look."""
        self.begun(jobs=1.0, streams=None)
        for method in ("prune_keys", "prune_jobs"):
            if method == "prune_jobs":
                self.store.answer("prune_keys", 0)
            self.store.answer(method, StoreError("disk I/O error"))
            self.assertEqual(len(self.flushLoggedErrors(StoreError)), 1)
            self.assertEqual(self.store.questions, [])
            self.clock.advance(INTERVAL)
        self.assertEqual(len(self.store.asked("prune_keys")), 1)

    def test_told(self) -> None:
        """How many jobs are forgotten is told, if there are any."""
        for counts, told in (([0], []), ([PORTION, 2], [PORTION + 2])):
            with capturedLogs() as logged:
                made = self.begun(jobs=1.0, streams=None)
                self.store.answer("prune_keys", 0)
                for number, count in enumerate(counts, 1):
                    self.store.answer("prune_jobs", Pruned(count, number < len(counts)))
                    self.clock.advance(PAUSE)
                made.stopService()
            found = [each["count"] for each in logged if "forgotten" in each["log_format"]]
            self.assertEqual(found, told)


class StopTests(RetentionTestCase):
    """When it is stopped."""

    def test_in_mid_portion(self) -> None:
        """The portion that is under way is the last."""
        made = self.begun(jobs=1.0, streams=1.0)
        self.store.answer("prune_keys", 0)
        made.stopService()
        self.store.answer("prune_jobs", Pruned(PORTION, True))
        self.clock.advance(INTERVAL)
        self.assertEqual(self.store.questions, [])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_between_portions(self) -> None:
        """No more portions follow, nor looks."""
        made = self.begun(jobs=1.0, streams=1.0)
        self.store.answer("prune_keys", 0)
        self.store.answer("prune_jobs", Pruned(PORTION, True))
        made.stopService()
        self.clock.advance(INTERVAL)
        self.assertEqual(self.store.questions, [])
        self.assertEqual(self.clock.getDelayedCalls(), [])


class PruneTests(RetentionTestCase):
    """What an operator asks for."""

    def test_prune(self) -> None:
        """Jobs older than that are forgotten, portion by portion, and counted."""
        made = self.begun(jobs=None, streams=None)
        self.store.answer("prune_keys", 0)
        removed = Deferred.fromCoroutine(made.prune(60.0))
        self.assertEqual(
            self.store.answer("prune_jobs", Pruned(200, True))["ended_before"], NOW - 60
        )
        self.clock.advance(PAUSE)
        self.store.answer("prune_jobs", Pruned(7, False))
        self.assertEqual(self.successResultOf(removed), 207)

    def test_failure(self) -> None:
        """A failure of the store is the operator's to hear of."""
        made = self.begun(jobs=None, streams=None)
        removed = Deferred.fromCoroutine(made.prune(60.0))
        self.store.answer("prune_jobs", StoreError("disk I/O error"))
        self.failureResultOf(removed, StoreError)


class RealStoreTests(StoreTestCase):
    """On a real store."""

    async def test_ages(self) -> None:
        """Old jobs go, of younger ones only the packets; the youngest keep those too."""
        for number, ended in enumerate([NOW - 500, NOW - 50, NOW - 5]):
            await self.submit(new_job(id=f"job{number}"), 1.0)
            await self.store.append(f"job{number}", recorded(0, *[b"1"] * 3, at=2.0))
            await self.store.end(f"job{number}", RESULT, None, ended)
        clock = Clock()
        made = Retention(clock, lambda: NOW, self.store, Ages(jobs=100.0, streams=10.0))
        looked: Deferred[None] = Deferred()
        prune = self.store.prune_streams

        def prune_streams(*args: Any) -> Deferred[Pruned]:
            return prune(*args).addCallback(tell)

        def tell(pruned: Pruned) -> Pruned:
            looked.callback(None)
            return pruned

        self.patch(self.store, "prune_streams", prune_streams)
        made.startService()
        await looked
        made.stopService()
        self.assertIsNone(await self.store.job("job0"))
        counts = [await self.store.packet_count(f"job{number}") for number in range(3)]
        self.assertEqual(counts, [0, 0, 3])
        self.assertIsNotNone(await self.store.job("job1"))
