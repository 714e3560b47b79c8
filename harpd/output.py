"""What processes print, on its way to the log, under the name of the call that printed it."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from twisted.internet.abstract import FileDescriptor
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IReactorTime
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure

from harp.logs import CONTROL

_CHUNK = 65536  # bytes, a pipe's capacity (pipe(7))
_DRAIN = 16  # chunks read at the end, where another process may go on writing for ever


class PrintedText:
    """Makes log entries out of bytes: whole lines, as many at once as have come together.

    :param log: called with each entry, one or more lines without the last line's end.
    """

    def __init__(self, log: Callable[[str], None]) -> None:
        self._log = log
        self._rest = b""

    def feed(self, data: bytes) -> None:
        """Take what was printed; a line in the making is kept up to 64 KiB."""
        whole, end, rest = (self._rest + data).rpartition(b"\n")
        if len(rest) >= _CHUNK:
            whole, end, rest = whole + end + rest, b"\n", b""
        self._rest = rest
        if end:
            self._log(whole.decode(errors="backslashreplace").translate(CONTROL))

    def finish(self) -> None:
        """Log a last line that was not ended."""
        if self._rest:
            self.feed(b"\n")


class OutputPipe(FileDescriptor):
    """The reading end of the pipe that is a call's standard output and standard error.

    :param descriptor: belongs to the pipe from now on.
    """

    def __init__(self, reactor: Any, descriptor: int, log: Callable[[str], None]) -> None:
        super().__init__(reactor)
        self._clock: IReactorTime = reactor
        os.set_blocking(descriptor, False)
        self._descriptor = descriptor
        self._text = PrintedText(log)
        self.connected = 1
        self.startReading()

    def fileno(self) -> int:
        """Return the descriptor that the reactor watches."""
        return self._descriptor

    def doRead(self) -> Exception | None:
        """Take what has been printed."""
        try:
            data = os.read(self._descriptor, _CHUNK)
        except BlockingIOError:
            return None
        if not data:
            return ConnectionDone()
        self._text.feed(data)
        return None

    def finish(self) -> None:
        """Take what is still in the pipe and close it, even if somebody else holds its other end.

        Whoever the call left behind gets EPIPE, as behind a terminal that was closed.
        """
        for _ in range(_DRAIN):
            if not self.connected:
                return
            try:
                data = os.read(self._descriptor, _CHUNK)
            except BlockingIOError:
                break
            if not data:
                break
            self._text.feed(data)
        if self.connected:
            self.stopReading()
            self.connectionLost(connectionDone)

    def connectionLost(self, reason: Failure) -> None:
        """Close the pipe; nothing more comes."""
        super().connectionLost(reason)  # type: ignore[no-untyped-call]
        self.connected = 0
        # Not at once: an event of this pipe that the reactor has yet to deal with in this turn
        # would be taken for one of whatever got the descriptor's number next.
        self._clock.callLater(0, os.close, self._descriptor)
        self._text.finish()
