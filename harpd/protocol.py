"""One TLS connection: request lines in, one conversation at a time, and an end that comes.

What becomes of a request is the business of `harpd.conversation`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Protocol as Interface

from twisted.internet.interfaces import IPushProducer
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from harp import errors
from harp.deadline import Deadline
from harp.flow import SLICE, register_producer, write_last
from harp.probes import probe_below
from harp.wire.front import auth_reader
from harp.wire.harpd import Auth
from harp.wire.lines import LineReader, LineTooLongError
from harpd.conversation import Conversation
from harpd.limits import SHORT_REQUEST, Limits
from harpd.parts import Parts

REQUEST_DEADLINE = 10.0
"""Seconds from the connection to the end of its first request line; TLS's handshake is in it."""

LOGIN_DEADLINE = 60.0
"""Seconds for the check of a login: the longest wait for its turn, and whatever checks it."""

CLOSE_DEADLINE = 120.0
"""Seconds without progress, at the end, after which the connection is cut: for each slice of a
long result, and for the peer's end of TLS."""


GOODBYE_DEADLINE = 5.0
"""The same where no request is under way or nobody has logged in, or where the grace of a daemon
that stops is over."""

_login_in_front = auth_reader("harp", Auth)
# In whichever order its keys are; the quantifiers give nothing back, so nothing is tried twice.
_REQUEST = re.compile(rb'\s*+\{\s*+"(?:harp|procedure|arguments|auth)"\s*+:')


class Crowd(Interface):
    """All connections, as one of them sees them; `harpd.factory` has them.

    :ivar is_stopping: whether no more calls are taken.
    :ivar is_over: whether the grace of those that run has ended too.
    """

    is_stopping: bool
    is_over: bool

    @property
    def limits(self) -> Limits:
        """Those that are in force."""

    def has_long_place(self, protocol: HarpdProtocol) -> bool:
        """Tell whether one more connection may have a long request without a login."""

    def logged_in(self, protocol: HarpdProtocol) -> None:
        """Count a connection with those that have a login."""

    def conversation_ended(self) -> None:
        """Look whether the end need not wait any more."""

    def gone(self, protocol: HarpdProtocol) -> None:
        """Forget a connection that is closed."""


class HarpdProtocol(Protocol):
    """The server's end of one connection."""

    def __init__(self, parts: Parts, client: str, crowd: Crowd) -> None:
        self.client = client
        self.deadline = Deadline(parts.reactor)
        self._parts = parts
        self._crowd = crowd
        self._reader = LineReader(parts.policy.limits.max_request)
        self._conversation: Conversation | None = None
        self._is_ending = False
        self._is_known = False  # some login on this connection has been right
        self._may_be_long = False
        self._is_paused = False

    @property
    def has_process(self) -> bool:
        """Whether a procedure runs for this connection."""
        return self._conversation is not None and self._conversation.has_process

    def connectionMade(self) -> None:
        """Wait for the request, but not for ever."""
        assert self.transport is not None
        self.transport.setTcpNoDelay(True)  # type: ignore[attr-defined]
        probe_below(self.transport)  # a caller whose machine has died sends nothing
        self._await_request(REQUEST_DEADLINE)

    def _await_request(self, limit: float) -> None:
        self._conversation = Conversation(self._parts, self)
        self.deadline.set(limit, self._end_waiting)

    def dataReceived(self, data: bytes) -> None:
        """Take the request line; anything behind it is one mistake more."""
        if self._conversation is None:
            # Before the last answer has gone, so it has not been read: the end of the agreement.
            # Or behind our end of TLS.
            self._is_ending = True
            return
        self._reader.feed(data)
        if not self._is_paused:  # else it is what had been read before
            self._look(self._conversation)

    def _look(self, conversation: Conversation) -> None:
        if not (self._may_be_long or conversation.is_requested) and self._is_long():
            return
        try:
            line = None if conversation.is_requested else self._reader.next_line()
        except LineTooLongError as error:
            conversation.refuse(errors.INVALID_REQUEST, f"in the request, {error}")
            return
        if line is None and not conversation.is_requested:
            return
        if self._reader.has_more:
            conversation.refuse(errors.INVALID_REQUEST, "there is data after the request line")
        elif self._crowd.is_stopping:
            conversation.refuse(errors.SHUTDOWN, "harpd is being stopped")
        else:
            assert line is not None
            self.deadline.set(LOGIN_DEADLINE, self.cut)
            conversation.take(line)

    def _is_long(self) -> bool:
        """Tell whether the line must not go on, or not yet, because it is long for a stranger."""
        most = SHORT_REQUEST + len(b"\r\n")
        if self._reader.size <= most:
            return False
        beginning = self._reader.beginning(most)
        if b"\n" in beginning:
            return False
        assert self._conversation is not None
        auth = _login_in_front(beginning)
        if auth is not None:
            self._pause()
            self.deadline.set(LOGIN_DEADLINE, self.cut)
            self._conversation.log_in(auth, self._go_on)
            return True
        if _REQUEST.match(beginning) and self._crowd.has_long_place(self):
            self._may_be_long = True
            return False
        self._conversation.refuse(
            errors.INVALID_REQUEST,
            f'the request is longer than {SHORT_REQUEST} bytes: then "auth" has to come first in '
            'it, or right behind "harp"',
        )
        return True

    def _go_on(self) -> None:
        """Read the rest of a long request, whose login was right."""
        self._resume()
        if self._conversation is not None:
            self.deadline.set(self._crowd.limits.idle_time, self._end_waiting)
            self._look(self._conversation)

    def _pause(self) -> None:
        assert self.transport is not None
        self._is_paused = True
        self.transport.pauseProducing()  # type: ignore[attr-defined]

    def _resume(self) -> None:
        # Always before the end: while nothing is read, that of TLS would not be seen.
        if self._is_paused:
            assert self.transport is not None
            self._is_paused = False
            self.transport.resumeProducing()  # type: ignore[attr-defined]

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Cancel the call if the connection was closed before its end result."""
        self.deadline.end()
        conversation, self._conversation = self._conversation, None
        if conversation is not None:
            conversation.leave()
        self._crowd.gone(self)

    # The daemon's end.

    def refuse_for_shutdown(self) -> None:
        """End the request, if there is one."""
        if self._conversation is not None and self._conversation.is_requested:
            self._conversation.refuse(errors.SHUTDOWN, "harpd is being stopped")

    def shut_down(self) -> None:
        """End the connection; who has not asked for anything gets no answer."""
        if self._conversation is None:
            self._is_ending = True  # as soon as the last answer has gone
            self._progress()
        elif self._conversation.is_requested:
            self.refuse_for_shutdown()
        else:
            self._end_waiting()

    # What the conversation does with its connection; see `harpd.parts.Connection`.

    def logged_in(self) -> None:
        """Take notice that a login has succeeded: from now on longer lines may come."""
        if not self._is_known:
            self._is_known = self._may_be_long = True
            self._crowd.logged_in(self)

    def send(self, data: bytes) -> None:
        """Send something before the end."""
        assert self.transport is not None
        self.transport.write(data)

    def produce(self, producer: IPushProducer) -> None:
        """Pause and resume what comes from a producer."""
        register_producer(self.transport, producer)

    def finish(self, line: bytes, keep: bool) -> None:
        """Send the last line, and take the next request if the client wants to keep this."""
        self._conversation = None
        self._resume()
        assert self.transport is not None
        self.transport.unregisterProducer()  # type: ignore[attr-defined]
        self._is_ending = not keep or self._crowd.is_stopping
        if self._is_ending or len(line) > SLICE:
            write_last(self.transport, line, self._progress, self._written)
        else:
            gate = _Gate(self._gone_out)
            self.transport.registerProducer(gate, True)  # type: ignore[attr-defined]
            self.transport.write(line)
            if not gate.is_open:
                self._progress()
            gate.wait()
        self._crowd.conversation_ended()

    def _gone_out(self) -> None:
        assert self.transport is not None
        self.transport.unregisterProducer()  # type: ignore[attr-defined]
        self._written()

    def _written(self) -> None:
        assert self.transport is not None
        if self._is_ending:
            self.transport.loseConnection()
        else:
            self._await_request(self._crowd.limits.idle_time)

    def _end_waiting(self) -> None:
        """End what waits for a request: in good order if nothing of one has come.

        So the client can tell that one which it may just be sending is not taken up.
        """
        assert self.transport is not None
        assert self._conversation is not None
        if self._conversation.is_requested or self._reader.has_more:
            self.cut()
        else:
            self._conversation = None
            self.deadline.set(GOODBYE_DEADLINE, self.cut)
            self.transport.loseConnection()

    def _progress(self) -> None:
        hurries = self._crowd.is_over or not self._is_known
        self.deadline.set(GOODBYE_DEADLINE if hurries else CLOSE_DEADLINE, self.cut)

    def cut(self) -> None:
        """End the connection at once."""
        assert self.transport is not None
        self.transport.abortConnection()  # type: ignore[attr-defined]


@implementer(IPushProducer)
class _Gate:
    """Tells when what was written has gone as far as the transport wants before more is written.

    Otherwise a client that asks again and again, and reads nothing, would fill our memory.
    """

    def __init__(self, opened: Callable[[], None]) -> None:
        self.is_open = True
        self._opened = opened
        self._is_waiting = False

    def wait(self) -> None:
        """Go on now or when the transport resumes."""
        self._is_waiting = True
        if self.is_open:
            self._opened()

    def pauseProducing(self) -> None:
        self.is_open = False

    def resumeProducing(self) -> None:
        self.is_open = True
        if self._is_waiting:
            self._opened()

    def stopProducing(self) -> None:
        pass
