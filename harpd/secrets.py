"""Which arguments may be shown, and how a call's arguments look without the others.

What is not known to be open is not shown: a misspelt name may stand before a password.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from harp.wire.text import encode

PLACEHOLDER = msgspec.Raw(b'"(secret)"')
"""What stands in the place of a value that is not shown."""

_decoder = msgspec.json.Decoder(list[msgspec.Raw] | dict[str, msgspec.Raw])


@dataclass(frozen=True)
class Shown:
    """The arguments of a procedure that may be shown.

    :param count: how many there are in all that have a place of their own.
    :param places: the places of those that may be shown.
    :param names: the names of those that may be shown.
    :param rest: whether what is beyond the places may be shown.
    :param extra: the names that are secret or no parameter's, where others may be shown; None where
        only ``names`` may.
    """

    count: int = 0
    places: Sequence[int] = ()
    names: Sequence[str] = ()
    rest: bool = False
    extra: Sequence[str] | None = None

    def arguments(self, arguments: bytes) -> bytes:
        """Return the arguments as they may be shown.

        :param arguments: JSON of a list or an object, and so is what is returned.
        """
        given = _decoder.decode(arguments)
        if isinstance(given, dict):
            return encode({n: v if self._shows_name(n) else PLACEHOLDER for n, v in given.items()})
        return encode([v if self._shows_place(n) else PLACEHOLDER for n, v in enumerate(given)])

    def _shows_place(self, place: int) -> bool:
        return place in self.places if place < self.count else self.rest

    def _shows_name(self, name: str) -> bool:
        return name in self.names or (self.extra is not None and name not in self.extra)
