"""Who waits for what of which job: tells watchers what has just been recorded.

A hint, never the carrier of truth: everything announced is in the store already.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol as Interface

from harpcaller.jobs import Job
from harpcaller.logs import logger
from harpcaller.packets import Recorded


class Watcher(Interface):
    """Who wants to know what becomes of a job."""

    def packets(self, packets: Recorded) -> None:
        """Learn of packets, all of them behind those that it was told of before."""

    def ended(self, job: Job) -> None:
        """Learn that the job has ended; nothing comes after that."""


class Announcements:
    """The watchers of every job that is being watched."""

    _log = logger("harpcaller.announcements")

    def __init__(self) -> None:
        self._watchers: dict[str, set[Watcher]] = {}

    def watch(self, job_id: str, watcher: Watcher) -> None:
        """Tell the watcher from now on; what was recorded before, it reads from the store."""
        self._watchers.setdefault(job_id, set()).add(watcher)

    def unwatch(self, job_id: str, watcher: Watcher) -> None:
        """Tell the watcher nothing more."""
        watchers = self._watchers.get(job_id)
        if watchers is not None:
            watchers.discard(watcher)
            if not watchers:
                del self._watchers[job_id]

    def packets(self, job_id: str, packets: Recorded) -> None:
        """Announce packets that are on disk."""
        for watcher in list(self._watchers.get(job_id, ())):
            with self._own_faults(job_id):
                watcher.packets(packets)

    def ended(self, job: Job) -> None:
        """Announce an end that is on disk."""
        for watcher in self._watchers.pop(job.id, set()):
            with self._own_faults(job.id):
                watcher.ended(job)

    @contextmanager
    def _own_faults(self, job_id: str) -> Iterator[None]:
        """Log what goes wrong with one watcher: the job and the others must not suffer from it."""
        try:
            yield
        except Exception:
            self._log.failure("somebody who watches job {id} failed", id=job_id)
