"""One call's process as the reactor sees it: its replies, what it prints, and its end."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Protocol as Interface

from twisted.internet.interfaces import IPushProducer, ITransport
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure

from harp.wire import harpd
from harp.wire.results import EndResult
from harpd.call_limits import NO_LIMITS, CallLimits
from harpd.reported import Reported


class Caller(Interface):
    """Who takes what comes from the process."""

    def replies(self, replies: list[harpd.Reply]) -> None:
        """Take replies; the last may be the end result, after which nothing comes."""


class CallProcess(Protocol):
    """The call's own socket, whose other end the process of the call holds.

    :param arguments: JSON, sent to the process first.
    :param caller: who takes the replies.
    :param kill: ends the process tree; called when there is no sense in its going on.
    :param context: JSON of an object, sent after the arguments.
    :param limits: of the call, which ends when its output exceeds them.
    """

    def __init__(
        self,
        arguments: bytes,
        caller: Caller,
        kill: Callable[[], None],
        context: bytes = b"{}",
        limits: CallLimits = NO_LIMITS,
    ) -> None:
        self._arguments = arguments
        self._context = context
        self._caller = caller
        self._kill = kill
        self._limits = limits
        self._reported = Reported(limits)
        self._ended = False
        self._closed = False
        self._exit: EndResult | None = None

    @property
    def producer(self) -> IPushProducer:
        """What is paused while the caller can't take more."""
        assert IPushProducer.providedBy(self.transport)
        return self.transport

    def drain(self) -> None:
        """Read on to the end, which does not come to a socket that stays paused."""
        if not self._ended:
            self.producer.resumeProducing()

    def connectionMade(self) -> None:
        """Hand over the arguments and the context."""
        assert self.transport is not None
        self.transport.write(b"%b\n%b\n" % (self._arguments, self._context))

    def dataReceived(self, data: bytes) -> None:
        """Check what the process reports and pass it on."""
        if self._ended:
            return
        found = self._reported.feed(data)
        self._ended = self._reported.ended
        if self._reported.is_refused:
            self._kill()
        if found:
            self._caller.replies(found)
        if self._ended and self.transport is not None:
            self.transport.loseConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Nothing more can come. If the process is still there, it has closed its socket."""
        self._closed = True
        if self._exit is None and not self._ended:
            self._kill()
        self._finish()

    def exited(self, status: int) -> None:
        """Learn that the process is gone; what it wrote before is still taken first.

        :param status: as wait(2) gives it.
        """
        self.gone(self._limits.killed(status))

    def gone(self, end: EndResult) -> None:
        """Learn that there is no process any more.

        :param end: the end result, if the process reported none.
        """
        self._exit = end
        if self._closed:
            self._finish()
        elif self.transport is not None:
            # What is in the socket can still be read; then, even if somebody else holds the other
            # end, comes its end (unix(7)).
            handle: socket.socket = _handle(self.transport)
            handle.shutdown(socket.SHUT_RD)

    def _finish(self) -> None:
        if not self._ended and self._exit is not None and self._closed:
            self._ended = True
            self._caller.replies([self._exit])


def _handle(transport: ITransport) -> socket.socket:
    handle = transport.getHandle()  # type: ignore[attr-defined]
    assert isinstance(handle, socket.socket)
    return handle
