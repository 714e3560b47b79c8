"""Whose login may be checked now: of one address one after the other, and slower after failures."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Any

from twisted.internet.defer import Deferred, fail
from twisted.internet.interfaces import IDelayedCall

MAX_WAITING = 1000
"""How many logins may wait for their turn, of all addresses together."""

LONGEST_DELAY = 8.0
"""Seconds between two logins of an address with many failures; it begins with 1 after the second
failure, and each doubles it."""

LONGEST_WAIT = 30.0
"""Seconds that somebody waits for his turn behind failures; who would wait longer is refused."""

FORGOTTEN_AFTER = 600.0
"""Seconds after the last failure of an address until nothing is known of it."""

_MAX_ADDRESSES = 10_000


class TooManyLoginsError(Exception):
    """A login is not checked, for too many wait to be."""


@dataclass
class _Address:
    failures: int = 0
    last_failure: float = 0.0
    is_checked: bool = False
    is_served: bool = False
    waiting: deque[Deferred[None]] = field(default_factory=deque)
    timer: IDelayedCall | None = None

    @property
    def delay(self) -> float:
        return min(2.0 ** (self.failures - 2), LONGEST_DELAY) if self.failures > 1 else 0.0

    @property
    def room(self) -> float:
        """How many may wait."""
        return LONGEST_WAIT // self.delay if self.delay else MAX_WAITING


class Turns:
    """The lines in which logins wait, one for each address.

    :param clock: a reactor.
    """

    def __init__(self, clock: Any) -> None:
        self._clock = clock
        self._addresses: dict[str, _Address] = {}  # that failed last at the end
        self._waiting = 0

    def take(self, address: str) -> Deferred[None]:
        """Return what fires when it is this login's turn; `done` ends it. It may be cancelled.

        :raises TooManyLoginsError: (errback)
        """
        entry = self._addresses.setdefault(address, _Address())
        if entry.failures and self._clock.seconds() - entry.last_failure >= FORGOTTEN_AFTER:
            entry.failures = 0
        if len(entry.waiting) >= entry.room or self._waiting >= MAX_WAITING:
            self._forget_unused(address, entry)
            return fail(_refusal(entry))

        def cancelled(turn: Deferred[None]) -> None:
            entry.waiting.remove(turn)
            self._waiting -= 1
            if not entry.waiting and entry.timer is not None:
                entry.timer.cancel()
                entry.timer = None
            self._forget_unused(address, entry)

        turn: Deferred[None] = Deferred(cancelled)
        entry.waiting.append(turn)
        self._waiting += 1
        self._next(address, entry)
        return turn

    def done(self, address: str, has_failed: bool) -> None:
        """End the turn of a login, so that the next one's comes."""
        entry = self._addresses[address]
        entry.is_checked = False
        if has_failed:
            self._count(address, entry)
        self._next(address, entry)

    def failed(self, address: str) -> None:
        """Count a failure that needed no turn."""
        self._count(address, self._addresses.setdefault(address, _Address()))

    def _count(self, address: str, entry: _Address) -> None:
        entry.failures = min(entry.failures + 1, 100)
        entry.last_failure = self._clock.seconds()
        self._addresses[address] = self._addresses.pop(address)
        if len(self._addresses) > _MAX_ADDRESSES:
            unused = (key for key, each in self._addresses.items() if not _is_used(each))
            self._addresses.pop(next(unused, ""), None)
        while len(entry.waiting) > entry.room:
            self._waiting -= 1
            entry.waiting.pop().errback(_refusal(entry))

    def _next(self, address: str, entry: _Address) -> None:
        if entry.is_served:
            return  # by the loop below: hundreds that are decided at once must not be nested
        entry.is_served = True
        while entry.waiting and not entry.is_checked and entry.timer is None:
            delay = entry.last_failure + entry.delay - self._clock.seconds()
            if entry.delay and delay > 0:
                entry.timer = self._clock.callLater(delay, self._come, address, entry)
            else:
                entry.is_checked = True
                self._waiting -= 1
                entry.waiting.popleft().callback(None)
        entry.is_served = False
        self._forget_unused(address, entry)

    def _come(self, address: str, entry: _Address) -> None:
        entry.timer = None
        self._next(address, entry)

    def _forget_unused(self, address: str, entry: _Address) -> None:
        if not entry.failures and not _is_used(entry):
            self._addresses.pop(address, None)


def _is_used(entry: _Address) -> bool:
    return entry.is_checked or entry.is_served or bool(entry.waiting)


def _refusal(entry: _Address) -> TooManyLoginsError:
    if entry.delay:
        return TooManyLoginsError("too many logins from this address have failed: try again later")
    return TooManyLoginsError("too many logins wait to be checked: try again later")
