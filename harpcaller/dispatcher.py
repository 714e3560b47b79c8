"""The life of a job: submitted, started when its turn comes, recorded, ended or cancelled.

The store decides which job may start and what has ended; this part carries out what follows.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

import msgspec
from twisted.internet.defer import Deferred, DeferredList
from twisted.logger import Logger

from harp import errors
from harp.errors import RemoteProtocolError
from harp.logs import shown
from harp.wire import dispatcher as wire
from harp.wire import results
from harp.wire.lines import ENVELOPE_ROOM, MAX_REQUEST
from harp.wire.results import EndKind, EndResult
from harp.wire.text import Fault, encode
from harpcaller.announcements import Announcements
from harpcaller.hosts import HostsRegistry
from harpcaller.jobs import Job, JobState, NewJob, QueueSpec
from harpcaller.queues import canonical_queue_name
from harpcaller.remote import Conversation
from harpcaller.store import Cancellation, Ending, JobStore, Submission
from harpcaller.trust import ServerTrust

RECORD_AGAIN = 1.0
"""Seconds until an end that could not be recorded is recorded again: a full disk gets emptied."""


_STOPPED = results.error(errors.SHUTDOWN, "the dispatcher was stopped")


@dataclass(frozen=True)
class Limits:
    """The time limits of the configuration, in seconds.

    :param default_timeout: the longest silence of a job that asks for no other.
    :param max_exec_time: the longest run of any job.
    """

    default_timeout: float
    max_exec_time: float


class Dispatcher:
    """Runs the jobs that the store lets run.

    :param reactor: connections and time limits are its; jobs are recorded with its wall clock.
    :param now: returns unix seconds.
    """

    _log = Logger("harpcaller.dispatcher")

    def __init__(
        self,
        reactor: Any,
        now: Callable[[], float],
        store: JobStore,
        hosts: HostsRegistry,
        server_trust: ServerTrust,
        announcements: Announcements,
        limits: Limits,
    ) -> None:
        self._reactor = reactor
        self._now = now
        self._store = store
        self._hosts = hosts
        self._trust = server_trust
        self._announcements = announcements
        self._limits = limits
        self._running: dict[str, Conversation] = {}
        self._stopping = False
        self._recording: set[Deferred[None]] = set()

    def submit(self, call: wire.Call) -> Deferred[str]:
        """Record a job and start it if it need not wait.

        :return: fires with its id when it is on disk.
        :raises RemoteProtocolError: ``invalid_request``, if the queue's name is no sound JSON or
            harpd would not take so long a request.
        """
        _check_size(call)
        queue = None
        if call.queue is not None:
            try:
                name = canonical_queue_name(bytes(call.queue.name))
            except ValueError as error:
                raise RemoteProtocolError(
                    errors.INVALID_REQUEST, f"{error} - at `$.queue.name`"
                ) from error
            queue = QueueSpec(name, call.queue.concurrency)
        limits = self._limits
        new = NewJob(
            id=str(uuid.uuid4()),
            host=call.host,
            procedure=call.procedure,
            arguments=bytes(call.arguments),
            info=bytes(call.info),
            timeout=min(call.timeout or limits.default_timeout, limits.max_exec_time),
            max_exec_time=min(call.max_exec_time or limits.max_exec_time, limits.max_exec_time),
            queue=queue,
        )
        return self._store.submit(new, self._now()).addCallback(self._submitted)

    def cancel(self, job_id: str) -> Deferred[bool | None]:
        """Cancel a job that waits or runs.

        :return: fires with whether there was anything to cancel; None if there is no such job.
        """
        cancellation = self._store.cancel(job_id, self._now(), release=not self._stopping)
        return cancellation.addCallback(self._cancelled)

    async def recover(self) -> None:
        """Close what was running when the dispatcher was stopped, and let the queues go on."""
        recovery = await self._store.recover(self._now())
        if recovery.closed:
            self._log.warn(
                "{count} jobs were running when the dispatcher stopped; they have no result",
                count=len(recovery.closed),
            )
        self._start_all(recovery.released)

    async def stop(self) -> None:
        """End what runs; jobs that wait go on waiting in the store."""
        self._stopping = True
        for conversation in list(self._running.values()):
            conversation.fail(_STOPPED)
        while self._recording:
            await DeferredList(list(self._recording))

    def _ended(self, job: Job, result: EndResult) -> None:
        self._running.pop(job.id, None)
        recording: Deferred[None] = Deferred.fromCoroutine(self._record_end(job, result))
        self._recording.add(recording)
        recording.addErrback(
            lambda failure: self._log.failure("the end of job {id}", failure, id=job.id)
        )
        recording.addBoth(lambda _: self._recording.discard(recording))

    def _submitted(self, submission: Submission) -> str:
        job = submission.job
        if job is None or submission.repeated is not None:
            return submission.job_id
        self._log.info(
            "job {id}: {procedure} on {host} is {state}",
            id=job.id,
            procedure=shown(job.procedure),
            host=shown(job.host),
            state=job.state.value,
        )
        if job.state is JobState.RUNNING:
            self._start(job)
        return job.id

    def _start_all(self, jobs: Iterable[Job]) -> None:
        for job in jobs:
            self._start(job)

    def _start(self, job: Job) -> None:
        if self._stopping:
            self._ended(job, _STOPPED)
            return
        host = self._hosts.lookup(job.host)
        if host is None:
            text = f"there is no host {job.host} in the hosts registry"
            self._ended(job, results.error(errors.UNKNOWN_HOST, text))
            return
        packets = _Packets(job, self._store, self._announcements, self._now)
        conversation = Conversation(self._reactor, job, packets.record, partial(self._ended, job))
        self._running[job.id] = conversation
        conversation.start(host, self._trust)

    def _cancelled(self, cancellation: Cancellation) -> bool | None:
        job = cancellation.job
        if job is None:
            return None
        if cancellation.before is JobState.ENDED:
            return False
        conversation = self._running.pop(job.id, None)
        if conversation is not None:
            conversation.stop()
        self._is_over(job, cancellation.released)
        return True

    async def _record_end(self, job: Job, result: EndResult) -> None:
        ending: Ending | None = None
        while ending is None:
            try:
                # When the dispatcher stops, those that wait are not to be started any more.
                ending = await self._store.end(
                    job.id, result, None, self._now(), release=not self._stopping
                )
            except Exception:  # whatever it was, a job must not run for ever
                self._log.failure("the end of job {id} is not recorded", id=job.id)
                if self._stopping:
                    return  # the next start closes it
                again: Deferred[None] = Deferred()
                self._reactor.callLater(RECORD_AGAIN, again.callback, None)
                await again
        if ending.job is not None:  # else it was cancelled meanwhile
            self._is_over(ending.job, ending.released)

    def _is_over(self, job: Job, released: list[Job]) -> None:
        assert job.end is not None
        self._log.info("job {id} ended: {how}", id=job.id, how=_told(job.end))
        self._announcements.ended(job)
        self._start_all(released)


def _check_size(call: wire.Call) -> None:
    length = len(encode(call.procedure)) + len(bytes(call.arguments))
    longest = MAX_REQUEST - ENVELOPE_ROOM
    if length > longest:
        raise RemoteProtocolError(
            errors.INVALID_REQUEST,
            f"{length} bytes are more than the {longest} that harpd takes - at `$.arguments`",
        )


def _told(end: EndResult) -> str:
    """Return what the log says of an end result: nothing of a result, the type of a failure."""
    if end.kind not in {EndKind.ERROR, EndKind.EXCEPTION}:
        return str(end.kind.value)
    fault: Fault = msgspec.json.decode(end.value, type=Fault)
    return shown(f"{end.kind.value}: {fault.type}: {fault.message}")


class _Packets:
    """Numbers and records the packets of one job, then announces them."""

    def __init__(
        self, job: Job, store: JobStore, announcements: Announcements, now: Callable[[], float]
    ) -> None:
        self._job_id = job.id
        self._store = store
        self._announcements = announcements
        self._now = now
        self._count = 0

    def record(self, packets: list[bytes]) -> Deferred[None]:
        first = self._count
        self._count += len(packets)

        def announce(_: None) -> None:
            self._announcements.packets(self._job_id, first, packets)

        return self._store.append(self._job_id, first, packets, self._now()).addCallback(announce)
