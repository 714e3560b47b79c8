"""Tests of harpd.tls: real handshakes between memory buffers, and a cut over a real socket."""

from __future__ import annotations

import contextlib
import socket
import ssl
from pathlib import Path
from typing import Any

from OpenSSL import SSL
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock
from twisted.internet.threads import deferToThread
from twisted.protocols.tls import TLSMemoryBIOFactory, TLSMemoryBIOProtocol
from twisted.trial.unittest import SynchronousTestCase, TestCase

from harpd import config
from harpd.tls import TICKET_KEY_LIFE, ServerTls
from tests.harpd.certificates import issued, write_configuration
from tests.harpd.waiting import PATIENCE, reactor


class TicketTests(SynchronousTestCase):
    """Which sessions can be resumed."""

    def setUp(self) -> None:
        self.clock = Clock()
        file = write_configuration(Path(self.mktemp()).absolute())
        self.options = config.load(file).tls
        self.tls = ServerTls(self.options, self.clock.seconds)
        self.client = ssl.create_default_context(cadata=issued().root.decode())

    def is_resumed(self, session: ssl.SSLSession | None) -> tuple[bool, ssl.SSLSession | None]:
        """Connect with a session; return whether it was resumed, and the new one."""
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        client = self.client.wrap_bio(
            incoming, outgoing, server_hostname="localhost", session=session
        )
        protocol = TLSMemoryBIOProtocol(TLSMemoryBIOFactory(self.tls, False, Factory()), Factory())
        server = self.tls.serverConnectionForTLS(protocol)
        server.set_accept_state()
        for step in (client.do_handshake, server.do_handshake) * 2:
            with contextlib.suppress(ssl.SSLWantReadError, SSL.WantReadError):
                step()
            if outgoing.pending:
                server.bio_write(outgoing.read())
            with contextlib.suppress(SSL.WantReadError):
                incoming.write(server.bio_read(65536))
        server.send(b"x")
        incoming.write(server.bio_read(65536))
        self.assertEqual(client.read(), b"x")  # the tickets came before it
        return bool(client.session_reused), client.session

    def test_resumed(self) -> None:
        """A client that comes again need not be shown the certificate again."""
        resumed, session = self.is_resumed(None)
        self.assertFalse(resumed)
        self.clock.advance(TICKET_KEY_LIFE - 1)
        self.assertTrue(self.is_resumed(session)[0])

    def test_old_key(self) -> None:
        """The keys of tickets are not used for longer than they live."""
        _, session = self.is_resumed(None)
        self.clock.advance(TICKET_KEY_LIFE)
        self.assertFalse(self.is_resumed(session)[0])

    def test_reload(self) -> None:
        """Nor are they when the configuration has been read again, even if it is the same."""
        _, session = self.is_resumed(None)
        self.tls.use(self.options)
        self.assertFalse(self.is_resumed(session)[0])


class AgreementTests(SynchronousTestCase):
    """What harpd agrees to."""

    def setUp(self) -> None:
        file = write_configuration(Path(self.mktemp()).absolute())
        self.tls = ServerTls(config.load(file).tls, Clock().seconds)

    def shake_hands(self, context: SSL.Context) -> tuple[SSL.Connection, SSL.Connection]:
        """Let a client and harpd's end agree; raises what either of them raises."""
        factory = TLSMemoryBIOFactory(self.tls, False, Factory())
        server = self.tls.serverConnectionForTLS(TLSMemoryBIOProtocol(factory, Factory()))
        server.set_accept_state()
        client = SSL.Connection(context, None)
        client.set_connect_state()
        for _ in range(3):
            for step, other in ((client, server), (server, client)):
                with contextlib.suppress(SSL.WantReadError):
                    step.do_handshake()
                self.carry(step, other)
        return client, server

    def carry(self, source: SSL.Connection, target: SSL.Connection) -> None:
        """Take what one end has to say to the other."""
        with contextlib.suppress(SSL.WantReadError):
            target.bio_write(source.bio_read(1 << 20))

    def client(self, newest: int, ciphers: bytes = b"ALL:@SECLEVEL=0") -> SSL.Context:
        """Return a client that goes down as far as it can."""
        context = SSL.Context(SSL.TLS_METHOD)
        context.set_min_proto_version(SSL.TLS1_VERSION)
        context.set_max_proto_version(newest)
        context.set_cipher_list(ciphers)
        return context

    def test_versions(self) -> None:
        """TLS 1.2 and 1.3, nothing below."""
        for version in (SSL.TLS1_2_VERSION, SSL.TLS1_3_VERSION):
            client, _ = self.shake_hands(self.client(version))
            self.assertEqual(client.get_protocol_version(), version)
        for version in (SSL.TLS1_VERSION, SSL.TLS1_1_VERSION):
            with self.assertRaises(SSL.Error):
                self.shake_hands(self.client(version))

    def test_forward_secrecy(self) -> None:
        """Nothing without keys of the session's own, and nothing but AEAD."""
        client, _ = self.shake_hands(self.client(SSL.TLS1_2_VERSION))
        self.assertRegex(client.get_cipher_name() or "", "^ECDHE-ECDSA-(AES|CHACHA20)")
        for ciphers in (b"kRSA", b"ECDHE-ECDSA-AES128-SHA256:ECDHE-ECDSA-AES256-SHA", b"DHE"):
            with self.assertRaises(SSL.Error):
                self.shake_hands(self.client(SSL.TLS1_2_VERSION, ciphers + b":@SECLEVEL=0"))

    def test_no_renegotiation(self) -> None:
        """A client that asks for another handshake is told that there is none."""
        # OpenSSL 3 refuses by itself, the versions before it do not.
        self.assertTrue(self.tls._context.set_options(0) & SSL.OP_NO_RENEGOTIATION)
        client, server = self.shake_hands(self.client(SSL.TLS1_2_VERSION))
        before = server.total_renegotiations()
        client.renegotiate()
        with contextlib.suppress(SSL.WantReadError):
            client.do_handshake()
        self.carry(client, server)
        with contextlib.suppress(SSL.WantReadError):
            server.recv(1)
        self.carry(server, client)
        with self.assertRaises(SSL.Error) as caught:
            client.do_handshake()
        self.assertIn("no renegotiation", str(caught.exception))
        self.assertEqual(server.total_renegotiations(), before)


class Cutting(Protocol):
    """Cuts the connection when the request has come."""

    transport: Any

    def dataReceived(self, data: bytes) -> None:
        self.transport.abortConnection()


class CutTests(TestCase):
    """A connection that is cut, over a real socket."""

    async def test_is_no_good_order(self) -> None:
        """Its peer can tell it from one that was ended: who sees that sends his request again."""
        file = write_configuration(Path(self.mktemp()).absolute())
        tls = ServerTls(config.load(file).tls, reactor.seconds)
        port = reactor.listenSSL(0, Factory.forProtocol(Cutting), tls, interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        context = ssl.create_default_context(cadata=issued().root.decode())

        def ask() -> bytes:
            address = ("127.0.0.1", port.getHost().port)
            with (
                socket.create_connection(address, PATIENCE) as plain,
                context.wrap_socket(
                    plain, server_hostname="localhost", suppress_ragged_eofs=False
                ) as secured,
            ):
                secured.sendall(b"request")
                return secured.recv(1)

        with self.assertRaises((ssl.SSLEOFError, ConnectionError)):
            await deferToThread(ask)
