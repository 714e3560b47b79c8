"""Tests of ``harp.transports``: bounded memory and deadlines, over transports in memory."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.protocol import Protocol
from twisted.internet.testing import MemoryReactorClock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from harp import deferred
from harp.errors import CommunicationError
from harp.network import Address, NetworkFailure, Silence, Trust
from harp.questions import REPEATS
from harp.transports import PlainEndpoint, TlsEndpoint, TransportChannel
from tests.harp.test_dispatcher_wire import ID
from tests.harpd.connections import Wire

ADDRESS = Address("127.0.0.1", 3502, 30, 60)


class ChannelTests(SynchronousTestCase):
    """One connection."""

    def setUp(self) -> None:
        """Connect one."""
        self.clock = MemoryReactorClock()
        self.wire = Wire()
        self.channel = TransportChannel(self.clock)
        self.channel.makeConnection(self.wire)

    def receive(self, timeout: float | None = None) -> Deferred[bytes]:
        """Begin to receive."""
        return Deferred.fromCoroutine(self.channel.receive(timeout))

    def test_socket(self) -> None:
        """Small requests do not wait for acknowledgements, and a dead peer is found out."""
        self.assertEqual(self.wire.options, ["nodelay", "keepalive"])

    def test_slow_consumer(self) -> None:
        """Of what nobody waits for no more is read from the network than comes at once."""
        waiting = self.receive()
        self.channel.dataReceived(b"one")
        self.assertEqual(self.successResultOf(waiting), b"one")
        self.assertEqual(self.wire.producerState, "producing")
        self.channel.dataReceived(b"two")
        self.assertEqual(self.wire.producerState, "paused")
        self.channel.dataReceived(b"three")  # as TLS may deliver it
        self.assertEqual(self.successResultOf(self.receive()), b"twothree")
        waiting = self.receive()
        self.assertNoResult(waiting)
        self.channel.dataReceived(b"four")
        self.assertEqual(self.successResultOf(waiting), b"four")

    def test_read_to_its_end(self) -> None:
        """A connection whose last bytes had to wait is read from again, or its end is missed."""
        self.channel.dataReceived(b"one")
        self.assertEqual(self.wire.producerState, "paused")
        self.assertEqual(self.successResultOf(self.receive()), b"one")
        self.assertEqual(self.wire.producerState, "producing")

    def test_end(self) -> None:
        """What arrived before the end is not lost; then comes the end, or how it broke."""
        self.channel.dataReceived(b"one")
        self.channel.connectionLost(Failure(ConnectionDone()))
        self.assertEqual(self.successResultOf(self.receive()), b"one")
        self.assertEqual(self.successResultOf(self.receive()), b"")
        self.setUp()
        waiting = self.receive()
        self.channel.connectionLost(Failure(ConnectionLost()))
        self.failureResultOf(waiting, NetworkFailure)

    def test_silence(self) -> None:
        """A wait ends after so many seconds, and leaves no timer when it ends earlier."""
        waiting = self.receive(60)
        self.clock.advance(59)
        self.assertNoResult(waiting)
        self.clock.advance(1)
        error = self.failureResultOf(waiting, Silence).value
        self.assertEqual(str(error), "nothing came for 60 seconds")
        waiting = self.receive(60)
        self.channel.dataReceived(b"one")
        self.assertEqual(self.successResultOf(waiting), b"one")
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_is_quiet(self) -> None:
        """A connection on which something came unasked, or that ended, is not for reuse."""
        self.assertTrue(self.channel.is_quiet())
        self.channel.dataReceived(b"one")
        self.assertFalse(self.channel.is_quiet())
        self.setUp()
        self.channel.connectionLost(Failure(ConnectionDone()))
        self.assertFalse(self.channel.is_quiet())
        self.setUp()
        self.channel.close()
        self.assertFalse(self.channel.is_quiet())

    def test_close(self) -> None:
        """Closing is at once, and only once."""
        self.channel.close()
        self.assertTrue(self.wire.aborted)
        self.wire.aborted = False
        self.channel.close()
        self.assertFalse(self.wire.aborted)


class ConnectingTests(SynchronousTestCase):
    """How connections come about."""

    def test_never_connected(self) -> None:
        """An attempt to connect is given up after its time."""
        clock = MemoryReactorClock()
        connecting = Deferred.fromCoroutine(PlainEndpoint(clock, ADDRESS).connect())
        factory: Any
        host, port, factory, timeout, _ = clock.tcpClients[0]
        self.assertEqual((host, port, timeout), ("127.0.0.1", 3502, 30))
        factory.clientConnectionFailed(None, Failure(OSError(110, "timed out")))
        error = self.failureResultOf(connecting, NetworkFailure).value
        self.assertEqual(str(error), "Connection timed out")

    def test_never_secured(self) -> None:
        """A peer that takes its time with TLS is given up, and nothing was said to it."""
        clock = MemoryReactorClock()
        trust = Trust(None, "127.0.0.1", False)
        connecting = Deferred.fromCoroutine(TlsEndpoint(clock, ADDRESS, trust).connect())
        wire: Any = Wire()
        wire.protocol = clock.tcpClients[0][2].buildProtocol(None)
        wire.protocol.makeConnection(wire)
        clock.advance(29)
        self.assertNoResult(connecting)
        clock.advance(1)
        self.failureResultOf(connecting, Silence)
        self.assertTrue(wire.aborted)

    def test_given_reactor(self) -> None:
        """Deferred mode uses the reactor that it was given, and none but that."""
        clock = MemoryReactorClock()
        rpc = deferred.HarpCaller(clock, "127.0.0.1", 4000)
        waiting: Deferred[Any] = rpc.job(ID).get()
        self.assertEqual(clock.tcpClients[0][:2], ("127.0.0.1", 4000))
        waiting.cancel()
        self.failureResultOf(waiting)

    def test_pause_before_a_call_is_repeated(self) -> None:
        """A call whose answer did not come is sent again after a pause of the reactor's clock."""
        clock = MemoryReactorClock()
        submitting: Deferred[Any] = deferred.HarpCaller(clock, "127.0.0.1").web01.run()
        channel = self.accept(clock)
        channel.dataReceived(
            b'{"harpcaller":1,"version":"1","extensions":["keepalive","idempotency_key"]}\n'
        )
        channel.connectionLost(Failure(ConnectionDone()))
        for delay in REPEATS:
            clock.advance(delay - 0.01)
            self.assertEqual(clock.tcpClients, [])
            clock.advance(0.01)
            channel = self.accept(clock)
            channel.connectionLost(Failure(ConnectionLost()))
        error = self.failureResultOf(submitting, CommunicationError).value
        self.assertTrue(error.may_have_run)
        self.assertEqual(clock.tcpClients, [])
        self.assertEqual(clock.getDelayedCalls(), [])

    def accept(self, clock: MemoryReactorClock) -> Protocol:
        """Let the next attempt to connect succeed."""
        channel = clock.tcpClients.pop(0)[2].buildProtocol(None)
        assert isinstance(channel, Protocol)
        channel.makeConnection(Wire())
        return channel
