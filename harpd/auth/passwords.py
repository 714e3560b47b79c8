"""Stored passwords, and whether one that was given is right: as late for every user."""

from __future__ import annotations

import hmac
from collections.abc import Mapping

from harpd.auth.schemes import StoredHash

MAX_PASSWORD = 512
"""The longest password in bytes; libcrypt refuses longer ones (CRYPT_MAX_PASSPHRASE_SIZE)."""


def can_be_hashed(password: str) -> bool:
    """Tell whether a password is one that every scheme can hash."""
    return len(password.encode()) <= MAX_PASSWORD and "\0" not in password


class PasswordTable:
    """Users with their hashes or passwords.

    :param hashes: hash by user.
    :param plain: password by user.
    """

    def __init__(
        self, hashes: Mapping[str, StoredHash], plain: Mapping[str, str] | None = None
    ) -> None:
        self._hashes = hashes
        self._plain = plain or {}
        self._decoys = {stored.cost: stored for stored in hashes.values()}

    def verify(self, user: str, password: str) -> bool:
        """Tell whether this is the user's password.

        What is wrong costs one hashing of every cost that there is among the users, so that time
        does not tell which of them the user has, or that there is no such user. Therefore users
        whose hashes are all of one kind make for the shortest answers.
        """
        if not can_be_hashed(password):
            return False
        given = password.encode()
        stored = self._hashes.get(user)
        if stored is not None and stored.verify(given):
            return True
        for cost, decoy in self._decoys.items():
            if stored is None or stored.cost != cost:
                decoy.verify(given)
        return hmac.compare_digest(self._plain.get(user, "").encode(), given) and (
            user in self._plain
        )
