"""What the beginning of a request line says of who asks, while the rest is on its way.

It decides only whether the line may grow; who asks is taken from the whole request.
"""

from __future__ import annotations

import re

import msgspec

from harp.wire import dispatcher as wire

_SPACE = rb"[ \t\r]*+"
_STRING = rb'"(?>[^"\\]++|\\.)*+"'
# The order is that in which requests are written (harp.wire.dispatcher.base). No part of it is gone
# over twice, so it takes no longer than the line is long.
_BEGINNING = re.compile(
    rb'%b\{%b"harpcaller"%b:%b1%b,%b"auth"%b:%b(\{(?>[^"{}]++|%b)*+\})' % (*[_SPACE] * 8, _STRING),
    re.DOTALL,
)
_decoder = msgspec.json.Decoder(wire.Auth)


def early_auth(beginning: bytes) -> wire.Auth | None:
    """Return who asks, None if that does not stand at the beginning of the line."""
    found = _BEGINNING.match(beginning)
    if found is None:
        return None
    try:
        return _decoder.decode(found[1])
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
