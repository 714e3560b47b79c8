"""What answers the clients' requests: a table from request to method.

The connection is `harpcaller.connection`'s, the life of jobs is `harpcaller.dispatcher`'s.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import Factory, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure

from harp import errors
from harp.errors import RemoteProtocolError
from harp.flow import register_producer
from harp.wire import dispatcher as wire
from harpcaller.announcements import Announcements, Watcher
from harpcaller.connection import RequestConnection
from harpcaller.dispatcher import Dispatcher
from harpcaller.jobs import Job
from harpcaller.store import JobStore
from harpcaller.streams import Client, PacketStream


@dataclass(frozen=True)
class Parts:
    """What all connections share.

    :param ready: fires when the store is open and what was left from the last run is in order.
    """

    reactor: Any
    dispatcher: Dispatcher
    store: JobStore
    announcements: Announcements
    ready: Callable[[], Deferred[None]]


class ClientProtocol(RequestConnection):
    """The dispatcher's end of one client's connection."""

    _log = Logger("harpcaller.api")

    def __init__(self, parts: Parts) -> None:
        super().__init__(parts.reactor)
        self._parts = parts
        self._watching: tuple[str, Watcher] | None = None

    def answer(self, request: wire.Request) -> None:
        """Answer the request."""
        answered = Deferred.fromCoroutine(self._answer(request))
        answered.addErrback(self._failed, request)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Forget the client; its job goes on."""
        super().connectionLost(reason)
        if self._watching is not None:
            self._parts.announcements.unwatch(*self._watching)
            self._watching = None  # a circle, which would keep what the client did not read

    # One method a request; the table of them stands at the end of the module.

    async def _answer(self, request: wire.Request) -> None:
        await self._parts.ready()
        await _ANSWERS[type(request)](self, request)

    async def _call(self, request: wire.Call) -> None:
        self.finish(wire.JobId(await self._parts.dispatcher.submit(request)))

    async def _cancel(self, request: wire.Cancel) -> None:
        cancelled = await self._parts.dispatcher.cancel(request.cancel)
        if cancelled is None:
            raise _UnknownJobError(request.cancel)
        self.finish(wire.CancelOutcome(cancelled))

    async def _get_status(self, request: wire.GetStatus) -> None:
        job = await self._job(request.get_status)
        self.finish(
            wire.Status(
                wire.CallFields(job.host, job.procedure, msgspec.Raw(job.arguments)),
                wire.Times(int(job.submitted), _whole(job.started), _whole(job.ended)),
                msgspec.Raw(job.info),
            )
        )

    async def _get_result(self, request: wire.GetResult) -> None:
        if request.wait:
            self._watch(request.get_result, _EndWatcher(self._finish_with))
        job = await self._job(request.get_result)
        if job.end is not None:
            self._finish_with(job)
        elif not request.wait:
            self.finish(wire.NoResult())

    async def _follow_stream(self, request: wire.FollowStream) -> None:
        stream = self._stream(request.follow_stream)
        # First watched, then read: what is recorded in between comes twice rather than never, and
        # the stream knows its numbers.
        self._watch(request.follow_stream, stream)
        job = await self._job(request.follow_stream)
        known = await self._parts.store.packet_count(job.id)
        stream.start(_since(request, known, default=known), known, job.end)

    async def _read_stream(self, request: wire.ReadStream) -> None:
        stream = self._stream(request.read_stream)
        job = await self._job(request.read_stream)
        known = await self._parts.store.packet_count(job.id)
        stream.start(_since(request, known, default=0), known, job.end or wire.Continue())

    async def _job(self, job_id: str) -> Job:
        job = await self._parts.store.job(job_id)
        if job is None:
            raise _UnknownJobError(job_id)
        return job

    def _stream(self, job_id: str) -> PacketStream:
        client = Client(self.write, self.finish, self._broken)
        stream = PacketStream(self._parts.store, job_id, client)
        if self.answered:  # the client left before it came to this
            stream.stopProducing()
        else:
            register_producer(self.transport, stream)
        return stream

    def _watch(self, job_id: str, watcher: Watcher) -> None:
        if not self.answered:
            self.waits = True
            self._watching = job_id, watcher
            self._parts.announcements.watch(job_id, watcher)

    def _finish_with(self, job: Job) -> None:
        assert job.end is not None
        self.finish(job.end)

    def _failed(self, failure: Failure, request: wire.Request) -> None:
        error = failure.value
        if isinstance(error, _UnknownJobError):
            self.refuse(errors.INVALID_JOBID, f"there is no job {error.job_id[:100]}")
        elif isinstance(error, RemoteProtocolError):
            self.refuse(error.type, error.message)
        elif isinstance(request, wire.GetResult | wire.StreamRequest):
            self._broken(failure)
        else:
            # What went wrong inside is for the log, not for the peer.
            self._log.failure("{request} failed", failure, request=type(request).__name__)
            self.refuse(errors.OS_ERROR, "the dispatcher's database failed, see its log")

    def _broken(self, failure: Failure) -> None:
        """Cut the connection where an error would be taken for the end result of the job."""
        self._log.failure("an answer broke off", failure)
        if not self.answered:
            self.cut()


class ClientFactory(Factory):
    """Makes the protocols."""

    noisy = False

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def buildProtocol(self, addr: IAddress | None) -> ClientProtocol:
        """Return the protocol for a new connection."""
        return ClientProtocol(self._parts)


class _UnknownJobError(Exception):
    def __init__(self, job_id: str) -> None:
        super().__init__(job_id)
        self.job_id = job_id


class _EndWatcher:
    """Waits for the end of a job only."""

    def __init__(self, ended: Callable[[Job], None]) -> None:
        self.ended = ended

    def packets(self, first: int, packets: Sequence[bytes]) -> None:
        pass


def _invalid(message: str) -> RemoteProtocolError:
    return RemoteProtocolError(errors.INVALID_REQUEST, message)


def _whole(seconds: float | None) -> int | None:
    return None if seconds is None else int(seconds)


def _since(request: wire.StreamRequest, known: int, default: int) -> int:
    """Return the number of the first packet that the request wants."""
    if request.recent is not None:
        return max(0, known - request.recent)
    return default if request.since is None else request.since


_ANSWERS: Mapping[
    type[wire.Request], Callable[[ClientProtocol, Any], Coroutine[Any, Any, None]]
] = {
    wire.Call: ClientProtocol._call,
    wire.Cancel: ClientProtocol._cancel,
    wire.GetStatus: ClientProtocol._get_status,
    wire.GetResult: ClientProtocol._get_result,
    wire.FollowStream: ClientProtocol._follow_stream,
    wire.ReadStream: ClientProtocol._read_stream,
}
