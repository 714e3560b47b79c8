"""What is read item by item, whichever way the program waits for more."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any


class Items:
    """The core of every iterator of the client."""

    _ready: Iterator[Any] = iter(())
    """What has arrived and was not taken. It must not refer to this object: without a circle, the
    connection is closed as soon as a reader drops it."""

    async def _more(self) -> Iterator[Any]:
        """Wait for more items and return them, perhaps none.

        :raises StopAsyncIteration: if no more will come.
        """
        raise NotImplementedError

    async def _next(self) -> Any:
        """Return the next item.

        :raises StopAsyncIteration: if there is none.
        """
        while True:
            for item in self._ready:
                return item
            self._ready = await self._more()

    async def _all(self) -> list[Any]:
        """Return what is left as a list, when the last of it has arrived."""
        items: list[Any] = []
        while True:
            items.extend(self._ready)
            try:
                self._ready = await self._more()
            except StopAsyncIteration:
                return items

    def close(self) -> None:
        """Stop: there are no more items then. It may be called twice."""
        self._ready = iter(())
