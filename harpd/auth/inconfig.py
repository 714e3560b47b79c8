"""Users in the configuration itself: ``users: {NAME: "crypt:HASH" or "plain:PASSWORD"}``."""

from __future__ import annotations

from harp.settings import Section
from harpd.auth import schemes
from harpd.auth.passwords import PasswordTable, can_be_hashed


def load(section: Section) -> PasswordTable:
    """Read the users; mistakes are noted in the section."""
    users = section.section("users")
    hashes: dict[str, schemes.StoredHash] = {}
    plain: dict[str, str] = {}
    for name in users.keys():  # noqa: SIM118 - a section is not a mapping
        value = users.text(name)
        scheme, _, secret = value.partition(":")
        if scheme == "plain" and not secret:
            users.mistake(name, "has no password")
        elif scheme == "plain" and not can_be_hashed(secret):
            users.mistake(name, "has a password that is too long, or a NUL character in it")
        elif scheme == "plain":
            plain[name] = secret
        elif scheme == "crypt":
            try:
                hashes[name] = schemes.read(secret)
            except ValueError as error:
                users.mistake(name, str(error))
        elif value:  # else it is noted already
            users.mistake(name, 'must begin with "crypt:" or "plain:"')
    return PasswordTable(hashes, plain)
