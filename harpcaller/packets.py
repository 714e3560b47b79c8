"""Packets of a job as they were recorded: on their way from the store to those who follow it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from harp.wire.packets import Packets, encode_numbered
from harp.wire.text import encode


@dataclass(frozen=True)
class Recorded:
    """Packets that follow each other and were recorded together.

    :param first: the number of the first.
    :param recorded: when that was, in unix seconds.
    """

    first: int
    packets: Packets
    recorded: float

    @property
    def end(self) -> int:
        """The number of the packet that follows them."""
        return self.first + self.packets.count

    def lines(self, since: int, detail: bool) -> bytes:
        """Return the lines for a client.

        :param since: the number of the first packet that it wants.
        :param detail: whether it wants to know when each was recorded.
        """
        if since > self.first:
            texts = self.packets.texts[since - self.first :]
            return encode_numbered(since, texts, self._time if detail else None)
        return self._detailed if detail else self._plain

    # Made once for all who follow.

    @cached_property
    def _plain(self) -> bytes:
        return encode_numbered(self.first, self.packets.texts)

    @cached_property
    def _detailed(self) -> bytes:
        return encode_numbered(self.first, self.packets.texts, self._time)

    @property
    def _time(self) -> bytes:
        return encode(self.recorded)
