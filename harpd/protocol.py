"""One TLS connection carries one call: request in, replies out, then it is closed.

The order of messages is `harp.session.IncomingCall`'s, the process is `harpd.spawner`'s.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.internet.interfaces import IAddress, IDelayedCall
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure

from harp import errors
from harp.errors import ErrorType, LocalProtocolError, RemoteProtocolError
from harp.flow import register_producer, write_last
from harp.logs import shown
from harp.session import CallState, IncomingCall
from harp.wire import harpd, results
from harp.wire.lines import MAX_REQUEST, LineReader, LineTooLongError
from harp.wire.results import EndResult
from harp.wire.text import refuse_repeated_keys
from harpd.auth import Login
from harpd.call import CallProcess
from harpd.spawner import Spawner
from harpd.zygote_process import ProceduresError

REQUEST_DEADLINE = 30.0
"""Seconds from the connection to the end of its login; TLS's handshake is in it."""

CLOSE_DEADLINE = 120.0
"""Seconds without progress, at the end, after which the connection is cut: for each slice of a
long result, and for the peer's end of TLS."""


@dataclass(frozen=True)
class Parts:
    """What all connections share."""

    reactor: Any
    login: Login
    spawner: Spawner


class HarpdProtocol(Protocol):
    """The server's end of one connection."""

    _log = Logger("harpd.call")

    def __init__(self, parts: Parts, client: str, lost: Callable[[HarpdProtocol], None]) -> None:
        self._parts = parts
        self._client = client
        self._lost = lost
        self._reader = LineReader(MAX_REQUEST)
        self._session = IncomingCall()
        self._requested = False
        self._deadline: IDelayedCall | None = None
        self._process: CallProcess | None = None
        self._kill: Callable[[], None] | None = None
        self._number = 0

    # A call's way: the request line, the login, the acknowledgement, the process, its replies.

    def connectionMade(self) -> None:
        """Wait for the request, but not for ever."""
        assert self.transport is not None
        self.transport.setTcpNoDelay(True)  # type: ignore[attr-defined]
        # A caller whose machine has died sends nothing; this finds it out (tcp(7)).
        self.transport.setTcpKeepAlive(True)  # type: ignore[attr-defined]
        self._arm(REQUEST_DEADLINE, self._cut)

    def dataReceived(self, data: bytes) -> None:
        """Take the request line; anything behind it is one mistake more."""
        if self._session.state is CallState.ENDED:
            return
        self._reader.feed(data)
        try:
            line = None if self._requested else self._reader.next_line()
            if line is None and not self._requested:
                return
            if self._reader.has_more:
                raise RemoteProtocolError(
                    errors.INVALID_REQUEST, "there is data after the request line"
                )
            assert line is not None
            self._requested = True
            request = harpd.decode_request_line(line)
            if isinstance(request, harpd.DescribeRequest):
                raise RemoteProtocolError(errors.INVALID_REQUEST, "`describe` is not known here")
            self._call(line, request).addErrback(self._failed)
        except LineTooLongError as error:
            self._refuse(errors.INVALID_REQUEST, f"in the request, {error}")
        except RemoteProtocolError as error:
            self._refuse(error.type, error.message)

    @inlineCallbacks
    def _call(self, line: bytes, request: harpd.CallRequest) -> Any:
        if not (yield self._parts.login.check(request.auth.user, request.auth.password)):
            self._log.warn("login of {user} from {client} refused", **self._who(request))
            self._refuse(errors.AUTH_ERROR, "unknown user or wrong password")
            return
        self._disarm()
        refuse_repeated_keys(line)  # which costs too much for somebody unknown
        try:
            catalogue = yield self._parts.spawner.catalogue()
        except ProceduresError as error:
            self._refuse(errors.PROCEDURE_LOADING_ERROR, str(error))
            return
        if self._session.state is CallState.ENDED:
            return  # the client left meanwhile
        offer = catalogue.get(request.procedure)
        if offer is None:
            name = request.procedure
            self._refuse(errors.NO_SUCH_PROCEDURE, f"no procedure {name}", {"procedure": name})
            return
        self._number = self._parts.spawner.next_number()
        self._log.info("call {number} of {procedure} by {user} from {client}", **self._who(request))
        self._send(harpd.Ack(offer.streaming))
        self._process, self._kill = self._parts.spawner.start(
            self._number, request.procedure, bytes(request.arguments), self
        )
        # A client that reads slowly slows the procedure down.
        register_producer(self.transport, self._process.producer)
        if offer.timeout is not None:
            self._arm(offer.timeout, self._time_out, offer.timeout)

    def replies(self, replies: list[harpd.Reply]) -> None:
        """Pass on what the process reports; see `harpd.call.Caller`."""
        if self._session.state is CallState.ENDED:
            return
        *before, last = replies
        try:
            if isinstance(last, EndResult):
                self._write(before)
                self._end(last)
            else:
                self._write(replies)
        except LocalProtocolError as error:
            # Only code that writes to the call's socket by itself comes to this.
            text = f"the process of the call reported {error}"
            self._refuse(errors.INVALID_MESSAGE, text)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Cancel the call if the connection was closed before its end result."""
        self._disarm()
        if self._session.state is not CallState.ENDED:
            self._session.state = CallState.ENDED
            if self._kill is not None:
                self._log.info("call {number}: its client has left", number=self._number)
                self._kill()
        self._let_go()
        self._process = None  # a circle, which would keep what it holds until it is looked for
        self._lost(self)

    # The ways in which it ends early.

    def shut_down(self) -> None:
        """End the call because the daemon ends; who has not asked for one gets no answer."""
        if not self._requested:
            self._cut()
            return
        self._refuse(errors.SHUTDOWN, "harpd is being stopped")

    def _time_out(self, limit: float) -> None:
        self._refuse(errors.TIMEOUT, f"the procedure's own limit of {limit:g} s was exceeded")

    def _failed(self, failure: Failure) -> None:
        if isinstance(failure.value, RemoteProtocolError):
            self._refuse(failure.value.type, failure.value.message)
        elif failure.check(OSError):
            self._refuse(errors.SYSTEM_ERROR, failure.getErrorMessage())
        else:
            self._log.failure("call {number}", failure, number=self._number)
            self._refuse(errors.SYSTEM_ERROR, "harpd failed, see its log")

    def _refuse(self, type: ErrorType, message: str, data: Any = None) -> None:
        if self._session.state is not CallState.ENDED:
            self._log.info(
                "{client}, call {number}: {type}: {message}",
                client=self._client,
                number=self._number or "not started",
                type=type.name,
                message=shown(message),
            )
            more = () if data is None else (data,)
            self._end(results.error(type, message, *more))
            if self._kill is not None:
                self._kill()

    # What goes out.

    def _end(self, end: EndResult) -> None:
        line = self._session.send(end)
        assert self.transport is not None
        self.transport.unregisterProducer()  # type: ignore[attr-defined]
        self._let_go()
        write_last(self.transport, line, self._progress, self.transport.loseConnection)

    def _progress(self) -> None:
        self._arm(CLOSE_DEADLINE, self._cut)

    def _let_go(self) -> None:
        """Have the process read to its end: if it stayed paused, it would stay open for ever."""
        if self._process is not None:
            self._process.producer.resumeProducing()

    def _send(self, reply: harpd.Reply) -> None:
        self._write([reply])

    def _write(self, replies: list[harpd.Reply]) -> None:
        assert self.transport is not None
        self.transport.write(b"".join(map(self._session.send, replies)))

    def _who(self, request: harpd.CallRequest) -> dict[str, Any]:
        return {
            "number": self._number,
            "procedure": shown(request.procedure),
            "user": shown(request.auth.user),
            "client": self._client,
        }

    # One deadline at a time.

    def _arm(self, delay: float, function: Callable[..., None], *args: Any) -> None:
        self._disarm()
        self._deadline = self._parts.reactor.callLater(delay, function, *args)

    def _disarm(self) -> None:
        if self._deadline is not None and self._deadline.active():
            self._deadline.cancel()

    def _cut(self) -> None:
        assert self.transport is not None
        self.transport.abortConnection()  # type: ignore[attr-defined]


class HarpdFactory(Factory):
    """Makes the protocols and knows which connections are open."""

    noisy = False

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._open: set[HarpdProtocol] = set()
        self._empty: Deferred[None] | None = None

    def buildProtocol(self, addr: IAddress | None) -> HarpdProtocol:
        """Return the protocol for a new connection."""
        client = getattr(addr, "host", str(addr))
        protocol = HarpdProtocol(self._parts, client, self._gone)
        self._open.add(protocol)
        return protocol

    def shut_down(self) -> Deferred[None]:
        """End all calls with ``shutdown``; fires when the last connection is closed."""
        empty = self._empty = Deferred()
        for protocol in list(self._open):
            protocol.shut_down()
        self._check_empty()
        return empty

    def _gone(self, protocol: HarpdProtocol) -> None:
        self._open.discard(protocol)
        self._check_empty()

    def _check_empty(self) -> None:
        if self._empty is not None and not self._open:
            empty, self._empty = self._empty, None
            empty.callback(None)
