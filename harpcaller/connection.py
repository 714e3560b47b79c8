"""One client's connection: request lines in, replies out, and how long either may take.

What a request means and what answers it is `harpcaller.api`'s.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import (
    IAddress,
    IHalfCloseableProtocol,
    IPushProducer,
    ISSLTransport,
    ITCPTransport,
)
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from harp import errors
from harp.deadline import Deadline
from harp.errors import ErrorType, RemoteProtocolError
from harp.flow import SLICE, register_producer, write_last
from harp.wire import dispatcher as wire
from harp.wire import results
from harp.wire.lines import MAX_REQUEST, LineReader, LineTooLongError
from harpcaller.identities import Identity

REQUEST_DEADLINE = 30.0
"""Seconds from the connection to the end of its request line."""

IDLE_LIMIT = 60.0
"""Seconds from a reply to the end of the next request line, where the client asked for that."""

CLOSE_DEADLINE = 120.0
"""Seconds without progress, when all has been answered, after which the connection is cut."""

LINGER = 10.0
"""Seconds for a client to stop sending after its request was refused."""


class Answer:
    """What goes back to one request; nothing does after its last reply.

    :param identity: who asks.
    """

    def __init__(
        self, connection: RequestConnection, request: wire.Request, identity: Identity
    ) -> None:
        self.request = request
        self.identity = identity
        self.waits = False
        self._connection: RequestConnection | None = connection
        self._cleanup: Callable[[], None] | None = None

    @property
    def is_over(self) -> bool:
        """Whether nothing more can be sent."""
        return self._connection is None

    def wait(self) -> None:
        """Learn that the answer may be long in coming: a client that says no more has then left."""
        self.waits = True
        if self._connection is not None:
            self._connection.look_for_client()

    def when_over(self, cleanup: Callable[[], None]) -> None:
        """Have something done when nothing more can be sent."""
        self._cleanup = cleanup

    def write(self, lines: bytes) -> None:
        """Send replies that are not the last."""
        if self._connection is not None:
            self._connection.write(lines)

    def pace(self, producer: IPushProducer) -> None:
        """Have the client's pace pause and resume what is written."""
        if self._connection is not None:
            self._connection.pace(producer)

    def finish(self, reply: wire.Reply) -> None:
        """Send the last reply."""
        connection = self._connection
        if connection is not None:
            self.abandon()
            connection.finish(reply)

    def refuse(self, type: ErrorType, message: str) -> None:
        """Send an error as the last reply."""
        self.finish(results.error(type, message))

    def cut(self) -> None:
        """Close the connection at once, whatever is under way."""
        if self._connection is not None:
            self._connection.cut()

    def abandon(self) -> None:
        """Send nothing more."""
        self._connection = None
        cleanup, self._cleanup = self._cleanup, None
        if cleanup is not None:
            cleanup()


Respond = Callable[[Answer], None]
"""Answers a request, now or later."""


@implementer(IHalfCloseableProtocol)
class RequestConnection(Protocol):
    """Reads one request at a time; it is closed after an answer that the client did not outlive.

    :param peer: the client's address.
    """

    def __init__(self, reactor: Any, respond: Respond, peer: str) -> None:
        self._reactor = reactor
        self._respond = respond
        self._identity = Identity(None, peer=peer)
        self._reader = LineReader(MAX_REQUEST)
        self._answer: Answer | None = None
        self._goes_on = True
        self._has_ended = False
        self._paces_requests = False
        self._deadline = Deadline(reactor)

    def connectionMade(self) -> None:
        """Wait for the request, but not for ever."""
        if ITCPTransport.providedBy(self.transport):
            self.transport.setTcpNoDelay(True)
            self.transport.setTcpKeepAlive(True)
        self._deadline.set(REQUEST_DEADLINE, self.cut)

    def dataReceived(self, data: bytes) -> None:
        """Take a request line; what comes behind it before the answer is not looked at."""
        if self._answer is not None or not self._goes_on:
            self._goes_on = False  # else it would gather in memory
            return
        self._reader.feed(data)
        try:
            line = self._reader.next_line()
            if line is None:
                return
            request = wire.decode_request_line(line)
        except LineTooLongError as error:
            self._refuse_line(errors.INVALID_REQUEST, f"in the request, {error}")
        except RemoteProtocolError as error:
            self._refuse_line(error.type, error.message)
        else:
            self._deadline.clear()
            self._goes_on = request.keepalive and not self._reader.has_more
            self._answer = Answer(self, request, self._identity)
            self._respond(self._answer)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Send nothing more."""
        self._goes_on = False
        self._deadline.end()
        answer, self._answer = self._answer, None
        if answer is not None:
            answer.abandon()

    def readConnectionLost(self) -> None:
        """Close, unless a client that only ended its own direction is about to be answered."""
        self._goes_on = False
        self._has_ended = True
        self.look_for_client()

    def writeConnectionLost(self) -> None:
        """Nothing to do: it was closed by us."""

    def look_for_client(self) -> None:
        """Close if the client has ended its direction and is not about to be answered."""
        answer = self._answer
        transport: Any = self.transport
        if self._has_ended and (answer is None or (answer.waits and not answer.is_over)):
            self._deadline.set(CLOSE_DEADLINE, self.cut)
            transport.loseConnection()

    def write(self, lines: bytes) -> None:
        """Send replies."""
        assert self.transport is not None
        self.transport.write(lines)

    def pace(self, producer: IPushProducer) -> None:
        """Have the client's pace pause and resume a producer."""
        self._free()
        register_producer(self.transport, producer)

    def finish(self, reply: wire.Reply) -> None:
        """Send the last reply; then close, or wait for the next request."""
        line = wire.encode_reply(reply)
        if self._goes_on and len(line) <= SLICE:  # longer ones wait for the client themselves
            self._pace_requests()
            assert self.transport is not None
            self.transport.write(line)
            self._await_request()
        else:
            self._write_last(line, CLOSE_DEADLINE, self._written)

    def cut(self) -> None:
        """Close the connection at once, whatever is under way."""
        transport: Any = self.transport
        transport.abortConnection()

    def _await_request(self) -> None:
        self._answer = None
        self._deadline.set(IDLE_LIMIT, self._hang_up)

    def _written(self) -> None:
        self._answer = None
        if self._goes_on:
            self._await_request()
        else:
            self._close()

    def _refuse_line(self, type: ErrorType, message: str) -> None:
        """Send an error to a client that may still be sending.

        Closing would make the kernel reset the connection, and the client might lose the error
        (RFC 9112, section 9.6 has the same). So only our direction is closed; what comes is thrown
        away until the client closes too. TLS does that by itself.
        """
        transport: Any = self.transport
        tcp = ITCPTransport.providedBy(transport) and not ISSLTransport.providedBy(transport)
        close = transport.loseWriteConnection if tcp else transport.loseConnection
        self._goes_on = False
        self._write_last(wire.encode_reply(results.error(type, message)), LINGER, close)

    def _write_last(self, line: bytes, deadline: float, close: Callable[[], None]) -> None:
        self._free()
        write_last(self.transport, line, lambda: self._deadline.set(deadline, self.cut), close)

    def _hang_up(self) -> None:
        """Close in good order, so that a client can tell that no request was lost."""
        self._goes_on = False
        self._deadline.set(LINGER, self.cut)
        self._close()

    def _close(self) -> None:
        self._free()  # a producer that is paused would keep the connection open
        assert self.transport is not None
        self.transport.loseConnection()

    def _pace_requests(self) -> None:
        if not self._paces_requests:
            self._free()
            self._paces_requests = True
            transport: Any = self.transport
            transport.registerProducer(_Requests(transport), True)

    def _free(self) -> None:
        """Let nothing be paused."""
        self._paces_requests = False
        transport: Any = self.transport
        transport.unregisterProducer()


@implementer(IPushProducer)
class _Requests:
    """What a client asks for is read no faster than it takes the answers, which else pile up."""

    def __init__(self, transport: Any) -> None:
        self._transport = transport

    def pauseProducing(self) -> None:
        self._transport.pauseProducing()

    def resumeProducing(self) -> None:
        self._transport.resumeProducing()

    def stopProducing(self) -> None:
        pass


class ClientFactory(Factory):
    """Makes the connections."""

    noisy = False

    def __init__(self, reactor: Any, respond: Respond) -> None:
        self._reactor = reactor
        self._respond = respond

    def buildProtocol(self, addr: IAddress | None) -> RequestConnection:
        """Return the protocol for a new connection."""
        host = getattr(addr, "host", None)  # a unix socket's has none
        return RequestConnection(self._reactor, self._respond, host or "unix")
