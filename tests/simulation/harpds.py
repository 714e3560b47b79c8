"""The harpds of the simulation: the real order of messages, no processes, and bad days.

What a call does is a script that the seed writes when it comes; the world lets it go on.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

import msgspec
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure

from harp import errors
from harp.session import IncomingCall
from harp.wire import harpd, results
from harp.wire.lines import MAX_REQUEST, LineReader
from harp.wire.packets import pack
from harp.wire.results import EndKind, EndResult
from harpcaller.hosts import Host
from tests.simulation import people
from tests.simulation.book import Book, Story
from tests.simulation.network import End
from tests.simulation.violation import Violation

REFUSALS = (errors.NO_SUCH_PROCEDURE, errors.AUTH_ERROR, errors.INVALID_ARGUMENT_LIST)
FAILURES = (errors.KILLED, errors.TIMEOUT, errors.SHUTDOWN)

Step = Callable[["HarpdConnection"], None]


class Harpd:
    """One host's daemon.

    :ivar is_old: whether it knows version 1 only.
    :ivar is_down: whether it refuses connections.
    :ivar calm: whether nothing goes wrong any more.
    :ivar babbles: whether its procedures stream a lot.
    :ivar leaves: how likely it is, at each moment of a request, that the connection ends there;
        this does not stop when all is calm.
    :ivar calls: the connections whose calls run, in the order in which they began.
    """

    def __init__(self, host: Host, book: Book, random: Random) -> None:
        self.host = host
        self.book = book
        self.random = random
        self.is_old = random.random() < 0.15
        self.is_down = False
        self.keeps = random.choice([0.0, 0.5, 1.0])
        self.leaves = random.choice([0.0, 0.1, 0.3])
        self.calm = self.babbles = False
        self.calls: list[HarpdConnection] = []
        self.idle: list[HarpdConnection] = []

    def may_leave(self) -> bool:
        """Decide whether a connection ends at this moment."""
        return self.random.random() < self.leaves


class HarpdConnection(Protocol):
    """One connection with the dispatcher."""

    transport: End

    def __init__(self, daemon: Harpd) -> None:
        self.daemon = daemon
        self.story: Story | None = None
        self.since = 0.0
        self._reader = LineReader(MAX_REQUEST)
        self._session: IncomingCall | None = None
        self._script: list[Step] = []
        self._keepalive = self._reports_secrets = False

    def connectionMade(self) -> None:
        self.daemon.idle.append(self)

    def dataReceived(self, data: bytes) -> None:
        self._reader.feed(data)
        line = self._reader.next_line()
        self._tell(f"reads {line!r}")
        if not self.transport.is_open:
            return  # it has ended, so this is not taken up
        if self.daemon.may_leave():
            self._leave_untaken("a part of a request" if line is None else "a request")
            return
        if line is None:
            return
        if self._session is not None:
            raise Violation("a request came before the one before it was answered")
        request = harpd.decode_request_line(line)
        if (request.auth.user, request.auth.password) != (
            self.daemon.host.user,
            self.daemon.host.password,
        ):
            raise Violation(f"the login for {self.daemon.host.name} is {request.auth}")
        self.daemon.idle.remove(self)
        self._keepalive = request.keepalive
        self._session = IncomingCall(request)
        if self.daemon.is_old and request != _of_version_1(request):
            self._keepalive = False
            self._end(results.error(errors.INVALID_REQUEST, "unknown key"))
        elif isinstance(request, harpd.DescribeRequest):
            self._send(harpd.Procedures(b'[{"name":"p"}]'))
            self._finish()
        else:
            self._take(request)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._tell(f"loses its connection: {reason.getErrorMessage()}")
        self._leave()
        if self in self.daemon.idle:
            self.daemon.idle.remove(self)

    @property
    def counts(self) -> bool:
        """Whether the dispatcher has reason to believe that the call runs."""
        return self.transport.is_open and self.transport.other.is_open

    def act(self) -> bool:
        """Go on with the call; tell whether it did anything."""
        if not self._script or len(self.transport.out) > 2000:
            return False
        self._script.pop(0)(self)
        return True

    def die(self) -> None:
        """End without a word."""
        self._tell("dies")
        self.transport.abortConnection()
        self._leave()

    def leave_idle(self, in_good_order: bool) -> None:
        """End a connection that carries nothing."""
        if not self.transport.is_open:
            return
        if in_good_order:
            self.transport.loseConnection()
        else:
            self.transport.abortConnection()

    def _leave_untaken(self, what: str) -> None:
        """End the connection at a request that is not taken up, be it whole."""
        in_good_order = self.daemon.random.random() < 0.6
        self._tell(f"leaves at {what}{' in good order' if in_good_order else ''}")
        self.leave_idle(in_good_order)

    def _take(self, request: harpd.CallRequest) -> None:
        random = self.daemon.random
        story = self.daemon.book.called(request, self.daemon.host.name)
        if random.random() < 0.1:
            story.end = results.error(random.choice(REFUSALS), "refused")
            self._end(story.end)
            return
        self.story = story
        self.since = self.transport.network.seconds()
        self._reports_secrets = request.report_secret
        self._script = _script(random, story, request.report_lock, self.daemon)
        self.daemon.calls.append(self)
        self.daemon.book.started(story, self._others(story))

    def _others(self, story: Story) -> int:
        """Count what runs of a story's queue, as harpds see it."""
        return sum(
            other.story is not None and other.story.queue == story.queue and other.counts
            for each in self.daemon.book.harpds
            for other in each.calls
        )

    def acknowledge(self, streams: bool) -> None:
        assert self.story is not None
        shown = None
        if self._reports_secrets:
            shown = people.acknowledged_with(self.story.call, self.story.token)
        self.story.told = shown is not None
        self._send(harpd.Ack(streams, shown))

    def wait(self, lock: str | None) -> None:
        self._send(harpd.Waiting(lock))

    def packets(self, data: list[bytes]) -> None:
        assert self.story is not None
        self.story.sent.extend(data)
        self._send(pack(data))

    def end(self, last: EndResult) -> None:
        assert self.story is not None
        self.story.end = last
        self._end(last)

    def babble(self, line: bytes) -> None:
        self.transport.write(line)
        self.die_politely()

    def die_politely(self) -> None:
        self._leave()
        self.transport.loseConnection()

    def _end(self, last: EndResult) -> None:
        self._send(last)
        self._finish()

    def _finish(self) -> None:
        self._leave()
        self._session = None
        if self._keepalive and self.daemon.random.random() < self.daemon.keeps:
            self.daemon.idle.append(self)
            if self.daemon.may_leave():
                self._tell("leaves behind an end result")
                self.leave_idle(self.daemon.random.random() < 0.6)
        else:
            self.transport.loseConnection()

    def _tell(self, what: str) -> None:
        call = "" if self.story is None else f" of call {self.story.token}"
        self.daemon.book.tell(f"{self.daemon.host.name}{call} {what}")

    def _leave(self) -> None:
        self.story = None
        self._script = []
        if self in self.daemon.calls:
            self.daemon.calls.remove(self)

    def _send(self, reply: harpd.Reply) -> None:
        assert self._session is not None
        self._tell(f"says {reply}")
        self.transport.write(self._session.send(reply))


def _of_version_1(request: Any) -> Any:
    if isinstance(request, harpd.DescribeRequest):
        return None
    return msgspec.structs.replace(
        request, keepalive=False, context=msgspec.UNSET, report_lock=False, report_secret=False
    )


def _script(random: Random, story: Story, locks: bool, daemon: Harpd) -> list[Step]:
    if daemon.may_leave():
        return [lambda call: call.die()]  # taken up and not acknowledged
    streams = daemon.babbles or random.random() < 0.6
    script: list[Step] = [lambda call: call.acknowledge(streams)]
    if daemon.may_leave():
        return [*script, random.choice([HarpdConnection.die, HarpdConnection.die_politely])]
    if locks and random.random() < 0.1:
        script += [lambda call: call.wait("disk"), lambda call: call.wait(None)]
    number = 0
    for _ in range(random.choice([8, 12] if daemon.babbles else [0, 1, 2, 4]) if streams else 0):
        count = random.choice([1, 1, 2, 5])
        padding = "x" * random.choice([0, 0, 30, 300])
        data = [_json([story.token, number + n, padding]) for n in range(count)]
        number += count
        script.append(lambda call, data=data: call.packets(data))  # type: ignore[misc]
    return script + _last_steps(random, story, daemon.calm)


def _last_steps(random: Random, story: Story, calm: bool) -> list[Step]:
    roll = 1.0 if calm else random.random()
    if roll < 0.05:
        return []  # silent until a time limit ends it
    if roll < 0.08:
        return [lambda call: call.die()]
    if roll < 0.11:
        return [lambda call: call.die_politely()]
    if roll < 0.13:
        return [lambda call: call.babble(b'{"harp":1,"stream_result":true}\n')]
    if roll < 0.15:
        return [lambda call: call.babble(b"\xff{\n")]
    if roll < 0.2:
        last = results.error(random.choice(FAILURES), "failed")
    elif roll < 0.3:
        fault = {"type": "ValueError", "message": str(story.token)}
        last = EndResult(EndKind.EXCEPTION, msgspec.json.encode(fault))
    else:
        padding = "y" * random.choice([0, 0, 0, 1000])
        last = EndResult(EndKind.RESULT, _json([story.token, padding]))
    return [lambda call: call.end(last)]


def _json(value: object) -> bytes:
    return msgspec.json.encode(value)
