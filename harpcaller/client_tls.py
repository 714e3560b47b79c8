"""The dispatcher's end of TLS with clients: what is spoken, and what a client's certificate proves.

Who a certificate stands for is the business of `harpcaller.identities`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from OpenSSL import SSL, crypto
from twisted.internet.interfaces import IOpenSSLServerConnectionCreator
from twisted.internet.ssl import CertificateOptions
from zope.interface import implementer

from harp.fingerprints import fingerprint_of
from harpcaller.identities import Certificate

CIPHERS = b"ECDHE+AESGCM:ECDHE+CHACHA20"
"""What TLS 1.2 may use: with a key that is stolen one day, nothing of what was said before can be
read. TLS 1.3 has nothing else."""


class Authorities:
    """Who signs the certificates of clients; two are equal if they are the same certificates.

    :ivar id: the SHA-256 of them.
    """

    def __init__(self, certificates: Iterable[x509.Certificate]) -> None:
        self.certificates = tuple(certificates)
        ders = sorted(each.public_bytes(Encoding.DER) for each in self.certificates)
        self.id = hashlib.sha256(b"".join(ders)).hexdigest()

    def __eq__(self, other: object) -> bool:
        return self.id == other.id if isinstance(other, Authorities) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.id)


@implementer(IOpenSSLServerConnectionCreator)
class ClientTls:
    """Makes the dispatcher's end of each connection, with the certificate of the moment.

    TLS 1.2 and up, with forward secrecy, without renegotiation. No session is resumed: so each
    connection proves by itself who the client is, under the authorities of the moment.

    :param options: the dispatcher's certificate and its key.
    :param authorities: who signs the certificates of clients, None if nobody does.
    :raises OpenSSL.SSL.Error: if OpenSSL does not take the certificate.
    """

    def __init__(self, options: CertificateOptions, authorities: Authorities | None = None) -> None:
        self._use(_context(options, authorities), authorities)

    def become(self, other: ClientTls) -> None:
        """Be like another one from now on; connections that there are stay as they are."""
        self._use(other._context, other._authorities)

    def serverConnectionForTLS(self, tlsProtocol: object) -> SSL.Connection:
        """Return the connection."""
        return ClientConnection(self._context, self._authorities)

    def _use(self, context: SSL.Context, authorities: Authorities | None) -> None:
        self._context = context
        self._authorities = authorities


class ClientConnection(SSL.Connection):
    """One connection, which remembers what was found wrong with the client's certificate."""

    def __init__(self, context: SSL.Context, authorities: Authorities | None) -> None:
        super().__init__(context, None)
        self.has_fault = authorities is None
        self._authorities = authorities

    @property
    def certificate(self) -> Certificate | None:
        """The certificate whose key the client has, when the handshake is complete."""
        found = self.get_peer_certificate()
        if found is None:
            return None
        der = crypto.dump_certificate(crypto.FILETYPE_ASN1, found)
        verified = None if self.has_fault or not self._authorities else self._authorities.id
        return Certificate(fingerprint_of(der), names(der), verified)


def names(der: bytes) -> frozenset[str]:
    """Return what a certificate is made out to, in lower case; nothing if that is malformed."""
    try:
        certificate = x509.load_der_x509_certificate(der)
        common = certificate.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
        found = [str(each.value) for each in common]
        for extension in certificate.extensions:
            if isinstance(extension.value, x509.SubjectAlternativeName):
                for kind in (x509.DNSName, x509.RFC822Name, x509.UniformResourceIdentifier):
                    found += extension.value.get_values_for_type(kind)
    except Exception:  # of many kinds: OpenSSL took it, but anybody could have made it
        return frozenset()
    return frozenset(each.lower() for each in found)


def _context(options: CertificateOptions, authorities: Authorities | None) -> SSL.Context:
    assert options.certificate is not None
    assert options.privateKey is not None
    context = SSL.Context(SSL.TLS_SERVER_METHOD)
    context.set_min_proto_version(SSL.TLS1_2_VERSION)
    context.set_options(SSL.OP_NO_RENEGOTIATION | SSL.OP_NO_COMPRESSION | SSL.OP_NO_TICKET)
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    context.set_mode(SSL.MODE_RELEASE_BUFFERS)
    context.use_certificate(options.certificate.to_cryptography())
    for each in options.extraCertChain:
        context.add_extra_chain_cert(each.to_cryptography())
    key: Any = options.privateKey.to_cryptography_key()
    context.use_privatekey(key)
    context.check_privatekey()
    if authorities is not None:
        store = context.get_cert_store()
        assert store is not None
        for authority in authorities.certificates:
            store.add_cert(crypto.X509.from_cryptography(authority))
        # Whoever is in the file is trusted, also where its own issuer is not there.
        store.set_flags(crypto.X509StoreFlags.PARTIAL_CHAIN)
    # A certificate is asked for also where only fingerprints are known, which need no authority.
    context.set_verify(SSL.VERIFY_PEER, _note_fault)
    context.set_cipher_list(CIPHERS)  # the last, for this makes a connection
    return context


def _note_fault(
    connection: SSL.Connection, certificate: crypto.X509, error: int, depth: int, ok: int
) -> bool:
    """Let every certificate pass, but remember that a faulty one proves no name.

    Who is refused for it is told so in words, as for a token that is not known.
    """
    if not ok:
        assert isinstance(connection, ClientConnection)
        connection.has_fault = True
    return True
