"""One job's conversation with one harpd, and the time limits of the job.

It tells packets and the end result to who started it, and never tells anything twice. What is
recorded of that, and what follows from it, is `harpcaller.dispatcher`'s.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import Any

import msgspec
from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import (
    HostnameEndpoint,
    TCP4ClientEndpoint,
    TCP6ClientEndpoint,
    wrapClientTLS,
)
from twisted.internet.interfaces import IDelayedCall, IHandshakeListener, IStreamClientEndpoint
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from harp import errors
from harp.errors import RemoteProtocolError
from harp.session import OutgoingCall
from harp.wire import harpd, results
from harp.wire.results import EndResult
from harpcaller import trust
from harpcaller.hosts import Host
from harpcaller.jobs import Job
from harpcaller.trust import ServerTrust

CONNECT_TIMEOUT = 30.0
"""Seconds until a TCP connection must have come about."""

CLOSE_DEADLINE = 10.0
"""Seconds for harpd to end TLS, after which the connection is cut."""

MAX_UNRECORDED = 256 * 1024
"""Bytes of packets on their way to the database, above which harpd is not read from."""

# The dispatcher's own machine is at its limits (socket(2)); the network has no part in it.
_OWN_FAULTS = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}

Record = Callable[[list[bytes]], Deferred[None]]
"""Records packets and fires when they are on disk."""


class Conversation:
    """Carries out one job on its host.

    :param record: takes packets as they come.
    :param ended: takes the end result, once; it is not called after `stop`.
    """

    def __init__(
        self, reactor: Any, job: Job, record: Record, ended: Callable[[EndResult], None]
    ) -> None:
        self._reactor = reactor
        self._job = job
        self._record = record
        self._ended = ended
        self._over = False
        self._connecting: Deferred[Any] | None = None
        self._connection: _Connection | None = None
        self._silence = job.timeout
        self._quiet: IDelayedCall = reactor.callLater(self._silence, self._too_quiet)
        self._whole: IDelayedCall = reactor.callLater(job.max_exec_time, self._too_long)
        self._unrecorded = 0

    def start(self, host: Host, server_trust: ServerTrust) -> None:
        """Connect and call."""
        endpoint = wrapClientTLS(
            server_trust.for_host(host.name, host.address, host.server_name),
            _tcp_endpoint(self._reactor, host),
        )
        request = harpd.CallRequest(
            harp=1,
            auth=harpd.Auth(host.user, host.password),
            procedure=self._job.procedure,
            arguments=msgspec.Raw(self._job.arguments),
        )
        connection = _Connection(self, request)
        factory = Factory.forProtocol(lambda: connection)
        factory.noisy = False
        self._connecting = endpoint.connect(factory)
        self._connecting.addErrback(self._not_connected)

    def stop(self) -> None:
        """End the conversation without a word; harpd then ends the call."""
        if not self._over:
            self._close()

    def fail(self, end: EndResult) -> None:
        """End the conversation and tell why."""
        if not self._over:
            self._close()
            self._ended(end)

    # What the connection tells.

    def connected(self, connection: _Connection) -> None:
        """Keep the connection, to end it when the job is over."""
        self._connection = connection

    def received(self, replies: list[harpd.Reply]) -> None:
        """Take replies in their legal order."""
        if not replies:
            return
        self._quiet.reset(self._silence)
        packets = [reply.data for reply in replies if isinstance(reply, harpd.Packet)]
        if packets:
            self._keep(packets)
        last = replies[-1]
        if isinstance(last, EndResult):
            self.fail(last)

    def lost(self, reason: Failure, secured: bool) -> None:
        """Learn that the connection is gone.

        :param secured: whether TLS had come about.
        """
        self._connection = None
        if secured:
            text = "the connection to harpd ended before the end result"
            self.fail(results.error(errors.CLOSED, text))
        else:
            text = "harpd closed the connection during the TLS handshake"
            self.fail(results.error(errors.SSL, trust.describe(reason) or text))

    # Flow: harpd is read from as fast as the database records, no faster.

    def _keep(self, packets: list[bytes]) -> None:
        size = sum(map(len, packets))
        self._unrecorded += size
        if self._unrecorded > MAX_UNRECORDED and self._connection is not None:
            self._connection.pause(True)
        self._record(packets).addCallbacks(
            lambda _: self._kept(size),
            lambda failure: self.fail(
                results.error(errors.OS_ERROR, "packets could not be recorded")
            ),
        )

    def _kept(self, size: int) -> None:
        self._unrecorded -= size
        connection = self._connection
        if connection is not None and connection.paused and self._unrecorded <= MAX_UNRECORDED:
            connection.pause(False)
            self._quiet.reset(self._silence)  # the silence was ours

    # Time limits.

    def _too_quiet(self) -> None:
        if self._connection is not None and self._connection.paused:
            self._quiet = self._reactor.callLater(self._silence, self._too_quiet)
            return
        limit = f"timeout: no message for {self._job.timeout:g} s"
        self.fail(results.error(errors.TIMEOUT, limit))

    def _too_long(self) -> None:
        limit = f"max_exec_time: the job ran for {self._job.max_exec_time:g} s"
        self.fail(results.error(errors.TIMEOUT, limit))

    # The end.

    def _not_connected(self, failure: Failure) -> None:
        self._connecting = None
        code = getattr(failure.value, "osError", None) or getattr(failure.value, "errno", None)
        kind = errors.OS_ERROR if code in _OWN_FAULTS else errors.NETWORK_ERROR
        self.fail(results.error(kind, f"no connection to harpd: {failure.getErrorMessage()}"))

    def _close(self) -> None:
        self._over = True
        for timer in (self._quiet, self._whole):
            if timer.active():
                timer.cancel()
        if self._connection is not None:
            self._connection.close()
        elif self._connecting is not None:
            self._connecting.cancel()


def _tcp_endpoint(reactor: Any, host: Host) -> IStreamClientEndpoint:
    # HostnameEndpoint, which tries all addresses of a name, waits 0.3 s before it tells that an
    # address refused.
    if isIPAddress(host.address):
        return TCP4ClientEndpoint(reactor, host.address, host.port, CONNECT_TIMEOUT)
    if isIPv6Address(host.address):
        return TCP6ClientEndpoint(reactor, host.address, host.port, CONNECT_TIMEOUT)
    return HostnameEndpoint(reactor, host.address, host.port, timeout=CONNECT_TIMEOUT)


@implementer(IHandshakeListener)
class _Connection(Protocol):
    """The TLS connection of a conversation."""

    def __init__(self, conversation: Conversation, request: harpd.CallRequest) -> None:
        self._conversation = conversation
        self._session = OutgoingCall(request)
        self._secured = False
        self._cut: IDelayedCall | None = None
        self.paused = False

    def connectionMade(self) -> None:
        transport: Any = self.transport
        transport.setTcpNoDelay(True)
        transport.setTcpKeepAlive(True)  # a harpd whose machine died sends nothing (tcp(7))
        self._conversation.connected(self)

    def handshakeCompleted(self) -> None:
        # Not earlier: the password must not go to a peer that is not trusted.
        assert self.transport is not None
        self._secured = True
        self.transport.write(self._session.request_line())

    def dataReceived(self, data: bytes) -> None:
        if self._cut is not None:
            return  # what comes behind the end must not gather in memory
        replies: list[harpd.Reply] = []
        try:
            replies.extend(self._session.receive(data))
        except RemoteProtocolError as error:
            self._conversation.received(replies)  # those before the fault
            self._conversation.fail(results.error(error.type, error.message))
        else:
            self._conversation.received(replies)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self._cut is not None and self._cut.active():
            self._cut.cancel()
        self._conversation.lost(reason, self._secured)

    def pause(self, paused: bool) -> None:
        """Stop reading, or go on."""
        transport: Any = self.transport
        self.paused = paused
        if paused:
            transport.pauseProducing()
        else:
            transport.resumeProducing()

    def close(self) -> None:
        """End TLS properly, but not at any price."""
        assert self.transport is not None
        if self.paused:
            self.pause(False)
        self.transport.loseConnection()
        self._cut = self._conversation._reactor.callLater(CLOSE_DEADLINE, self.abort)

    def abort(self) -> None:
        """Cut the connection."""
        transport: Any = self.transport
        transport.abortConnection()
