"""What the beginning of a request line tells: who is calling, or whether it is one at all."""

from __future__ import annotations

import re

import msgspec

from harp.wire.harpd import Auth

# Nothing is tried twice: quantifiers that give nothing back (possessive, since Python 3.11).
_STRING = rb'"(?:[^"\\]|\\.)*+"'
_BEGINNING = rb"\s*+\{\s*+"
_VERSION = rb'"harp"\s*+:\s*+1\s*+,\s*+'
_FLAT_OBJECT = rb'\{(?:[^"{}\[\]]|' + _STRING + rb")*+\}"
_LOGIN = re.compile(
    _BEGINNING + rb"(?:" + _VERSION + rb')?"auth"\s*+:\s*+(' + _FLAT_OBJECT + rb")", re.DOTALL
)
_REQUEST = re.compile(_BEGINNING + rb'"(?:harp|procedure|arguments|auth)"\s*+:')


def login_in_front(beginning: bytes) -> Auth | None:
    """Return the login that stands in front of all else but the version, None if there is none.

    It tells nothing of the request itself, which may have another one.

    :param beginning: the first bytes of a request line.
    """
    found = _LOGIN.match(beginning)
    if found is None:
        return None
    try:
        return msgspec.json.decode(found[1], type=Auth)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def looks_like_request(beginning: bytes) -> bool:
    """Tell whether a line begins like a request of version 1, in whichever order its keys are."""
    return _REQUEST.match(beginning) is not None
