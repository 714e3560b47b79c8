"""One deadline at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import IDelayedCall


class Deadline:
    """What happens if nothing else does; a new deadline takes the place of the one before."""

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._pending: IDelayedCall | None = None

    def set(self, seconds: float, function: Callable[..., None], *args: Any) -> None:
        """Call a function after so many seconds."""
        self.clear()
        self._pending = self._reactor.callLater(seconds, function, *args)

    def clear(self) -> None:
        """Do not."""
        pending, self._pending = self._pending, None
        if pending is not None and pending.active():
            pending.cancel()
