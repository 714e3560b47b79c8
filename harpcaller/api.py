"""What answers the clients' requests: a table from request to function.

Nothing gets to the table that `harpcaller.permissions` does not allow. The connection is
`harpcaller.connection`'s, the life of jobs is `harpcaller.dispatcher`'s. What only an operator asks
is answered in `harpcaller.operation`.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from harp import errors
from harp.wire import dispatcher as wire
from harpcaller import audit, operation, summaries
from harpcaller.announcements import Announcements, Watcher
from harpcaller.connection import Answer
from harpcaller.jobs import Job, JobState
from harpcaller.logs import logger
from harpcaller.packets import Recorded
from harpcaller.permissions import REQUESTS, not_allowed
from harpcaller.refusal import RefusedError
from harpcaller.store import JobStore, StoreError
from harpcaller.streams import Client, PacketStream


@dataclass(frozen=True)
class Parts(operation.Parts):
    """What all answers are made with.

    :param ready: None once the store is open and what was left from the last run is in order, else
        what fires then.
    """

    announcements: Announcements
    ready: Callable[[], Deferred[None] | None]


class Api:
    """Answers requests."""

    _log = logger("harpcaller.api")

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def respond(self, answer: Answer) -> None:
        """Answer a request, now or later."""
        ready = self._parts.ready()
        if ready is None:
            self._begin(answer)
        else:
            ready.addCallback(lambda _: self._begin(answer))

    def _begin(self, answer: Answer) -> None:
        try:
            answering = self._decide(answer)
        except Exception:
            self._failed(Failure(), answer)
        else:
            if answering is not None:
                answering.addErrback(self._failed, answer)

    def _decide(self, answer: Answer) -> Deferred[None] | None:
        """Answer a request if that is allowed; its job may have to be looked up first.

        :raises RefusedError: ``not_allowed``, or ``invalid_jobid``; later too.
        """
        identity, request = answer.identity, answer.request
        decision = self._parts.permissions.decide(identity, request)
        if isinstance(decision, bool):
            return self._decided(decision, answer)
        job_id, covers = decision.job_id, decision.covers
        owners = self._parts.dispatcher.owners_of(job_id)
        if owners is not None:
            return self._decided(covers(*owners), answer)

        def found(owners: tuple[str | None, str | None] | None) -> Deferred[None] | None:
            if owners is not None:
                return self._decided(covers(*owners), answer)
            error = _unknown(job_id)
            if is_audited:
                audit.refused(identity, request, error.message)
            raise error

        def failed(failure: Failure) -> Failure:
            if is_audited:
                audit.refused(identity, request, "whose job it is could not be looked up")
            return failure

        is_audited = REQUESTS[type(request)].is_audited
        return self._parts.store.owners(job_id).addCallbacks(found, failed)

    def _decided(self, is_allowed: bool, answer: Answer) -> Deferred[None] | None:
        identity, request = answer.identity, answer.request
        if not is_allowed:
            error = not_allowed(identity, request)
            audit.refused(identity, request, error.message)
            raise error
        if REQUESTS[type(request)].is_audited and not isinstance(request, wire.Call):
            audit.allowed(identity, request)  # calls are told of with their ids
        return ANSWERS[type(request)](self._parts, answer, request)

    def _failed(self, failure: Failure, answer: Answer) -> None:
        error = failure.value
        if isinstance(error, RefusedError):
            answer.refuse(error.type, error.message)
        elif isinstance(answer.request, wire.GetResult | wire.StreamRequest):
            # An error would be taken for the end result of the job.
            self._log.failure("an answer broke off", failure)
            answer.cut()
        else:
            # What went wrong inside is for the log, not for the peer.
            name = type(answer.request).__name__
            self._log.failure("{request} failed", failure, request=name)
            what = "database" if failure.check(StoreError) else "own code"
            answer.refuse(errors.OS_ERROR, f"the dispatcher's {what} failed, see its log")


def _call(parts: Parts, answer: Answer, request: wire.Call) -> Deferred[None]:
    identity = answer.identity

    def recorded(job: tuple[str, bool]) -> None:
        audit.allowed(identity, request, job[0])
        answer.finish(wire.JobId(*job))

    def failed(failure: Failure) -> Failure:
        audit.refused(identity, request, not_recorded)
        return failure

    not_recorded = "it could not be recorded"
    try:
        submitted = parts.dispatcher.submit(request, identity)
    except Exception as error:
        why = error.message if isinstance(error, RefusedError) else not_recorded
        audit.refused(identity, request, why)
        raise
    return submitted.addCallbacks(recorded, failed)


async def _cancel(parts: Parts, answer: Answer, request: wire.Cancel) -> None:
    cancelled = await parts.dispatcher.cancel(request.cancel)
    if cancelled is None:
        raise _unknown(request.cancel)
    answer.finish(wire.CancelOutcome(cancelled))


async def _get_status(parts: Parts, answer: Answer, request: wire.GetStatus) -> None:
    job = await _job(parts.store, request.get_status)
    detail = await _status_detail(parts, job) if request.detail else None
    answer.finish(
        wire.Status(
            wire.CallFields(job.host, job.procedure, msgspec.Raw(job.shown)),
            wire.Times(int(job.submitted), _whole(job.started), _whole(job.ended)),
            msgspec.Raw(job.info),
            detail,
        )
    )


async def _status_detail(parts: Parts, job: Job) -> wire.StatusDetail:
    queue = None
    if job.queue is not None:
        summary = await parts.store.queue(job.queue)
        position = await parts.store.position(job.id) if job.state is JobState.WAITING else None
        concurrency = None if summary is None else summary.concurrency
        queue = wire.QueuePlace(msgspec.Raw(job.queue), concurrency, position)
    packets = await parts.store.packet_count(job.id)
    lock = parts.dispatcher.lock_of(job.id)
    return summaries.status_detail(job, packets, queue, lock)


def _get_result(parts: Parts, answer: Answer, request: wire.GetResult) -> Deferred[None] | None:
    job_id = request.get_result

    def ended(job: Job) -> None:
        answer.finish(summaries.end_of(job, request.detail))

    def found(job: Job) -> None:
        if job.end is not None:
            ended(job)
        elif not request.wait:
            answer.finish(wire.NoResult())

    if request.wait:
        # First watched, then looked for: an end in between comes twice rather than never.
        _watch(parts, answer, job_id, _EndWatcher(ended))
    if not parts.dispatcher.is_running(job_id):
        return _job(parts.store, job_id).addCallback(found)
    if not request.wait:
        answer.finish(wire.NoResult())
    return None


async def _follow_stream(parts: Parts, answer: Answer, request: wire.FollowStream) -> None:
    stream = _stream(parts, answer, request.follow_stream, request.detail)
    # First watched, then read: what is recorded in between comes twice rather than never, and
    # the stream knows its numbers.
    _watch(parts, answer, request.follow_stream, stream)
    job = await _job(parts.store, request.follow_stream)
    known = await parts.store.packet_count(job.id)
    last = None if job.end is None else summaries.end_of(job, request.detail)
    stream.start(_since(request, known, default=known), known, last)


async def _read_stream(parts: Parts, answer: Answer, request: wire.ReadStream) -> None:
    stream = _stream(parts, answer, request.read_stream, request.detail)
    job = await _job(parts.store, request.read_stream)
    known = await parts.store.packet_count(job.id)
    last = wire.Continue() if job.end is None else summaries.end_of(job, request.detail)
    stream.start(_since(request, known, default=0), known, last)


def _job(store: JobStore, job_id: str) -> Deferred[Job]:
    def found(job: Job | None) -> Job:
        if job is None:
            raise _unknown(job_id)
        return job

    return store.job(job_id).addCallback(found)


def _stream(parts: Parts, answer: Answer, job_id: str, detail: bool) -> PacketStream:
    def broken(failure: Failure) -> None:
        Api._log.failure("a stream broke off", failure)
        answer.cut()

    stream = PacketStream(parts.store, job_id, Client(answer.write, answer.finish, broken), detail)
    if answer.is_over:  # the client left before it came to this
        stream.stopProducing()
    answer.pace(stream)
    return stream


def _watch(parts: Parts, answer: Answer, job_id: str, watcher: Watcher) -> None:
    if not answer.is_over:
        parts.announcements.watch(job_id, watcher)
        answer.when_over(lambda: parts.announcements.unwatch(job_id, watcher))
        answer.wait()


class _EndWatcher:
    """Waits for the end of a job only."""

    def __init__(self, ended: Callable[[Job], None]) -> None:
        self.ended = ended

    def packets(self, packets: Recorded) -> None:
        pass


def _unknown(job_id: str) -> RefusedError:
    return RefusedError(errors.INVALID_JOBID, f"there is no job {job_id[:100]}")


def _whole(seconds: float | None) -> int | None:
    return None if seconds is None else int(seconds)


def _since(request: wire.StreamRequest, known: int, default: int) -> int:
    """Return the number of the first packet that the request wants."""
    if request.recent is not None:
        return max(0, known - request.recent)
    return default if request.since is None else request.since


Respond = Callable[[Any, Answer, Any], Deferred[None] | None]


def _later(function: Callable[[Any, Answer, Any], Coroutine[Any, Any, None]]) -> Respond:
    return lambda parts, answer, request: Deferred.fromCoroutine(function(parts, answer, request))


# What each call needs is written without coroutines, which cost more than the answer itself.
ANSWERS: Mapping[type[wire.Request], Respond] = {
    wire.Call: _call,
    wire.Cancel: _later(_cancel),
    wire.GetStatus: _later(_get_status),
    wire.GetResult: _get_result,
    wire.FollowStream: _later(_follow_stream),
    wire.ReadStream: _later(_read_stream),
    **{request: _later(answer) for request, answer in operation.ANSWERS.items()},
}
