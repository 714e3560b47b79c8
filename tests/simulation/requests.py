"""What clients ask in the simulation, and what is held against the answers."""

from __future__ import annotations

from random import Random
from typing import Any

import msgspec

from harp import errors
from harp.wire import dispatcher as wire
from harp.wire.dispatcher import operation
from harp.wire.results import EndKind, EndResult
from harp.wire.text import Fault
from harpcaller.queues import canonical_queue_name
from tests.simulation import people
from tests.simulation.book import Book, Story
from tests.simulation.violation import Violation

PASSING = {errors.OS_ERROR.name, errors.SHUTDOWN.name}
"""What a dispatcher may say that can't do or does not do what it is asked just now."""


class Asked:
    """A request on its way, and what is right for an answer.

    :ivar waits: whether it may be long until it is answered.
    """

    waits = False

    def __init__(self, book: Book, message: wire.Request) -> None:
        self.book = book
        self.message = message

    def got(self, reply: wire.Reply) -> None:
        """Check a reply."""
        if isinstance(reply, EndResult) and reply.kind is EndKind.ERROR:
            self.refused(msgspec.json.decode(reply.value, type=Fault).type)
        else:
            self.answered(reply)

    def refused(self, error: str) -> None:
        """Check an error."""
        if error not in PASSING:
            raise Violation(f"{self.message} is answered with {error}")

    def answered(self, reply: Any) -> None:
        """Check a reply that is no error."""


class AskedCall(Asked):
    """A call, perhaps not for the first time."""

    def __init__(self, book: Book, story: Story, keepalive: bool) -> None:
        super().__init__(book, msgspec.structs.replace(story.call, keepalive=keepalive))
        self._story = story

    def answered(self, reply: Any) -> None:
        self.book.was_acknowledged(self._story, reply)


class AskedOfJob(Asked):
    """A request that names a job.

    :param job_id: one that clients have got, or none that there ever was.
    """

    def __init__(self, book: Book, message: wire.Request, job_id: str) -> None:
        super().__init__(book, message)
        self.job_id = job_id
        self.is_known = job_id in book.acknowledged

    def refused(self, error: str) -> None:
        if error == errors.INVALID_JOBID.name and not self.is_known:
            return
        super().refused(error)


class AskedToCancel(AskedOfJob):
    """A request to cancel."""

    def answered(self, reply: Any) -> None:
        row = self.book.row(self.job_id)
        if row.end is None or (reply.cancelled and row.end.kind is not EndKind.CANCELLED):
            raise Violation(f"{reply} to the request to cancel {row}")


class AskedStatus(AskedOfJob):
    """A request for a job's status."""

    def answered(self, reply: Any) -> None:
        row = self.book.row(self.job_id)
        is_shown = bytes(reply.call.arguments) in self.book.story(row).showable
        if not is_shown or reply.time.submit != int(row.submitted):
            raise Violation(f"{reply} is not the status of {row}")
        for told, true in ((reply.time.start, row.started), (reply.time.end, row.ended)):
            if told is not None and (true is None or told != int(true)):
                raise Violation(f"{reply} is not the status of {row}")
        if reply.detail is not None and _whose(reply.detail) != _whose(row):
            raise Violation(f"{reply.detail} is not the status of {row}")
        if reply.detail is not None and reply.detail.packets > self.book.packet_count(row.id):
            raise Violation(f"{reply.detail} counts packets that are not there")


class AskedResult(AskedOfJob):
    """A request for a job's end."""

    def __init__(self, book: Book, message: wire.GetResult, job_id: str) -> None:
        super().__init__(book, message, job_id)
        self.waits = message.wait

    def got(self, reply: wire.Reply) -> None:
        if self.is_known and isinstance(reply, EndResult):
            self.book.was_told_end(self.job_id, reply)
        else:
            super().got(reply)

    def answered(self, reply: Any) -> None:
        if not isinstance(reply, wire.NoResult) or self.waits:
            raise Violation(f"{reply} to {self.message}")


class AskedStream(AskedOfJob):
    """A request for a job's packets."""

    def __init__(self, book: Book, message: wire.StreamRequest, job_id: str) -> None:
        super().__init__(book, message, job_id)
        self.waits = isinstance(message, wire.FollowStream)
        self._known_before = book.packet_count(job_id)
        self._next: int | None = None

    def got(self, reply: wire.Reply) -> None:
        if isinstance(reply, wire.NumberedPacket):
            self._check_number(reply.packet)
            self.book.was_told_packet(self.job_id, reply)
        elif isinstance(reply, wire.Continue):
            if self.waits:
                raise Violation(f"{reply} to {self.message}")
            self._check_complete(None)
        elif self.is_known and isinstance(reply, EndResult):
            self.book.was_told_end(self.job_id, reply)
            self._check_complete(self.book.packet_count(self.job_id))
        else:
            super().got(reply)

    def _range(self) -> tuple[int, int]:
        """Return between which numbers the first packet must be."""
        message = self.message
        assert isinstance(message, wire.StreamRequest)
        now = self.book.packet_count(self.job_id)
        if message.since is not None:
            return message.since, message.since
        if message.recent is None and not self.waits:
            return 0, 0
        recent = message.recent or 0
        return max(0, self._known_before - recent), max(0, now - recent)

    def _check_number(self, number: int) -> None:
        if self._next is None:
            lowest, highest = self._range()
            if not lowest <= number <= highest:
                raise Violation(f"{self.message} begins with packet {number}")
        elif number != self._next:
            raise Violation(f"{self.message}: packet {number} came instead of {self._next}")
        self._next = number + 1

    def _check_complete(self, count: int | None) -> None:
        """Check that nothing is missing; of what is read, only what was there when it was asked."""
        wanted = self._known_before if count is None else count
        first = self._range()[1]
        reached = first if self._next is None else self._next
        if reached < wanted:
            raise Violation(f"{self.message} ends before packet {reached} of {wanted}")


class AskedToCancelQueue(Asked):
    """A request to cancel a queue."""

    def __init__(self, book: Book, message: operation.CancelQueue) -> None:
        super().__init__(book, message)
        name = canonical_queue_name(bytes(message.cancel_queue.name))
        self._ids = [
            row.id for row in map(book.row, book.acknowledged) if row.queue == name and not row.end
        ]

    def answered(self, reply: Any) -> None:
        for row in map(self.book.row, self._ids):
            if row.end is None:
                raise Violation(f"{row} lives on after {self.message}")


class AskedQueue(Asked):
    """A request for a queue's jobs."""

    def answered(self, reply: Any) -> None:
        places = [(job.state == "waiting", self.book.row(job.job_id).seq) for job in reply.jobs]
        if places != sorted(places):
            raise Violation(f"{self.message} lists jobs out of order: {places}")


class AskedJobs(Asked):
    """A request for jobs."""

    def answered(self, reply: Any) -> None:
        rows = [self.book.row(job.job_id) for job in reply.jobs]
        assert isinstance(self.message, wire.ListJobs)
        submitter = self.message.list_jobs.submitter
        for job, row in zip(reply.jobs, rows, strict=True):
            if _whose(job) != _whose(row) or submitter not in {None, *_whose(row)}:
                raise Violation(f"{self.message} lists {job}, which is {row}")
        places = [row.seq for row in rows]
        if places != sorted(places, reverse=True):
            raise Violation(f"{self.message} lists jobs out of order: {places}")


class AskedProcedures(Asked):
    """A request for what a host offers."""

    waits = True

    def refused(self, error: str) -> None:
        """Take any error: whatever a harpd does to a call, it does to this."""


def _whose(job: Any) -> tuple[str | None, str | None]:
    return job.submitter, job.on_behalf_of


def about_job(book: Book, random: Random, job_id: str, keepalive: bool) -> Asked:
    """Return a request about a job."""
    common: dict[str, Any] = {"harpcaller": 1, "keepalive": keepalive}
    roll = random.random()
    if roll < 0.15:
        return AskedToCancel(book, wire.Cancel(cancel=job_id, **common), job_id)
    common["detail"] = random.random() < 0.3
    if roll < 0.25:
        return AskedStatus(book, wire.GetStatus(get_status=job_id, **common), job_id)
    if roll < 0.55:
        wait = random.random() < 0.7
        return AskedResult(book, wire.GetResult(get_result=job_id, wait=wait, **common), job_id)
    if roll < 0.9:
        return to_follow(book, random, job_id, keepalive)
    message = wire.ReadStream(read_stream=job_id, **_beginning(random), **common)
    return AskedStream(book, message, job_id)


def to_follow(book: Book, random: Random, job_id: str, keepalive: bool) -> AskedStream:
    """Return a request to follow a job."""
    message = wire.FollowStream(
        harpcaller=1,
        follow_stream=job_id,
        keepalive=keepalive,
        detail=random.random() < 0.3,
        **_beginning(random),
    )
    return AskedStream(book, message, job_id)


def _beginning(random: Random) -> dict[str, Any]:
    if random.random() < 0.2:
        return {}
    return {random.choice(["since", "recent"]): random.choice([0, 0, 1, 3, 50])}


def about_all(book: Book, random: Random, queues: list[bytes], hosts: list[str]) -> Asked:
    """Return what an operator asks."""
    raw = msgspec.Raw(random.choice(queues))
    roll = random.random()
    if roll < 0.2:
        name = operation.QueueName(name=raw)
        return AskedToCancelQueue(book, wire.CancelQueue(harpcaller=1, cancel_queue=name))
    if roll < 0.4:
        page = operation.QueuePage(name=raw)
        return AskedQueue(book, wire.ListQueue(harpcaller=1, list_queue=page))
    if roll < 0.6:
        wanted = operation.JobFilter(
            state=random.choice([None, "running", "waiting"]),
            submitter=random.choice([None, *people.NAMES]),
        )
        return AskedJobs(book, wire.ListJobs(harpcaller=1, list_jobs=wanted))
    if roll < 0.75:
        return Asked(book, wire.ListQueues(harpcaller=1, list_queues=operation.Page()))
    if roll < 0.85:
        return Asked(book, wire.ServerInfo(harpcaller=1, server_info=True))
    return AskedProcedures(
        book, wire.ListProcedures(harpcaller=1, list_procedures=random.choice(hosts))
    )
