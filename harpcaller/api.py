"""The clients' protocol: one request a connection, and a table from request to method.

It knows what to answer; the life of jobs is `harpcaller.dispatcher`'s.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress, IDelayedCall, ITCPTransport
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure

from harp import errors
from harp.errors import ErrorType, RemoteProtocolError
from harp.flow import register_producer
from harp.wire import dispatcher as wire
from harp.wire import results
from harp.wire.lines import MAX_REQUEST, LineReader, LineTooLongError
from harpcaller.announcements import Announcements, Watcher
from harpcaller.dispatcher import Dispatcher
from harpcaller.jobs import Job
from harpcaller.store import JobStore
from harpcaller.streams import Client, PacketStream

REQUEST_DEADLINE = 30.0
"""Seconds from the connection to the end of its request line."""

CLOSE_DEADLINE = 600.0
"""Seconds for a client, which may be slow, to take what is left when all has been written."""


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


class ClientProtocol(Protocol):
    """The dispatcher's end of one client's connection."""

    _log = Logger("harpcaller.api")

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._reader = LineReader(MAX_REQUEST)
        self._requested = False
        self._answered = False
        self._deadline: IDelayedCall | None = None
        self._watching: tuple[str, Watcher] | None = None

    def connectionMade(self) -> None:
        """Wait for the request, but not for ever."""
        if ITCPTransport.providedBy(self.transport):
            self.transport.setTcpNoDelay(True)
            self.transport.setTcpKeepAlive(True)
        self._deadline = self._parts.reactor.callLater(REQUEST_DEADLINE, self._cut)

    def dataReceived(self, data: bytes) -> None:
        """Take the request line; what comes after the answer has begun is not looked at."""
        if self._requested:
            return
        self._reader.feed(data)
        try:
            line = self._reader.next_line()
            if line is None:
                return
            if self._reader.has_more:
                raise _invalid("there is data after the request line")
            request = wire.decode_request_line(line)
        except LineTooLongError as error:
            self._requested = True
            self._refuse(errors.INVALID_REQUEST, f"in the request, {error}")
        except RemoteProtocolError as error:
            self._requested = True
            self._refuse(error.type, error.message)
        else:
            self._requested = True
            self._disarm()
            answered = Deferred.fromCoroutine(self._answer(request))
            answered.addErrback(self._failed, request)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Forget the client; its job goes on."""
        self._answered = True
        self._disarm()
        if self._watching is not None:
            self._parts.announcements.unwatch(*self._watching)

    # One method a request; the table of them stands at the end of the module.

    async def _answer(self, request: wire.Request) -> None:
        await self._parts.ready()
        await _ANSWERS[type(request)](self, request)

    async def _call(self, request: wire.Call) -> None:
        self._finish(wire.JobId(await self._parts.dispatcher.submit(request)))

    async def _cancel(self, request: wire.Cancel) -> None:
        cancelled = await self._parts.dispatcher.cancel(request.cancel)
        if cancelled is None:
            raise _UnknownJobError(request.cancel)
        self._finish(wire.CancelOutcome(cancelled))

    async def _get_status(self, request: wire.GetStatus) -> None:
        job = await self._job(request.get_status)
        self._finish(
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
            self._finish(wire.NoResult())

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
        client = Client(self._write, self._finish, self._broken)
        stream = PacketStream(self._parts.store, job_id, client)
        if self._answered:  # the client left before it came to this
            stream.stopProducing()
        else:
            register_producer(self.transport, stream)
        return stream

    def _watch(self, job_id: str, watcher: Watcher) -> None:
        if not self._answered:
            self._watching = job_id, watcher
            self._parts.announcements.watch(job_id, watcher)

    # What goes out.

    def _finish_with(self, job: Job) -> None:
        assert job.end is not None
        self._finish(job.end)

    def _finish(self, reply: wire.Reply | None = None) -> None:
        """Send the last reply, if one is left, and close."""
        if self._answered:
            return
        self._answered = True
        if reply is not None:
            self._write([reply])
        transport: Any = self.transport
        transport.unregisterProducer()
        transport.loseConnection()
        self._disarm()
        self._deadline = self._parts.reactor.callLater(CLOSE_DEADLINE, self._cut)

    def _write(self, replies: Sequence[wire.Reply]) -> None:
        assert self.transport is not None
        self.transport.write(b"".join(map(wire.encode_reply, replies)))

    def _refuse(self, type: ErrorType, message: str) -> None:
        self._finish(results.error(type, message))

    def _failed(self, failure: Failure, request: wire.Request) -> None:
        error = failure.value
        if isinstance(error, _UnknownJobError):
            self._refuse(errors.INVALID_JOBID, f"there is no job {error.job_id[:100]}")
        elif isinstance(error, RemoteProtocolError):
            self._refuse(error.type, error.message)
        elif isinstance(request, wire.GetResult | wire.StreamRequest):
            self._broken(failure)
        else:
            # What went wrong inside is for the log, not for the peer.
            self._log.failure("{request} failed", failure, request=type(request).__name__)
            self._refuse(errors.OS_ERROR, "the dispatcher's database failed, see its log")

    def _broken(self, failure: Failure) -> None:
        """Cut the connection where an error would be taken for the end result of the job."""
        self._log.failure("an answer broke off", failure)
        if not self._answered:
            self._cut()

    def _disarm(self) -> None:
        if self._deadline is not None and self._deadline.active():
            self._deadline.cancel()

    def _cut(self) -> None:
        transport: Any = self.transport
        transport.abortConnection()


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
