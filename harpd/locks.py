"""Who has each lock and who waits for it, first come first served. No I/O: it knows no calls."""

from __future__ import annotations

from collections import OrderedDict
from typing import Generic, TypeVar

T = TypeVar("T")


class Locks(Generic[T]):
    """The locks of one daemon. A lock that nobody has or wants takes no memory."""

    def __init__(self) -> None:
        # The first of a line has the lock. A dict would look at all that have left before him.
        self._lines: dict[str, OrderedDict[T, None]] = {}

    def is_taken(self, name: str) -> bool:
        """Tell whether somebody has the lock."""
        return name in self._lines

    def join(self, name: str, who: T) -> bool:
        """Take the lock or a place in its line.

        :param who: is not in this line yet.
        :return: whether it is the lock.
        """
        line = self._lines.setdefault(name, OrderedDict())
        line[who] = None
        return len(line) == 1

    def leave(self, name: str, who: T) -> T | None:
        """Give back the lock or the place in its line.

        :return: who has the lock now, if it has just come to him.
        """
        line = self._lines[name]
        had_it = next(iter(line)) == who
        del line[who]
        if not line:
            del self._lines[name]
            return None
        return next(iter(line)) if had_it else None
