"""Tests of ``harp.flow``: producers and connections that end."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import trustme
from twisted.internet import ssl
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import SSL4ServerEndpoint, TCP4ClientEndpoint, wrapClientTLS
from twisted.internet.interfaces import IPushProducer
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.task import deferLater
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase, TestCase
from zope.interface import implementer

from harp.flow import SLICE, register_producer, write_last

CHUNK = b"x" * 65536


@implementer(IPushProducer)
class Talker(Protocol):
    """Writes as much as it may, in every turn of the reactor."""

    def __init__(self, reactor: Any) -> None:
        self.reactor = reactor
        self.lost: Deferred[None] = Deferred()
        self.may_write = True

    def connectionMade(self) -> None:
        register_producer(self.transport, self)
        self.talk()

    def has_been_told(self) -> bool:
        """Tell whether the peer's end of TLS has come in."""
        below: Any = self.transport
        return bool(below.transport.disconnecting)

    def talk(self) -> None:
        if self.may_write:
            assert self.transport is not None
            self.transport.write(CHUNK)
        if not self.lost.called:
            self.reactor.callLater(0, self.talk)

    def pauseProducing(self) -> None:
        self.may_write = False

    def resumeProducing(self) -> None:
        self.may_write = True

    def stopProducing(self) -> None:
        self.may_write = False

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.may_write = False
        self.lost.callback(None)


class Listener(Protocol):
    """Reads nothing more once it has read something."""

    heard = lost = False

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.lost = True

    def dataReceived(self, data: bytes) -> None:
        if not self.heard:
            self.heard = True
            transport: Any = self.transport
            transport.pauseProducing()


class TlsTests(TestCase):
    """A producer over TLS."""

    timeout = 20

    async def test_peer_ends_tls_while_producer_is_paused(self) -> None:
        """The connection ends, and the producer is not left writing for ever."""
        from twisted.internet import reactor

        certificate = trustme.CA().issue_cert("localhost")
        options = ssl.PrivateCertificate.loadPEM(
            certificate.private_key_and_cert_chain_pem.bytes()
        ).options()
        talker = Talker(reactor)
        server = SSL4ServerEndpoint(reactor, 0, options, interface="127.0.0.1")
        port = await server.listen(Factory.forProtocol(lambda: talker))
        self.addCleanup(port.stopListening)
        client = wrapClientTLS(
            ssl.CertificateOptions(),
            TCP4ClientEndpoint(reactor, "127.0.0.1", port.getHost().port),
        )
        listener = Listener()
        await client.connect(Factory.forProtocol(lambda: listener))
        await self.until(lambda: listener.heard and not talker.may_write)
        hearing: Any = listener.transport
        hearing.loseConnection()
        await self.until(talker.has_been_told)
        hearing.resumeProducing()
        await talker.lost
        await self.until(lambda: listener.lost)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Let the reactor turn until the condition holds; trial limits the time."""
        from twisted.internet import reactor

        while not condition():
            await deferLater(reactor, 0)


class LastLineTests(SynchronousTestCase):
    """The last line goes out no faster than it is taken, and its progress is told."""

    def setUp(self) -> None:
        self.transport: Any = StringTransport()
        self.told: list[str] = []

    def write(self, data: bytes) -> None:
        write_last(
            self.transport,
            data,
            lambda: self.told.append("progress"),
            lambda: self.told.append("done"),
        )

    def test_short(self) -> None:
        """A short line is written at once."""
        self.write(b"x" * SLICE)
        self.assertEqual(self.transport.value(), b"x" * SLICE)
        self.assertEqual(self.told, ["progress", "done"])
        self.assertIsNone(self.transport.producer)

    def test_long(self) -> None:
        """Of a long line the transport holds one slice at a time."""
        data = bytes(range(256)) * (5 * SLICE // 512)
        self.write(data)
        for taken in (1, 2):
            self.transport.producer.resumeProducing()
            self.assertEqual(self.transport.value(), data[: taken * SLICE])
        self.assertEqual(self.told, ["progress", "progress"])
        self.transport.producer.resumeProducing()
        self.assertEqual(self.transport.value(), data)
        self.assertEqual(self.told, ["progress", "progress", "progress", "done"])
        self.assertIsNone(self.transport.producer)

    def test_peer_leaves(self) -> None:
        """What a peer that has left did not take is let go."""
        self.write(b"x" * (2 * SLICE))
        producer = self.transport.producer
        producer.stopProducing()
        self.assertEqual(self.transport.value(), b"")
        self.assertNotIn("done", self.told)
