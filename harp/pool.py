"""The connections to one daemon that stay open, and what it was found to offer meanwhile."""

from __future__ import annotations

import weakref
from collections import deque
from contextlib import suppress

from harp.network import Channel, Endpoint

IDLE_LIMIT = 45.0
"""Seconds without use after which a connection is not used again; the dispatcher closes it after
60, harpd after 120. What a dispatcher offers is asked again after as many, for it may be another
one then."""

MAX_IDLE = 16
"""How many connections are kept open for the next requests, at most."""


class Pool:
    """Idle connections.

    Threads may share it: all that is shared changes in single steps. A child process uses none of
    its parent's connections (`Channel.is_quiet`). A copy or a pickle begins with nothing but the
    endpoint.
    """

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self._idle: deque[tuple[Channel, float]] = deque()
        self._offered: tuple[frozenset[str], float] | None = None
        # Not __del__: in a circle that is garbage, the sockets may be finalized before this object.
        weakref.finalize(self, _abandon, self._idle)

    @property
    def offered(self) -> frozenset[str] | None:
        """What the daemon offers beside version 1, None if that is not known."""
        known = self._offered  # read once, for another thread may forget it
        if known is None or self.endpoint.now() >= known[1]:
            return None
        return known[0]

    def remember(self, offered: frozenset[str], seconds: float | None = None) -> None:
        """Remember what the daemon offers.

        :param seconds: for how long, as long as a connection if nothing is said.
        """
        until = self.endpoint.now() + (IDLE_LIMIT if seconds is None else seconds)
        self._offered = (offered, until)

    def take(self) -> Channel | None:
        """Return a connection that was kept open, None if there is none."""
        with suppress(IndexError):  # another thread may take the last one
            while True:
                channel, since = self._idle.pop()
                if self.endpoint.now() - since < IDLE_LIMIT and channel.is_quiet():
                    return channel
                channel.close()
                self.forget()
        return None

    def give(self, channel: Channel) -> None:
        """Take a connection that can carry another request."""
        now = self.endpoint.now()
        self._idle.append((channel, now))
        known = self._offered
        if known is not None:
            self._offered = (known[0], now + IDLE_LIMIT)
        with suppress(IndexError):
            while len(self._idle) > MAX_IDLE or now - self._idle[0][1] >= IDLE_LIMIT:
                self._idle.popleft()[0].close()

    def forget(self) -> None:
        """Begin again with no connection and no knowledge."""
        self._offered = None
        with suppress(IndexError):
            while True:
                self._idle.pop()[0].close()

    def __getstate__(self) -> dict[str, Endpoint]:
        return {"endpoint": self.endpoint}

    def __setstate__(self, state: dict[str, Endpoint]) -> None:
        Pool.__init__(self, state["endpoint"])


def _abandon(idle: deque[tuple[Channel, float]]) -> None:
    with suppress(IndexError):
        while True:  # at the end of a program its other threads may still take and give
            idle.pop()[0].abandon()
