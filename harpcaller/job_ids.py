"""The ids of new jobs."""

from __future__ import annotations

import os
from collections.abc import Callable

_BYTES = 10  # of chance in an id
_BLOCK = 400 * _BYTES  # a system call for each id would cost more than the id


class JobIds:
    """Makes UUIDs of version 7 (RFC 9562, section 5.7).

    They begin with the time, so that the index of a million jobs grows at its end; that of random
    ones would have a page of its own to be written for every job.

    :param random: returns so many random bytes.
    """

    def __init__(self, random: Callable[[int], bytes] = os.urandom) -> None:
        self._random = random
        self._block = b""

    def new(self, now: float) -> str:
        """Return an id that no other job has: 74 of its bits are random.

        :param now: unix seconds.
        """
        if not self._block:
            self._block = self._random(_BLOCK)
        chance, self._block = self._block[:_BYTES].hex(), self._block[_BYTES:]
        time = f"{int(now * 1000) & 0xFFFFFFFFFFFF:012x}"
        variant = "89ab"[int(chance[3], 16) & 3]
        return f"{time[:8]}-{time[8:]}-7{chance[:3]}-{variant}{chance[4:7]}-{chance[7:19]}"
