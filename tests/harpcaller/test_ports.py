"""Tests of ``harpcaller.ports``: real sockets, opened and exchanged, and real TLS."""

from __future__ import annotations

import shutil
import socket
import tempfile
from pathlib import Path
from typing import Any, cast

import trustme
from OpenSSL import SSL
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import (
    TCP4ClientEndpoint,
    UNIXClientEndpoint,
    UNIXServerEndpoint,
    connectProtocol,
    wrapClientTLS,
)
from twisted.internet.error import CannotListenError, ConnectError
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.ssl import Certificate, optionsForClientTLS, trustRootFromCertificates
from twisted.internet.task import deferLater
from twisted.logger import LogLevel, capturedLogs
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase

from harp.addresses import Bounds
from harpcaller import listen
from harpcaller.demo.ports import free_port
from harpcaller.gate import Gate
from harpcaller.ports import Ports
from harpcaller.terms import Terms
from tests.harpcaller.stores import real_reactor


class Echo(Protocol):
    """Sends back what it gets."""

    def dataReceived(self, data: bytes) -> None:
        assert self.transport is not None
        self.transport.write(data)


class Client(Protocol):
    """Sends a byte at a time.

    :ivar lost: fires with why the connection has ended.
    """

    def __init__(self) -> None:
        self.lost: Deferred[BaseException | None] = Deferred()
        self._echo: Deferred[bytes] = Deferred()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.lost.callback(reason.value)

    def dataReceived(self, data: bytes) -> None:
        self._echo.callback(data)

    def ask(self) -> Deferred[bytes]:
        """Send a byte and return what fires with its echo."""
        self._echo = Deferred()
        cast(Any, self.transport).write(b"x")
        return self._echo

    def leave(self) -> Deferred[BaseException | None]:
        """End the connection."""
        cast(Any, self.transport).loseConnection()
        return self.lost


class PortsTestCase(TestCase):
    """A test with ports."""

    timeout = 30

    def setUp(self) -> None:
        """Have no port open."""
        self.reactor: Any = real_reactor()
        # Trial's path may be too long for a unix socket.
        self.folder = Path(tempfile.mkdtemp(prefix="harpcaller-test-"))
        self.addCleanup(shutil.rmtree, self.folder)
        self.terms = Terms(insecure=True)
        self.gate = Gate(cast(Any, self.reactor).seconds, self.terms)
        self.ports = Ports(self.reactor, self.gate, lambda is_local: Factory.forProtocol(Echo))
        self.addCleanup(lambda: Deferred.fromCoroutine(self.ports.close()))

    def open(self, descriptions: list[str]) -> Deferred[None]:
        """Open the first ports on the terms of the test."""
        return self.ports.open(descriptions, self.terms)

    async def change(self, descriptions: list[str]) -> list[str]:
        """Open others; return why that can't be done."""
        return await self.ports.change(descriptions, self.terms)

    def tcp(self, port: int) -> IStreamClientEndpoint:
        """Return where a TCP port of this machine is."""
        return TCP4ClientEndpoint(self.reactor, "127.0.0.1", port)

    async def connected(self, endpoint: IStreamClientEndpoint) -> Client:
        """Return a client that is connected and has been answered."""
        client = Client()
        self.addCleanup(lambda: None if client.lost.called else client.leave())
        await connectProtocol(endpoint, client)
        self.assertEqual(await client.ask(), b"x")
        return client

    async def assert_closed(self, port: int) -> None:
        """Check that nobody listens on a port."""
        with self.assertRaises(ConnectError):
            await connectProtocol(self.tcp(port), Protocol())


class ChangeTests(PortsTestCase):
    """Ports that are opened and closed while there are connections."""

    async def test_exchanged(self) -> None:
        """What is new is opened, what is not wanted any more closed; connections live on."""
        first, second = free_port(), free_port()
        await self.open([f"127.0.0.1:{first}"])
        client = await self.connected(self.tcp(first))
        self.assertEqual(await self.change([f"127.0.0.1:{second}"]), [])
        await self.connected(self.tcp(second))
        await self.assert_closed(first)
        self.assertEqual(await client.ask(), b"x")

    async def test_not_touched(self) -> None:
        """A port that stays is the same port all the while."""
        first, second = free_port(), free_port()
        await self.open([f"127.0.0.1:{first}"])
        listening = self.reactor.getReaders()
        self.assertEqual(await self.change([f"127.0.0.1:{second}", f"127.0.0.1:{first}"]), [])
        self.assertLessEqual(set(listening), set(self.reactor.getReaders()))
        await self.connected(self.tcp(first))
        await self.connected(self.tcp(second))

    async def test_cannot_be_bound(self) -> None:
        """If one can't be bound nothing changes, and it is told which and why."""
        first, second, taken = free_port(), free_port(), free_port()
        other = self.reactor.listenTCP(taken, Factory(), interface="127.0.0.1")
        self.addCleanup(other.stopListening)
        await self.open([f"127.0.0.1:{first}"])
        (mistake,) = await self.change([f"127.0.0.1:{second}", f"127.0.0.1:{taken}"])
        self.assertTrue(mistake.startswith(f"listen: 127.0.0.1:{taken}: "), mistake)
        self.assertIn("in use", mistake)
        await self.connected(self.tcp(first))
        await self.assert_closed(second)

    async def test_same_number(self) -> None:
        """A port that leaves makes room for one that has its number; connections live on."""
        port, second = free_port(), free_port()
        await self.open([f"127.0.0.1:{port}"])
        client = await self.connected(self.tcp(port))
        self.assertEqual(await self.change([f"*:{port}", f"127.0.0.1:{second}"]), [])
        elsewhere = TCP4ClientEndpoint(self.reactor, "127.0.0.2", port)
        await self.connected(elsewhere)
        self.assertEqual(await self.change([f"127.0.0.1:{port}"]), [])
        with self.assertRaises(ConnectError):
            await connectProtocol(elsewhere, Protocol())
        await self.connected(self.tcp(port))
        self.assertEqual(await client.ask(), b"x")

    async def test_same_number_in_vain(self) -> None:
        """If another one can't be bound, what had to make room is back."""
        port, taken = free_port(), free_port()
        other = self.reactor.listenTCP(taken, Factory(), interface="127.0.0.1")
        self.addCleanup(other.stopListening)
        await self.open([f"127.0.0.1:{port}"])
        (mistake,) = await self.change([f"*:{port}", f"127.0.0.1:{taken}"])
        self.assertTrue(mistake.startswith(f"listen: 127.0.0.1:{taken}: "), mistake)
        await self.connected(self.tcp(port))
        with self.assertRaises(ConnectError):
            await connectProtocol(TCP4ClientEndpoint(self.reactor, "127.0.0.2", port), Protocol())
        self.assertEqual(await self.change([f"*:{port}"]), [])
        await self.connected(self.tcp(port))

    async def test_number_of_one_that_stays(self) -> None:
        """A port that stays makes no room."""
        port = free_port()
        await self.open([f"127.0.0.1:{port}", f"127.0.0.1:{free_port()}"])
        (mistake,) = await self.change([f"127.0.0.1:{port}", f"*:{port}"])
        self.assertIn("in use", mistake)
        await self.connected(self.tcp(port))

    async def test_first_ports_cannot_be_bound(self) -> None:
        """At the start it is an error for who starts."""
        first = free_port()
        with self.assertRaises(CannotListenError):
            await self.open([f"127.0.0.1:{first}", f"tcp:{first}"])

    async def test_close(self) -> None:
        """All of them are closed, and a second time there is nothing to do."""
        first, second = free_port(), free_port()
        await self.open([f"127.0.0.1:{first}", f"127.0.0.1:{second}"])
        for _ in range(2):
            await self.ports.close()
            await self.assert_closed(first)
            await self.assert_closed(second)

    async def test_what_systemd_has_opened(self) -> None:
        """It is taken at the start only: later its descriptor may be something else."""
        port = free_port()
        await self.open([f"127.0.0.1:{port}"])
        (mistake,) = await self.change(["systemd:domain=INET:index=0"])
        self.assertIn("taken at the start only", mistake)
        await self.connected(self.tcp(port))

    async def test_unix_socket(self) -> None:
        """A unix socket that is not wanted any more is gone from the disk."""
        path = self.folder / "socket"
        await self.open([f"unix:{path}", f"127.0.0.1:{free_port()}"])
        await self.connected(UNIXClientEndpoint(self.reactor, str(path)))
        self.assertEqual(await self.change([f"127.0.0.1:{free_port()}"]), [])
        self.assertFalse(path.exists())


class ReachTests(PortsTestCase):
    """Ports that others than this machine's programs could reach."""

    def setUp(self) -> None:
        """Be secure."""
        super().setUp()
        self.terms = Terms()

    async def test_refused_at_start(self) -> None:
        """What is not local is refused by its real address, and left closed."""
        port = free_port()
        error = self.failureResultOf(self.open([f"tcp:{port}"]), ValueError).value
        self.assertTrue(str(error).startswith(f"listen: tcp:{port}: can be reached"), error)
        self.assertIn("insecure: true", str(error))
        await deferLater(self.reactor, 0)
        await self.assert_closed(port)

    async def test_plug_in(self) -> None:
        """A plug-in's endpoint counts by the socket that it has in the end."""
        for host, mistakes in (("127.0.0.1", 0), ("0.0.0.0", 1)):
            with socket.create_server((host, 0)) as inherited:
                inherited.setblocking(False)
                description = f"fd:{inherited.fileno()}"
                self.patch(
                    listen, "endpoint", lambda reactor, _, fd=inherited: Adopted(reactor, fd)
                )
                found = await self.change([description])
                self.assertEqual(len(found), mistakes)
                self.assertEqual([each for each in found if "insecure: true" not in each], [])
                await self.change([])

    async def test_nobody_comes_in_before(self) -> None:
        """While it is not known who can reach a port, connections are closed at once."""
        path = self.folder / "socket"
        bound: Deferred[None] = Deferred()

        class Slow(UNIXServerEndpoint):
            def listen(self, factory: Any) -> Deferred[Any]:
                port: Deferred[Any] = super().listen(factory)  # type: ignore[no-untyped-call]
                return port.addCallback(lambda bare: bound.addCallback(lambda _: bare))

        self.patch(listen, "endpoint", lambda reactor, _: Slow(reactor, str(path)))
        opening = self.open(["somewhere"])
        early = Client()
        await connectProtocol(UNIXClientEndpoint(self.reactor, str(path)), early)
        await early.lost
        bound.callback(None)
        await opening
        await self.connected(UNIXClientEndpoint(self.reactor, str(path)))

    async def test_local_is_told(self) -> None:
        """What makes the connections is told by the port whether others can reach it."""
        told: list[bool] = []

        def factory(is_local: bool) -> Factory:
            told.append(is_local)
            return Factory.forProtocol(Echo)

        self.ports = Ports(self.reactor, self.gate, factory)
        self.terms = Terms(insecure=True)
        port = free_port()
        await self.open([f"127.0.0.1:{port}", f"unix:{self.folder}/socket", f"*:{free_port()}"])
        self.assertEqual(told, [True, True, False])

    async def test_stays_open_no_longer(self) -> None:
        """A port that is open is refused too if the new terms do not allow it; nothing changes."""
        port = free_port()
        self.terms = Terms(insecure=True)
        await self.open([f"*:{port}"])
        self.terms = Terms()
        (mistake,) = await self.change([f"*:{port}", f"127.0.0.1:{free_port()}"])
        self.assertTrue(mistake.startswith(f"listen: *:{port}: can be reached"), mistake)
        await self.connected(self.tcp(port))

    async def test_warning(self) -> None:
        """What is open to everybody is logged, each time."""
        self.terms = Terms(insecure=True)
        descriptions = [f"*:{free_port()}", f"127.0.0.1:{free_port()}"]
        for listening in (self.open, self.change):
            with capturedLogs() as logged:
                await listening(descriptions)
            warned = [each["port"] for each in logged if each["log_level"] == LogLevel.warn]
            self.assertEqual(warned, descriptions[:1])

    async def test_too_many(self) -> None:
        """One connection too many is closed at once, with TLS before it has cost a handshake."""
        file = self.folder / "identity.pem"
        issued = trustme.CA().issue_cert("x.example.org")
        file.write_bytes(issued.private_key_and_cert_chain_pem.bytes())
        plain, secured = free_port(), free_port()
        tls = f"ssl:{secured}:privateKey={file}:interface=127.0.0.1"
        await self.open([f"127.0.0.1:{plain}", tls])
        self.gate.crowd.bounds = Bounds(0, 0)
        for port in (plain, secured):
            client = Client()
            await connectProtocol(self.tcp(port), client)
            await client.lost
        self.gate.crowd.bounds = Bounds(1, 1)
        await self.connected(self.tcp(plain))


class Adopted:
    """An endpoint of somebody else's, with a socket that it was given."""

    def __init__(self, reactor: Any, given: socket.socket) -> None:
        self._reactor = reactor
        self._given = given

    async def listen(self, factory: Factory) -> Any:
        return self._reactor.adoptStreamPort(self._given.fileno(), socket.AF_INET, factory)


class TlsTests(PortsTestCase):
    """Certificates of ``ssl:`` addresses, renewed under the same description."""

    def setUp(self) -> None:
        """Choose a description with the files of an old certificate."""
        super().setUp()
        self.old, self.new = trustme.CA(), trustme.CA()
        self.file = self.folder / "identity.pem"
        self.issue(self.old)
        self.port = free_port()
        self.description = f"ssl:{self.port}:privateKey={self.file}:interface=127.0.0.1"

    def issue(self, authority: trustme.CA) -> None:
        """Put a certificate of an authority into the file."""
        issued = authority.issue_cert("harpcaller.example.org")
        self.file.write_bytes(issued.private_key_and_cert_chain_pem.bytes())

    def tls(self, authority: trustme.CA) -> IStreamClientEndpoint:
        """Return where the port is reached by who trusts an authority."""
        root = trustRootFromCertificates([Certificate.loadPEM(authority.cert_pem.bytes())])
        options = optionsForClientTLS("harpcaller.example.org", root)
        return wrapClientTLS(options, self.tcp(self.port))

    async def assert_distrusted(self, authority: trustme.CA) -> None:
        """Check that who trusts an authority does not accept the certificate."""
        client = Client()
        await connectProtocol(self.tls(authority), client)
        client.ask()
        self.assertIsInstance(await client.lost, SSL.Error)

    async def test_renewed(self) -> None:
        """New connections get the certificate that is in the file, old ones live on."""
        await self.open([self.description])
        client = await self.connected(self.tls(self.old))
        self.issue(self.new)
        await self.connected(self.tls(self.old))
        self.assertEqual(await self.change([self.description]), [])
        await self.connected(self.tls(self.new))
        await self.assert_distrusted(self.old)
        self.assertEqual(await client.ask(), b"x")

    async def test_other_files(self) -> None:
        """A certificate in another file comes into force on the same port."""
        await self.open([self.description])
        other = self.folder / "other.pem"
        self.file.rename(other)
        self.issue(self.new)
        moved = self.description.replace(str(self.file), str(other))
        self.assertEqual(await self.change([moved]), [])
        await self.connected(self.tls(self.old))
        self.assertEqual(await self.change([self.description]), [])
        await self.connected(self.tls(self.new))

    async def test_unusable(self) -> None:
        """A certificate that can't be used is a mistake, and the old one stays."""
        await self.open([self.description])
        key = self.new.issue_cert("harpcaller.example.org").private_key_pem.bytes()
        certificate = self.new.issue_cert("harpcaller.example.org").cert_chain_pems[0].bytes()
        for data in (b"", b"nonsense", key + certificate, certificate):
            self.file.write_bytes(data)
            (mistake,) = await self.change([self.description])
            self.assertTrue(mistake.startswith(f"listen: {self.description}: "), mistake)
            self.assertNotIn("PRIVATE KEY", mistake)
            await self.connected(self.tls(self.old))

    async def test_nothing_is_renewed_by_half(self) -> None:
        """If another address can't be bound, the certificate stays as it was."""
        await self.open([self.description])
        self.issue(self.new)
        other = self.reactor.listenTCP(0, Factory(), interface="127.0.0.1")
        self.addCleanup(other.stopListening)
        taken = f"127.0.0.1:{other.getHost().port}"
        self.assertEqual(len(await self.change([self.description, taken])), 1)
        await self.connected(self.tls(self.old))
