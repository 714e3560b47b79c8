"""What the simulation knows of every call, and the promises that are held against it.

The truth of a job is its row; what harpds and clients are told is compared with it at once.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from harp import errors
from harp.wire import dispatcher as wire
from harp.wire import harpd
from harp.wire.results import EndKind, EndResult
from harpcaller.secrecy import NOT_SHOWN
from tests.simulation import people
from tests.simulation.violation import Violation

if TYPE_CHECKING:
    from tests.simulation.harpds import Harpd

_CUT_OFF = {
    errors.CLOSED.name,
    errors.TIMEOUT.name,
    errors.PROTOCOL_ERROR.name,
    errors.MISSING_RESULT.name,
    errors.SHUTDOWN.name,
    errors.OS_ERROR.name,
}
"""How a call may end that harpd began and did not tell the end of."""

_NOT_BEGUN = {errors.NETWORK_ERROR.name, errors.SSL.name, errors.UNKNOWN_HOST.name}
"""How one may end, beside that, that harpd did not begin."""

_OF_HARPD = {EndKind.RESULT.value, EndKind.EXCEPTION.value}


@dataclass
class Story:
    """One call, however often it is submitted.

    :ivar token: its number, which is its first argument.
    :ivar queue: the canonical name of its queue.
    :ivar after: the place in the order of submission that it must be behind.
    :ivar since: when it was first sent, in unix seconds.
    :ivar starts: how often it was started by a harpd.
    :ivar told: whether harpd has said what may be shown of its arguments.
    :ivar sent: the packets that harpd sent.
    :ivar end: the end result that harpd sent.
    """

    token: int
    call: wire.Call
    queue: bytes | None
    after: int
    since: float
    job_id: str | None = None
    duplicate: bool = False
    starts: int = 0
    told: bool = False
    sent: list[bytes] = field(default_factory=list)
    end: EndResult | None = None

    @property
    def showable(self) -> set[bytes]:
        """What may be shown of its arguments at any time."""
        arguments, shown = self.call.arguments, self.call.shown_arguments
        told = people.acknowledged_with(self.call, self.token)
        if shown is not msgspec.UNSET:
            return {bytes(shown), NOT_SHOWN}
        return {bytes(arguments)} if told is None else {bytes(arguments), told, NOT_SHOWN}


class Row(NamedTuple):
    """A job as it is on disk."""

    seq: int
    id: str
    state: str
    submitted: float
    started: float | None
    ended: float | None
    end_kind: str | None
    end_value: bytes | None
    arguments: bytes
    queue: bytes | None
    waits_for: str | None
    host: str
    timeout: float
    max_exec_time: float
    info: bytes
    submitter: str | None
    on_behalf_of: str | None

    @property
    def end(self) -> EndResult | None:
        """How it ended."""
        if self.end_kind is None or self.end_value is None:
            return None
        return EndResult(EndKind(self.end_kind), bytes(self.end_value))


_ROWS = f"SELECT {', '.join(Row._fields)} FROM jobs"
_OF_JOB = "(SELECT seq FROM jobs WHERE id = ?)"


def _token(arguments: bytes) -> int:
    found: int = msgspec.json.decode(arguments)[0]
    return found


class Book:
    """All that is known.

    :param raw: the disk.
    :param now: returns unix seconds.
    :param tell: is told what happens.
    :ivar acknowledged: the ids that clients have got, in their order.
    :ivar disk_has_failed: whether something could not be recorded.
    """

    def __init__(
        self, raw: sqlite3.Connection, now: Callable[[], float], tell: Callable[[str], None]
    ) -> None:
        self._raw = raw
        self.tell = tell
        self.now = now
        self.harpds: list[Harpd] = []
        self.stories: list[Story] = []
        self.acknowledged: list[str] = []
        self.disk_has_failed = False
        self._known: set[str] = set()
        self._youngest = 0
        self._last_packets: dict[str, float] = {}
        self._last_started: dict[bytes, int] = {}

    # What is on disk.

    def rows(self, condition: str = "", *parameters: Any) -> list[Row]:
        """Return jobs in the order of submission."""
        cursor = self._raw.execute(f"{_ROWS} {condition} ORDER BY seq", parameters)
        return [Row(*values) for values in cursor]

    def row(self, job_id: str) -> Row:
        """Return a job that must be there."""
        found = self._raw.execute(f"{_ROWS} WHERE id = ?", (job_id,)).fetchone()
        if found is None:
            raise Violation(f"job {job_id} is lost")
        return Row(*found)

    def row_of(self, story: Story) -> Row:
        """Return the one job that a call was made into."""
        rows = self.rows("WHERE info = ?", bytes(story.call.info))
        if len(rows) != 1:
            raise Violation(f"call {story.token} has {len(rows)} jobs")
        return rows[0]

    def packets(self, job_id: str) -> list[bytes]:
        """Return what is recorded of a job's packets, whose numbers must be without a gap."""
        found: list[bytes] = []
        rows = self._raw.execute(
            f"SELECT first, count, data FROM packets WHERE job = {_OF_JOB} ORDER BY first",
            (job_id,),
        )
        for first, count, data in rows.fetchall():
            texts = bytes(data).split(b"\n")
            if first != len(found) or count != len(texts):
                raise Violation(f"{job_id} has {len(found)} packets, then {count} from {first} on")
            found.extend(texts)
        return found

    def packet_count(self, job_id: str) -> int:
        """Return how many packets of a job are recorded."""
        found = self._raw.execute(
            f"SELECT coalesce(sum(count), 0) FROM packets WHERE job = {_OF_JOB}", (job_id,)
        )
        count: int = found.fetchone()[0]
        return count

    def story(self, row: Row) -> Story:
        """Return the call that a job was made of."""
        return self.stories[_token(row.info)]

    def packets_came(self, job_id: str) -> None:
        """Learn that packets of a job have come, which may be recorded later."""
        self._last_packets[job_id] = self.now()

    # What clients do and are told.

    def intend(self, call: wire.Call, queue: bytes | None) -> Story:
        """Note a call that is about to be submitted."""
        story = Story(len(self.stories), call, queue, self._youngest, self.now())
        story.call = msgspec.structs.replace(call, info=msgspec.Raw(b"[%d]" % story.token))
        self.stories.append(story)
        return story

    def was_acknowledged(self, story: Story, reply: wire.JobId) -> None:
        """Check the answer to a call."""
        self.tell(f"call {story.token} is acknowledged as {reply.job_id}")
        row = self.row(reply.job_id)
        owner = self.story(row)
        if story.job_id not in {None, reply.job_id}:
            raise Violation(f"call {story.token} has got {story.job_id}, then {reply.job_id}")
        if owner is not story:
            self._check_duplicate(story, owner, row, reply)
        elif not story.duplicate and row.seq <= story.after:
            raise Violation(f"job {row.id} came after the {story.after}th, yet it is {row.seq}th")
        story.job_id = reply.job_id
        if reply.job_id not in self._known:
            self._known.add(reply.job_id)
            self.acknowledged.append(reply.job_id)
        self._youngest = max(self._youngest, row.seq)

    def _check_duplicate(self, story: Story, owner: Story, row: Row, reply: wire.JobId) -> None:
        dedup, earlier = story.call.dedup, owner.call.dedup
        is_equal = dedup is not None and earlier is not None and dedup.key == earlier.key
        if not is_equal or people.whose(story.call) != people.whose(owner.call):
            raise Violation(f"call {story.token} has got the job {row.id} of call {owner.token}")
        assert dedup is not None
        if not reply.duplicate and story.call.idempotency_key is None:
            raise Violation(f"call {story.token} is not told that {row.id} is not its own")
        if row.submitted < story.since - dedup.within - 1e-6:
            raise Violation(f"call {story.token} is told that the old {row.id} is its job")
        if story.starts:
            raise Violation(f"call {story.token} was started, and is called a duplicate")
        story.duplicate = True

    def was_told_packet(self, job_id: str, packet: wire.NumberedPacket) -> None:
        """Check a packet that a client got."""
        self.tell(f"a client gets packet {packet.packet} of {job_id}")
        if self.packets(job_id)[packet.packet : packet.packet + 1] != [packet.data]:
            raise Violation(f"packet {packet.packet} of {job_id} is not what is recorded")

    def was_told_end(self, job_id: str, end: EndResult) -> None:
        """Check an end result that a client got."""
        self.tell(f"a client is told of {job_id} that it ended with {end}")
        row = self.row(job_id)
        plain = EndResult(end.kind, end.value)
        if row.end != plain:
            raise Violation(f"{job_id} ended with {row.end}, a client is told {plain}")
        if end.detail is not None and not end.detail.may_have_run and self.story(row).starts:
            raise Violation(f"{job_id} may not have run, says {plain}, yet it was started")

    # What harpds see.

    def called(self, request: harpd.CallRequest, host: str) -> Story:
        """Check a request that a harpd got."""
        story = self.stories[_token(bytes(request.arguments))]
        row = self.row_of(story)
        if bytes(request.arguments) != bytes(story.call.arguments):
            raise Violation(f"{host} is called with {request.arguments!r} for {row}")
        if row.started is None or row.host != host or story.duplicate:
            raise Violation(f"{host} is called for {row}")
        if request.context is not msgspec.UNSET:
            context = msgspec.json.decode(bytes(request.context))
            told = context["job_id"], context.get("submitter"), context.get("on_behalf_of")
            if told != (row.id, *people.whose(story.call)):
                raise Violation(f"{host} is told {context} for {row}")
        return story

    def started(self, story: Story, of_queue: int) -> None:
        """Check a start; ``of_queue`` calls of its queue run now, as harpds see it."""
        story.starts += 1
        if story.starts > 1:
            raise Violation(f"call {story.token} is started {story.starts} times")
        if story.queue is None:
            return
        row = self.row_of(story)
        found = self._raw.execute(
            "SELECT concurrency FROM queues WHERE name = ?", (story.queue,)
        ).fetchone()
        if found is None or row.state != "running":
            return
        if of_queue > found[0]:
            raise Violation(f"{of_queue} calls of queue {story.queue!r} run, of {found[0]}")
        if found[0] == 1:
            if self._last_started.get(story.queue, 0) > row.seq:
                raise Violation(f"{row.id} of queue {story.queue!r} is started out of order")
            self._last_started[story.queue] = row.seq

    # What must hold at rest.

    def check_kept(self) -> None:
        """Check that no acknowledged job is lost."""
        for job_id in self.acknowledged:
            self.row(job_id)

    def check_stopped(self) -> None:
        """Check that a dispatcher that was told to stop has ended all that it had started."""
        for row in self.rows("WHERE state = 'running'"):
            if self.story(row).starts:
                raise Violation(f"the dispatcher has stopped in good order, yet {row} runs")

    def check_ended(self) -> None:
        """Check all jobs when all of them must have ended."""
        self.check_kept()
        rows = self.rows()
        for row in rows:
            if row.end is None:
                raise Violation(f"at rest job {row.id} is {row.state} ({row.waits_for})")
            self._check_end(row)
        self._check_dedup(rows)
        self._check_secrets(rows)

    def _check_end(self, row: Row) -> None:
        story = self.story(row)
        if (row.submitter, row.on_behalf_of) != people.whose(story.call):
            raise Violation(f"{row} is of {people.whose(story.call)}")
        self._check_packets(row, story)
        if row.end_kind in _OF_HARPD and row.end != story.end:
            raise Violation(f"harpd sent {story.end} for {row.id}, recorded is {row.end}")
        if story.starts and row.started is None:
            raise Violation(f"{row.id} was started and is said not to have been")
        if row.end is not None and row.end.kind is EndKind.ERROR:
            self._check_limit(row, row.end)
            if row.end != story.end:
                self._check_name(row, story)

    def _check_name(self, row: Row, story: Story) -> None:
        """Check the error of a call whose end harpd did not tell."""
        assert row.end is not None
        name = msgspec.json.decode(row.end.value)["type"]
        if name not in _CUT_OFF | (set() if story.starts else _NOT_BEGUN):
            raise Violation(f"{row.id}, which was started {story.starts} times, ended with {name}")

    def _check_packets(self, row: Row, story: Story) -> None:
        packets = self.packets(row.id)
        if packets != story.sent[: len(packets)]:
            raise Violation(f"{row.id} has packets that harpd did not send so")
        if row.end == story.end and packets != story.sent:
            raise Violation(f"{row.id} has {len(packets)} packets, harpd sent {len(story.sent)}")

    def _check_limit(self, row: Row, end: EndResult) -> None:
        message = msgspec.json.decode(end.value)["message"]
        limits = {"timeout:": row.timeout, "max_exec_time:": row.max_exec_time}
        limit = next((limits[word] for word in limits if message.startswith(word)), None)
        if limit is None:
            return
        assert row.ended is not None and row.started is not None
        if row.ended - row.started < limit - 1e-6:
            raise Violation(f"{row.id} ran {row.ended - row.started} s and ended with {message!r}")
        last = self._last_packets.get(row.id)
        is_silence = message.startswith("timeout:")
        if is_silence and last is not None and row.ended - last < limit - 1e-6:
            raise Violation(f"{row.id} was not silent and ended with {message!r}")

    def _check_dedup(self, rows: list[Row]) -> None:
        seen: dict[tuple[bytes, str | None, str | None], float] = {}
        for row in rows:
            dedup = self.story(row).call.dedup
            if dedup is not None:
                key = bytes(dedup.key), row.submitter, row.on_behalf_of
                if key in seen and row.submitted - seen[key] < dedup.within - 1e-6:
                    raise Violation(f"{row.id} was submitted in spite of its dedup")
                seen[key] = row.submitted

    def _check_secrets(self, rows: list[Row]) -> None:
        if people.MARKED in self._raw.serialize():
            raise Violation("a secret is still on the disk")
        for row in rows:
            story = self.story(row)
            # A dispatcher that was killed may not have taken what harpd said.
            was_heard = story.told and row.end == story.end and not self.disk_has_failed
            if was_heard and people.DECLARED in row.arguments:
                raise Violation(f"{row} still shows what harpd has said to be secret")
