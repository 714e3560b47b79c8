"""The reactor's end of a control socket: whole messages, with descriptors, no blocking.

Twisted has no SEQPACKET transport, and one message must stay one message.
"""

from __future__ import annotations

import json
import os
import socket
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
from twisted.internet.abstract import FileDescriptor
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from harpd.orders import MAX_MESSAGE

_BATCH = 64  # messages taken in one turn of the reactor
_DRAIN = 16  # batches taken at the end, more than the socket can hold


class ControlChannel(FileDescriptor):
    """Sends to and receives from the process at the other end.

    :param end: our end of the socket; it is closed with the channel.
    :param received: called with each message, and with the descriptors that came with it.
    :param lost: called once when the other end is closed.
    :param descriptors: how many may come with a message.
    """

    def __init__(
        self,
        reactor: Any,
        end: socket.socket,
        received: Callable[..., None],
        lost: Callable[[], None],
        descriptors: int = 0,
    ) -> None:
        super().__init__(reactor)
        self._clock: IReactorTime = reactor
        self._end = end
        self._end.setblocking(False)
        self._received = received
        self._lost = lost
        self._descriptors = descriptors
        self._waiting: deque[tuple[bytes, tuple[int, ...]]] = deque()
        self._is_writing = False
        self.connected = 1
        self.startReading()

    def send(self, message: dict[str, Any], descriptors: Sequence[int] = ()) -> None:
        """Send a message now or as soon as the zygote takes it.

        :param descriptors: go with it and are closed here once they have gone.
        """
        if not self.connected:
            _close_all(descriptors)
            return
        self._waiting.append((msgspec.json.encode(message), tuple(descriptors)))
        if not self._is_writing:
            self.doWrite()

    def fileno(self) -> int:
        """Return the descriptor that the reactor watches."""
        return self._end.fileno()

    def doRead(self) -> Exception | None:
        """Take what has arrived."""
        for _ in range(_BATCH):
            came: list[int] = []
            try:
                if self._descriptors:
                    data, came, _, _ = socket.recv_fds(self._end, MAX_MESSAGE, self._descriptors)
                else:
                    data = self._end.recv(MAX_MESSAGE)
            except BlockingIOError:
                return None
            except OSError:
                data = b""
            if not data:
                return ConnectionDone()
            self._received(json.loads(data), *came)
            if not self.connected:
                return None
        return None

    def doWrite(self) -> None:
        """Send what is waiting."""
        while self._waiting:
            data, descriptors = self._waiting[0]
            try:
                socket.send_fds(self._end, [data], descriptors)
            except BlockingIOError:
                if not self._is_writing:
                    self._is_writing = True
                    self.startWriting()
                return
            except OSError:
                break  # the zygote is gone, which the next reading will tell
            self._waiting.popleft()
            _close_all(descriptors)
        if self._is_writing:
            self._is_writing = False
            self.stopWriting()

    def connectionLost(self, reason: Failure) -> None:
        """Close our end; the reactor calls it, and `close`."""
        if not self.connected:
            return
        super().connectionLost(reason)  # type: ignore[no-untyped-call]
        self.connected = 0
        # Not at once, for the reason that `harpd.output` gives.
        self._clock.callLater(0, self._end.close)
        for _, descriptors in self._waiting:
            _close_all(descriptors)
        self._waiting.clear()
        self._lost()

    def finish(self) -> None:
        """Take what the zygote had sent before it died, and close."""
        for _ in range(_DRAIN):
            if not self.connected or self.doRead() is not None:
                break
        self.close()

    def close(self) -> None:
        """Let the zygote know that nobody is left."""
        if self.connected:
            self.stopReading()
            self.stopWriting()
            self.connectionLost(Failure(ConnectionDone()))


def _close_all(descriptors: Sequence[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)
