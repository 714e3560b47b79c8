"""Tests of ``harpcaller.connection``: how a connection ends when its request is refused."""

from __future__ import annotations

from twisted.internet.interfaces import ISSLTransport, ITCPTransport
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import alsoProvides

from harp.wire.lines import MAX_REQUEST
from harpcaller.connection import LINGER, RequestConnection

REFUSED = b'{"error":{"type":"invalid_request","message":'


class TcpEnd(StringTransport):
    """A TCP transport, as far as a connection uses it."""

    half_closed = False

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        alsoProvides(self, ITCPTransport)

    def setTcpNoDelay(self, enabled: bool) -> None:
        pass

    def setTcpKeepAlive(self, enabled: bool) -> None:
        pass

    def unregisterProducer(self) -> None:
        pass

    def loseWriteConnection(self) -> None:
        self.half_closed = True


class RefusalTests(SynchronousTestCase):
    """A client that goes on sending gets to read why it was refused."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.connection = RequestConnection(self.clock)
        self.transport = TcpEnd()

    def send_too_much(self) -> None:
        self.connection.makeConnection(self.transport)
        for _ in range(4):
            self.connection.dataReceived(b"x" * MAX_REQUEST)
        self.assertTrue(self.transport.value().startswith(REFUSED))
        self.assertEqual(self.transport.value().count(b"\n"), 1)

    def test_our_direction_is_closed(self) -> None:
        """Over TCP the client may finish sending, and nothing is reset."""
        self.send_too_much()
        self.assertTrue(self.transport.half_closed)
        self.assertFalse(self.transport.disconnecting)

    def test_not_for_ever(self) -> None:
        """A client that never stops is cut off."""
        self.send_too_much()
        self.clock.advance(LINGER - 1)
        self.assertFalse(self.transport.disconnected)
        self.clock.advance(1)
        self.assertTrue(self.transport.disconnected)

    def test_tls(self) -> None:
        """TLS has an end of its own, which half a TCP connection would cut short."""
        alsoProvides(self.transport, ISSLTransport)
        self.send_too_much()
        self.assertTrue(self.transport.disconnecting)
        self.assertFalse(self.transport.half_closed)
