"""The life of a job: submitted, started when its turn comes, recorded, ended or cancelled.

The store decides which job may start and what has ended; this part carries out what follows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, NamedTuple, TypeVar

import msgspec
from twisted.internet.defer import Deferred

from harp import errors
from harp.errors import Origin
from harp.logs import shown
from harp.wire import dispatcher as wire
from harp.wire import results
from harp.wire.results import EndKind, EndResult
from harp.wire.text import Fault
from harpcaller.announcements import Announcements
from harpcaller.connections import Connections
from harpcaller.hosts import HostsRegistry
from harpcaller.identities import Identity
from harpcaller.job_ids import JobIds
from harpcaller.jobs import Capacity, Job, JobState
from harpcaller.logs import logger
from harpcaller.recording import PacketRecorder
from harpcaller.refusal import RefusedError
from harpcaller.remote import Conversation
from harpcaller.secrecy import SecretProcedures, shown_after
from harpcaller.store import (
    Cancellation,
    Ending,
    JobStore,
    QueueCancellation,
    Recovery,
    Repeat,
    Submission,
)
from harpcaller.submission import Limits, new_job

T = TypeVar("T")

_log = logger("harpcaller.dispatcher")  # of no class: it would be made anew for each line

AGAIN = 1.0
"""Seconds until what could not be recorded is recorded again: a full disk gets emptied."""

PORTION = 100
"""Jobs of a queue that are cancelled in one transaction, fewer where they are long."""

_STOPPED = results.error(errors.SHUTDOWN, "the dispatcher was stopped")


class Owners(NamedTuple):
    """Whose job one is, as `harpcaller.jobs.Job` has it."""

    submitter: str | None
    on_behalf_of: str | None


class Dispatcher:
    """Runs the jobs that the store lets run.

    :param reactor: time limits are its.
    :param now: returns unix seconds, which jobs are recorded with.
    :param limits: of the jobs to come; may be replaced.
    """

    def __init__(
        self,
        reactor: Any,
        now: Callable[[], float],
        store: JobStore,
        hosts: HostsRegistry,
        connections: Connections,
        announcements: Announcements,
        limits: Limits,
    ) -> None:
        self._reactor = reactor
        self._now = now
        self._store = store
        self._hosts = hosts
        self._connections = connections
        self._announcements = announcements
        self.limits = limits
        self._job_ids = JobIds()
        self._secret_procedures = SecretProcedures()
        self._capacity: Capacity | None = None
        self._running: dict[str, Conversation] = {}
        self._not_ended: dict[str, Owners] = {}
        self._is_stopping = False
        self._grace_is_over = False
        self._idle: Deferred[None] | None = None
        self._under_way = 0

    def submit(self, call: wire.Call, identity: Identity) -> Deferred[tuple[str, bool]]:
        """Record a job and start it if it need not wait.

        :param identity: who asks.
        :return: fires with its id when it is on disk, and whether it is an earlier call's because
            of ``dedup``.
        :raises RefusedError: ``invalid_request``, if a name is no sound JSON or harpd would not
            take so long a request; ``shutdown``, if nothing new is begun any more.
        """
        self._refuse_when_stopping()
        now = self._now()
        has_secrets = (call.host, call.procedure) in self._secret_procedures
        new = new_job(call, self._job_ids.new(now), identity, self.limits, has_secrets)
        submission = self._store.submit(new, now)
        return self._followed(submission.addCallback(self._submitted))

    def cancel(self, job_id: str) -> Deferred[bool | None]:
        """Cancel a job that waits or runs.

        :return: fires with whether there was anything to cancel; None if there is no such job.
        """
        cancellation = self._store.cancel(job_id, self._now(), release=not self._is_stopping)
        return self._followed(cancellation.addCallback(self._cancelled))

    async def cancel_queue(self, name: bytes) -> int:
        """Cancel all jobs of a queue that wait or run now; later ones are left alone.

        :param name: canonical JSON.
        :return: how many there were.
        :raises RefusedError: ``shutdown``, when the dispatcher is being stopped: what is cancelled
            here lets others start.
        """
        queue = await self._store.queue(name)
        if queue is None:
            return 0
        count, portion = 0, 1
        while portion:
            self._refuse_when_stopping()
            cancellation = self._store.cancel_waiting(name, queue.last_seq, PORTION, self._now())
            portion = await self._followed(cancellation.addCallback(self._queue_cancelled))
            count += portion
        for job_id in await self._store.running_jobs(name, queue.last_seq):
            count += bool(await self.cancel(job_id))
        return count

    async def recover(self) -> None:
        """Close what was running when the dispatcher was stopped, and let the others go on."""
        await self._followed(self._store.recover(self._now()).addCallback(self._recovered))

    async def set_capacity(self, capacity: Capacity) -> None:
        """Let so many run at once from now on; what runs beyond that is left alone.

        It goes on trying, for else those that wait might not be looked at again.
        """
        self._capacity = capacity
        while self._capacity is capacity and not self._is_stopping:
            try:
                released = self._store.set_capacity(capacity, self._now())
                await self._followed(released.addCallback(self._start_all))
                return
            except Exception:
                _log.failure("the jobs that wait can't be looked at, which is tried again")
                await self._a_while()

    def count_running(self) -> int:
        """Return how many jobs are on their hosts now."""
        return len(self._running)

    def is_running(self, job_id: str) -> bool:
        """Say whether a job is known to run; then its end is yet to be announced."""
        return job_id in self._not_ended

    def owners_of(self, job_id: str) -> Owners | None:
        """Return whose job one is that is known to run, None if it is not."""
        return self._not_ended.get(job_id)

    def lock_of(self, job_id: str) -> str | None:
        """Return the lock that a running job waits for on its host, None if it does not."""
        conversation = self._running.get(job_id)
        return None if conversation is None else conversation.lock

    async def stop(self, grace: float) -> None:
        """Begin nothing new, let what runs go on for a while, then end it.

        Jobs that wait go on waiting in the store.

        :param grace: for how long what runs may go on, in seconds.
        """
        self._is_stopping = True
        if self._running or self._under_way:
            _log.info("waiting for {count} running jobs", count=self.count_running())
            self._idle = Deferred()
            timer = self._reactor.callLater(grace, self._end_grace)
            await self._idle
            if timer.active():
                timer.cancel()
        self._grace_is_over = True

    def _end_grace(self) -> None:
        self._grace_is_over = True
        for conversation in list(self._running.values()):
            conversation.fail(_STOPPED, Origin.DISPATCHER)

    def _refuse_when_stopping(self) -> None:
        if self._is_stopping:
            raise RefusedError(errors.SHUTDOWN, "the dispatcher is being stopped")

    def _followed(self, change: Deferred[T]) -> Deferred[T]:
        """Have `stop` wait for a change of the store and for what follows from it."""
        self._under_way += 1
        return change.addBoth(self._done)

    def _done(self, outcome: T) -> T:
        self._under_way -= 1
        if self._idle is not None and not (self._running or self._under_way):
            idle, self._idle = self._idle, None
            idle.callback(None)
        return outcome

    def _submitted(self, submission: Submission) -> tuple[str, bool]:
        job = submission.job
        if job is None or submission.repeated is not None:
            _log.info("job {id}: submitted again", id=submission.job_id)
            return submission.job_id, submission.repeated is Repeat.DEDUP
        if job.state is JobState.RUNNING:
            self._start(job)
        return job.id, False

    def _start_all(self, jobs: Iterable[Job]) -> None:
        for job in jobs:
            self._start(job)

    def _start(self, job: Job) -> None:
        self._not_ended[job.id] = Owners(job.submitter, job.on_behalf_of)
        if self._grace_is_over:
            self._ended(job, _STOPPED, Origin.DISPATCHER)
            return
        host = self._hosts.lookup(job.host)
        if host is None:
            text = f"there is no host {job.host[:100]} in the hosts registry"
            self._ended(job, results.error(errors.UNKNOWN_HOST, text), Origin.DISPATCHER)
            return
        packets = PacketRecorder(job.id, self._store, self._announcements, self._now)
        kept = job.without_secrets()  # the others are gone when they are sent
        conversation = Conversation(
            self._reactor,
            job,
            packets.record,
            partial(self._ended, kept),
            partial(self._acknowledged, kept, job.shown_arguments),
        )
        self._running[job.id] = conversation
        try:
            conversation.start(host, self._connections)
        except Exception:  # those that were released with it must be started all the same
            _log.failure("job {id} can't be started", id=job.id)
            text = "the dispatcher's own code failed, see its log"
            conversation.fail(results.error(errors.OS_ERROR, text), Origin.DISPATCHER)

    def _acknowledged(self, job: Job, shown: bytes | None, told: bytes | None) -> None:
        """Learn from harpd how the arguments may be shown, None if it said nothing of that."""
        self._secret_procedures.learn(job.host, job.procedure, told is not None)
        if told is not None and (now_shown := shown_after(shown, told)) != shown:
            replacing = self._replace_arguments(job.id, now_shown, shown is None)
            self._followed(Deferred.fromCoroutine(replacing))

    async def _replace_arguments(self, job_id: str, arguments: bytes, wipe: bool) -> None:
        told = False
        while True:
            try:
                await self._store.replace_arguments(job_id, arguments, wipe)
                return
            except Exception:
                if not told:
                    text = "the secret arguments of job {id} are not wiped, which is tried again"
                    _log.failure(text, id=job_id)
                    told = True
                if self._grace_is_over:
                    return
                await self._a_while()

    def _ended(self, job: Job, result: EndResult, origin: Origin | None) -> None:
        self._running.pop(job.id, None)
        recording = Deferred.fromCoroutine(self._record_end(job, result, origin))
        recording.addErrback(
            lambda failure: _log.failure("the end of job {id}", failure, id=job.id)
        )
        self._followed(recording)

    def _cancelled(self, cancellation: Cancellation) -> bool | None:
        job = cancellation.job
        if job is None:
            return None
        if cancellation.before is JobState.ENDED:
            return False
        conversation = self._running.pop(job.id, None)
        if conversation is not None:
            conversation.stop()
        self._is_over(job)
        self._start_all(cancellation.released)
        return True

    def _queue_cancelled(self, cancellation: QueueCancellation) -> int:
        for job in cancellation.jobs:
            self._is_over(job)
        self._start_all(cancellation.released)
        return len(cancellation.jobs)

    def _recovered(self, recovery: Recovery) -> None:
        if recovery.closed:
            _log.warn(
                "{count} jobs were running when the dispatcher stopped; they have no result",
                count=len(recovery.closed),
            )
        self._start_all(recovery.released)

    async def _record_end(self, job: Job, result: EndResult, origin: Origin | None) -> None:
        ending: Ending | None = None
        told = False
        while ending is None:
            try:
                # When the dispatcher stops, those that wait are not to be started any more.
                ending = await self._store.end(
                    job.id, result, origin, self._now(), release=not self._is_stopping
                )
            except Exception:  # whatever it was, a job must not run for ever
                if not told:  # once: many jobs may try for hours, and the log fills a disk too
                    text = "the end of job {id} is not recorded, which is tried again"
                    _log.failure(text, id=job.id)
                    told = True
                if self._grace_is_over:
                    return  # the next start closes it
                await self._a_while()
        if ending.job is not None:  # else it was cancelled meanwhile
            self._is_over(ending.job)
            self._start_all(ending.released)

    def _a_while(self) -> Deferred[None]:
        over: Deferred[None] = Deferred()
        self._reactor.callLater(AGAIN, over.callback, None)
        return over

    def _is_over(self, job: Job) -> None:
        assert job.end is not None
        self._not_ended.pop(job.id, None)
        text = "job {id}, {whose}, ended: {how}"
        _log.info(text, id=job.id, whose=_whose(job), how=_told(job.end))
        self._announcements.ended(job)


def _whose(job: Job) -> str:
    whose = "anonymous" if job.submitter is None else f"of {shown(job.submitter)}"
    return whose if job.on_behalf_of is None else f"{whose} for {shown(job.on_behalf_of)}"


def _told(end: EndResult) -> str:
    """Return what the log says of an end result: nothing that comes from a procedure.

    What an exception says may have arguments in it, and so secrets; it is recorded with the job.
    """
    if end.kind not in {EndKind.ERROR, EndKind.EXCEPTION}:
        return str(end.kind.value)
    fault: Fault = msgspec.json.decode(end.value, type=Fault)
    told = f"{end.kind.value}: {fault.type}"
    return shown(told if end.kind is EndKind.EXCEPTION else f"{told}: {fault.message}")
