"""What stands under ``users`` in the configuration, with every mistake named by key and line."""

from __future__ import annotations

import pwd
import re
from collections.abc import Iterable
from typing import TypeVar

from harp.fingerprints import read_fingerprint
from harp.settings import Section
from harpcaller.identities import User, Users
from harpcaller.rules import RESERVED

_NAME = re.compile(r"[\w.@+-]{1,200}")
_HASH = re.compile("sha256:([0-9a-fA-F]{64})")

_HASH_WANTED = (
    'must be "sha256:" and 64 hexadecimal digits, the hash of a token as `harp token` prints it; '
    "a token itself must not stand here"
)

_Key = TypeVar("_Key", str, int)


def read_users(section: Section, verifies_names: bool) -> Users:
    """Read the users.

    :param verifies_names: whether there are authorities that verify the names in certificates.
    """
    reader = _Reader(verifies_names)
    for name in section.keys():  # noqa: SIM118 - it is no mapping
        if not _NAME.fullmatch(name) or name in RESERVED:
            section.mistake(name, "can't be the name of a user")
        else:
            reader.read(name, section.section(name))
    return reader.users()


class _Reader:
    def __init__(self, verifies_names: bool) -> None:
        self._verifies_names = verifies_names
        self._known: list[User] = []
        self._tokens: dict[str, User] = {}
        self._fingerprints: dict[str, User] = {}
        self._names: dict[str, User] = {}
        self._uids: dict[int, User] = {}

    def users(self) -> Users:
        """Return all that were read."""
        return Users(tuple(self._known), self._tokens, self._fingerprints, self._names, self._uids)

    def read(self, name: str, keys: Section) -> None:
        """Read one user."""
        groups, tags = (frozenset(keys.texts(key, [])) for key in ("groups", "tags"))
        user = User(name, groups, tags, keys.flag("trusted"))
        self._known.append(user)
        for text in keys.texts("tokens", []):
            found = _HASH.fullmatch(text)
            if found is None:
                keys.mistake("tokens", _HASH_WANTED)
            else:
                _claim(keys, "tokens", self._tokens, found[1].lower(), user)
        for number, text in enumerate(keys.texts("certificates", []), 1):
            self._read_certificate(number, text, keys, user)
        for uid in _listed(keys.names("uids", "a user of this machine by name or number")):
            self._read_uid(uid, keys, user)

    def _read_certificate(self, number: int, text: str, keys: Section, user: User) -> None:
        # The text is not repeated where it is wrong: it may be a token.
        if text.lower().startswith("sha256:"):
            try:
                found = read_fingerprint(text)
            except ValueError as error:
                keys.mistake("certificates", f"number {number} {error}")
            else:
                _claim(keys, "certificates", self._fingerprints, found, user)
        elif not self._verifies_names:
            what = "is a name, and client_ca_file, whose authorities would verify it, is missing"
            keys.mistake("certificates", f"number {number} {what}; or give the fingerprint")
        else:
            _claim(keys, "certificates", self._names, text.lower(), user)

    def _read_uid(self, uid: str | int, keys: Section, user: User) -> None:
        try:
            number = pwd.getpwnam(uid).pw_uid if isinstance(uid, str) else uid
        except KeyError:
            keys.mistake("uids", f"there is no user {str(uid)[:100]!r} on this machine")
            return
        if not 0 <= number < 2**32 - 1:
            keys.mistake("uids", f"{number} is no uid")
        else:
            _claim(keys, "uids", self._uids, number, user)


def _claim(keys: Section, key: str, claimed: dict[_Key, User], what: _Key, user: User) -> None:
    """Note for whom something stands, which may not stand for two."""
    other = claimed.setdefault(what, user)
    if other is not user:
        shown = "one of them" if key == "tokens" else f"{what!r}"
        keys.mistake(key, f"{shown} stands for the user {other.name} already")


def _listed(value: str | int | list[str | int] | None) -> Iterable[str | int]:
    if value is None:
        return ()
    return value if isinstance(value, list) else [value]
