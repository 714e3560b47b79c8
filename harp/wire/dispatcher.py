"""The messages between the dispatcher and its clients, version 1 of that protocol.

A client sends one request; the kind of it tells which replies may follow. ``harp.session`` keeps
that order; here are the messages alone.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from harp import errors
from harp.errors import RemoteProtocolError
from harp.wire.results import EndFields, EndResult
from harp.wire.text import (
    decode_reply,
    decode_request,
    encode,
    open_request,
    refuse_repeated_keys,
    require_container,
)

DEFAULT_PORT = 3502

NULL = msgspec.Raw(b"null")
"""The ``info`` of a call that has none; a request leaves this very object out."""

Seconds = Annotated[float, msgspec.Meta(gt=0)]
Count = Annotated[int, msgspec.Meta(ge=0)]
Concurrency = Annotated[int, msgspec.Meta(ge=1)]


class Request(msgspec.Struct, forbid_unknown_fields=True, frozen=True, omit_defaults=True):
    """What all requests have: the version of the protocol, always 1."""

    harpcaller: Literal[1]


class QueueOption(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """The queue that a call waits in.

    :param name: JSON of an object.
    :param concurrency: how many jobs of the queue may run at once, if this call creates it.
    """

    name: msgspec.Raw
    concurrency: Concurrency = 1


class Call(Request, frozen=True, kw_only=True):
    """Run a procedure on a host; answered with a job id.

    :param arguments: JSON of a list or an object.
    :param timeout: the longest silence between two messages of the job, in seconds.
    :param max_exec_time: the longest run, in seconds.
    :param info: JSON, kept for the client and not looked into.
    """

    host: str
    procedure: str
    arguments: msgspec.Raw
    timeout: Seconds | None = None
    max_exec_time: Seconds | None = None
    queue: QueueOption | None = None
    info: msgspec.Raw = NULL


class Cancel(Request, frozen=True, kw_only=True):
    """Cancel a job."""

    cancel: str


class GetResult(Request, frozen=True, kw_only=True):
    """Ask for a job's end result, at once or when it has ended."""

    get_result: str
    wait: bool = True


class GetStatus(Request, frozen=True, kw_only=True):
    """Ask what a job is and when it was submitted, started and ended."""

    get_status: str


class StreamRequest(Request, frozen=True, kw_only=True):
    """Where the packets asked for begin.

    :param since: the number of the first packet wanted.
    :param recent: how many of the packets recorded so far are wanted.
    """

    since: Count | None = None
    recent: Count | None = None


class FollowStream(StreamRequest, frozen=True, kw_only=True):
    """Ask for packets until the job ends; only new ones where nothing else is said."""

    follow_stream: str


class ReadStream(StreamRequest, frozen=True, kw_only=True):
    """Ask for the packets recorded so far; all of them where nothing else is said."""

    read_stream: str


class JobId(msgspec.Struct, frozen=True):
    """The job is on disk."""

    job_id: str


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


class Status(msgspec.Struct, frozen=True):
    """What a job is and when what happened to it."""

    call: CallFields
    time: Times
    info: msgspec.Raw


class NumberedPacket(msgspec.Struct, frozen=True):
    """One partial result and its place in the stream, from 0.

    :param data: JSON.
    """

    packet: int
    data: bytes


class Continue(msgspec.Struct, frozen=True):
    """These were the packets so far; the job has not ended."""


Reply = JobId | CancelOutcome | NoResult | Status | NumberedPacket | Continue | EndResult


def encode_request(request: Request) -> bytes:
    """Return the line of a request."""
    return encode(request) + b"\n"


def decode_request_line(line: bytes) -> Request:
    """Decode a request line.

    :raises RemoteProtocolError: ``parse_error``, ``invalid_protocol`` or ``invalid_request``.
    """
    message = open_request(line, "harpcaller")
    refuse_repeated_keys(line)
    named = [key for key in _REQUESTS if key in message]
    if len(named) > 1:
        keys = ", ".join(f"`{key}`" for key in named)
        raise _invalid(f"Object asks for several things at once: {keys}")
    request = decode_request(line, _decoders[_REQUESTS[named[0]] if named else Call])
    if isinstance(request, Call):
        require_container(request.arguments, "arguments")
        if request.queue is not None and not bytes(request.queue.name).startswith(b"{"):
            raise _invalid("Expected `object` - at `$.queue.name`")
    if isinstance(request, StreamRequest) and None not in (request.since, request.recent):
        raise _invalid("Object has both `since` and `recent`")
    return request


def encode_reply(reply: Reply) -> bytes:
    """Return the line of one reply, exactly the keys of version 1."""
    match reply:
        case NumberedPacket(number, data):
            return b'{"packet":%d,"data":%b}\n' % (number, data)
        case EndResult(kind, value):
            return b'{"%b":%b}\n' % (kind.value.encode(), value)
        case JobId(job_id):
            return b'{"harpcaller":1,"job_id":%b}\n' % encode(job_id)
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
    fields = decode_reply(line, _reply_decoder)
    found: list[Reply] = list(fields.end_results())
    if fields.job_id is not None:
        found.append(JobId(fields.job_id))
    if fields.no_result:
        found.append(NoResult())
    if fields.continue_:
        found.append(Continue())
    if fields.cancelled is not None:
        found.append(CancelOutcome(fields.cancelled))
    if fields.packet is not None and fields.data is not msgspec.UNSET:
        found.append(NumberedPacket(fields.packet, bytes(fields.data)))
    if fields.call is not None and fields.time is not None:
        found.append(Status(fields.call, fields.time, fields.info))
    if len(found) != 1:
        raise RemoteProtocolError(
            errors.PROTOCOL_ERROR, f"reply has {len(found)} of the keys that tell its meaning"
        )
    return found[0]


def _invalid(message: str) -> RemoteProtocolError:
    return RemoteProtocolError(errors.INVALID_REQUEST, message)


class _ReplyFields(EndFields, kw_only=True):
    job_id: str | None = None
    no_result: bool = False
    continue_: bool = msgspec.field(default=False, name="continue")
    cancelled: bool | None = None
    packet: Count | None = None
    data: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    call: CallFields | None = None
    time: Times | None = None
    info: msgspec.Raw = NULL


# The key that only this kind of request has. A call has no key of its own, it is what is left.
_REQUESTS: dict[str, type[Request]] = {
    "cancel": Cancel,
    "get_result": GetResult,
    "get_status": GetStatus,
    "follow_stream": FollowStream,
    "read_stream": ReadStream,
}
_KINDS: list[type[Request]] = [Call, *_REQUESTS.values()]
_decoders = {kind: msgspec.json.Decoder(kind) for kind in _KINDS}
_reply_decoder = msgspec.json.Decoder(_ReplyFields)
