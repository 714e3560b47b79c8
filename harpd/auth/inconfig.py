"""Users in the configuration itself: ``users: {NAME: "crypt:HASH" or "plain:PASSWORD"}``."""

from __future__ import annotations

from harp.settings import Section
from harpd.auth.passwords import SCHEMES, PasswordTable, is_known_hash


def load(section: Section) -> PasswordTable:
    """Read the users; mistakes are noted in the section."""
    users = section.section("users")
    hashes: dict[str, str] = {}
    plain: dict[str, str] = {}
    for name in users.keys():  # noqa: SIM118 - a section is not a mapping
        value = users.text(name)
        scheme, _, secret = value.partition(":")
        if scheme == "plain" and not secret:
            users.mistake(name, "has no password")
        elif scheme == "plain":
            plain[name] = secret
        elif scheme == "crypt" and is_known_hash(secret):
            hashes[name] = secret
        elif scheme == "crypt":
            users.mistake(name, f"is not a hash that can be verified; known are {SCHEMES}")
        elif value:  # else it is noted already
            users.mistake(name, 'must begin with "crypt:" or "plain:"')
    return PasswordTable(hashes, plain)
