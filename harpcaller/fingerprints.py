"""Fingerprints: the SHA-256 of a certificate in DER, as configurations and refusals write it."""

from __future__ import annotations

import hashlib
import re

_FORM = re.compile(r"sha256:(?:[0-9a-f]{64}|[0-9a-f]{2}(?::[0-9a-f]{2}){31})", re.IGNORECASE)

HOW = 'must be "sha256:" and 64 hexadecimal digits, with or without colons between pairs'


def fingerprint_of(der: bytes) -> str:
    """Return the fingerprint of a certificate: ``sha256:`` and 64 small hexadecimal digits."""
    return f"sha256:{hashlib.sha256(der).hexdigest()}"


def read_fingerprint(text: str) -> str:
    """Return a fingerprint that somebody wrote as `fingerprint_of` writes it.

    OpenSSL and browsers put colons between the bytes and write large letters.

    :raises ValueError: if it is none.
    """
    if not _FORM.fullmatch(text):
        raise ValueError(HOW)
    return "sha256:" + text[len("sha256:") :].replace(":", "").lower()
