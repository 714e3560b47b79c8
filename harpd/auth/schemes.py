"""The kinds of password hashes: what each looks like, costs, and is verified and made with.

Whose hash it is, and what is asked of a password, is the business of others.
"""

from __future__ import annotations

import hmac
import re
import secrets
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from functools import cache, partial

import argon2
import bcrypt
from argon2.low_level import Type
from passlib.hash import sha256_crypt, sha512_crypt

from harpd.auth.libcrypt import crypt

_BCRYPT_TAKES = 72  # bytes of a password; crypt(5)

# OWASP's Password Storage Cheat Sheet: 19 MiB, which two logins at once can have on any server.
_argon2 = argon2.PasswordHasher(time_cost=2, memory_cost=19 * 1024, parallelism=1, type=Type.ID)


@dataclass(frozen=True)
class Scheme:
    """A kind of hash.

    :param form: of a whole hash; its group ``cost`` is what the time of a hashing depends on.
    :param usual: what `form` need not name where the cost is this one.
    :param verify: tells whether a password has the hash; both in bytes.
    :param make: returns a new hash.
    :param is_there: tells whether this machine can do either.
    :param longest: the longest password in bytes of which `make` takes account, None for all.
    """

    name: str
    form: re.Pattern[str]
    verify: Callable[[bytes, bytes], bool]
    make: Callable[[bytes], str]
    is_there: Callable[[], bool] = lambda: True
    usual: str | None = None
    longest: int | None = None


@dataclass(frozen=True)
class StoredHash:
    """A hash that can be verified.

    :param cost: equal where the time of a hashing is.
    """

    scheme: Scheme
    text: str
    cost: Hashable

    def verify(self, password: bytes) -> bool:
        """Tell whether this is the hash of a password, which has no NUL byte."""
        return self.scheme.verify(password, self.text.encode())


def read(text: str) -> StoredHash:
    """Return what a hash is.

    :raises ValueError: that says why it can't be verified, without the hash.
    """
    for scheme in SCHEMES:
        match = scheme.form.fullmatch(text)
        if match is None:
            continue
        if not scheme.is_there():
            raise ValueError(f"this machine can't verify {scheme.name}: its libcrypt lacks it")
        return StoredHash(scheme, text, (scheme.name, match["cost"] or scheme.usual))
    raise ValueError(f"no hash that can be verified; known are {KNOWN}")


def _crypt_verify(password: bytes, stored: bytes) -> bool:
    found = crypt(password, stored)
    return found is not None and hmac.compare_digest(found, stored)


def _crypt_make(prefix: bytes, password: bytes) -> str:
    salt = secrets.token_hex(8).encode()  # 16 characters, of those that all schemes have
    found = crypt(password, b"%b%b$" % (prefix, salt))
    if found is None:
        raise ValueError("this machine's libcrypt can't make such a hash")
    return found.decode()


@cache
def _has(setting: bytes) -> bool:
    return crypt(b"x", setting) is not None


def _sha_verify(slow: type[sha512_crypt], password: bytes, stored: bytes) -> bool:
    if _has(_SHA_PROBES[slow]):
        return _crypt_verify(password, stored)
    return bool(slow.verify(password, stored))


def _bcrypt_verify(password: bytes, stored: bytes) -> bool:
    return bcrypt.checkpw(password[:_BCRYPT_TAKES], stored)


def _argon2_verify(password: bytes, stored: bytes) -> bool:
    try:
        return _argon2.verify(stored, password)
    except argon2.exceptions.VerifyMismatchError:
        return False


_SHA_PROBES = {sha256_crypt: b"$5$rounds=1000$a$", sha512_crypt: b"$6$rounds=1000$a$"}
_YESCRYPT_PROBE = b"$y$j75$saltsalt$"
_BASE64 = "[./0-9A-Za-z]"
_ROUNDS = r"(?:rounds=(?P<cost>[1-9][0-9]{3,8})\$)?[^$:\s]{0,16}\$"

ARGON2ID = Scheme(
    "argon2id",
    re.compile(
        r"\$argon2id\$(?P<cost>v=19\$m=[1-9][0-9]{0,8},t=[1-9][0-9]{0,5},p=[1-9][0-9]{0,3})"
        r"\$[+/0-9A-Za-z]{11,86}\$[+/0-9A-Za-z]{16,86}"
    ),
    _argon2_verify,
    _argon2.hash,
)

SCHEMES = (
    ARGON2ID,
    Scheme(
        "yescrypt",
        re.compile(rf"\$y\$(?P<cost>{_BASE64}+)\${_BASE64}{{0,86}}\${_BASE64}{{43}}"),
        _crypt_verify,
        partial(_crypt_make, b"$y$j9T$"),  # the cost that Debian gives to its own users
        lambda: _has(_YESCRYPT_PROBE),
    ),
    Scheme(
        "bcrypt",
        re.compile(rf"\$2[aby]\$(?P<cost>0[4-9]|[12][0-9]|3[01])\${_BASE64}{{53}}"),
        _bcrypt_verify,
        lambda password: bcrypt.hashpw(password, bcrypt.gensalt()).decode(),
        longest=_BCRYPT_TAKES,
    ),
    Scheme(
        "sha512",
        re.compile(rf"\$6\${_ROUNDS}{_BASE64}{{86}}"),
        partial(_sha_verify, sha512_crypt),
        sha512_crypt.using(rounds=100_000).hash,
        usual="5000",
    ),
    Scheme(
        "sha256",
        re.compile(rf"\$5\${_ROUNDS}{_BASE64}{{43}}"),
        partial(_sha_verify, sha256_crypt),
        sha256_crypt.using(rounds=100_000).hash,
        usual="5000",
    ),
)
"""In the order in which they are to be preferred."""

KNOWN = "$argon2id$, $y$ (yescrypt), $2a$ $2b$ $2y$ (bcrypt), $6$ (SHA-512) and $5$ (SHA-256)"
