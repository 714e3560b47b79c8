"""For both daemons: what is bounded by address, connections and failed logins.

What is refused for it, and with which words, is each daemon's own business.
"""

from __future__ import annotations

import ipaddress
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

_V6_PREFIX = 64
"""Bits of an IPv6 address that tell networks apart; one host may have all addresses of its own."""


def is_loopback(host: str) -> bool:
    """Return whether an IP address is this machine's own; what is no IP address is not."""
    found = _parsed(host)
    return found is not None and found.is_loopback


@lru_cache(1024)
def origin(host: str) -> str:
    """Return what addresses have in common that one peer may have at will."""
    found = _parsed(host)
    if isinstance(found, ipaddress.IPv6Address):
        return str(ipaddress.ip_network((int(found), _V6_PREFIX), strict=False))
    return str(found or host)


def _parsed(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        found = ipaddress.ip_address(host)
    except ValueError:
        return None
    return getattr(found, "ipv4_mapped", None) or found


@dataclass(frozen=True)
class Bounds:
    """How many connections there may be at once, in all and from one address."""

    total: int
    per_address: int


class Log(Protocol):
    """A logger of Twisted."""

    def warn(self, format: str, **fields: object) -> None:
        """Log something."""


class Crowd:
    """Counts the connections that there are.

    Those of this machine's own programs count in all, but not by their address, which all of them
    share. The last tenth is theirs alone: strangers who fill the rest do not keep them out. What is
    refused is logged, at most once a second.

    :param seconds: a clock that never goes back.
    """

    def __init__(self, seconds: Callable[[], float], log: Log, bounds: Bounds) -> None:
        self.bounds = bounds
        self._seconds = seconds
        self._log = log
        self._total = 0
        self._by_origin: dict[str, int] = {}
        self._untold = 0
        self._told: float | None = None

    @property
    def count(self) -> int:
        """How many connections there are."""
        return self._total

    def admits(self, host: str) -> bool:
        """Return whether one more may come from there; log it if not."""
        total = self.bounds.total
        if self._total >= (total - total // 10 if _is_counted(host) else total):
            why = f"there are {self._total}"
        elif self._by_origin.get(origin(host), 0) >= self.bounds.per_address:
            why = f"it has {self.bounds.per_address}"
        else:
            return True
        self._untold += 1
        now = self._seconds()
        if self._told is None or now >= self._told + 1:
            text = "{count} connections were refused, the last from {host}, for {why} already"
            self._log.warn(text, count=self._untold, host=host, why=why)
            self._told, self._untold = now, 0
        return False

    def enter(self, host: str) -> None:
        """Count a connection."""
        self._total += 1
        if _is_counted(host):
            key = origin(host)
            self._by_origin[key] = self._by_origin.get(key, 0) + 1

    def leave(self, host: str) -> None:
        """Count it no more."""
        self._total -= 1
        if _is_counted(host):
            key = origin(host)
            left = self._by_origin[key] - 1
            if left:
                self._by_origin[key] = left
            else:
                del self._by_origin[key]


def _is_counted(host: str) -> bool:
    found = _parsed(host)
    return found is not None and not found.is_loopback


FIRST_DELAY = 0.25
"""Seconds by which the first failure of an address is answered later."""

LONGEST_DELAY = 8.0
"""Seconds by which the answer to a failure is put off at most."""

FORGIVEN = 600.0
"""Seconds after its last failure from which on an address has no failures any more."""

MOST_ADDRESSES = 10_000
"""How many addresses' failures are remembered; those that failed longest ago are forgotten."""


class Failures:
    """Remembers who failed to log in, so that each failure takes longer than the one before.

    Only the answers to failures are put off: who knows the right word is answered at once, from
    wherever.

    :param seconds: a clock that never goes back.
    """

    def __init__(self, seconds: Callable[[], float]) -> None:
        self._seconds = seconds
        self._known: OrderedDict[str, tuple[int, float]] = OrderedDict()

    def note(self, host: str) -> float:
        """Note a failure, and return by how many seconds its answer is to be put off."""
        key, now = origin(host), self._seconds()
        count, last = self._known.pop(key, (0, now))
        if now >= last + FORGIVEN:
            count = 0
        self._known[key] = (count + 1, now)
        if len(self._known) > MOST_ADDRESSES:
            self._known.popitem(last=False)
        return float(min(FIRST_DELAY * 2 ** min(count, 10), LONGEST_DELAY))
