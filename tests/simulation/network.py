"""The network of the simulation: connections in memory whose bytes move when the seed says so.

The ends are those of ``twisted.test.iosim``, made as strict as Twisted's own TCP transports: they
pause producers, close in good order or not, and know half of a connection closed.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.error import (
    ConnectBindError,
    ConnectionAborted,
    ConnectionDone,
    ConnectionLost,
    ConnectionRefusedError,
    TimeoutError,
)
from twisted.internet.interfaces import (
    IHalfCloseableProtocol,
    IProtocol,
    IStreamClientEndpoint,
    ITCPTransport,
)
from twisted.python.failure import Failure
from twisted.test.iosim import FakeTransport
from zope.interface import implementer

from harpcaller.hosts import Host
from tests.simulation.violation import Violation

PATIENCE = 9.0
"""Seconds that bytes may be on their way before an end may give the connection up."""

ADDRESS = IPv4Address("TCP", "10.9.8.7", 1025)


class End(FakeTransport):
    """One end of a connection.

    :ivar out: what was written and has not arrived.
    :ivar taken: how many bytes have arrived here.
    :ivar heard: when something last arrived here, or could have.
    :ivar excused: whether the connection was disturbed, so that it may break off.
    """

    other: End

    def __init__(self, network: Network, protocol: Any, is_server: bool) -> None:
        super().__init__(protocol, is_server, ADDRESS, ADDRESS)  # type: ignore[no-untyped-call]
        self.network = network
        self.connected = True
        self.out = bytearray()
        self.written = 0
        self.taken = 0
        self.heard = 0.0
        self.excused = False
        self.reading = True
        self._stuck_since = 0.0
        self._producer_paused = False
        self._aborting = False
        self._half_closing = False
        self._half_closed = False
        self._was_reset = False
        self._told = False
        self.waits = False  # in the list of those that may have something to do

    # What a protocol uses.

    def write(self, data: bytes) -> None:
        if not self.connected or self._half_closed or not data:
            return
        if not self.out:
            self._stuck_since = self.network.seconds()
        self.out += data
        self.written += len(data)
        if self.producer and self.streamingProducer and self._is_full():
            self._producer_paused = True
            self.producer.pauseProducing()
        self.network.mark(self)

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        if self.producer is not None:
            raise RuntimeError(f"there is a producer already: {self.producer}")
        if not self.connected:
            producer.stopProducing()
            return
        self.producer = producer
        self.streamingProducer = streaming
        if not streaming:
            producer.resumeProducing()

    def unregisterProducer(self) -> None:
        self.producer = None
        self.network.mark(self)

    def loseConnection(self) -> None:
        if self.connected and not self.disconnecting:
            self.disconnecting = True
            self._stop_reading()
            self.network.mark(self)

    @property
    def socket(self) -> End:
        """What is below, of which the product asks one thing only."""
        return self

    def recv(self, size: int, flags: int) -> bytes:
        """Look whether anything has come, which what is on its way may have done or not."""
        if self.network.has_come():
            if self.other.out:
                return bytes(self.other.out[:size])
            if not self.other.connected:
                if self.other._was_reset:
                    raise ConnectionResetError
                return b""
        raise BlockingIOError

    def loseWriteConnection(self) -> None:
        self._half_closing = True
        self.network.mark(self)

    def abortConnection(self) -> None:
        if self.connected:
            self._aborting = True
            self.reading = False
            self.network.mark(self)

    def pauseProducing(self) -> None:
        self.reading = False

    def resumeProducing(self) -> None:
        if self.connected and not self.disconnecting:
            self.reading = True
            self.heard = self.network.seconds()
            self.network.mark(self.other)

    # What the world does.

    @property
    def is_open(self) -> bool:
        """Whether this end has neither closed nor begun to."""
        return self.connected and not self.disconnecting and not self._aborting

    def drop(self, reset: bool) -> None:
        """Let the process of this end die."""
        self.connected = False
        self._was_reset = reset
        self.out.clear()
        self.producer = None
        self.network.mark(self)
        self.network.mark(self.other)

    def cut(self) -> None:
        """Let the network take the connection away."""
        self._was_reset = True
        self.out.clear()
        self._lost(ConnectionLost())

    def step(self, random: Random) -> bool:
        """Do one thing that is due here; tell whether there was any."""
        if not self.connected:
            return self._tell_end()
        if self._aborting:
            self._was_reset = True
            if self.out and self.network.seconds() - self._stuck_since > PATIENCE:
                self.other.excused = True
            self._lost(ConnectionAborted())
            return True
        if self.out:
            return self._deliver(random)
        return self._drained() or (self._half_closed and self._tell_end())

    def _deliver(self, random: Random) -> bool:
        other = self.other
        if not other.connected:
            self._lost(ConnectionLost())
            return True
        if not other.reading:
            return False
        size = len(self.out)
        if random.random() < self.network.tear:
            size = random.randint(1, size)
        data = bytes(self.out[:size])
        del self.out[:size]
        if not self.out:
            self._drained()
        other.taken += size
        other.heard = self.network.seconds()
        other.protocol.dataReceived(data)
        return True

    def _drained(self) -> bool:
        if self.producer is not None and (not self.streamingProducer or self._producer_paused):
            self._producer_paused = False
            self.producer.resumeProducing()
        elif self.disconnecting:
            self._end_in_order()
        elif self._half_closing and not self._half_closed:
            self._half_closed = True
            if IHalfCloseableProtocol.providedBy(self.protocol):
                self.protocol.writeConnectionLost()
        else:
            return False
        return True

    def _end_in_order(self) -> None:
        self._lost(ConnectionDone())

    def _tell_end(self) -> bool:
        other = self.other
        if self._told or not other.connected:
            return False
        if self._was_reset:
            self._told = True
            other._lost(ConnectionLost())
            return True
        if not other.reading:
            return False
        self._told = True
        if IHalfCloseableProtocol.providedBy(other.protocol):
            other.protocol.readConnectionLost()
        else:
            other._lost(ConnectionDone())
        return True

    def _lost(self, reason: Exception) -> None:
        self.connected = False
        if self.out:
            self.out.clear()
            self._was_reset = True
        producer, self.producer = self.producer, None
        if producer is not None:
            producer.stopProducing()
        self.protocol.connectionLost(Failure(reason))
        self.network.mark(self)
        self.network.mark(self.other)

    def _stop_reading(self) -> None:
        self.reading = False

    def _is_full(self) -> bool:
        return len(self.out) > self.network.buffer_size


@implementer(ITCPTransport)
class TcpEnd(End):
    """An end of a connection with a client."""


class SecuredEnd(End):
    """An end of a connection with a harpd; TLS is played by an event, for its cost.

    TLS reads on until the peer has closed, too, and only then the connection is ended.
    """

    def __init__(self, network: Network, protocol: Any, is_server: bool) -> None:
        super().__init__(network, protocol, is_server)
        self.secured = is_server
        self._has_said_goodbye = False

    def write(self, data: bytes) -> None:
        if not self.secured:
            raise Violation("something was sent before TLS stood")
        if not self.connected:
            raise Violation("something was sent over a connection that is known to be lost")
        super().write(data)

    def secure(self) -> bool:
        """Let TLS come about, unless the connection is gone."""
        if not self.is_open or not self.other.is_open:
            return False
        self.secured = True
        self.protocol.handshakeCompleted()
        return True

    def step(self, random: Random) -> bool:
        """Do one thing that is due here, be it to let the other end hear that this one ends."""
        is_ending = self._has_said_goodbye and self.connected and not self._aborting
        if not is_ending or not self.other.connected:
            return super().step(random)
        if not self.other.reading:
            return False
        self.other._lost(ConnectionDone())
        return True

    def _end_in_order(self) -> None:
        self._has_said_goodbye = True

    def _stop_reading(self) -> None:
        pass


class Attempt:
    """A connection that the dispatcher wants with a harpd."""

    def __init__(self, host: Host, factory: Any) -> None:
        self.host = host
        self.factory = factory
        self.given_up = False
        self.answer: Deferred[IProtocol] = Deferred(self._give_up)

    def _give_up(self, answer: Deferred[IProtocol]) -> None:
        self.given_up = True

    def refuse(self, random: Random) -> None:
        """Let it fail."""
        reason = random.choice([ConnectionRefusedError, TimeoutError, ConnectBindError])
        self.answer.errback(Failure(reason()))  # type: ignore[no-untyped-call]


@implementer(IStreamClientEndpoint)
class HarpdEndpoint:
    """Where the dispatcher reaches a host."""

    def __init__(self, network: Network, host: Host) -> None:
        self._network = network
        self._host = host

    def connect(self, protocolFactory: Any) -> Deferred[IProtocol]:
        """Ask for a connection."""
        attempt = Attempt(self._host, protocolFactory)
        self._network.attempts.append(attempt)
        return attempt.answer


class Network:
    """All connections.

    :param seconds: returns the time.
    :ivar buffer_size: bytes on their way, above which a producer is paused.
    :ivar tear: how likely it is that only a part of what was written arrives at once.
    :ivar attempts: the connections with harpds that are wanted.
    :ivar handshakes: the dispatcher's ends of those where TLS has yet to come about.
    """

    def __init__(self, random: Random, seconds: Callable[[], float]) -> None:
        self.seconds = seconds
        self.buffer_size = random.choice([60, 400, 5000])
        self.tear = random.choice([0.0, 0.1, 0.5])
        self.attempts: list[Attempt] = []
        self.handshakes: list[SecuredEnd] = []
        self._random = random
        self._waiting: list[End] = []

    def mark(self, end: End) -> None:
        """Note that there may be something to do at an end."""
        if not end.waits:
            end.waits = True
            self._waiting.append(end)

    def has_come(self) -> bool:
        """Decide whether what is on its way has come."""
        return self._random.random() < 0.5

    def join(self, kind: type[End], near: Any, far: Any) -> tuple[End, End]:
        """Connect two protocols; the far one is the server."""
        client, server = kind(self, near, False), kind(self, far, True)
        client.other, server.other = server, client
        client.heard = server.heard = self.seconds()
        far.makeConnection(server)
        near.makeConnection(client)
        return client, server

    def step(self) -> bool:
        """Do one thing at one end; tell whether there was any to do."""
        waiting, random = self._waiting, self._random
        while waiting:
            index = int(random.random() * len(waiting))
            end = waiting[index]
            if end.step(random):
                return True
            waiting[index] = waiting[-1]
            waiting.pop()
            end.waits = False
        return False
