"""TLS sessions, kept so that the next connection with the same host costs less.

A resumed handshake does not show the certificate again. What may be kept at all, and when a
session is used, is decided in ``harpcaller.trust``.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import NamedTuple

from OpenSSL import SSL

MAX_SESSIONS = 5000
"""Sessions that are kept, of all hosts; each is 7 KB."""

JUDGED_FOR = 3600.0
"""Seconds after which a certificate is to be judged again, for it may have expired."""


class JudgedSession(NamedTuple):
    """A session, and when the certificate was judged that the first of its line was shown."""

    session: SSL.Session
    judged: float


class Sessions:
    """The sessions of all hosts under one trust; each is used once (RFC 8446, appendix C.4).

    :param seconds: returns the time.
    """

    def __init__(self, seconds: Callable[[], float]) -> None:
        self.seconds = seconds
        self._kept: OrderedDict[Hashable, list[JudgedSession]] = OrderedDict()
        self._count = 0

    def take(self, host: Hashable) -> JudgedSession | None:
        """Return a session with a host, which is not kept any more; None if there is none."""
        kept = self._kept.pop(host, [])
        self._count -= len(kept)
        fresh = [each for each in kept if each.judged + JUDGED_FOR > self.seconds()]
        taken = fresh.pop() if fresh else None
        if fresh:
            self._kept[host] = fresh
            self._count += len(fresh)
        return taken

    def keep(self, host: Hashable, session: JudgedSession) -> None:
        """Keep a session for the next connection; when there are too many the oldest host's go."""
        while self._count >= MAX_SESSIONS:
            self._count -= len(self._kept.popitem(last=False)[1])
        self._kept.setdefault(host, []).append(session)
        self._kept.move_to_end(host)
        self._count += 1
