"""The server's end of TLS: what it agrees to, its certificate, how long sessions can be resumed."""

from __future__ import annotations

from collections.abc import Callable
from copy import copy

from OpenSSL import SSL
from twisted.internet.interfaces import IOpenSSLServerConnectionCreator
from twisted.internet.ssl import CertificateOptions
from twisted.protocols.tls import TLSMemoryBIOProtocol
from zope.interface import implementer

TICKET_KEY_LIFE = 3600.0
"""Seconds for which a key that encrypts session tickets is used.

Who steals it from our memory can read what was recorded of TLS 1.2 sessions with such tickets. In
TLS 1.3 keys are exchanged in a resumed session too (psk_dhe_ke, RFC 8446).
"""

FORWARD_SECRET = b"ECDHE+AESGCM:ECDHE+CHACHA20"
"""Ciphers of TLS 1.2: who steals the certificate's key can't read what was recorded before (RFC
9325, 4.2). Those of TLS 1.3 all are of that kind; OpenSSL adds them."""


@implementer(IOpenSSLServerConnectionCreator)
class ServerTls:
    """Makes the server's end of each TLS connection, with the certificate of the moment.

    Clients may resume sessions. The keys of their tickets belong to the context, so they are new
    after each start and reload, and after `TICKET_KEY_LIFE`.

    :param seconds: a clock that never goes back.
    """

    def __init__(self, options: CertificateOptions, seconds: Callable[[], float]) -> None:
        self._seconds = seconds
        self.use(options)

    def use(self, options: CertificateOptions) -> None:
        """Show another certificate from now on."""
        self._options = options
        self._context = copy(options).getContext()  # which a copy does not share
        self._context.set_min_proto_version(SSL.TLS1_2_VERSION)
        self._context.set_cipher_list(FORWARD_SECRET)
        self._context.set_options(SSL.OP_NO_RENEGOTIATION)  # which costs us more than who asks
        self._renewal = self._seconds() + TICKET_KEY_LIFE

    def serverConnectionForTLS(self, tlsProtocol: TLSMemoryBIOProtocol) -> SSL.Connection:
        """Return the connection; those that there are keep the certificate they began with."""
        if self._seconds() >= self._renewal:
            self.use(self._options)
        return SSL.Connection(self._context, None)
