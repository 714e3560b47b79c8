"""A job's packets on their way to one client: replayed from the store, then live.

No gap and no repeat: what is announced is passed on at once only while the client has everything
before it and reads; in every other case the stream goes on from the store, at the client's pace.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from twisted.internet.interfaces import IPushProducer
from twisted.python.failure import Failure
from zope.interface import implementer

from harp.wire import dispatcher as wire
from harpcaller.jobs import Job
from harpcaller.packets import Recorded
from harpcaller.store import JobStore
from harpcaller.summaries import end_of

PAGE_BATCHES, PAGE_BYTES = 1000, 256 * 1024
"""What is read from the store, and so held in memory for one client, at once
(`harp.wire.packets.Packets.cost`)."""


@dataclass(frozen=True)
class Client:
    """Where a stream goes.

    :param write: sends lines.
    :param finish: sends the last reply.
    :param fail: called instead, if the store fails.
    """

    write: Callable[[bytes], None]
    finish: Callable[[wire.Reply], None]
    fail: Callable[[Failure], None]


@implementer(IPushProducer)
class PacketStream:
    """One client's way through the packets of one job.

    It may be told what is announced (see `harpcaller.announcements`) before it is started.

    :param detail: whether the client is to be told when each packet was recorded.
    """

    def __init__(self, store: JobStore, job_id: str, client: Client, detail: bool = False) -> None:
        self._store = store
        self._job_id = job_id
        self._client = client
        self._detail = detail
        self._next = 0  # the number of the packet that the client gets next
        self._known = 0  # how many packets are known to be in the store
        self._last: wire.Reply | None = None  # what follows the packets, if that is known
        self._busy = True  # not started, or a page is being read
        self._paused = False
        self._over = False

    def start(self, since: int, known: int, last: wire.Reply | None) -> None:
        """Begin.

        :param since: the number of the first packet wanted.
        :param known: how many packets the store has.
        :param last: what follows those; None if the stream goes on until the job ends.
        """
        self._next = since
        self._known = max(self._known, known)
        self._last = self._last or last
        self._busy = False
        self._advance()

    def packets(self, packets: Recorded) -> None:
        """Learn of packets that have been recorded."""
        self._known = max(self._known, packets.end)
        idle = not (self._busy or self._paused or self._over)
        if idle and packets.first <= self._next < packets.end:
            lines = packets.lines(self._next, self._detail)
            self._next = packets.end
            self._client.write(lines)
        else:
            self._advance()

    def ended(self, job: Job) -> None:
        """Learn that the job has ended, so that all its packets are known."""
        self._last = end_of(job, self._detail)
        self._advance()

    def pauseProducing(self) -> None:
        """Write nothing: the client has not read what was written."""
        self._paused = True

    def resumeProducing(self) -> None:
        """Go on."""
        self._paused = False
        self._advance()

    def stopProducing(self) -> None:
        """End: the client has left."""
        self._over = True

    def _advance(self) -> None:
        if self._busy or self._paused or self._over:
            return
        if self._next < self._known:
            self._busy = True
            page = self._store.packets(self._job_id, self._next, PAGE_BATCHES, PAGE_BYTES)
            page.addCallback(self._replay, self._known).addErrback(self._fail)
        elif self._last is not None:
            self._over = True
            self._client.finish(self._last)

    def _replay(self, page: list[Recorded], known: int) -> None:
        self._busy = False
        if self._paused or self._over:
            return  # it is read again if it is wanted again, rather than kept
        if page:
            since, self._next = self._next, page[-1].end
            lines = [packets.lines(since, self._detail) for packets in page]
            self._client.write(b"".join(lines))
        else:
            self._next = known  # they are not kept any more; of later ones nothing is said
        self._advance()

    def _fail(self, failure: Failure) -> None:
        if not self._over:
            self._over = True
            self._client.fail(failure)
