"""What answers the requests of clients: version 1, and what ``"detail": true`` adds to it."""

from __future__ import annotations

import msgspec

from harp import errors
from harp.errors import RemoteProtocolError
from harp.wire.dispatcher.base import Count
from harp.wire.dispatcher.operation import (
    JobTimes,
    ServerVersion,
    Stage,
    State,
    Summary,
    summary_decoder,
)
from harp.wire.packets import encode_numbered
from harp.wire.results import CANCELLED, EndDetail, EndFields, EndResult
from harp.wire.text import any_message, decode_reply, encode

_NULL = msgspec.Raw(b"null")


class JobId(msgspec.Struct, frozen=True):
    """The job is on disk.

    :param duplicate: an extension: whether ``dedup`` found it, so that it is an earlier call's.
    """

    job_id: str
    duplicate: bool = False


class CancelOutcome(msgspec.Struct, frozen=True):
    """Whether there was anything to cancel."""

    cancelled: bool


class NoResult(msgspec.Struct, frozen=True):
    """The job has not ended."""


class CallFields(msgspec.Struct, frozen=True):
    """What was called."""

    host: str
    procedure: str
    arguments: msgspec.Raw


class Times(msgspec.Struct, frozen=True):
    """Whole seconds since the epoch."""

    submit: int
    start: int | None
    end: int | None


class QueuePlace(msgspec.Struct, frozen=True):
    """A job's place in its queue.

    :param name: JSON of an object.
    :param concurrency: None if the queue is gone.
    :param position: how many waiting jobs come before it, None if it does not wait.
    """

    name: msgspec.Raw
    concurrency: int | None
    position: int | None


class StatusDetail(msgspec.Struct, frozen=True):
    """What version 1 does not say of a job.

    :param waits_for: what a waiting job waits for.
    :param waits_for_lock: the lock that a running one waits for on its host.
    :param timeout: the longest silence between two messages of the job, in seconds.
    :param max_exec_time: the longest run, in seconds.
    :param caller: the address from which it was submitted.
    :param packets: how many have been recorded.
    :param submitter: the user who submitted it, None for nobody in particular.
    :param on_behalf_of: for whom the submitter did so.
    """

    state: State
    waits_for: Stage | None
    waits_for_lock: str | None
    time: JobTimes
    timeout: float
    max_exec_time: float
    caller: str | None
    packets: int
    queue: QueuePlace | None
    submitter: str | None = None
    on_behalf_of: str | None = None


class Status(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a job is and when what happened to it."""

    call: CallFields
    time: Times
    info: msgspec.Raw
    detail: StatusDetail | None = None


class NumberedPacket(msgspec.Struct, frozen=True):
    """One partial result and its place in the stream, from 0.

    :param data: JSON.
    :param time: an extension: when it was recorded, in unix seconds.
    """

    packet: int
    data: bytes
    time: float | None = None


class Continue(msgspec.Struct, frozen=True):
    """These were the packets so far; the job has not ended."""


Reply = JobId | CancelOutcome | NoResult | Status | NumberedPacket | Continue | EndResult | Summary


def encode_reply(reply: Reply) -> bytes:
    """Return the line of one reply: the keys of version 1, and those that were asked for."""
    match reply:
        case NumberedPacket(number, data, time):
            return encode_numbered(number, [data], None if time is None else encode(time))
        case EndResult(kind, value, None):
            return b'{"%b":%b}\n' % (kind.value.encode(), value)
        case EndResult(kind, value, detail):
            return b'{"%b":%b,"detail":%b}\n' % (kind.value.encode(), value, encode(detail))
        case JobId(job_id, duplicate):
            more = b',"duplicate":true' if duplicate else b""
            return b'{"harpcaller":1,"job_id":%b%b}\n' % (encode(job_id), more)
        case ServerVersion():
            return b'{"harpcaller":1,%b\n' % encode(reply)[1:]
        case NoResult():
            return b'{"no_result":true}\n'
        case Continue():
            return b'{"continue":true}\n'
        case _:
            return encode(reply) + b"\n"


def decode_reply_line(line: bytes) -> Reply:
    """Decode one line from the dispatcher.

    ``{"cancelled": true}`` comes back as a `CancelOutcome`; ``harp.session`` knows when it is an
    end result.

    :raises RemoteProtocolError: ``protocol_error``.
    """
    # Of packets there are many.
    packet = _plain_packet(line) if line.startswith(b'{"packet":') else None
    if packet is not None:
        return packet
    fields = decode_reply(line, _reply_decoder)
    found = fields.replies()
    if not found and (decoder := summary_decoder(any_message.decode(line))) is not None:
        found = [decode_reply(line, decoder)]
    if len(found) != 1:
        raise RemoteProtocolError(
            errors.PROTOCOL_ERROR, f"reply has {len(found)} of the keys that tell its meaning"
        )
    return found[0]


def _plain_packet(line: bytes) -> NumberedPacket | None:
    """Return a packet, None if anything about it is wrong or unusual."""
    try:
        line.decode()  # msgspec does not look into what it skips
        fields = _packet_decoder.decode(line)
    except (ValueError, RecursionError):
        return None
    return NumberedPacket(fields.packet, bytes(fields.data), fields.time)


class _PlainPacket(msgspec.Struct, forbid_unknown_fields=True):
    packet: Count
    data: msgspec.Raw
    time: float | None = None


class _ReplyFields(EndFields, kw_only=True):
    job_id: str | None = None
    duplicate: bool = False
    no_result: bool = False
    continue_: bool = msgspec.field(default=False, name="continue")
    cancelled: bool | None = None
    packet: Count | None = None
    data: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    call: CallFields | None = None
    time: Times | float | None = None
    info: msgspec.Raw = _NULL
    detail: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET

    def replies(self) -> list[Reply]:
        """Return the replies that the message holds; more than one is its writer's mistake."""
        found: list[Reply] = [
            end if self.detail is msgspec.UNSET else self._detailed(end)
            for end in self.end_results()
        ]
        if self.job_id is not None:
            found.append(JobId(self.job_id, self.duplicate))
        if self.no_result:
            found.append(NoResult())
        if self.continue_:
            found.append(Continue())
        if self.cancelled is not None and self.detail is not msgspec.UNSET:
            found.append(self._detailed(CANCELLED))
        elif self.cancelled is not None:
            found.append(CancelOutcome(self.cancelled))
        if self.packet is not None and self.data is not msgspec.UNSET:
            time = self.time if isinstance(self.time, float) else None
            found.append(NumberedPacket(self.packet, bytes(self.data), time))
        if self.call is not None and isinstance(self.time, Times):
            detail = None
            if self.detail is not msgspec.UNSET:
                detail = decode_reply(bytes(self.detail), _status_detail_decoder)
            found.append(Status(self.call, self.time, self.info, detail))
        return found

    def _detailed(self, end: EndResult) -> EndResult:
        assert self.detail is not msgspec.UNSET
        detail = decode_reply(bytes(self.detail), _end_detail_decoder)
        return EndResult(end.kind, end.value, detail)


_reply_decoder = msgspec.json.Decoder(_ReplyFields)
_packet_decoder = msgspec.json.Decoder(_PlainPacket)
_status_detail_decoder = msgspec.json.Decoder(StatusDetail)
_end_detail_decoder = msgspec.json.Decoder(EndDetail)
