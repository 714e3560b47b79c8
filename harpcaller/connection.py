"""One client's connection: a request line in, replies out, and how long either may take.

What the request means and what answers it is `harpcaller.api`'s.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from twisted.internet.interfaces import IDelayedCall, ISSLTransport, ITCPTransport
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure

from harp import errors
from harp.errors import ErrorType, RemoteProtocolError
from harp.wire import dispatcher as wire
from harp.wire import results
from harp.wire.lines import MAX_REQUEST, LineReader, LineTooLongError

REQUEST_DEADLINE = 30.0
"""Seconds from the connection to the end of its request line."""

CLOSE_DEADLINE = 600.0
"""Seconds for a client, which may be slow, to take what is left when all has been written."""

LINGER = 10.0
"""Seconds for a client to stop sending after its request was refused."""


class RequestConnection(Protocol):
    """Reads one request and is closed after the last reply to it."""

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
        """Take the request line; what comes behind it later is not looked at."""
        if self._requested:
            return
        self._reader.feed(data)
        try:
            line = self._reader.next_line()
            if line is None:
                return
            self._requested = True
            if self._reader.has_more:
                raise RemoteProtocolError(
                    errors.INVALID_REQUEST, "there is data after the request line"
                )
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

    def write(self, replies: Sequence[wire.Reply]) -> None:
        """Send replies."""
        assert self.transport is not None
        self.transport.write(b"".join(map(wire.encode_reply, replies)))

    def finish(self, reply: wire.Reply | None = None) -> None:
        """Send the last reply, if one is left, and close."""
        if not self.answered:
            transport: Any = self.transport
            self._write_last(reply)
            transport.loseConnection()
            self._arm(CLOSE_DEADLINE)

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
        self._write_last(results.error(type, message))
        if ITCPTransport.providedBy(transport) and not ISSLTransport.providedBy(transport):
            transport.loseWriteConnection()
        else:
            transport.loseConnection()
        self._arm(LINGER)

    def _write_last(self, reply: wire.Reply | None) -> None:
        self.answered = True
        if reply is not None:
            self.write([reply])
        transport: Any = self.transport
        transport.unregisterProducer()

    def _arm(self, delay: float) -> None:
        self._disarm()
        self._deadline = self._reactor.callLater(delay, self.cut)

    def _disarm(self) -> None:
        if self._deadline is not None and self._deadline.active():
            self._deadline.cancel()
