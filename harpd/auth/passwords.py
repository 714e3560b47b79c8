"""Stored passwords, and whether one that was given is right.

libpass does the hashing: it knows the schemes of crypt(5) that existing files have, and Python's
own crypt module is gone since 3.13.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping

from passlib.context import CryptContext

_schemes = CryptContext(schemes=["sha512_crypt", "sha256_crypt"])

SCHEMES = "$5$ (SHA-256) and $6$ (SHA-512)"


def is_known_hash(stored: str) -> bool:
    """Tell whether a hash of crypt(5) is of a scheme that can be verified, and whole."""
    scheme = _schemes.identify(stored, resolve=True)
    try:
        return scheme is not None and scheme.from_string(stored).checksum is not None
    except ValueError:
        return False


class PasswordTable:
    """Users with their hashes or passwords.

    :param hashes: hash of crypt(5) by user.
    :param plain: password by user.
    """

    def __init__(self, hashes: Mapping[str, str], plain: Mapping[str, str] | None = None) -> None:
        self._hashes = hashes
        self._plain = plain or {}
        self._decoy = next(iter(hashes.values()), _DECOY)

    def verify(self, user: str, password: str) -> bool:
        """Tell whether this is the user's password; takes as long for every user.

        A user without a hash costs the hashing of the first user who has one.
        """
        try:
            matches = bool(_schemes.verify(password, self._hashes.get(user, self._decoy)))
        except ValueError:  # a NUL byte in the password
            return False
        if user in self._plain:
            return hmac.compare_digest(self._plain[user].encode(), password.encode())
        return matches and user in self._hashes


# The 5000 rounds of crypt(5) where a hash does not name another number.
_DECOY = str(_schemes.hash("", scheme="sha512_crypt", rounds=5000))
