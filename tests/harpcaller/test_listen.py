"""Tests of harpcaller.listen."""

from __future__ import annotations

import datetime
import warnings
from pathlib import Path

import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from twisted.internet.address import HostnameAddress, IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.endpoints import (
    SSL4ServerEndpoint,
    TCP4ServerEndpoint,
    TCP6ServerEndpoint,
    UNIXServerEndpoint,
)
from twisted.internet.protocol import Factory
from twisted.internet.testing import MemoryReactor
from twisted.trial.unittest import SynchronousTestCase

from harpcaller import listen
from harpcaller.identities import User, Users
from harpcaller.terms import Terms

UNUSABLE = [
    "",
    "3502",
    ":3502",
    "127.0.0.1",
    "127.0.0.1:http",
    "127.0.0.1:65536",
    "*:99999",
    "::1:3502",
    "[::1]",
    "[localhost]:3502",
    "tcp:",
    "tcp:http",
    "tcp:65536",
    "tcp6:port=65536",
    "tcp:3502:interfce=127.0.0.1",
    "tpc:3502:interface=127.0.0.1",
    "unix:/run/socket:mode=rw",
    "tcp:3502\\",
    "ssl:3502:privateKey=/nowhere/key.pem",
    "systemd:domain=UNIX:index=0",  # whose mode Twisted would set to 0666
]


OPEN = Terms(insecure=True)


def check(description: str) -> None:
    """Check a description where everybody may come in."""
    listen.check(description, OPEN)


class EndpointTests(SynchronousTestCase):
    """What is listened on."""

    def setUp(self) -> None:
        self.reactor = MemoryReactor()

    def listened(self, description: str) -> tuple[str, int]:
        """Listen, and return the interface and the port."""
        self.successResultOf(listen.endpoint(self.reactor, description).listen(Factory()))
        port, _, _, interface = self.reactor.tcpServers.pop()
        return interface, port

    def test_host_and_port(self) -> None:
        """HOST:PORT listens on that address alone."""
        self.assertEqual(self.listened("127.0.0.1:3502"), ("127.0.0.1", 3502))
        self.assertEqual(self.listened("localhost:0"), ("localhost", 0))

    def test_all_addresses(self) -> None:
        """*:PORT listens on all IPv4 addresses."""
        self.assertEqual(self.listened("*:3502"), ("", 3502))

    def test_ipv6(self) -> None:
        """[IPV6]:PORT listens on an IPv6 address."""
        self.assertEqual(self.listened("[::1]:3502"), ("::1", 3502))
        self.assertIsInstance(listen.endpoint(self.reactor, "[::]:3502"), TCP6ServerEndpoint)

    def test_endpoint_strings(self) -> None:
        """Endpoint strings of Twisted mean what they mean there, also where a host would fit."""
        self.assertEqual(self.listened("tcp:3502"), ("", 3502))
        self.assertEqual(self.listened("tcp:3502:interface=127.0.0.1"), ("127.0.0.1", 3502))
        for description, kind in [
            ("tcp:3502", TCP4ServerEndpoint),
            ("tcp6:3502", TCP6ServerEndpoint),
            ("unix:3502", UNIXServerEndpoint),
            ("unix:/run/socket:mode=660", UNIXServerEndpoint),
        ]:
            self.assertIsInstance(listen.endpoint(self.reactor, description), kind)

    def test_backlog(self) -> None:
        """A burst of clients need not wait, unless the description says so."""
        backlogs = []
        for description in ("127.0.0.1:3502", "tcp:3502:backlog=7"):
            listen.endpoint(self.reactor, description).listen(Factory())
            backlogs.append(self.reactor.tcpServers.pop()[2])
        for description in ("unix:/run/socket", "unix:/run/socket:backlog=7"):
            listen.endpoint(self.reactor, description).listen(Factory())
            backlogs.append(self.reactor.unixServers.pop()[2])
        self.assertEqual(backlogs, [listen.BACKLOG, 7] * 2)

    def test_tls(self) -> None:
        """An ssl: string is understood, with its certificate."""
        file = self.identity(trustme.CA())
        description = f"ssl:3502:privateKey={file}:interface=127.0.0.1:backlog=7"
        self.assertIsInstance(listen.endpoint(self.reactor, description), SSL4ServerEndpoint)
        listen.check(description, OPEN)
        address = listen.tls_address(description)
        assert address is not None
        self.assertEqual((address.port, address.interface), (3502, "127.0.0.1"))
        self.assertEqual(address.backlog, 7)
        assert address.certificate.certificate is not None
        names = dict(address.certificate.certificate.get_subject().get_components())
        self.assertEqual(names[b"CN"], b"x.example.org")
        self.assertIsNone(listen.tls_address("127.0.0.1:3502"))

    def test_tls_of_two_halves(self) -> None:
        """A key that does not belong to its certificate is found before anybody connects."""
        authority = trustme.CA()
        key, certificate = self.identity(authority), Path(self.mktemp())
        other = authority.issue_cert("x.example.org")
        certificate.write_bytes(other.cert_chain_pems[0].bytes())
        description = f"ssl:3502:privateKey={key}:certKey={certificate}"
        for understood in (check, listen.tls_address):
            error = self.assertRaises(ValueError, understood, description)
            self.assertIn(f"{description!r} can't be used", str(error))

    def test_tls_that_openssl_refuses(self) -> None:
        """A certificate that OpenSSL does not take is found then too, and told in its words."""
        key = rsa.generate_private_key(public_exponent=65537, key_size=1024)
        name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "x.example.org")])
        now = datetime.datetime.now(datetime.UTC)
        certificate = (
            x509.CertificateBuilder(name, name, key.public_key(), 1)
            .not_valid_before(now)
            .not_valid_after(now + datetime.timedelta(days=1))
            .sign(key, hashes.SHA256())
        )
        file = Path(self.mktemp())
        pem = serialization.Encoding.PEM
        private = serialization.PrivateFormat.PKCS8
        file.write_bytes(
            key.private_bytes(pem, private, serialization.NoEncryption())
            + certificate.public_bytes(pem)
        )
        description = f"ssl:3502:privateKey={file}"
        for understood in (check, listen.tls_address):
            error = self.assertRaises(ValueError, understood, description)
            self.assertEqual(f"{description!r} can't be used (ee key too small)", str(error))

    def identity(self, authority: trustme.CA) -> Path:
        """Return a file with a certificate and its key."""
        file = Path(self.mktemp())
        issued = authority.issue_cert("x.example.org", common_name="x.example.org")
        file.write_bytes(issued.private_key_and_cert_chain_pem.bytes())
        return file

    def test_unusable(self) -> None:
        """What can't be understood is a ValueError that repeats it."""
        for description in UNUSABLE:
            error = self.assertRaises(ValueError, listen.endpoint, self.reactor, description)
            self.assertIn(repr(description), str(error))


class CheckTests(SynchronousTestCase):
    """What can be said without a reactor."""

    def test_good(self) -> None:
        """What can be listened on passes; what depends on the moment is not tried."""
        for description in ["127.0.0.1:3502", "*:3502", "[::1]:3502", "tcp:3502", "unix:/run/x"]:
            listen.check(description, OPEN)
        listen.check("systemd:domain=INET:index=0", Terms())

    def test_unusable(self) -> None:
        """What can't be understood is refused just as by the endpoint itself."""
        for description in UNUSABLE:
            error = self.assertRaises(ValueError, listen.check, description, OPEN)
            self.assertIn(repr(description), str(error))


class ReachTests(SynchronousTestCase):
    """Where others than this machine's programs could come."""

    def setUp(self) -> None:
        """Have a certificate, and terms with and without a way to log in."""
        self.file = Path(self.mktemp())
        issued = trustme.CA().issue_cert("x.example.org")
        self.file.write_bytes(issued.private_key_and_cert_chain_pem.bytes())
        ann = User("ann")
        self.nobody = Terms(Users((ann,), uids={0: ann}))  # who can't come over the network
        self.somebody = Terms(Users((ann,), tokens={"ab" * 32: ann}))

    def mistake(self, description: str, terms: Terms) -> str:
        """Return why nobody may listen there."""
        error = self.assertRaises(ValueError, listen.check, description, terms)
        self.assertTrue(str(error).startswith(f"{description!r} can be reached "), str(error))
        self.assertIn("insecure: true", str(error))
        listen.check(description, OPEN)
        return str(error)

    def test_clear_text(self) -> None:
        """In clear text it is refused, whoever could log in."""
        for description in (
            "*:3502",
            "10.0.0.1:3502",
            "0.0.0.0:3502",
            "[::]:3502",
            "[2001:db8::1]:3502",
            "[::ffff:10.0.0.1]:3502",
            "tcp:3502",
            "tcp6:3502",
            "tcp:3502:interface=10.0.0.1",
            r"tcp6:3502:interface=\:\:",
        ):
            for terms in (self.nobody, self.somebody):
                self.assertIn("ssl:PORT", self.mistake(description, terms))

    def test_tls(self) -> None:
        """With TLS it is refused if nobody could log in."""
        for where in ("", ":interface=10.0.0.1"):
            description = f"ssl:3502:privateKey={self.file}{where}"
            self.assertIn("tokens or certificates", self.mistake(description, self.nobody))
            listen.check(description, self.somebody)

    def test_local(self) -> None:
        """On loopback and unix sockets everybody may come."""
        for description in (
            "127.0.0.1:3502",
            "127.1.2.3:3502",
            "[::1]:3502",
            "[::ffff:127.0.0.1]:3502",
            "localhost:3502",
            "unix:/run/x",
            f"ssl:3502:privateKey={self.file}:interface=127.0.0.1",
        ):
            listen.check(description, Terms())

    def test_addresses(self) -> None:
        """A socket is local by its own address, whatever was asked for."""
        for address, is_local in (
            (UNIXAddress(b"/run/x"), True),
            (IPv4Address("TCP", "127.0.0.1", 1), True),
            (IPv6Address("TCP", "::1", 1), True),
            (IPv4Address("TCP", "0.0.0.0", 1), False),
            (IPv6Address("TCP", "::", 1), False),
            (IPv4Address("TCP", "10.0.0.1", 1), False),
            (HostnameAddress(b"localhost", 1), False),
        ):
            self.assertEqual(listen.is_local(address), is_local, address)

    def test_method(self) -> None:
        """Which TLS is spoken is not the configuration's to say."""
        description = f"ssl:3502:privateKey={self.file}:sslmethod=TLSv1_1_METHOD"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            error = self.assertRaises(ValueError, listen.check, description, OPEN)
        self.assertIn("sslmethod", str(error))
