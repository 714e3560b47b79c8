"""Where the next page of a list begins, as a text that a client hands back."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable
from typing import Generic, TypeVar

import msgspec

T = TypeVar("T")

MAX_BYTES = 1024 * 1024
"""The most bytes of text in the entries of one page; its first entry may be larger."""


class Page(msgspec.Struct, Generic[T], frozen=True):
    """A part of a list.

    :param cursor: asks for what comes after it; None if that was all.
    """

    items: list[T]
    cursor: str | None


class Cursor:
    """The numbers of an entry by which a list is ordered, and their text.

    :param format: of ``struct``, big-endian.
    """

    def __init__(self, format: str) -> None:
        self._format = struct.Struct(format)

    def write(self, *key: float) -> str:
        """Return the cursor that stands behind the entry of a key."""
        return self._format.pack(*key).hex()

    def page(
        self,
        entries: Iterable[tuple[tuple[float, ...], T, int]],
        limit: int,
        rest: tuple[float, ...] | None = None,
    ) -> Page[T]:
        """Take as many entries as fit on a page, the first of them in any case.

        :param entries: key, entry and its size in bytes; one more than the limit, if there are.
        :param rest: the key behind which the list goes on if there are no more entries.
        """
        items: list[T] = []
        size = 0
        last: tuple[float, ...] = ()
        for key, entry, length in entries:
            size += length
            if len(items) == limit or (items and size > MAX_BYTES):
                return Page(items, self.write(*last))
            items.append(entry)
            last = key
        return Page(items, None if rest is None else self.write(*rest))

    def read(self, text: str) -> tuple[float, ...]:
        """Return the key of a cursor.

        :raises ValueError: if it is not one of such a list.
        """
        try:
            key = self._format.unpack(bytes.fromhex(text))
        except (ValueError, struct.error):
            key = (math.nan,)
        if not all(map(math.isfinite, key)):
            raise ValueError("the cursor is not one that this list gave out")
        return key
