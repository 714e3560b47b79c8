"""The packets of one job on their way to the store, and the news of them."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import Deferred, fail
from twisted.python.failure import Failure

from harp.wire.packets import Packets, join
from harpcaller.announcements import Announcements
from harpcaller.packets import Recorded
from harpcaller.store import JobStore

_Portion = list[tuple[Packets, Deferred[None]]]


class PacketRecorder:
    """Numbers and records the packets of one job, then announces them.

    One portion is recorded at a time, what comes meanwhile is the next: so nothing is ever recorded
    behind packets that could not be, as when a disk is full for a moment.

    :param now: returns unix seconds.
    """

    def __init__(
        self,
        job_id: str,
        store: JobStore,
        announcements: Announcements,
        now: Callable[[], float],
    ) -> None:
        self._job_id = job_id
        self._store = store
        self._announcements = announcements
        self._now = now
        self._count = 0
        self._gathered: _Portion = []
        self._is_recording = False
        self._failure: Failure | None = None

    def record(self, packets: Packets) -> Deferred[None]:
        """Record packets, one or more, behind those that were given before.

        :return: fires when they are on disk; fails if they, or others before them, can't be.
        """
        if self._failure is not None:
            return fail(self._failure)
        recorded: Deferred[None] = Deferred()
        self._gathered.append((packets, recorded))
        if not self._is_recording:
            self._record()
        return recorded

    def _record(self) -> None:
        portion, self._gathered = self._gathered, []
        packets = Recorded(self._count, join([part for part, _ in portion]), self._now())
        self._is_recording = True
        appended = self._store.append(self._job_id, packets)
        appended.addCallbacks(
            lambda _: self._recorded(portion, packets),
            lambda failure: self._failed(failure, portion),
        )

    def _recorded(self, portion: _Portion, packets: Recorded) -> None:
        self._count = packets.end
        self._is_recording = False
        if self._gathered:
            self._record()  # before all else: the store writes while we tell
        self._announcements.packets(self._job_id, packets)
        for _, recorded in portion:
            recorded.callback(None)

    def _failed(self, failure: Failure, portion: _Portion) -> None:
        self._failure = failure
        gathered, self._gathered = self._gathered, []
        for _, recorded in portion + gathered:
            recorded.errback(failure)
