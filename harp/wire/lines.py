"""Framing: a stream of bytes cut into lines, with a limit on what is ever kept of one line."""

from __future__ import annotations

from collections import deque

MAX_REQUEST = 1024 * 1024
"""The longest request line in bytes (protocol page, "Limits and flow")."""

MAX_REPLY = 16 * 1024 * 1024
"""The longest line of a reply in bytes; harpd refuses results that would make a longer one."""

ENVELOPE_ROOM = 4096
"""What a message may put around a payload that was legal in another message, in bytes."""


class LineTooLongError(Exception):
    """A line exceeded the limit. Nothing after it can be understood."""


class LineReader:
    r"""Cuts what arrives into lines ended by ``\n``; a ``\r`` before it is dropped.

    A line in the making grows in one buffer, so that its cost stays linear in its length in time
    as in memory, however small the pieces are in which it comes.

    :param limit: the longest line in bytes, its end not counted.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._lines: deque[bytes] = deque()
        self._started = bytearray()
        self._too_long = False

    def feed(self, data: bytes) -> None:
        """Take what has arrived; past a line over the limit everything is thrown away."""
        if self._too_long:
            return
        *whole, rest = data.split(b"\n")
        # What is no longer than the limit can hold no line that is, but for one begun before.
        careful = whole if len(data) > self._limit else whole[: bool(self._started)]
        for piece in careful:
            if not (self._keep(piece) and self._finish_line()):
                return
        lines = whole[len(careful) :]
        if b"\r" in data:
            lines = [line.removesuffix(b"\r") for line in lines]
        self._lines.extend(lines)
        self._keep(rest)

    def next_line(self) -> bytes | None:
        """Return the next whole line without its end, or None while more is needed.

        :raises LineTooLongError: once the lines before the one over the limit are taken.
        """
        if self._lines:
            return self._lines.popleft()
        if self._too_long:
            raise LineTooLongError(f"a line is longer than {self._limit} bytes")
        return None

    @property
    def has_more(self) -> bool:
        """Whether anything has arrived behind the last line taken."""
        return bool(self._lines or self._started or self._too_long)

    def _keep(self, piece: bytes) -> bool:
        # The one byte over the limit may be the \r of the line's end.
        if len(self._started) + len(piece) > self._limit + 1:
            return self._give_up()
        self._started += piece
        return True

    def _finish_line(self) -> bool:
        line = bytes(self._started.removesuffix(b"\r"))
        if len(line) > self._limit:
            return self._give_up()
        self._started.clear()
        self._lines.append(line)
        return True

    def _give_up(self) -> bool:
        self._too_long = True
        self._started.clear()
        return False
