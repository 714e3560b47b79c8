"""One TLS connection with one harpd, which carries one request at a time.

Which connection a request takes, and what becomes of one that is free, is decided by
``harpcaller.connections``.
"""

from __future__ import annotations

from socket import MSG_DONTWAIT, MSG_PEEK
from typing import Any
from typing import Protocol as Interface

from twisted.internet.error import ConnectionDone, TimeoutError
from twisted.internet.interfaces import IDelayedCall, IHandshakeListener
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from harp.errors import RemoteProtocolError
from harp.probes import probe_below
from harp.session import OutgoingCall
from harp.wire import harpd
from harp.wire.results import EndResult
from harpcaller.hosts import Host

HANDSHAKE_TIMEOUT = 120.0
"""Seconds from the connection until TLS must have come about: a machine that stands still for a
minute, as while it is moved to another host, only makes its jobs late."""

CLOSE_DEADLINE = 10.0
"""Seconds for harpd to end TLS, after which the connection is cut."""


class Asker(Interface):
    """Who sent the request that a connection carries."""

    def received(self, replies: list[harpd.Reply]) -> None:
        """Take replies in their legal order; after the last one nothing more comes."""

    def misled(self, error: RemoteProtocolError) -> None:
        """Learn that harpd broke the protocol; nothing more comes."""

    def lost(self, reason: Failure, secured: bool, unread: bool) -> None:
        """Learn that the connection is gone; nothing more comes.

        :param reason: `TimeoutError`, if there was no TLS in time.
        :param secured: whether TLS had come about.
        :param unread: whether harpd ended TLS in good order before it replied to anything, so
            that it can't have taken up the request.
        """


class Keeper(Interface):
    """Who keeps the connections that carry nothing."""

    def free(self, connection: HarpdConnection) -> None:
        """Learn that the last reply has come and the connection may carry another request."""

    def gone(self, connection: HarpdConnection) -> None:
        """Learn, perhaps twice, that it can't carry a request any more."""


@implementer(IHandshakeListener)
class HarpdConnection(Protocol):
    """The client's end.

    :param host: what it was made for,
    :param generation: and when, as the keeper counts; both are the keeper's business.
    """

    def __init__(self, reactor: Any, keeper: Keeper, host: Host, generation: int) -> None:
        self.host = host
        self.generation = generation
        self._reactor = reactor
        self._keeper = keeper
        self._session: OutgoingCall | None = None
        self._asker: Asker | None = None
        self._heard = False
        self._accepted = False
        self._secured = False
        self._is_closing = False
        self._timer: IDelayedCall | None = None
        self.paused = False

    def ask(self, request: harpd.Request, asker: Asker) -> None:
        """Send a request as soon as TLS stands; the connection must not be carrying another."""
        self._session = OutgoingCall(request)
        self._asker = asker
        self._heard = self._accepted = False
        if self._secured:
            self._send()

    def is_quiet(self) -> bool:
        """Say whether nothing has come that is not read yet; be it that harpd has closed."""
        transport: Any = self.transport
        try:
            transport.socket.recv(1, MSG_PEEK | MSG_DONTWAIT)
        except BlockingIOError:
            return True
        except OSError:  # it was reset
            return False
        return False

    def pause(self, paused: bool) -> None:
        """Stop reading, or go on; one that is being closed is read from to its end."""
        if self._is_closing:
            return
        transport: Any = self.transport
        self.paused = paused
        if paused:
            transport.pauseProducing()
        else:
            transport.resumeProducing()

    def close(self) -> None:
        """End TLS properly, but not at any price; nobody is told anything more."""
        assert self.transport is not None
        self._asker = None
        if not self._is_closing:
            if self.paused:
                self.pause(False)
            self._is_closing = True
            self._stop_timer()
            self._timer = self._reactor.callLater(CLOSE_DEADLINE, self._abort)
            self._keeper.gone(self)  # until TLS has ended nobody must take it
            self.transport.loseConnection()

    def connectionMade(self) -> None:
        """Wait for TLS."""
        transport: Any = self.transport
        transport.setTcpNoDelay(True)
        probe_below(transport)  # a harpd whose machine died sends nothing
        self._timer = self._reactor.callLater(HANDSHAKE_TIMEOUT, self._handshake_too_long)

    def handshakeCompleted(self) -> None:
        """Send the request, not earlier: its password must not go to a peer not trusted."""
        self._secured = True
        if not self._is_closing:
            self._stop_timer()
        if self._session is not None:
            self._send()

    def dataReceived(self, data: bytes) -> None:
        """Pass on replies."""
        try:
            self._take(data)
        except MemoryError:
            # Twisted's TLS gives what is left once more when the connection breaks by this, which
            # fails again, and so never tells of the end.
            self.connectionLost()
            raise

    def _take(self, data: bytes) -> None:
        session, asker = self._session, self._asker
        if session is None or asker is None:
            self.close()  # nobody asked; what comes behind the end must not gather in memory
            return
        self._heard = True
        replies: list[harpd.Reply] = []
        try:
            replies.extend(session.receive(data))
        except RemoteProtocolError as error:
            self.close()
            if replies:
                asker.received(replies)
            asker.misled(error)  # a variable would hold this frame, which would hold it
            return
        if any(not isinstance(reply, EndResult) for reply in replies):
            self._accepted = True
        if session.ended:
            self._let_go(session)
        if replies:
            asker.received(replies)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Tell who waits for replies."""
        self._stop_timer()
        self._keeper.gone(self)
        asker, self._asker = self._asker, None
        if asker is not None:
            unread = self._secured and not self._heard and reason.check(ConnectionDone) is not None
            asker.lost(reason, self._secured, unread)

    def _send(self) -> None:
        assert self.transport is not None
        assert self._session is not None
        self.transport.write(self._session.request_line())

    def _let_go(self, session: OutgoingCall) -> None:
        self._asker = self._session = None
        # After what it refused harpd closes, or may do so.
        if session.may_go_on and self._accepted:
            if self.paused:
                self.pause(False)
            self._keeper.free(self)
        else:
            self.close()

    def _handshake_too_long(self) -> None:
        self._abort()
        asker, self._asker = self._asker, None
        if asker is not None:
            asker.lost(Failure(TimeoutError()), False, False)

    def _stop_timer(self) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.cancel()

    def _abort(self) -> None:
        transport: Any = self.transport
        transport.abortConnection()
