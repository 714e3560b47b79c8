"""The job store as the dispatcher sees it: methods that return Deferreds, and no SQL."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorFromThreads

from harp.errors import Origin
from harp.wire.results import EndResult
from harpcaller.jobs import Capacity, Job, NewJob
from harpcaller.packets import Recorded
from harpcaller.store import (
    changes,
    listing,
    packets,
    queue_lists,
    records,
    secret_procedures,
)
from harpcaller.store.access import Access
from harpcaller.store.cursors import Page
from harpcaller.store.database import Database
from harpcaller.store.listing import JobFilter, JobSummary
from harpcaller.store.outcomes import (
    Cancellation,
    Ending,
    QueueCancellation,
    Recovery,
    Submission,
)
from harpcaller.store.pruning import Pruned, prune_jobs, prune_streams
from harpcaller.store.queue_lists import QueueSummary
from harpcaller.store.repeats import KEY_LIFE, prune_keys

PORTION = 200
"""The rows removed in one transaction: more would keep the other writes waiting (measured)."""


class JobStore:
    """Jobs, their packets and their queues, on disk.

    A Deferred of a change fires when the change is on disk. One of any method fails with a
    `StoreError` if the database fails or the store is not open. Changes happen in the order in
    which they were asked for. All times are unix seconds.

    :param url: as SQLAlchemy writes it, ``sqlite:////var/lib/harpcaller/jobs.db``.
    :param reactor: where the Deferreds fire.
    :param capacity: how much may run at once, until `set_capacity` says something else.
    :param readers: how many threads read what can be long; one more reads what is short.
    :param key_life: seconds for which an idempotency key stands for its job; may be replaced.
    :raises ValueError: if the URL is not that of an SQLite file.
    """

    def __init__(
        self,
        url: str,
        reactor: IReactorFromThreads,
        capacity: Capacity = Capacity(),  # noqa: B008  # it is frozen
        readers: int = 3,
        key_life: float = KEY_LIFE,
    ) -> None:
        self._access = Access(Database(url), reactor, readers)
        self._change = self._access.change
        self._look_up = self._access.look_up
        self._read = self._access.read
        self.key_life = key_life
        self._capacity = capacity

    def open(self) -> Deferred[None]:
        """Open the database, bring its schema up to date and start the threads.

        The file is created, readable by its owner only; its directory must be there.

        :raises StoreError: through the Deferred, if that can't be done.
        """
        return self._access.open()

    def close(self) -> Deferred[None]:
        """Finish what was asked for so far, then stop the threads and close the database."""
        return self._access.close()

    def submit(self, new: NewJob, now: float) -> Deferred[Submission]:
        """Record a new job, unless its idempotency key or its dedup finds that of an earlier call.

        It is running if there is room for it in its queue, if it has one, on its host and in the
        dispatcher, and no other job waits before it. The first job of a queue sets the queue's
        concurrency.

        :raises StoreError: through the Deferred, also if the id is taken.
        """
        return self._change(changes.submit, self._capacity, new, now, self.key_life)

    def append(self, job_id: str, recorded: Recorded) -> Deferred[None]:
        """Record packets of a running job.

        If the job is not running they are dropped without a word: they were under way when it
        was cancelled.

        :raises StoreError: through the Deferred, also if they do not follow those that are there.
        """
        return self._access.insert(packets.INSERT, packets.rows(job_id, recorded))

    def replace_arguments(self, job_id: str, shown: bytes, wipe: bool) -> Deferred[None]:
        """Show something else of a job's arguments.

        :param wipe: whether what was shown so far has secrets in it, of which nothing must stay.
        """
        return self._change(changes.replace_arguments, job_id, shown, wipe)

    def note_secret_procedure(
        self, host: str, procedure: str, has_secrets: bool, at_most: int
    ) -> Deferred[None]:
        """Keep what harpd has said of a procedure's parameters.

        :param at_most: how many procedures with secrets are kept: those that were added last.
        """
        return self._change(secret_procedures.note, host, procedure, has_secrets, at_most)

    def secret_procedures(self) -> Deferred[list[tuple[str, str]]]:
        """Return host and procedure of each, those that were added last at the end."""
        return self._read(secret_procedures.everything)

    def end(
        self,
        job_id: str,
        result: EndResult,
        origin: Origin | None,
        now: float,
        release: bool = True,
    ) -> Deferred[Ending]:
        """Record the end of a running job and release those that waited for it.

        :param origin: where the failure arose with which it ended; None if it did not fail.
        :param release: False if nothing is to be started any more; `recover` makes up for it.
        """
        return self._change(changes.end, self._capacity, job_id, result, origin, now, release)

    def cancel(self, job_id: str, now: float, release: bool = True) -> Deferred[Cancellation]:
        """Cancel a job that waits or runs and release those that waited for it.

        :param release: as for `end`.
        """
        return self._change(changes.cancel, self._capacity, job_id, now, release)

    def recover(self, now: float) -> Deferred[Recovery]:
        """Close what was running when the dispatcher stopped and let the others go on.

        To be called once, after `open` and before anything else.
        """
        return self._change(changes.recover, self._capacity, now)

    def set_capacity(self, capacity: Capacity, now: float) -> Deferred[list[Job]]:
        """Set how much may run at once from now on.

        What runs already runs on, however much it is. Not to be called before `recover`, which
        would take what is released here for lost.

        :return: fires with the jobs that now run, in the order of submission.
        """
        self._capacity = capacity
        return self._change(changes.set_capacity, capacity, now)

    def cancel_waiting(
        self, queue: bytes, up_to_seq: int, limit: int, now: float
    ) -> Deferred[QueueCancellation]:
        """Cancel a portion of the jobs that wait in a queue, the last one submitted first.

        :param up_to_seq: leaves those alone that were submitted later; see `QueueSummary`.
        :param limit: the most jobs of the portion; long ones count as several. If none ended,
            there are no more.
        """
        return self._change(changes.cancel_waiting, self._capacity, queue, up_to_seq, limit, now)

    def prune_jobs(self, ended_before: float, limit: int = PORTION) -> Deferred[Pruned]:
        """Remove a portion of the jobs that ended before a time, with their packets.

        :param limit: the most rows of the portion, jobs and packets together; long ones count as
            several.
        """
        return self._change(prune_jobs, ended_before, limit)

    def prune_streams(self, ended_before: float, limit: int = PORTION) -> Deferred[Pruned]:
        """Remove a portion of the packets of jobs that ended before a time; the jobs stay.

        :param limit: the most rows of the portion, each with packets that were recorded together;
            long ones count as several.
        """
        return self._change(prune_streams, ended_before, limit)

    def prune_keys(self, now: float, limit: int = PORTION) -> Deferred[int]:
        """Remove a portion of the idempotency keys whose life is over; return how many."""
        return self._change(prune_keys, now - self.key_life, limit)

    def job(self, job_id: str) -> Deferred[Job | None]:
        """Return the job of this id, None if there is none."""
        return self._look_up(records.job, job_id)

    def owners(self, job_id: str) -> Deferred[tuple[str | None, str | None] | None]:
        """Return who submitted the job of this id and for whom, None if there is none."""
        return self._look_up(records.owners, job_id)

    def packets(
        self, job_id: str, since: int, max_batches: int, max_cost: int
    ) -> Deferred[list[Recorded]]:
        """Return a page of a job's packets, in their order, as they were recorded.

        :param since: the lowest number wanted; it may be in the middle of the first batch.
        :param max_batches: the most batches of one page.
        :param max_cost: the most bytes of one page, see `Packets.cost`; the first batch may be
            larger.
        :return: nothing if there are no such packets, or no such job.
        """
        return self._read(packets.page, job_id, since, max_batches, max_cost)

    def packet_count(self, job_id: str) -> Deferred[int]:
        """Return how many packets a job has, 0 also if there is no such job."""
        return self._look_up(packets.packet_count, job_id)

    def jobs(
        self, wanted: JobFilter, limit: int, cursor: str | None = None
    ) -> Deferred[Page[JobSummary]]:
        """Return a page of the jobs that a filter lets through, newest first.

        A page can be short, even empty, and still have a cursor: what one read looks at is bounded.

        :param limit: the most jobs of one page.
        :param cursor: that of the page before; None for the first one.
        :raises ValueError: through the Deferred, if the cursor is malformed.
        """
        return self._read(listing.jobs_page, wanted, limit, cursor)

    def queues(self, limit: int, cursor: str | None = None) -> Deferred[Page[QueueSummary]]:
        """Return a page of the queues, oldest first. Parameters are those of `jobs`."""
        return self._read(queue_lists.queues_page, limit, cursor)

    def queue(self, name: bytes) -> Deferred[QueueSummary | None]:
        """Return the queue of this name, None if there is none now."""
        return self._read(queue_lists.queue, name)

    def queue_jobs(
        self,
        name: bytes,
        limit: int,
        cursor: str | None = None,
        owners: frozenset[str] | None = None,
    ) -> Deferred[Page[JobSummary]]:
        """Return a page of a queue's jobs that run or wait, in the order in which they run.

        With owners it can be short as one of `jobs` can, whose the other parameters are.

        :param owners: as in a `JobFilter`.
        """
        return self._read(queue_lists.queue_jobs, name, limit, cursor, owners)

    def running_jobs(self, name: bytes, up_to_seq: int) -> Deferred[list[str]]:
        """Return the ids of a queue's jobs that run, of those submitted up to a place."""
        return self._read(queue_lists.running_jobs, name, up_to_seq)

    def position(self, job_id: str) -> Deferred[int | None]:
        """Return how many waiting jobs of its queue come before a job; None unless it waits."""
        return self._read(queue_lists.position, job_id)
