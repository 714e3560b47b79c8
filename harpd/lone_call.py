"""One call in a zygote without a daemon: what it has reported and printed, and its end."""

from __future__ import annotations

import os
import sched
import socket
from contextlib import suppress

from harp.wire.packets import Packets
from harp.wire.results import EndResult
from harpd.offers import Offer
from harpd.reported import Reported

MAX_PRINTED = 1 << 20
"""How much is kept of what a call prints, in bytes; the rest is dropped."""

_CHUNK = 65536
_DRAIN = 16  # chunks read at the end, where another process may go on writing for ever


class LoneCall:
    """A call, whoever carries it on; nothing here waits.

    :param offer: what is called, None if there is no such procedure.
    :param request: what its process reads first.
    :ivar packets: JSON of each.
    :ivar end: how it ended, None before that; the first that says so counts.
    :ivar is_over: whether it has ended and there is no process any more.
    :ivar lock: the one that it has or waits for.
    :ivar limits: its time limits.
    """

    def __init__(self, number: int, procedure: str, offer: Offer | None, request: bytes) -> None:
        self.number = number
        self.procedure = procedure
        self.offer = offer
        self.packets: list[bytes] = []
        self.printed = b""
        self.end: EndResult | None = None
        self.is_over = False
        self.is_told_to_end = False
        self.lock: str | None = None
        self.limits: list[sched.Event] = []
        self.connection: socket.socket | None = None
        self.output = -1
        self._unsent = request
        self._reported = Reported() if offer is None else Reported(offer.limits)

    @property
    def has_process(self) -> bool:
        """Whether its process has been ordered."""
        return self.connection is not None

    def open(self) -> tuple[socket.socket, int]:
        """Make its socket and its pipe and return the ends that are its process's."""
        self.connection, theirs = socket.socketpair()
        self.output, printed = os.pipe2(os.O_CLOEXEC)
        self.connection.setblocking(False)
        os.set_blocking(self.output, False)
        return theirs, printed

    def send_request(self) -> bool:
        """Send what can be sent now; True if that was the last of it."""
        assert self.connection is not None
        try:
            self._unsent = self._unsent[self.connection.send(self._unsent) :]
        except BlockingIOError:
            pass
        except OSError:
            self._unsent = b""  # what it reported before it closed its end is read yet
        return not self._unsent

    def read_reports(self) -> bool:
        """Take what has come; False at the end."""
        assert self.connection is not None
        try:
            data = self.connection.recv(_CHUNK)
        except BlockingIOError:
            return True
        except OSError:
            return False
        if self.end is None:
            for reply in self._reported.feed(data):
                if isinstance(reply, Packets):
                    self.packets += reply.texts
                elif isinstance(reply, EndResult):
                    self.end = reply
        return bool(data)

    @property
    def is_refused(self) -> bool:
        """Whether what it reported is no good, so that there is no sense in its going on."""
        return self._reported.is_refused

    def read_output(self) -> bool:
        """Take what has been printed; False at the end."""
        try:
            data = os.read(self.output, _CHUNK)
        except BlockingIOError:
            return True
        self.printed = (self.printed + data)[:MAX_PRINTED]
        return bool(data)

    def close(self, end: EndResult) -> None:
        """Take what its process, which is gone, has left, and close our ends.

        :param end: how it ended if it reported no end.
        """
        assert self.connection is not None
        with suppress(OSError):
            # What is in the socket can still be read; then comes its end, whoever holds the other.
            self.connection.shutdown(socket.SHUT_RD)
        while self.read_reports():
            pass
        for _ in range(_DRAIN):
            if not self.read_output():
                break
        self.connection.close()
        os.close(self.output)
        if self.end is None:
            self.end = end
