"""What is read item by item, whichever way the program waits for the next one."""

from __future__ import annotations

from typing import Any


class Items:
    """The core of every iterator of the client."""

    async def _next(self) -> Any:
        """Return the next item.

        :raises StopAsyncIteration: if there is none.
        """
        raise NotImplementedError

    async def _all(self) -> list[Any]:
        """Return what is left as a list, when the last of it has arrived."""
        items = []
        while True:
            try:
                items.append(await self._next())
            except StopAsyncIteration:
                return items

    def close(self) -> None:
        """Stop: there are no more items then. It may be called twice."""
        raise NotImplementedError
