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
    as in memory, however small the pieces are in which it comes. Whole lines stay together until
    they are taken.

    :param limit: the longest line in bytes, its end not counted.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._lines = b""
        self._taken = 0  # of these, in bytes
        self._cut: deque[bytes] = deque()  # what is not taken, if it is taken line by line
        self._started = bytearray()
        self._too_long = False

    def feed(self, data: bytes) -> None:
        """Take what has arrived; past a line over the limit everything is thrown away."""
        if self._too_long:
            return
        end = data.rfind(b"\n") + 1
        if end:
            lines = bytes(self._started) + data[:end]
            self._started.clear()
            # No line of a short text can be too long.
            lines = lines if len(lines) <= self._limit else self._legal(lines)
            self._lines = self.lines + lines
            self._taken = 0
            self._cut.clear()
        # The one byte over the limit may be the \r of the line's end.
        if len(self._started) + len(data) - end > self._limit + 1:
            self._too_long = True
        if self._too_long:
            self._started.clear()
        else:
            self._started += data[end:]

    def next_line(self) -> bytes | None:
        """Return the next whole line without its end, or None while more is needed.

        :raises LineTooLongError: once the lines before the one over the limit are taken.
        """
        if not self._cut:
            if not self._lines:
                if self._too_long:
                    raise LineTooLongError(f"a line is longer than {self._limit} bytes")
                return None
            self._cut.extend(self.lines.split(b"\n"))
            self._cut.pop()
        line = self._cut.popleft()
        self._taken += len(line) + 1
        if not self._cut:
            self._lines = b""
            self._taken = 0
        return line.removesuffix(b"\r")

    @property
    def lines(self) -> bytes:
        r"""The whole lines that are not taken yet, each with its ``\n``."""
        return self._lines[self._taken :] if self._taken else self._lines

    def take(self, size: int) -> None:
        """Take the first of these lines, so many bytes."""
        self._lines = self._lines[self._taken + size :]
        self._taken = 0
        self._cut.clear()

    @property
    def size(self) -> int:
        """How much has arrived behind the last line taken, in bytes."""
        return len(self._lines) - self._taken + len(self._started)

    def beginning(self, size: int) -> bytes:
        """Return the first of these bytes, at most so many."""
        lines = self._lines[self._taken : self._taken + size]
        return lines + bytes(self._started[: size - len(lines)])

    @property
    def has_more(self) -> bool:
        """Whether anything has arrived behind the last line taken."""
        return bool(self._lines or self._started or self._too_long)

    def _legal(self, lines: bytes) -> bytes:
        """Return the lines before the first one that is too long."""
        start = 0
        while start < len(lines):
            end = lines.index(b"\n", start)
            length = end - start - lines.endswith(b"\r", start, end)
            if length > self._limit:
                self._too_long = True
                break
            start = end + 1
        return lines[:start]
