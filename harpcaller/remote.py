"""One job's conversation with one harpd, and the time limits of the job.

It tells packets and the end result to who started it, and never tells anything twice. What is
recorded of that, and what follows from it, is `harpcaller.dispatcher`'s; over which connection it
happens, `harpcaller.connections`'.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall

from harp import errors
from harp.errors import Origin
from harp.wire import harpd, results
from harp.wire.packets import Packets, join
from harp.wire.results import EndResult
from harp.wire.text import encode
from harpcaller.attempt import Attempt, ask
from harpcaller.connections import Connections
from harpcaller.hosts import Host
from harpcaller.jobs import Job

MAX_UNRECORDED = 256 * 1024
"""Bytes of packets on their way to the database, above which harpd is not read from
(`Packets.cost`). What is recorded at once is told to every follower in one turn of the reactor."""

DESCRIBE_LIMIT = 60.0
"""Seconds for harpd to say what it offers."""

Record = Callable[[Packets], Deferred[None]]
"""Records packets and fires when they are on disk."""


class Conversation:
    """Carries out one job on its host.

    :param record: takes packets as they come.
    :param acknowledged: takes, when harpd takes the call up and before any packet, how it says that
        the arguments may be shown; None if it says nothing of that.
    :param ended: takes the end result and where a failure arose, once; not called after `stop`.
    """

    def __init__(
        self,
        reactor: Any,
        job: Job,
        record: Record,
        ended: Callable[[EndResult, Origin | None], None],
        acknowledged: Callable[[bytes | None], None],
    ) -> None:
        self._reactor = reactor
        self._job = job
        self._record = record
        self._ended = ended
        self._acknowledged = acknowledged
        self._over = False
        self._attempt: Attempt | None = None
        self._silence = job.timeout
        self._quiet: IDelayedCall = reactor.callLater(self._silence, self._too_quiet)
        self._whole: IDelayedCall = reactor.callLater(job.max_exec_time, self._too_long)
        self._unrecorded = 0
        self._last: tuple[EndResult, Origin | None] | None = None
        self.lock: str | None = None
        """The lock that the call waits for on its host."""

    def start(self, host: Host, connections: Connections) -> None:
        """Call."""
        request = harpd.CallRequest(
            harp=1,
            procedure=self._job.procedure,
            arguments=msgspec.Raw(self._job.arguments),
            auth=harpd.Auth(host.user, host.password),
            keepalive=True,
            context=msgspec.Raw(encode(_context(self._job))),
            report_lock=True,
            report_secret=True,
        )
        self._job = self._job.without_secrets()
        attempt = ask(connections, host, request, self)
        if self._over:
            attempt.cancel()
        else:
            self._attempt = attempt

    def stop(self) -> None:
        """End the conversation without a word; harpd then ends the call."""
        if not self._over:
            self._close()

    def fail(self, end: EndResult, origin: Origin | None) -> None:
        """End the conversation and tell why."""
        if not self._over:
            self._close()
            self._ended(end, origin)

    # What harpd says; see `harpcaller.attempt.Receiver`.

    def received(self, replies: list[harpd.Reply]) -> None:
        """Take replies."""
        if self._over:
            return
        self._quiet.reset(self._silence)
        packets = []
        for reply in replies:
            if isinstance(reply, Packets):
                packets.append(reply)
            elif isinstance(reply, harpd.Waiting):
                self.lock = reply.lock
            elif isinstance(reply, harpd.Ack):
                self._acknowledged(reply.shown_arguments)
        if packets:
            self._keep(join(packets))

    def ended(self, last: EndResult | harpd.Procedures, origin: Origin | None) -> None:
        """Take the end result; it is told when all packets before it are on disk."""
        assert isinstance(last, EndResult)  # nothing else answers a call
        self._attempt = None
        if self._over:
            return
        self._stop_timers()
        self._last = last, origin
        self._tell_last()

    # Flow: harpd is read from as fast as the database records, no faster.

    def _keep(self, packets: Packets) -> None:
        size = packets.cost
        self._unrecorded += size
        if self._unrecorded > MAX_UNRECORDED and self._attempt is not None:
            self._attempt.pause(True)
        text = "packets could not be recorded"
        self._record(packets).addCallbacks(
            lambda _: self._kept(size),
            lambda failure: self.fail(results.error(errors.OS_ERROR, text), Origin.DISPATCHER),
        )

    def _kept(self, size: int) -> None:
        self._unrecorded -= size
        self._tell_last()
        attempt = self._attempt
        if attempt is not None and attempt.paused and self._unrecorded <= MAX_UNRECORDED:
            attempt.pause(False)
            self._quiet.reset(self._silence)  # the silence was ours

    def _tell_last(self) -> None:
        if self._last is not None and not self._unrecorded:
            self.fail(*self._last)

    # Time limits.

    def _too_quiet(self) -> None:
        if self._attempt is not None and self._attempt.paused:
            self._quiet = self._reactor.callLater(self._silence, self._too_quiet)
            return
        self._time_out(f"timeout: no message for {self._job.timeout:g} s")

    def _too_long(self) -> None:
        self._time_out(f"max_exec_time: the job ran for {self._job.max_exec_time:g} s")

    def _time_out(self, limit: str) -> None:
        self.fail(results.error(errors.TIMEOUT, limit), Origin.DISPATCHER)

    def _stop_timers(self) -> None:
        for timer in (self._quiet, self._whole):
            if timer.active():
                timer.cancel()

    def _close(self) -> None:
        self._over = True
        self._stop_timers()
        del self._quiet, self._whole  # one that went off holds us: a circle
        attempt, self._attempt = self._attempt, None
        if attempt is not None:
            attempt.cancel()


def _context(job: Job) -> dict[str, str]:
    given = {"job_id": job.id, "submitter": job.submitter, "on_behalf_of": job.on_behalf_of}
    return {name: value for name, value in given.items() if value is not None}


def describe(connections: Connections, host: Host) -> Deferred[EndResult | harpd.Procedures]:
    """Ask a harpd what it offers.

    :return: fires with that, or with the error that came in its place.
    """
    return _Question(connections, host).answer


class _Question:
    """The question what a harpd offers."""

    def __init__(self, connections: Connections, host: Host) -> None:
        self.answer: Deferred[EndResult | harpd.Procedures] = Deferred()
        auth = harpd.Auth(host.user, host.password)
        request = harpd.DescribeRequest(harp=1, describe=True, auth=auth, keepalive=True)
        self._limit = connections.reactor.callLater(DESCRIBE_LIMIT, self._too_long)
        self._attempt = ask(connections, host, request, self)

    def received(self, replies: list[harpd.Reply]) -> None:
        """Nothing comes before the answer."""

    def ended(self, last: EndResult | harpd.Procedures, origin: Origin | None) -> None:
        self._limit.cancel()
        self.answer.callback(last)

    def _too_long(self) -> None:
        self._attempt.cancel()
        text = f"harpd did not say within {DESCRIBE_LIMIT:g} s what it offers"
        self.answer.callback(results.error(errors.TIMEOUT, text))
