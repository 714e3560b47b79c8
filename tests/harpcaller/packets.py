"""Packets as the tests of the dispatcher write them."""

from __future__ import annotations

from harp.wire.packets import pack
from harpcaller.packets import Recorded


def recorded(first: int, *texts: bytes, at: float = 1002.5) -> Recorded:
    """Return packets that were recorded together, the JSON of each given."""
    return Recorded(first, pack(texts), at)
