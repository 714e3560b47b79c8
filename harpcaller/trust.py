"""Which certificates of harpd are believed.

Makes the client's side of each TLS connection and says in words why one was refused. Who connects,
and what becomes of the job then, is the business of ``harpcaller.remote``.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from OpenSSL import SSL, crypto
from service_identity.exceptions import CertificateError
from service_identity.hazmat import DNS_ID, DNSPattern, IPAddress_ID, IPAddressPattern
from service_identity.pyopenssl import extract_patterns
from twisted.internet import ssl
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator
from twisted.protocols.tls import TLSMemoryBIOProtocol
from twisted.python.failure import Failure
from zope.interface import implementer

from harpcaller.logs import logger

MAX_MESSAGE = 1000
"""The longest account of a refusal in characters; most of it is what the certificate says."""

MAX_DNS_NAME = 253
"""The longest DNS name in bytes (RFC 1035, 2.3.4, without the lengths of its labels)."""

_log = logger("harpcaller.trust")

_ServerId = DNS_ID | IPAddress_ID

# By the numbers of OpenSSL's x509_vfy.h; the rest are so rare that the number must do.
_FAULTS = {
    2: "comes from an authority that is not in ca_file",
    7: "has a wrong signature",
    9: "is not valid yet",
    10: "has expired",
    18: "is self-signed and not in ca_file",
    19: "is self-signed and not in ca_file",
    20: "comes from an authority that is not in ca_file",
    21: "comes from an authority that is not in ca_file",
    24: "is not an authority's, yet it signed another",
    26: "is not meant for servers",
    47: "has a name that its authority may not sign",
}


class ServerTrust:
    """The rules for all hosts, on one OpenSSL context, since making that costs most.

    A certificate is trusted if it is one of those known, as it is: neither its dates nor its names
    are looked at. It is trusted too if an authority signed it, its dates are right and it is made
    out to the host. With neither authorities nor known certificates everything is trusted.

    TLS sessions are not resumed: a resumed one would not be judged again.

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
            self._context = ssl.CertificateOptions(trustRoot=trust_root).getContext()
            # Whoever is in ca_file is trusted, also where its own issuer is not there.
            store = self._context.get_cert_store()
            assert store is not None
            store.set_flags(crypto.X509StoreFlags.PARTIAL_CHAIN)
        else:
            self._context = ssl.CertificateOptions().getContext()

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
        self, name: str, address: str, server_name: str | None = None
    ) -> IOpenSSLClientConnectionCreator:
        """Return what makes TLS connections to one host.

        :param name: what the host is called; its certificate may be made out to this,
        :param address: or to this: a DNS name or an IP address.
        :param server_name: if given, the certificate must be made out to this, none of the others.
        """
        names = (address, name) if server_name is None else (server_name,)
        return _HostTrust(self, self._context, address, names)


def is_server_name(name: str) -> bool:
    """Return whether a certificate can be made out to that: a DNS name or an IP address."""
    return _server_id(name) is not None


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
        self, trust: ServerTrust, context: SSL.Context, address: str, names: tuple[str, ...]
    ) -> None:
        self.trust = trust
        self.address = address
        self._context = context
        self.ids = [found for found in map(_server_id, names) if found is not None]
        # RFC 6066 has no IP addresses in the server name indication.
        self._sni = next((each.hostname for each in self.ids if isinstance(each, DNS_ID)), None)

    def clientConnectionForTLS(self, tlsProtocol: TLSMemoryBIOProtocol) -> SSL.Connection:
        connection = _JudgedConnection(self._context, None)
        if self._sni is not None:
            connection.set_tlsext_host_name(self._sni)
        if self.trust.verifies:
            connection.verdict = _Verdict(self)
            mode = SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT
            connection.set_verify(mode, connection.verdict)
        return connection


class _JudgedConnection(SSL.Connection):
    """A connection that fails with the words of its verdict.

    ``failVerification`` of Twisted's TLS would do that too, but it aborts the connection before
    the alert has left that tells harpd's operator what is wrong.
    """

    verdict: _Verdict | None = None

    def do_handshake(self) -> None:
        """Raise the refusal instead of OpenSSL's ``certificate verify failed``."""
        try:
            super().do_handshake()
        except SSL.Error as error:
            if self.verdict is None or self.verdict.refusal is None:
                raise
            raise SSL.Error([("harpcaller", "", self.verdict.refusal)]) from error


class _Verdict:
    """Judges the chain of one connection, as OpenSSL's verify callback.

    OpenSSL calls it for each fault and then for each certificate that it finds right, the server's
    own at depth 0 as the last. Faults further up must be let through while that one may still turn
    out to be known; after it, no fault may pass (name constraints are checked that late).
    """

    def __init__(self, host: _HostTrust) -> None:
        self.refusal: str | None = None
        self._host = host
        self._fault: str | None = None
        self._is_known: bool | None = None if host.trust.known is not None else False

    def __call__(
        self, connection: SSL.Connection, certificate: crypto.X509, error: int, depth: int, ok: int
    ) -> bool:
        try:
            why = self._judge(certificate, error, depth, bool(ok))
        except Exception:  # OpenSSL would lose it
            _log.failure("judging the certificate of {address}", address=self._host.address)
            why = "it could not be examined"
        if why is not None:
            refusal = f"the certificate of {self._host.address} is refused: {why}"
            self.refusal = refusal[:MAX_MESSAGE]
        return why is None

    def _judge(self, certificate: crypto.X509, error: int, depth: int, ok: bool) -> str | None:
        if not ok and self._fault is None:
            self._fault = _fault(certificate, error)
        if depth == 0 and self._is_known is None:
            der = crypto.dump_certificate(crypto.FILETYPE_ASN1, certificate)
            self._is_known = der in (self._host.trust.known or ())
        if self._is_known or (depth > 0 and self._is_known is None):
            return None
        return self._refusal(certificate, depth)

    def _refusal(self, certificate: crypto.X509, depth: int) -> str | None:
        not_known = "it is not in known_certs_file"
        if not self._host.trust.has_authorities:
            return not_known
        refusal = self._fault
        if refusal is None and depth == 0:
            refusal = _name_mismatch(certificate, self._host.ids)
        if refusal is not None and self._host.trust.known is not None:
            return f"{not_known}, and {refusal}"
        return refusal


def _server_id(name: str) -> _ServerId | None:
    """Return what a certificate is compared with, None for what can't stand in one."""
    with suppress(ValueError):
        return IPAddress_ID(name)
    with suppress(ValueError):
        found = DNS_ID(name.removesuffix("."))
        return found if len(found.hostname) <= MAX_DNS_NAME else None
    return None


def _fault(certificate: crypto.X509, error: int) -> str:
    found = certificate.to_cryptography()
    subject, issuer = found.subject.rfc4514_string(), found.issuer.rfc4514_string()
    what = _FAULTS.get(error, f"has fault {error} of OpenSSL")
    return f"{subject!r}, issued by {issuer!r}, {what}"


def _name_mismatch(certificate: crypto.X509, ids: list[_ServerId]) -> str | None:
    try:
        patterns = extract_patterns(certificate)
    except CertificateError as error:
        return f"its names can't be understood: {error}"
    if any(each.verify(pattern) for each in ids for pattern in patterns):
        return None
    found = [_shown(p.pattern) for p in patterns if isinstance(p, DNSPattern | IPAddressPattern)]
    wanted = [_shown(each.hostname if isinstance(each, DNS_ID) else each.ip) for each in ids]
    return (
        f"it is made out to {' and '.join(found) or 'nobody'}, "
        f"not to {' or '.join(wanted) or 'this host'}"
    )


def _shown(name: object) -> str:
    return name.decode("ascii", "replace") if isinstance(name, bytes) else str(name)


def _der(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(Encoding.DER)
