"""Tests of harpcaller.trust: real TLS over loopback sockets."""

from __future__ import annotations

import datetime
import gc
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from OpenSSL import SSL
from twisted.internet import reactor, ssl
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP4ServerEndpoint, wrapClientTLS
from twisted.internet.error import ConnectionLost
from twisted.internet.interfaces import IReactorTCP
from twisted.internet.protocol import Factory, Protocol
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase, TestCase

from harpcaller import trust, verdict
from harpcaller.trust import ServerTrust

NAME, ADDRESS, IP = "web1", "web1.example.org", "10.1.2.3"
SECRET = b"the password"
LONG_AGO = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
YESTERDAY = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=1)
ONE_YEAR = datetime.timedelta(days=365)

tcp = cast(IReactorTCP, reactor)


@dataclass
class Identity:
    """A certificate with its key, and the certificates that are sent with it."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey
    chain: list[x509.Certificate] = field(default_factory=list)


def issue(
    subject: str,
    issuer: Identity | None = None,
    names: Iterable[str] = (),
    extensions: Iterable[x509.ExtensionType] = (),
) -> Identity:
    """Make a certificate, self-signed if there is no issuer."""
    key = ec.generate_private_key(ec.SECP256R1())
    own_name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)])
    builder = (
        x509.CertificateBuilder()
        .subject_name(own_name)
        .issuer_name(issuer.certificate.subject if issuer else own_name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(YESTERDAY)
        .not_valid_after(YESTERDAY + ONE_YEAR)
    )
    if names:
        alternatives = x509.SubjectAlternativeName([x509.DNSName(name) for name in names])
        builder = builder.add_extension(alternatives, critical=False)
    for extension in extensions:
        builder = builder.add_extension(extension, critical=True)
    certificate = builder.sign(issuer.key if issuer else key, hashes.SHA256())
    chain = [issuer.certificate, *issuer.chain] if issuer else []
    return Identity(certificate, key, chain)


def authority(ca: trustme.CA) -> x509.Certificate:
    """Return the certificate of a CA."""
    return x509.load_pem_x509_certificate(ca.cert_pem.bytes())


def leaf(ca: trustme.CA, *names: str, not_after: datetime.datetime | None = None) -> Identity:
    """Let a CA sign a certificate; the chain that is sent goes up to the CA itself."""
    made = ca.issue_cert(*names, not_before=LONG_AGO, not_after=not_after)
    certificate, *chain = [
        x509.load_pem_x509_certificate(blob.bytes()) for blob in made.cert_chain_pems
    ]
    return Identity(certificate, load_key(made.private_key_pem.bytes()), [*chain, authority(ca)])


def load_key(pem: bytes) -> ec.EllipticCurvePrivateKey:
    """Load a private key."""
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    key = load_pem_private_key(pem, None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    return key


def server_options(identity: Identity) -> ssl.CertificateOptions:
    """Return what a server needs to show an identity."""
    key = identity.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    pem = key + identity.certificate.public_bytes(Encoding.PEM)
    own = ssl.PrivateCertificate.loadPEM(pem)
    chain = [ssl.Certificate.load(each.public_bytes(Encoding.DER)) for each in identity.chain]
    return ssl.CertificateOptions(
        privateKey=own.privateKey.original,
        certificate=own.original,
        extraCertChain=[each.original for each in chain],
    )


class Server(Protocol):
    """Answers the first bytes and notes what it saw."""

    def __init__(self) -> None:
        self.received = b""
        self.server_name: bytes | None = None
        self.gone: Deferred[None] = Deferred()

    def dataReceived(self, data: bytes) -> None:
        self.received += data
        transport = cast(Any, self.transport)
        self.server_name = transport.getHandle().get_servername()
        transport.write(b"hello")

    def connectionLost(self, reason: Failure = Failure(ConnectionLost())) -> None:  # noqa: B008
        self.reason = reason
        self.gone.callback(None)


class Client(Protocol):
    """Sends the secret at once, as the dispatcher does, and waits for the answer."""

    def __init__(self) -> None:
        self.failure: Failure | None = None
        self.outcome: Deferred[None] = Deferred()

    def connectionMade(self) -> None:
        cast(Any, self.transport).write(SECRET)

    def dataReceived(self, data: bytes) -> None:
        self.outcome.callback(None)
        cast(Any, self.transport).abortConnection()

    def connectionLost(self, reason: Failure = Failure(ConnectionLost())) -> None:  # noqa: B008
        if not self.outcome.called:
            self.failure = reason
            self.outcome.callback(None)


class ServerTrustTests(TestCase):
    """What is trusted, what is refused and with which words."""

    def setUp(self) -> None:
        self.ca = trustme.CA()

    async def attempt(
        self,
        rules: ServerTrust,
        identity: Identity,
        name: str = NAME,
        address: str = ADDRESS,
        server_name: str | None = None,
    ) -> tuple[str | None, Server]:
        """Connect; return why it failed, None if it did not, and what the server saw."""
        server, client = Server(), Client()
        wrapped = TLSMemoryBIOFactory(
            server_options(identity), False, Factory.forProtocol(lambda: server)
        )
        port = await TCP4ServerEndpoint(tcp, 0, interface="127.0.0.1").listen(wrapped)
        try:
            target = TCP4ClientEndpoint(tcp, "127.0.0.1", port.getHost().port)
            wrapper = wrapClientTLS(rules.for_host(name, address, server_name), target)
            await wrapper.connect(Factory.forProtocol(lambda: client))
            await client.outcome
            await server.gone
        finally:
            await port.stopListening()
        if client.failure is None:
            self.assertEqual(server.received, SECRET)
            return None, server
        self.assertEqual(server.received, b"", "the password left before the refusal")
        return trust.describe(client.failure) or f"not of TLS: {client.failure!r}", server

    async def accept(
        self,
        rules: ServerTrust,
        identity: Identity,
        name: str = NAME,
        address: str = ADDRESS,
        server_name: str | None = None,
    ) -> Server:
        why, server = await self.attempt(rules, identity, name, address, server_name)
        self.assertIsNone(why)
        return server

    async def refuse(
        self,
        rules: ServerTrust,
        identity: Identity,
        *words: str,
        name: str = NAME,
        address: str = ADDRESS,
        server_name: str | None = None,
    ) -> None:
        why, server = await self.attempt(rules, identity, name, address, server_name)
        for word in words:
            self.assertIn(word, why or "it was accepted")
        self.assertIn("alert", trust.describe(server.reason) or "", "harpd was told nothing")

    async def test_ca_and_address(self) -> None:
        """A certificate of a CA of ca_file, made out to the address, is trusted; SNI is sent."""
        server = await self.accept(ServerTrust([authority(self.ca)]), leaf(self.ca, ADDRESS))
        self.assertEqual(server.server_name, ADDRESS.encode())

    async def test_ca_and_name(self) -> None:
        """It may be made out to the host's name instead."""
        rules = ServerTrust([authority(self.ca)])
        server = await self.accept(rules, leaf(self.ca, NAME), address=IP)
        self.assertEqual(server.server_name, NAME.encode())

    async def test_ca_and_ip_address(self) -> None:
        """An IP address is looked for among the certificate's IP addresses; it is not SNI."""
        rules = ServerTrust([authority(self.ca)])
        server = await self.accept(rules, leaf(self.ca, IP), name="not a DNS name", address=IP)
        self.assertIsNone(server.server_name)

    async def test_ca_and_ipv6_address(self) -> None:
        """The form in which an IPv6 address is written does not matter."""
        rules = ServerTrust([authority(self.ca)])
        await self.accept(rules, leaf(self.ca, "fe80::1"), address="FE80:0::1")

    async def test_server_name(self) -> None:
        """With a name of its own a certificate must be made out to that; SNI is the same."""
        rules = ServerTrust([authority(self.ca)])
        front = leaf(self.ca, "front.example.org")
        server = await self.accept(rules, front, server_name="front.example.org")
        self.assertEqual(server.server_name, b"front.example.org")

    async def test_server_name_only(self) -> None:
        """The host's name and address then count no more."""
        rules = ServerTrust([authority(self.ca)])
        both = leaf(self.ca, NAME, ADDRESS)
        await self.refuse(
            rules, both, ADDRESS, "front.example.org", server_name="front.example.org"
        )

    async def test_server_name_is_ip_address(self) -> None:
        """It may be an IP address, which is not SNI."""
        rules = ServerTrust([authority(self.ca)])
        server = await self.accept(rules, leaf(self.ca, IP), server_name=IP)
        self.assertIsNone(server.server_name)

    async def test_server_name_of_known(self) -> None:
        """A known certificate is trusted whatever name is wanted."""
        identity = issue("whoever")
        rules = ServerTrust(known=[identity.certificate])
        server = await self.accept(rules, identity, server_name="front.example.org")
        self.assertEqual(server.server_name, b"front.example.org")

    async def test_too_long_for_dns(self) -> None:
        """A host's name may be longer than any in DNS; no certificate is looked at for it."""
        rules = ServerTrust([authority(self.ca)])
        await self.accept(rules, leaf(self.ca, IP), name="x" * 300, address=IP)

    async def test_wrong_name(self) -> None:
        """A certificate made out to others is refused, with their names and the names wanted."""
        rules = ServerTrust([authority(self.ca)])
        other = leaf(self.ca, "web2.example.org", "10.9.9.9")
        await self.refuse(rules, other, "web2.example.org", "10.9.9.9", NAME, ADDRESS)

    async def test_no_names(self) -> None:
        """A certificate that is made out to nobody is refused: the subject does not count."""
        root = Identity(authority(self.ca), load_key(self.ca.private_key_pem.bytes()))
        await self.refuse(ServerTrust([root.certificate]), issue(ADDRESS, root), "nobody", ADDRESS)

    async def test_unusable_names(self) -> None:
        """A host whose name and address no certificate can have is refused, in the normal way."""
        rules = ServerTrust([authority(self.ca)])
        await self.refuse(rules, leaf(self.ca, ADDRESS), "this host", name="a b", address="c d")

    async def test_unknown_ca(self) -> None:
        """A certificate of another CA is refused, whether its root is sent or not."""
        rules = ServerTrust([authority(self.ca)])
        foreign = leaf(trustme.CA(organization_name="Foreign"), ADDRESS)
        await self.refuse(rules, foreign, "ca_file", "Foreign")
        foreign.chain.clear()
        await self.refuse(rules, foreign, "ca_file", "Foreign")

    async def test_intermediate_in_ca_file(self) -> None:
        """An intermediate CA in ca_file is enough; its own issuer need not be there."""
        intermediate = self.ca.create_child_ca()
        identity = leaf(intermediate, ADDRESS)
        identity.chain.clear()
        await self.accept(ServerTrust([authority(intermediate)]), identity)
        self.assertIsNotNone((await self.attempt(ServerTrust([authority(self.ca)]), identity))[0])

    async def test_expired(self) -> None:
        """An expired certificate of the right CA and name is refused."""
        expired = leaf(self.ca, ADDRESS, not_after=LONG_AGO + ONE_YEAR)
        await self.refuse(ServerTrust([authority(self.ca)]), expired, "has expired")

    async def test_known_self_signed(self) -> None:
        """A known certificate is trusted as it is, self-signed and without the host's name."""
        identity = issue("whoever")
        await self.accept(ServerTrust(known=[identity.certificate]), identity)

    async def test_known_expired(self) -> None:
        """A known certificate is trusted though it has expired."""
        identity = leaf(self.ca, ADDRESS, not_after=LONG_AGO + ONE_YEAR)
        await self.accept(ServerTrust(known=[identity.certificate]), identity)

    async def test_known_with_foreign_chain(self) -> None:
        """A known certificate is trusted though the chain it sends ends in an unknown root."""
        identity = leaf(trustme.CA().create_child_ca(), "elsewhere.example.org")
        self.assertEqual(len(identity.chain), 2)
        await self.accept(
            ServerTrust(known=[issue("x").certificate, identity.certificate]), identity
        )

    async def test_not_known(self) -> None:
        """With known_certs_file alone any other certificate is refused."""
        rules = ServerTrust(known=[issue("other").certificate])
        for identity in (issue("whoever", names=[ADDRESS]), leaf(self.ca, ADDRESS)):
            await self.refuse(rules, identity, "refused: it is not in known_certs_file")

    async def test_known_issuer_is_no_authority(self) -> None:
        """Of a known certificate only itself is trusted, not what it signed."""
        root = issue("root", extensions=[x509.BasicConstraints(True, None)])
        identity = issue("web1", root, [ADDRESS])
        await self.refuse(ServerTrust(known=[root.certificate]), identity, "known_certs_file")

    async def test_both_files(self) -> None:
        """With both files either is enough, and what satisfies neither is refused for both."""
        pinned = issue("whoever")
        rules = ServerTrust([authority(self.ca)], [pinned.certificate])
        await self.accept(rules, pinned)
        await self.accept(rules, leaf(self.ca, ADDRESS))
        await self.refuse(rules, leaf(trustme.CA(), ADDRESS), "known_certs_file", "ca_file")
        await self.refuse(rules, leaf(self.ca, "web2.example.org"), "known_certs_file", "web2")
        expired = leaf(self.ca, ADDRESS, not_after=LONG_AGO + ONE_YEAR)
        await self.refuse(rules, expired, "known_certs_file", "expired")

    async def test_late_fault(self) -> None:
        """Faults that OpenSSL finds after the server's certificate are not let through."""
        constraints = x509.NameConstraints([x509.DNSName("example.org")], None)
        is_ca = x509.BasicConstraints(True, None)
        root = issue("root", extensions=[is_ca, constraints])
        middle = issue("middle", root, ["middle.example.net"], [is_ca])
        identities = {
            "intermediate": issue("web1", middle, [ADDRESS]),
            "server": issue("web1", root, [ADDRESS, "web1.example.net"]),
        }
        pinned = issue("whoever")
        for known in (None, [pinned.certificate]):
            rules = ServerTrust([root.certificate], known)
            await self.accept(rules, issue("web1", root, [ADDRESS]))
            for identity in identities.values():
                await self.refuse(rules, identity, "may not sign")

    async def test_neither(self) -> None:
        """Without any rules everything is trusted, and that can be seen."""
        rules = ServerTrust()
        self.assertFalse(rules.verifies)
        server = await self.accept(rules, issue("whoever"))
        self.assertEqual(server.server_name, ADDRESS.encode())

    async def test_empty_rules_trust_nobody(self) -> None:
        """Rules that are there but name nobody are not the same as no rules."""
        for rules in (ServerTrust([]), ServerTrust(known=[])):
            self.assertTrue(rules.verifies)
            await self.refuse(rules, leaf(self.ca, ADDRESS), "refused")

    async def test_failure_in_callback(self) -> None:
        """A mistake of ours while judging is a refusal, and it is logged."""
        self.patch(verdict, "extract_patterns", lambda certificate: 1 // 0)
        rules = ServerTrust([authority(self.ca)])
        await self.refuse(rules, leaf(self.ca, ADDRESS), "could not be examined")
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    async def test_message_is_bounded(self) -> None:
        """What a certificate says can't make the message longer than its limit."""
        names = [f"web{number}.example.com" for number in range(200)]
        why, _ = await self.attempt(ServerTrust([authority(self.ca)]), leaf(self.ca, *names))
        self.assertEqual(len(why or ""), verdict.MAX_MESSAGE)

    async def test_nothing_is_kept(self) -> None:
        """A connection that is gone, trusted or refused, leaves nothing in the shared context."""
        rules = ServerTrust([authority(self.ca)])

        def kept() -> set[int]:
            gc.collect()
            return {id(each) for each in gc.get_objects() if type(each) is verdict.Verdict}

        of_others = kept()  # a test before this one may have a connection that is closing
        for identity in (leaf(self.ca, ADDRESS), leaf(self.ca, "other.example.org")):
            await self.attempt(rules, identity)
            self.assertLessEqual(kept(), of_others)


class IsServerNameTests(SynchronousTestCase):
    """What a certificate can be made out to."""

    def test_names(self) -> None:
        """DNS names and IP addresses, nothing else, and no pattern."""
        for name in ("web1", "web1.example.org.", "müller.example.org", "10.0.0.1", "fe80::1"):
            self.assertTrue(trust.is_server_name(name), name)
        for name in ("", "a b", "*.example.org", "a\nb", "web1:4306", "x" * 254):
            self.assertFalse(trust.is_server_name(name), name)


class EqualTests(SynchronousTestCase):
    """Whether what is trusted has changed."""

    def test_same_rules(self) -> None:
        """The same certificates make equal trust, in whatever order and however often."""
        one, two = issue("one").certificate, issue("two").certificate
        for rules, same in [
            (ServerTrust(), ServerTrust()),
            (ServerTrust([one, two], [one]), ServerTrust([two, one, two], [one, one])),
        ]:
            self.assertEqual(rules, same)
            self.assertEqual(hash(rules), hash(same))

    def test_other_rules(self) -> None:
        """Any other certificate, the other use of one, and none at all, are all different."""
        one, two = issue("one").certificate, issue("two").certificate
        different = [
            ServerTrust(),
            ServerTrust([]),
            ServerTrust(known=[]),
            ServerTrust([one]),
            ServerTrust([two]),
            ServerTrust(known=[one]),
            ServerTrust([one], [two]),
            ServerTrust([one, two]),
        ]
        self.assertEqual(len(set(different)), len(different))
        self.assertNotEqual(ServerTrust(), None)


class DescribeTests(SynchronousTestCase):
    """The words for what is not about certificates."""

    def test_other_fault_of_tls(self) -> None:
        """Other failures of TLS are told in OpenSSL's words."""
        failure = Failure(SSL.Error([("SSL routines", "", "wrong version number")]))
        self.assertEqual(trust.describe(failure), "wrong version number")
        self.assertTrue(trust.describe(Failure(SSL.Error())))

    def test_no_fault_of_tls(self) -> None:
        """What is not a failure of TLS is not described as one."""
        self.assertIsNone(trust.describe(Failure(ConnectionLost())))


class FilesTests(SynchronousTestCase):
    """The files that the configuration names."""

    def setUp(self) -> None:
        self.folder = Path(self.mktemp())
        self.folder.mkdir()
        self.certificates = [issue("one").certificate, issue("two").certificate]
        self.file = self.folder / "certificates.pem"
        self.file.write_bytes(
            b"".join(each.public_bytes(Encoding.PEM) for each in self.certificates)
        )

    def test_all_are_read(self) -> None:
        """A file may have several certificates."""
        self.assertEqual(trust.read_certificates(self.file), self.certificates)

    def test_unusable_files(self) -> None:
        """A file that is missing, or has no whole certificate, is refused by its name."""
        empty, broken = self.folder / "empty.pem", self.folder / "broken.pem"
        empty.write_bytes(b"")
        broken.write_bytes(self.file.read_bytes().replace(b"M", b"", 1))
        for file in (empty, broken, self.folder / "missing.pem", self.folder):
            error = self.assertRaises(ValueError, trust.read_certificates, file)
            self.assertIn(str(file), str(error))

    def test_from_files(self) -> None:
        """Each file has its own meaning, and either may be left out."""
        self.assertFalse(ServerTrust.from_files(None, None).verifies)
        rules = ServerTrust.from_files(self.file, None)
        self.assertEqual((rules.has_authorities, rules.known), (True, None))
        rules = ServerTrust.from_files(None, self.file)
        self.assertEqual((rules.has_authorities, len(rules.known or ())), (False, 2))
