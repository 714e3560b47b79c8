"""The clients of the simulation: the real order of messages, at any pace and of any manners."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure

from harp.session import Exchange
from tests.simulation.network import End
from tests.simulation.requests import Asked
from tests.simulation.violation import Violation


class ClientConnection(Protocol):
    """One connection of a client.

    :param unanswered: takes what the connection was lost before any answer to.
    :ivar asked: what it waits for.
    :ivar is_idle: whether it may be asked something.
    """

    transport: End

    def __init__(self, unanswered: Callable[[Asked], None]) -> None:
        self.asked: Asked | None = None
        self._unanswered = unanswered
        self._is_answered = False
        self.is_idle = True
        self.is_lost = False
        self._has_sent_more = False
        self._exchange: Exchange | None = None

    def ask(self, asked: Asked) -> None:
        """Send a request."""
        self.asked = asked
        self.is_idle = self._is_answered = False
        self._exchange = Exchange(asked.message)
        self.transport.write(self._exchange.request_line())

    def dataReceived(self, data: bytes) -> None:
        exchange = self._exchange
        if exchange is None:
            return  # it has sent what is no request
        if self.asked is None and self._has_sent_more:
            return
        if self.asked is None:
            raise Violation(f"{data!r} came behind the last reply")
        for reply in exchange.receive(data):
            self._is_answered = True
            self.asked.got(reply)
        if exchange.ended:
            self.asked = None
            self.is_idle = exchange.may_go_on and not self._has_sent_more

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.is_lost = True
        self.is_idle = False
        server = self.transport.other
        was_read = server.taken == self.transport.written
        if self.asked is not None and was_read and not self.transport.excused:
            raise Violation(f"{self.asked.message} is never answered: {reason.getErrorMessage()}")
        if self.asked is not None and not self._is_answered:
            self._unanswered(self.asked)

    def misbehave(self, random: Random) -> None:
        """Do what a client may do, but had better not."""
        self.transport.excused = True
        roll = random.random()
        if roll < 0.4:
            if self.transport.reading:
                self.transport.pauseProducing()
            else:
                self.transport.resumeProducing()
        elif roll < 0.6:
            self.transport.loseConnection()
        elif roll < 0.7:
            self.transport.abortConnection()
        elif roll < 0.85:
            self.transport.loseWriteConnection()
        elif self.asked is not None:
            self._has_sent_more = True
            self.transport.write(b'{"harpcaller":1,"server_info":true}\n')

    def babble(self, random: Random) -> None:
        """Send what is no request."""
        self.is_idle = False
        self._has_sent_more = True
        self.transport.excused = True
        line = random.choice([b"\n", b"{}\n", b'{"harpcaller":1,"cancl":1}\n', b"\xff\xfe\n"])
        self.transport.write(line)
