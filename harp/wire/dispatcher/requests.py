"""The requests of clients: version 1, and the options that extensions add to it."""

from __future__ import annotations

from typing import Annotated

import msgspec

from harp import errors
from harp.errors import RemoteProtocolError
from harp.wire.dispatcher import operation
from harp.wire.dispatcher.base import Count, Request, Seconds
from harp.wire.text import (
    decode_request,
    encode,
    open_request,
    refuse_repeated_keys,
    require_container,
    require_object,
)

DEFAULT_PORT = 3502

NULL = msgspec.Raw(b"null")
"""The ``info`` of a call that has none; a request leaves this very object out."""

Concurrency = Annotated[int, msgspec.Meta(ge=1)]
IdempotencyKey = Annotated[str, msgspec.Meta(min_length=1, max_length=200)]

EXTENSIONS = (
    "keepalive",
    "auth",
    "idempotency_key",
    "dedup",
    "detail",
    "shown_arguments",
    *operation.REQUESTS,
)
"""What ``server_info`` names, and version 1 has not."""


class QueueOption(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """The queue that a call waits in.

    :param name: JSON of an object.
    :param concurrency: how many jobs of the queue may run at once, if this call creates it.
    """

    name: msgspec.Raw
    concurrency: Concurrency = 1


class Dedup(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """An extension: a call that is not submitted if one with its key was not long ago.

    :param key: JSON of an object.
    :param within: how long ago that may be at most, in seconds.
    """

    key: msgspec.Raw
    within: Seconds


class Call(Request, frozen=True, kw_only=True):
    """Run a procedure on a host; answered with a job id.

    :param arguments: JSON of a list or an object.
    :param timeout: the longest silence between two messages of the job, in seconds.
    :param max_exec_time: the longest run, in seconds.
    :param info: JSON, kept for the client and not looked into.
    :param idempotency_key: an extension: a second call with this key gets the first one's job.
    :param shown_arguments: an extension: JSON of the arguments as they may be shown, where some of
        them are secret.
    """

    host: str
    procedure: str
    arguments: msgspec.Raw
    timeout: Seconds | None = None
    max_exec_time: Seconds | None = None
    queue: QueueOption | None = None
    info: msgspec.Raw = NULL
    idempotency_key: IdempotencyKey | None = None
    dedup: Dedup | None = None
    shown_arguments: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


class Cancel(Request, frozen=True, kw_only=True):
    """Cancel a job."""

    cancel: str


class DetailedRequest(Request, frozen=True, kw_only=True):
    """A request whose replies can be had with more in them.

    :param detail: an extension: whether that is wanted.
    """

    detail: bool = False


class GetResult(DetailedRequest, frozen=True, kw_only=True):
    """Ask for a job's end result, at once or when it has ended."""

    get_result: str
    wait: bool = True


class GetStatus(DetailedRequest, frozen=True, kw_only=True):
    """Ask what a job is and when it was submitted, started and ended."""

    get_status: str


class StreamRequest(DetailedRequest, frozen=True, kw_only=True):
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
    _check(request)
    return request


def _check(request: Request) -> None:
    """Refuse what the types of the fields can't tell."""
    match request:
        case Call(arguments=arguments, queue=queue, dedup=dedup, shown_arguments=shown):
            require_container(arguments, "arguments")
            if shown is not msgspec.UNSET:
                require_container(shown, "shown_arguments")
            if queue is not None:
                require_object(queue.name, "queue.name")
            if dedup is not None:
                require_object(dedup.key, "dedup.key")
        case StreamRequest(since=int(), recent=int()):
            raise _invalid("Object has both `since` and `recent`")
        case operation.ListJobs(list_jobs=operation.JobFilter(queue=msgspec.Raw() as name)):
            require_object(name, "list_jobs.queue")
        case operation.ListQueue(list_queue=page):
            require_object(page.name, "list_queue.name")
        case operation.CancelQueue(cancel_queue=queue_name):
            require_object(queue_name.name, "cancel_queue.name")
        case (
            operation.ServerInfo(server_info=False)
            | operation.RefreshHosts(refresh_hosts=False)
            | operation.Reload(reload=False)
            | operation.Stop(stop=False)
        ):
            raise _invalid("Expected `true`, for the key is the request")
        case _:
            pass


def _invalid(message: str) -> RemoteProtocolError:
    return RemoteProtocolError(errors.INVALID_REQUEST, message)


# The key that only this kind of request has. A call has no key of its own, it is what is left.
_REQUESTS: dict[str, type[Request]] = {
    "cancel": Cancel,
    "get_result": GetResult,
    "get_status": GetStatus,
    "follow_stream": FollowStream,
    "read_stream": ReadStream,
    **operation.REQUESTS,
}
_KINDS: list[type[Request]] = [Call, *_REQUESTS.values()]
_decoders = {kind: msgspec.json.Decoder(kind) for kind in _KINDS}
