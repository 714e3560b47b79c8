"""One deadline at a time, for both daemons; the client library does not import this."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import IDelayedCall


class Deadline:
    """What happens if nothing else does; a new deadline takes the place of the one before.

    Its timer is put off or left to run out rather than cancelled and replaced: each request has
    several deadlines, and most never come.
    """

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._timer: IDelayedCall | None = None
        self._function: Callable[..., None] | None = None
        self._arguments: tuple[Any, ...] = ()

    def set(self, seconds: float, function: Callable[..., None], *arguments: Any) -> None:
        """Call a function after so many seconds."""
        self._function, self._arguments = function, arguments
        if self._timer is not None:
            if self._timer.getTime() <= self._reactor.seconds() + seconds:
                self._timer.reset(seconds)
                return
            self._timer.cancel()
        self._timer = self._reactor.callLater(seconds, self._come)

    def clear(self) -> None:
        """Do not; there may soon be another deadline."""
        self._function, self._arguments = None, ()

    def end(self) -> None:
        """Do not, and have no timer either."""
        self.clear()
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()

    def _come(self) -> None:
        self._timer = None
        function, arguments = self._function, self._arguments
        self.clear()
        if function is not None:
            function(*arguments)
