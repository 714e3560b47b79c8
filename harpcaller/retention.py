"""Forgets what ended long ago, in portions so small that nothing waits for them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.task import LoopingCall, deferLater

from harpcaller.logs import logger
from harpcaller.store import JobStore, Pruned

INTERVAL = 60.0
"""Seconds between two looks for what is old enough."""

PORTION = 200
"""Idempotency keys that one transaction removes."""

PAUSE = 0.05
"""Seconds between two portions, for others to write."""

Portion = Callable[[float], Deferred[Pruned]]
"""Removes some of what ended before a time, in unix seconds."""


@dataclass(frozen=True)
class Ages:
    """How long what has ended is kept, in seconds; None for ever.

    :param jobs: jobs with all that belongs to them.
    :param streams: the packets of jobs.
    """

    jobs: float | None
    streams: float | None


class Retention(Service):
    """Prunes while it runs.

    :param clock: the reactor's.
    :param now: returns unix seconds.
    """

    _log = logger("harpcaller.retention")

    def __init__(self, clock: Any, now: Callable[[], float], store: JobStore, ages: Ages) -> None:
        self._clock = clock
        self._now = now
        self._store = store
        self._loop = LoopingCall(self._look)
        self._loop.clock = clock
        self.ages = ages

    def startService(self) -> None:
        """Begin."""
        super().startService()  # type: ignore[no-untyped-call]
        self._loop.start(INTERVAL)

    def stopService(self) -> None:
        """End after the portion that is under way."""
        super().stopService()  # type: ignore[no-untyped-call]
        self._loop.stop()

    async def prune(self, older_than: float) -> int:
        """Forget jobs now.

        :param older_than: how long ago they must have ended, in seconds.
        :return: how many there were.
        """
        return await self._remove(self._store.prune_jobs, self._now() - older_than)

    def _look(self) -> Deferred[None]:
        return Deferred.fromCoroutine(self._remove_old())

    async def _remove_old(self) -> None:
        now, ages = self._now(), self.ages
        try:
            await self._remove(self._prune_keys, now)
            if ages.jobs is not None:
                removed = await self._remove(self._store.prune_jobs, now - ages.jobs)
                if removed:
                    self._log.info("{count} old jobs are forgotten", count=removed)
            if ages.streams is not None:
                await self._remove(self._store.prune_streams, now - ages.streams)
        except Exception:  # the next look tries again; the loop would end with it
            self._log.failure("what is old could not be removed")

    def _prune_keys(self, now: float) -> Deferred[Pruned]:
        keys = self._store.prune_keys(now, PORTION)
        return keys.addCallback(lambda removed: Pruned(removed, removed == PORTION))

    async def _remove(self, portion: Portion, before: float) -> int:
        removed = 0
        while self.running:
            pruned = await portion(before)
            removed += pruned.removed
            if not pruned.more:
                break
            await deferLater(self._clock, PAUSE)
        return removed
