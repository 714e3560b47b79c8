"""One client's connection: a request line in, replies out, and how long either may take.

What the request means and what answers it is `harpcaller.api`'s.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.interfaces import (
    IDelayedCall,
    IHalfCloseableProtocol,
    ISSLTransport,
    ITCPTransport,
)
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from harp import errors
from harp.errors import ErrorType, RemoteProtocolError
from harp.flow import write_last
from harp.wire import dispatcher as wire
from harp.wire import results
from harp.wire.lines import MAX_REQUEST, LineReader, LineTooLongError

REQUEST_DEADLINE = 30.0
"""Seconds from the connection to the end of its request line."""

CLOSE_DEADLINE = 120.0
"""Seconds without progress, when all has been answered, after which the connection is cut."""

LINGER = 10.0
"""Seconds for a client to stop sending after its request was refused."""


@implementer(IHalfCloseableProtocol)
class RequestConnection(Protocol):
    """Reads one request and is closed after the last reply to it."""

    waits = False
    """Whether the answer may be long in coming, so that a client that says no more has left."""

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._reader = LineReader(MAX_REQUEST)
        self._requested = False
        self._deadline: IDelayedCall | None = None
        self.answered = False
        """Whether nothing more is to be sent."""

    def answer(self, request: wire.Request) -> None:
        """Answer the request; for the heir."""
        raise NotImplementedError

    def connectionMade(self) -> None:
        """Wait for the request, but not for ever."""
        if ITCPTransport.providedBy(self.transport):
            self.transport.setTcpNoDelay(True)
            self.transport.setTcpKeepAlive(True)
        self._arm(REQUEST_DEADLINE)

    def dataReceived(self, data: bytes) -> None:
        """Take the request line; what comes behind it is not looked at."""
        if self._requested:
            return
        self._reader.feed(data)
        try:
            line = self._reader.next_line()
            if line is None:
                return
            self._requested = True
            request = wire.decode_request_line(line)
        except LineTooLongError as error:
            self._requested = True
            self._refuse_line(errors.INVALID_REQUEST, f"in the request, {error}")
        except RemoteProtocolError as error:
            self._refuse_line(error.type, error.message)
        else:
            self._disarm()
            self.answer(request)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Send nothing more."""
        self.answered = True
        self._disarm()

    def readConnectionLost(self) -> None:
        """Close, unless a client that only ended its own direction is about to be answered."""
        if self.waits or self.answered or not self._requested:
            transport: Any = self.transport
            transport.loseConnection()

    def writeConnectionLost(self) -> None:
        """Nothing to do: it was closed by us."""

    def write(self, replies: Sequence[wire.Reply]) -> None:
        """Send replies."""
        assert self.transport is not None
        self.transport.write(b"".join(map(wire.encode_reply, replies)))

    def finish(self, reply: wire.Reply | None = None) -> None:
        """Send the last reply, if one is left, and close."""
        if not self.answered:
            transport: Any = self.transport
            self._answer_last(reply, CLOSE_DEADLINE, transport.loseConnection)

    def refuse(self, type: ErrorType, message: str) -> None:
        """Send an error and close."""
        self.finish(results.error(type, message))

    def cut(self) -> None:
        """Close the connection at once, whatever is under way."""
        transport: Any = self.transport
        transport.abortConnection()

    def _refuse_line(self, type: ErrorType, message: str) -> None:
        """Send an error to a client that may still be sending.

        Closing would make the kernel reset the connection, and the client might lose the error
        (RFC 9112, section 9.6 has the same). So only our direction is closed; what comes is thrown
        away until the client closes too. TLS does that by itself.
        """
        transport: Any = self.transport
        tcp = ITCPTransport.providedBy(transport) and not ISSLTransport.providedBy(transport)
        close = transport.loseWriteConnection if tcp else transport.loseConnection
        self._answer_last(results.error(type, message), LINGER, close)

    def _answer_last(
        self, reply: wire.Reply | None, deadline: float, close: Callable[[], None]
    ) -> None:
        self.answered = True
        transport: Any = self.transport
        transport.unregisterProducer()
        line = b"" if reply is None else wire.encode_reply(reply)
        write_last(transport, line, lambda: self._arm(deadline), close)

    def _arm(self, delay: float) -> None:
        self._disarm()
        self._deadline = self._reactor.callLater(delay, self.cut)

    def _disarm(self) -> None:
        if self._deadline is not None and self._deadline.active():
            self._deadline.cancel()
