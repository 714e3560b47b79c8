"""What a harpd's certificate says, without any trust in it.

Nothing is decided here: who is asked whether to trust it is ``harp.cli.trust``'s.
"""

from __future__ import annotations

import socket
import ssl
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding

from harp.cli.output import escaped
from harp.fingerprints import fingerprint_of
from harp.network import Address

MAX_NAMES = 20
"""How many names of a certificate are shown."""

GOODBYE = 1.0
"""Seconds to wait for the end of a connection in good order."""


class Unreachable(Exception):
    """No certificate came from there; the text says why."""


def fetch(address: Address) -> x509.Certificate:
    """Return the certificate that is shown at an address, whoever shows it.

    :raises Unreachable: if there is none.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        where, limit = (address.host, address.port), address.connect_timeout
        with (
            socket.create_connection(where, limit) as plain,
            context.wrap_socket(plain, server_hostname=address.host) as secured,
        ):
            shown = secured.getpeercert(binary_form=True)
            with suppress(OSError):  # a goodbye: else what it sends meanwhile resets the connection
                secured.settimeout(GOODBYE)
                secured.unwrap()
        assert shown is not None  # a server has to show one
        return x509.load_der_x509_certificate(shown)
    except ssl.SSLError as error:
        raise Unreachable(f"no TLS came about there: {error.reason or error}") from error
    except OSError as error:
        raise Unreachable(error.strerror or str(error)) from error
    except ValueError as error:  # a name that can't be one, or a certificate
        raise Unreachable(str(error)) from error


@dataclass(frozen=True)
class Facts:
    """What is shown of a certificate; the texts are fit for a terminal.

    :param names: to which it is made out, as they stand there, in small letters.
    """

    subject: str
    issuer: str
    names: tuple[str, ...]
    begins: datetime
    ends: datetime
    is_self_signed: bool
    fingerprint: str

    @property
    def validity(self) -> str:
        """Return from when to when it is valid, and how far that is from now."""
        now = datetime.now(UTC)
        span = f"{self.begins:%Y-%m-%d %H:%M} to {self.ends:%Y-%m-%d %H:%M} UTC"
        if now >= self.ends:
            return f"{span}, EXPIRED {_days((now - self.ends).days)} ago"
        if now < self.begins:
            return f"{span}, NOT VALID for another {_days((self.begins - now).days)}"
        return f"{span}, {_days((self.ends - now).days)} left"

    def lines(self) -> list[str]:
        """Return all of it for people."""
        names = ", ".join(self.names[:MAX_NAMES]) or "none"
        if len(self.names) > MAX_NAMES:
            names += f" and {len(self.names) - MAX_NAMES} more"
        issuer = "itself (self-signed)" if self.is_self_signed else self.issuer
        return [
            f"subject      {self.subject or 'none'}",
            f"made out to  {names}",
            f"issued by    {issuer or 'nobody'}",
            f"valid        {self.validity}",
            f"fingerprint  {self.fingerprint}",
        ]

    def told(self) -> dict[str, Any]:
        """Return all of it for programs; times in unix seconds."""
        return {
            "subject": self.subject,
            "names": list(self.names),
            "issuer": self.issuer,
            "self_signed": self.is_self_signed,
            "begins": self.begins.timestamp(),
            "ends": self.ends.timestamp(),
            "fingerprint": self.fingerprint,
        }


def facts(certificate: x509.Certificate) -> Facts:
    """Return what a certificate says.

    :raises ValueError: if it can't be understood.
    """
    return Facts(
        _cut(certificate.subject.rfc4514_string()),
        _cut(certificate.issuer.rfc4514_string()),
        tuple(names(certificate)),
        certificate.not_valid_before_utc,
        certificate.not_valid_after_utc,
        _is_self_signed(certificate),
        fingerprint_of(certificate.public_bytes(Encoding.DER)),
    )


def names(certificate: x509.Certificate) -> list[str]:
    """Return to which names and addresses it is made out; else its common name, if it has one.

    :raises ValueError: if they can't be understood.
    """
    try:
        extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except (x509.ExtensionNotFound, x509.DuplicateExtension):
        common = certificate.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
        return [_cut(str(each.value).lower()) for each in common]
    found = extension.value
    dns = found.get_values_for_type(x509.DNSName)
    addresses = found.get_values_for_type(x509.IPAddress)
    return [_cut(str(each).lower()) for each in (*dns, *addresses)]


def _is_self_signed(certificate: x509.Certificate) -> bool:
    if certificate.issuer != certificate.subject:
        return False
    with suppress(InvalidSignature, UnsupportedAlgorithm, ValueError, TypeError):
        certificate.verify_directly_issued_by(certificate)
        return True
    return False


def _cut(text: str, length: int = 300) -> str:
    text = escaped(text)
    return text if len(text) <= length else f"{text[:length]}…"


def _days(number: int) -> str:
    return "1 day" if number == 1 else f"{number} days"
