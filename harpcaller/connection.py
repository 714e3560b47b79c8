"""One client's connection: request lines in, replies out, and how long either may take.

What a request means and what answers it is `harpcaller.api`'s.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import (
    IAddress,
    IHalfCloseableProtocol,
    IHandshakeListener,
    IPushProducer,
    ISSLTransport,
    ITCPTransport,
)
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from harp import errors
from harp.addresses import Crowd
from harp.deadline import Deadline
from harp.errors import ErrorType, RemoteProtocolError
from harp.flow import SLICE, register_producer, write_last
from harp.probes import probe_below
from harp.wire import dispatcher as wire
from harp.wire import results
from harp.wire.lines import LineReader, LineTooLongError
from harpcaller.gate import Gate, LoginError, Visitor, host_of
from harpcaller.identities import Identity
from harpcaller.proofs import proof_of
from harpcaller.refusal import RefusedError

LOGIN_DEADLINE = 10.0
"""Seconds from the connection to the end of its request line, or to a handshake with a certificate,
where nobody gets in without a login."""

LOGIN_LINE = 64 * 1024
"""How much of a request line may come in bytes before it is known who asks."""

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


@implementer(IHalfCloseableProtocol, IHandshakeListener)
class RequestConnection(Protocol):
    """Reads one request at a time; it is closed after an answer that the client did not outlive.

    :param visitor: the client.
    :param crowd: all connections, which this one is counted among.
    """

    def __init__(self, reactor: Any, respond: Respond, visitor: Visitor, crowd: Crowd) -> None:
        self._respond = respond
        self._visitor = visitor
        self._crowd = crowd
        self._reader = LineReader(visitor.limits.request)
        self._is_in = False
        self._answer: Answer | None = None
        self._goes_on = True
        self._has_ended = False
        self._paces_requests = False
        self._deadline = Deadline(reactor)

    def connectionMade(self) -> None:
        """Wait for the request, but not for ever."""
        if ITCPTransport.providedBy(self.transport):
            self.transport.setTcpNoDelay(True)
            probe_below(self.transport)
        self._crowd.enter(self._visitor.peer)
        if not ISSLTransport.providedBy(self.transport):
            self._visitor.proof = proof_of(self.transport)
        self._deadline.set(LOGIN_DEADLINE, self.cut)
        self._look_at_visitor()

    def handshakeCompleted(self) -> None:
        """Take the client's certificate."""
        self._visitor.proof = proof_of(self.transport)
        self._look_at_visitor()

    def dataReceived(self, data: bytes) -> None:
        """Take a request line; what comes behind it before the answer is not looked at."""
        if self._answer is not None or not self._goes_on:
            self._goes_on = False  # else it would gather in memory
            return
        self._reader.feed(data)
        try:
            line = self._reader.next_line()
            size = self._reader.size if line is None else len(line)
            if size > LOGIN_LINE and not self._is_in:
                beginning = self._reader.beginning(LOGIN_LINE) if line is None else line
                self._look_at_beginning(beginning[:LOGIN_LINE])
            if line is None:
                return
            request = wire.decode_request_line(line)
        except LineTooLongError as error:
            self._refuse_line(errors.INVALID_REQUEST, f"in the request, {error}")
        except RemoteProtocolError as error:
            self._refuse_line(error.type, error.message)
        except LoginError as error:
            self._goes_on = False
            self._deadline.set(error.delay, self._refuse_line, error.type, error.message)
        else:
            self._deadline.clear()
            self._goes_on = request.keepalive and not self._reader.has_more
            self._take(request)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Send nothing more."""
        self._crowd.leave(self._visitor.peer)
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
            self._write_last(line, CLOSE_DEADLINE if self._is_in else LINGER, self._written)

    def cut(self) -> None:
        """Close the connection at once, whatever is under way."""
        transport: Any = self.transport
        transport.abortConnection()

    def _take(self, request: wire.Request) -> None:
        """Have a request answered, if it is known who asks."""
        try:
            identity = self._visitor.identity(request)
        except LoginError as error:
            self._goes_on = self._is_in = False
            self._answer = answer = Answer(self, request, self._visitor.nobody)
            self._deadline.set(error.delay, answer.refuse, error.type, error.message)
        except RefusedError as error:
            self._answer = Answer(self, request, self._visitor.nobody)
            self._answer.refuse(error.type, error.message)
        else:
            self._is_in = True
            self._answer = answer = Answer(self, request, identity)
            self._respond(answer)

    def _look_at_visitor(self) -> None:
        """Give the client more time and room if it needs no token."""
        if self._visitor.is_in and not self._is_in:
            self._is_in = True
            self._deadline.set(self._visitor.limits.request_timeout, self.cut)

    def _look_at_beginning(self, beginning: bytes) -> None:
        """Give it more time and room if there is a token that is right."""
        if not self._visitor.may_go_on(beginning):
            what = f"Without a login no line may be longer than {LOGIN_LINE} bytes"
            raise RemoteProtocolError(errors.INVALID_REQUEST, what)
        self._is_in = True
        self._deadline.set(self._visitor.limits.request_timeout, self.cut)

    def _await_request(self) -> None:
        self._answer = None
        self._deadline.set(self._visitor.limits.idle_timeout, self._hang_up)

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
    """Makes the connections of one port.

    :param is_local: whether the port can be reached from this machine only.
    """

    noisy = False

    def __init__(self, reactor: Any, respond: Respond, gate: Gate, is_local: bool) -> None:
        self._reactor = reactor
        self._respond = respond
        self._gate = gate
        self._is_local = is_local

    def buildProtocol(self, addr: IAddress | None) -> RequestConnection:
        """Return the protocol for a new connection."""
        visitor = Visitor(self._gate, host_of(addr), self._is_local)
        return RequestConnection(self._reactor, self._respond, visitor, self._gate.crowd)
