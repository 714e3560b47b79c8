"""How many connections there may be, in all and of one address; who has no login gives way.

What is to be done with a connection is the business of `harpd.protocol`.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

from harpd.limits import Limits

T = TypeVar("T", bound=Hashable)

GIVES_WAY_AFTER = 1.0
"""Seconds after which a connection without a login gives way to a new one, where there are too
many: who means it has sent his request by then. Before that the new one is refused, for when
hundreds of good ones come at once, none would get to its end."""


class Places(Generic[T]):
    """The connections that there are.

    :param seconds: a clock that never goes back.
    :param limits: returns those that are in force.
    """

    def __init__(self, seconds: Callable[[], float], limits: Callable[[], Limits]) -> None:
        self._seconds = seconds
        self._limits = limits
        self._all: dict[T, str] = {}
        self._count: dict[str, int] = {}
        self._strangers: dict[str, dict[T, float]] = {}  # since when, the oldest first
        self._strangers_of_all: dict[T, float] = {}

    def __len__(self) -> int:
        return len(self._all)

    def find(self, address: str) -> tuple[bool, T | None]:
        """Tell whether there is a place for one more of an address, and who has to go for it."""
        limits = self._limits()
        strangers = self._strangers.get(address, {})
        if (
            self._count.get(address, 0) >= limits.max_connections_per_address
            or len(strangers) >= limits.connections_before_login_per_address
        ):
            oldest = next(iter(strangers.items()), None)
        elif (
            len(self._all) >= limits.max_connections
            or len(self._strangers_of_all) >= limits.connections_before_login
        ):
            oldest = next(iter(self._strangers_of_all.items()), None)
        else:
            return True, None
        if oldest is None or self._seconds() - oldest[1] < GIVES_WAY_AFTER:
            return False, None
        return True, oldest[0]

    def enter(self, connection: T, address: str) -> None:
        """Count a connection, which has no login yet."""
        self._all[connection] = address
        self._count[address] = self._count.get(address, 0) + 1
        now = self._seconds()
        self._strangers.setdefault(address, {})[connection] = now
        self._strangers_of_all[connection] = now

    def logged_in(self, connection: T) -> None:
        """Note that a connection has a login."""
        if self._strangers_of_all.pop(connection, None) is not None:
            address = self._all[connection]
            strangers = self._strangers[address]
            del strangers[connection]
            if not strangers:
                del self._strangers[address]

    def leave(self, connection: T) -> None:
        """Count a connection no more."""
        if connection in self._all:
            self.logged_in(connection)
            address = self._all.pop(connection)
            self._count[address] -= 1
            if not self._count[address]:
                del self._count[address]
