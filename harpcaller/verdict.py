"""What is said of one certificate: that it is believed, or why not.

By which rules is ``harpcaller.trust``'s.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Protocol as Interface

from OpenSSL import SSL, crypto
from service_identity.exceptions import CertificateError
from service_identity.hazmat import DNS_ID, DNSPattern, IPAddress_ID, IPAddressPattern
from service_identity.pyopenssl import extract_patterns

from harp.fingerprints import fingerprint_of
from harpcaller.logs import logger

MAX_MESSAGE = 1000
"""The longest account of a refusal in characters; most of it is what the certificate says."""

MAX_DNS_NAME = 253
"""The longest DNS name in bytes (RFC 1035, 2.3.4, without the lengths of its labels)."""

_log = logger("harpcaller.verdict")

ServerId = DNS_ID | IPAddress_ID
"""What a certificate may be made out to."""

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


class Rules(Interface):
    """What a certificate is judged by.

    :ivar address: what the host is called in a refusal.
    :ivar fingerprints: those of the only certificates that are believed, none if others may be.
    :ivar known: certificates that are believed as they are, None if none are used.
    :ivar has_authorities: whether those that an authority signed may be believed.
    :ivar ids: what those must be made out to, one of them.
    """

    address: str
    fingerprints: frozenset[str]
    known: frozenset[bytes] | None
    has_authorities: bool
    ids: list[ServerId]


class Verdict:
    """Judges the chain of one connection, as OpenSSL's verify callback.

    OpenSSL calls it for each fault and then for each certificate that it finds right, the server's
    own at depth 0 as the last. Faults further up must be let through while that one may still turn
    out to be known; after it, no fault may pass (name constraints are checked that late).
    """

    def __init__(self, rules: Rules) -> None:
        self.was_asked = False
        self.refusal: str | None = None
        self._rules = rules
        self._fault: str | None = None
        is_any_known = rules.known is not None or bool(rules.fingerprints)
        self._is_known: bool | None = None if is_any_known else False

    def __call__(
        self, connection: SSL.Connection, certificate: crypto.X509, error: int, depth: int, ok: int
    ) -> bool:
        """Return whether OpenSSL is to go on."""
        self.was_asked = True
        try:
            why = self._judge(certificate, error, depth, bool(ok))
        except Exception:  # OpenSSL would lose it
            _log.failure("judging the certificate of {address}", address=self._rules.address)
            why = "it could not be examined"
        if why is not None:
            refusal = f"the certificate of {self._rules.address} is refused: {why}"
            self.refusal = refusal[:MAX_MESSAGE]
        return why is None

    def _judge(self, certificate: crypto.X509, error: int, depth: int, ok: bool) -> str | None:
        if not ok and self._fault is None:
            self._fault = _fault(certificate, error)
        if depth == 0 and self._is_known is None:
            der = crypto.dump_certificate(crypto.FILETYPE_ASN1, certificate)
            if self._rules.fingerprints:
                self._is_known = fingerprint_of(der) in self._rules.fingerprints
            else:
                self._is_known = der in (self._rules.known or ())
        if self._is_known or (depth > 0 and self._is_known is None):
            return None
        return self._refusal(certificate, depth)

    def _refusal(self, certificate: crypto.X509, depth: int) -> str | None:
        if self._rules.fingerprints:
            der = crypto.dump_certificate(crypto.FILETYPE_ASN1, certificate)
            return f"its fingerprint is {fingerprint_of(der)}, which the host's entry does not name"
        not_known = "it is not in known_certs_file"
        if not self._rules.has_authorities:
            return not_known
        refusal = self._fault
        if refusal is None and depth == 0:
            refusal = _name_mismatch(certificate, self._rules.ids)
        if refusal is not None and self._rules.known is not None:
            return f"{not_known}, and {refusal}"
        return refusal


def server_id(name: str) -> ServerId | None:
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


def _name_mismatch(certificate: crypto.X509, ids: list[ServerId]) -> str | None:
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
