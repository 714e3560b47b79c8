"""One TLS connection: request lines in, one conversation at a time, and an end that comes.

What becomes of a request is the business of `harpd.conversation`.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress, IDelayedCall, IPushProducer
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from harp import errors
from harp.deadline import Deadline
from harp.flow import SLICE, register_producer, write_last
from harp.wire.lines import MAX_REQUEST, LineReader, LineTooLongError
from harpd.conversation import Conversation, Parts

REQUEST_DEADLINE = 30.0
"""Seconds from the connection to the end of its login; TLS's handshake is in it."""

IDLE_DEADLINE = 120.0
"""Seconds from one conversation to the login of the next, where the client wants to keep it."""

CLOSE_DEADLINE = 120.0
"""Seconds without progress, at the end, after which the connection is cut: for each slice of a
long result, and for the peer's end of TLS."""


GOODBYE_DEADLINE = 5.0
"""The same where no request is under way, or where the grace of a daemon that stops is over."""


class HarpdProtocol(Protocol):
    """The server's end of one connection."""

    def __init__(self, parts: Parts, client: str, factory: HarpdFactory) -> None:
        self.client = client
        self.deadline = Deadline(parts.reactor)
        self._parts = parts
        self._factory = factory
        self._reader = LineReader(MAX_REQUEST)
        self._conversation: Conversation | None = None
        self._is_ending = False

    @property
    def has_process(self) -> bool:
        """Whether a procedure runs for this connection."""
        return self._conversation is not None and self._conversation.has_process

    def connectionMade(self) -> None:
        """Wait for the request, but not for ever."""
        assert self.transport is not None
        self.transport.setTcpNoDelay(True)  # type: ignore[attr-defined]
        # A caller whose machine has died sends nothing; this finds it out (tcp(7)).
        self.transport.setTcpKeepAlive(True)  # type: ignore[attr-defined]
        self._await_request(REQUEST_DEADLINE)

    def _await_request(self, limit: float) -> None:
        self._conversation = Conversation(self._parts, self)
        self.deadline.set(limit, self._end_waiting)

    def dataReceived(self, data: bytes) -> None:
        """Take the request line; anything behind it is one mistake more."""
        conversation = self._conversation
        if conversation is None:
            # Before the last answer has gone, so it has not been read: the end of the agreement.
            # Or behind our end of TLS.
            self._is_ending = True
            return
        self._reader.feed(data)
        try:
            line = None if conversation.is_requested else self._reader.next_line()
        except LineTooLongError as error:
            conversation.refuse(errors.INVALID_REQUEST, f"in the request, {error}")
            return
        if line is None and not conversation.is_requested:
            return
        if self._reader.has_more:
            conversation.refuse(errors.INVALID_REQUEST, "there is data after the request line")
        elif self._factory.is_stopping:
            conversation.refuse(errors.SHUTDOWN, "harpd is being stopped")
        else:
            assert line is not None
            conversation.take(line)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Cancel the call if the connection was closed before its end result."""
        self.deadline.end()
        conversation, self._conversation = self._conversation, None
        if conversation is not None:
            conversation.leave()
        self._factory.gone(self)

    # The daemon's end.

    def refuse_for_shutdown(self) -> None:
        """End the request, if there is one."""
        if self._conversation is not None and self._conversation.is_requested:
            self._conversation.refuse(errors.SHUTDOWN, "harpd is being stopped")

    def shut_down(self) -> None:
        """End the connection; who has not asked for anything gets no answer."""
        if self._conversation is None:
            self._is_ending = True  # as soon as the last answer has gone
            self._progress()
        elif self._conversation.is_requested:
            self.refuse_for_shutdown()
        else:
            self._end_waiting()

    # What the conversation does with its connection; see `harpd.conversation.Connection`.

    def send(self, data: bytes) -> None:
        """Send something before the end."""
        assert self.transport is not None
        self.transport.write(data)

    def produce(self, producer: IPushProducer) -> None:
        """Pause and resume what comes from a producer."""
        register_producer(self.transport, producer)

    def finish(self, line: bytes, keep: bool) -> None:
        """Send the last line, and take the next request if the client wants to keep this."""
        self._conversation = None
        assert self.transport is not None
        self.transport.unregisterProducer()  # type: ignore[attr-defined]
        self._is_ending = not keep or self._factory.is_stopping
        if self._is_ending or len(line) > SLICE:
            write_last(self.transport, line, self._progress, self._written)
        else:
            gate = _Gate(self._gone_out)
            self.transport.registerProducer(gate, True)  # type: ignore[attr-defined]
            self.transport.write(line)
            self._progress()
            gate.wait()
        self._factory.conversation_ended()

    def _gone_out(self) -> None:
        assert self.transport is not None
        self.transport.unregisterProducer()  # type: ignore[attr-defined]
        self._written()

    def _written(self) -> None:
        assert self.transport is not None
        if self._is_ending:
            self.transport.loseConnection()
        else:
            self._await_request(IDLE_DEADLINE)

    def _end_waiting(self) -> None:
        """End what waits for a request: in good order if nothing of one has come.

        So the client can tell that one which it may just be sending is not taken up.
        """
        assert self.transport is not None
        assert self._conversation is not None
        if self._conversation.is_requested or self._reader.has_more:
            self._cut()
        else:
            self._conversation = None
            self.deadline.set(GOODBYE_DEADLINE, self._cut)
            self.transport.loseConnection()

    def _progress(self) -> None:
        limit = GOODBYE_DEADLINE if self._factory.is_over else CLOSE_DEADLINE
        self.deadline.set(limit, self._cut)

    def _cut(self) -> None:
        assert self.transport is not None
        self.transport.abortConnection()  # type: ignore[attr-defined]


@implementer(IPushProducer)
class _Gate:
    """Tells when what was written has gone as far as the transport wants before more is written.

    Otherwise a client that asks again and again, and reads nothing, would fill our memory.
    """

    def __init__(self, opened: Callable[[], None]) -> None:
        self._opened = opened
        self._is_open = True
        self._is_waiting = False

    def wait(self) -> None:
        """Go on now or when the transport resumes."""
        self._is_waiting = True
        if self._is_open:
            self._opened()

    def pauseProducing(self) -> None:
        self._is_open = False

    def resumeProducing(self) -> None:
        self._is_open = True
        if self._is_waiting:
            self._opened()

    def stopProducing(self) -> None:
        pass


class HarpdFactory(Factory):
    """Makes the protocols and knows which connections are open."""

    noisy = False

    def __init__(self, parts: Parts) -> None:
        self.is_stopping = self.is_over = False
        self._parts = parts
        self._open: set[HarpdProtocol] = set()
        self._grace: IDelayedCall | None = None
        self._empty: Deferred[None] | None = None

    def buildProtocol(self, addr: IAddress | None) -> HarpdProtocol:
        """Return the protocol for a new connection."""
        protocol = HarpdProtocol(self._parts, getattr(addr, "host", str(addr)), self)
        self._open.add(protocol)
        return protocol

    def shut_down(self, grace: float) -> Deferred[None]:
        """Refuse new calls with ``shutdown``; end the running ones with it after the grace.

        :param grace: seconds for the procedures that run.
        :return: fires when the last connection is closed.
        """
        self.is_stopping = True
        empty = self._empty = Deferred()
        self._grace = self._parts.reactor.callLater(grace, self._end_all)
        for protocol in list(self._open):
            if not protocol.has_process:
                protocol.refuse_for_shutdown()
        self.conversation_ended()
        return empty

    def conversation_ended(self) -> None:
        """Look whether the end need not wait any more."""
        pending = self._grace is not None and self._grace.active()
        if pending and not any(protocol.has_process for protocol in self._open):
            assert self._grace is not None
            self._grace.reset(0)

    def gone(self, protocol: HarpdProtocol) -> None:
        """Forget a connection that is closed."""
        self._open.discard(protocol)
        self.conversation_ended()
        self._check_empty()

    def _end_all(self) -> None:
        self._grace = None
        self.is_over = True
        for protocol in list(self._open):
            protocol.shut_down()
        self._check_empty()

    def _check_empty(self) -> None:
        if self._empty is not None and self._grace is None and not self._open:
            empty, self._empty = self._empty, None
            empty.callback(None)
