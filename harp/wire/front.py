"""What the beginning of a request line says of who asks, while the rest is on its way.

It decides only whether the line may grow; who asks is taken from the whole request.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TypeVar

import msgspec

Auth = TypeVar("Auth", bound=msgspec.Struct)

# No part of a beginning is gone over twice (possessive quantifiers), so it takes no longer than it
# is long. The object holds no other and no list.
_SPACE = rb"[ \t\r\n]*+"
_OBJECT = rb'\{(?>[^"{}\[\]]++|"(?>[^"\\]++|\\.)*+")*+\}'


def auth_reader(version_key: str, type: type[Auth]) -> Callable[[bytes], Auth | None]:
    """Return a function that finds ``auth`` in the first bytes of a request line.

    It returns None if ``auth`` does not stand there, as a whole, before all else but the version.

    :param version_key: the key that must hold 1, it tells the protocol.
    :param type: what ``auth`` is in this protocol.
    """
    version = rb'"%b"%b:%b1%b,%b' % (version_key.encode(), *[_SPACE] * 4)
    start = rb'%b\{%b(?:%b)?+"auth"%b:%b' % (_SPACE, _SPACE, version, _SPACE, _SPACE)
    pattern = re.compile(start + b"(" + _OBJECT + b")", re.DOTALL)
    decoder = msgspec.json.Decoder(type)

    def read_auth(beginning: bytes) -> Auth | None:
        found = pattern.match(beginning)
        if found is None:
            return None
        try:
            return decoder.decode(found[1])
        except (msgspec.DecodeError, UnicodeDecodeError):
            return None

    return read_auth
