"""Which certificates of harpd are believed.

Makes the client's side of each TLS connection and says in words why one was refused. Who connects,
and what becomes of the job then, is the business of ``harpcaller.remote``.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterable
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from OpenSSL import SSL, crypto
from service_identity.hazmat import DNS_ID
from twisted.internet import ssl
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator
from twisted.protocols.tls import TLSMemoryBIOProtocol
from twisted.python.failure import Failure
from zope.interface import implementer

from harpcaller.sessions import JudgedSession, Sessions
from harpcaller.verdict import ServerId, Verdict, server_id


class ServerTrust:
    """The rules for all hosts, on one OpenSSL context, since making that costs most.

    A certificate is trusted if it is one of those known, as it is: neither its dates nor its names
    are looked at. It is trusted too if an authority signed it, its dates are right and it is made
    out to the host. With neither authorities nor known certificates everything is trusted. For a
    host with fingerprints none of this counts: its certificate is trusted if it has one of them.

    A connection that resumes the session of an earlier one is not judged again. So what is kept are
    sessions of connections that were believed, and they are used under the same trust only.

    Two that are equal trust the same certificates.

    :param authorities: certificates of CAs, of intermediate ones too; None if none are used.
    :param known: certificates of servers, None if none are used.
    """

    def __init__(
        self,
        authorities: Iterable[x509.Certificate] | None = None,
        known: Iterable[x509.Certificate] | None = None,
    ) -> None:
        roots = None if authorities is None else [_der(each) for each in authorities]
        self.has_authorities = roots is not None
        self.known = None if known is None else frozenset(_der(each) for each in known)
        self._rules = (None if roots is None else frozenset(roots), self.known)
        self.verifies = self.has_authorities or self.known is not None
        if self.verifies:
            loaded = [ssl.Certificate.load(each) for each in roots or ()]
            trust_root = ssl.trustRootFromCertificates(loaded)
            self._context = ssl.CertificateOptions(
                trustRoot=trust_root, enableSessionTickets=True
            ).getContext()
            # Whoever is in ca_file is trusted, also where its own issuer is not there.
            store = self._context.get_cert_store()
            assert store is not None
            store.set_flags(crypto.X509StoreFlags.PARTIAL_CHAIN)
        else:
            self._context = ssl.CertificateOptions(enableSessionTickets=True).getContext()

    @classmethod
    def from_files(cls, ca_file: Path | None, known_certs_file: Path | None) -> ServerTrust:
        """Read both files; None where one is not used.

        :raises ValueError: if one can't be read or has no certificate.
        """
        return cls(
            None if ca_file is None else read_certificates(ca_file),
            None if known_certs_file is None else read_certificates(known_certs_file),
        )

    def __eq__(self, other: object) -> bool:
        return self._rules == other._rules if isinstance(other, ServerTrust) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._rules)

    def for_host(
        self,
        name: str,
        address: str,
        server_name: str | None = None,
        fingerprints: Collection[str] = (),
        resumption: Resumption | None = None,
    ) -> IOpenSSLClientConnectionCreator:
        """Return what makes TLS connections to one host.

        :param name: what the host is called; its certificate may be made out to this,
        :param address: or to this: a DNS name or an IP address.
        :param server_name: if given, the certificate must be made out to this, none of the others.
        :param fingerprints: if there are any, its certificate must have one of these; neither the
            rules for all hosts nor dates and names count then.
        :param resumption: the sessions of this host, all of them made under this trust.
        """
        names = (address, name) if server_name is None else (server_name,)
        return _HostTrust(self, self._context, address, names, frozenset(fingerprints), resumption)


@dataclass(frozen=True)
class Resumption:
    """The sessions of one host.

    :param host: what they are kept by.
    """

    sessions: Sessions
    host: Hashable

    def begin(self, connection: SSL.Connection) -> float | None:
        """Have a connection resume a session, if there is one; return when that was judged."""
        kept = self.sessions.take(self.host)
        if kept is None:
            return None
        connection.set_session(kept.session)
        return kept.judged

    def keep(self, connection: SSL.Connection, judged: float | None) -> None:
        """Keep the session of a connection that was believed.

        :param judged: when its certificate was; None for now.
        """
        session = connection.get_session()
        if session is not None:
            when = self.sessions.seconds() if judged is None else judged
            self.sessions.keep(self.host, JudgedSession(session, when))


def is_server_name(name: str) -> bool:
    """Return whether a certificate can be made out to that: a DNS name or an IP address."""
    return server_id(name) is not None


def read_certificates(path: Path) -> list[x509.Certificate]:
    """Read a PEM file with one certificate or more.

    :raises ValueError: saying why that is not possible.
    """
    try:
        return x509.load_pem_x509_certificates(path.read_bytes())
    except OSError as error:
        raise ValueError(f"{path} can't be read: {error.strerror}") from error
    except ValueError as error:
        raise ValueError(f"{path} has no certificate in PEM that can be understood") from error


def describe(failure: Failure) -> str | None:
    """Say what was wrong with TLS.

    :param failure: what a protocol's ``connectionLost`` got.
    :return: None if it was not TLS that failed.
    """
    error = failure.value
    if not isinstance(error, SSL.Error):
        return None
    reports = error.args[0] if error.args and isinstance(error.args[0], list) else []
    return "; ".join(report[-1] for report in reports) or "the TLS connection failed"


@implementer(IOpenSSLClientConnectionCreator)
class _HostTrust:
    def __init__(
        self,
        trust: ServerTrust,
        context: SSL.Context,
        address: str,
        names: tuple[str, ...],
        fingerprints: frozenset[str],
        resumption: Resumption | None,
    ) -> None:
        self.address = address
        self.fingerprints = fingerprints
        self.known = trust.known
        self.has_authorities = trust.has_authorities
        self.ids: list[ServerId] = [found for found in map(server_id, names) if found is not None]
        self._verifies = trust.verifies or bool(fingerprints)
        self._context = context
        self._resumption = resumption
        # RFC 6066 has no IP addresses in the server name indication.
        self._sni = next((each.hostname for each in self.ids if isinstance(each, DNS_ID)), None)

    def clientConnectionForTLS(self, tlsProtocol: TLSMemoryBIOProtocol) -> SSL.Connection:
        verdict = Verdict(self) if self._verifies else None
        connection = _JudgedConnection(self._context, verdict, self._resumption)
        if self._sni is not None:
            connection.set_tlsext_host_name(self._sni)
        return connection


class _JudgedConnection(SSL.Connection):
    """A connection that fails with the words of its verdict.

    ``failVerification`` of Twisted's TLS would do that too, but it aborts the connection before
    the alert has left that tells harpd's operator what is wrong.
    """

    def __init__(
        self, context: SSL.Context, verdict: Verdict | None, resumption: Resumption | None
    ) -> None:
        super().__init__(context, None)
        self._verdict = verdict
        if verdict is not None:
            self.set_verify(SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT, verdict)
        self._resumption = resumption
        self._judged = None if resumption is None else resumption.begin(self)

    def do_handshake(self) -> None:
        """Raise the refusal instead of OpenSSL's ``certificate verify failed``."""
        try:
            super().do_handshake()
        except SSL.Error as error:
            if self._verdict is None or self._verdict.refusal is None:
                raise
            raise SSL.Error([("harpcaller", "", self._verdict.refusal)]) from error

    def recv(self, bufsiz: int, flags: int | None = None) -> bytes:
        """Keep the session when the first bytes come: in TLS 1.3 its ticket comes before them."""
        data = super().recv(bufsiz, flags)
        if self._resumption is not None:
            is_resumed = self._verdict is not None and not self._verdict.was_asked
            self._resumption.keep(self, self._judged if is_resumed else None)
            self._resumption = None
        return data


def _der(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(Encoding.DER)
