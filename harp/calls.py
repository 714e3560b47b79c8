"""What a caller's values become in a request, and what replies become for the caller.

Without any I/O: the shell around it moves the bytes, ``harp.session`` keeps the order of messages.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import msgspec

from harp import checks, errors
from harp.errors import (
    CancelledException,
    Origin,
    RemoteError,
    RemoteException,
    RemoteProtocolError,
)
from harp.wire import dispatcher
from harp.wire.results import EndKind, EndResult
from harp.wire.text import Fault

R = TypeVar("R")

MAX_KEY = 200
"""The longest idempotency key in characters (protocol page)."""


class NoValue(enum.Enum):
    """What a job has in the place of a result while there is none.

    Compare with ``is``; copies and pickles are the same object. Both are true in a condition, as
    a result that is None, 0 or empty is not.
    """

    CALL_NOT_FINISHED = "the job has not ended"
    CALL_CANCELLED = "the job was cancelled"

    def __repr__(self) -> str:
        return f"harp.{self.name}"

    __str__ = __repr__


CALL_NOT_FINISHED = NoValue.CALL_NOT_FINISHED
CALL_CANCELLED = NoValue.CALL_CANCELLED


@dataclass(frozen=True)
class Result:
    """What a streaming procedure returned; the last item of a `harp.HarpStreamIterator`.

    :param value: the value.
    """

    value: Any


@dataclass(frozen=True)
class CallOptions:
    """What a call asks for beside its procedure; already checked."""

    queue: dispatcher.QueueOption | None
    timeout: float | None
    max_exec_time: float | None
    info: msgspec.Raw
    idempotency_key: str | None
    dedup: dispatcher.Dedup | None


def call_options(
    queue: dict[str, Any] | None,
    concurrency: int | None,
    timeout: float | None,
    max_exec_time: float | None,
    info: object,
    idempotency_key: str | None = None,
    dedup: dict[str, Any] | None = None,
) -> CallOptions:
    """Check the options of `harp.HarpCaller.host` and freeze them as they are now.

    :raises TypeError: if one has a wrong type.
    :raises ValueError: if one has a wrong value.
    """
    if queue is None and concurrency is not None:
        raise ValueError("concurrency without queue: a job without a queue waits for no other")
    return CallOptions(
        None if queue is None else _queue_option(queue, concurrency),
        None if timeout is None else checks.seconds("timeout", timeout),
        None if max_exec_time is None else checks.seconds("max_exec_time", max_exec_time),
        dispatcher.NULL if info is None else msgspec.Raw(checks.as_json("info", info)),
        None if idempotency_key is None else _idempotency_key(idempotency_key),
        None if dedup is None else _dedup(dedup),
    )


def arguments(procedure: str, args: tuple[object, ...], kwargs: Mapping[str, object]) -> bytes:
    """Return the arguments of a call as they go on the wire.

    :raises TypeError: if there are both kinds of arguments, or JSON can't carry one's type.
    :raises ValueError: if JSON can't carry the value of an argument.
    """
    if args and kwargs:
        raise TypeError(
            f"{procedure}() takes positional or keyword arguments, not both:"
            " the protocol carries a list or an object"
        )
    if kwargs:
        pairs = [
            checks.as_json(f"the name {key!r}", key)
            + b":"
            + checks.as_json(f"{procedure}(): argument {key}", value)
            for key, value in kwargs.items()
        ]
        return b"{" + b",".join(pairs) + b"}"
    values = [
        checks.as_json(f"{procedure}(): argument {number}", value)
        for number, value in enumerate(args, start=1)
    ]
    return b"[" + b",".join(values) + b"]"


def call_request(
    host: str,
    procedure: str,
    args: tuple[object, ...],
    kwargs: Mapping[str, object],
    options: CallOptions,
) -> dispatcher.Call:
    """Return the request that submits a call.

    :raises TypeError: as `arguments`.
    :raises ValueError: as `arguments`.
    """
    return dispatcher.Call(
        harpcaller=1,
        host=host,
        procedure=checks.text("procedure", procedure),
        arguments=msgspec.Raw(arguments(procedure, args, kwargs)),
        timeout=options.timeout,
        max_exec_time=options.max_exec_time,
        queue=options.queue,
        info=options.info,
        idempotency_key=options.idempotency_key,
        dedup=options.dedup,
    )


def stream_start(since: int | None, recent: int | None) -> dict[str, Any]:
    """Check where a stream is to be read from.

    :raises TypeError: if one is not a whole number.
    :raises ValueError: if one is negative, or both are given.
    """
    if since is not None and recent is not None:
        raise ValueError("since and recent are two ways to say where to begin: give one of them")
    return {
        "since": None if since is None else checks.count("since", since, 0),
        "recent": None if recent is None else checks.count("recent", recent, 0),
    }


def decode_payload(payload: bytes | msgspec.Raw) -> Any:
    """Return the value of a payload.

    :raises RemoteProtocolError: if it is JSON that can't be held, such as 1e999.
    """
    try:
        return msgspec.json.decode(payload)
    except (msgspec.DecodeError, RecursionError) as error:
        raise RemoteProtocolError(
            errors.PROTOCOL_ERROR, f"a payload can't be decoded: {error}"
        ) from error


_ORIGINS = {origin.value for origin in Origin}
ANYWHERE = frozenset(Origin)
REFUSED = frozenset({Origin.DISPATCHER})
"""Where an error can have arisen that answers a request of no job's."""
DIRECT = frozenset({Origin.HARPD, Origin.PROCEDURE})
"""Where an error can have arisen that harpd tells to who called it."""


def plain(value: Any) -> Any:
    """Return a message or a part of one as dicts and lists, its payloads decoded.

    :raises RemoteProtocolError: if a payload can't be decoded.
    """
    if isinstance(value, msgspec.Struct):
        return {name: plain(getattr(value, name)) for name in value.__struct_fields__}
    if isinstance(value, list):
        return [plain(item) for item in value]
    return decode_payload(value) if isinstance(value, msgspec.Raw) else value


def outcome(reply: object, origins: frozenset[Origin] = ANYWHERE) -> Any:
    """Return the value of an end result, or what stands for it: an exception or a `NoValue`.

    :param origins: where an error can have arisen, seen from here.
    :raises RemoteProtocolError: if the value can't be decoded.
    """
    if not isinstance(reply, EndResult):
        return CALL_NOT_FINISHED
    if reply.kind is EndKind.CANCELLED:
        return CALL_CANCELLED
    if reply.kind is EndKind.RESULT:
        return decode_payload(reply.value)
    fault = msgspec.json.decode(reply.value, type=Fault)
    data = None if fault.data is msgspec.UNSET else decode_payload(fault.data)
    if reply.kind is EndKind.EXCEPTION:
        return RemoteException(fault.type, fault.message, data)
    if reply.detail is not None:
        known = reply.detail.origin in _ORIGINS
        origin = Origin(reply.detail.origin) if known else None
        return RemoteError(fault.type, fault.message, data, origin, reply.detail.may_have_run)
    row = errors.ERROR_TYPES.get(fault.type)
    possible = origins.intersection(row.origins) if row else origins
    origin = next(iter(possible)) if len(possible) == 1 else None
    # harpd says it of running calls too, but a request that was refused started nothing.
    is_refused = origins is REFUSED and row is errors.INVALID_REQUEST
    return RemoteError(fault.type, fault.message, data, origin, False if is_refused else None)


def value_of(outcome: Any, job_id: str = "") -> Any:
    """Return an `outcome` that is a value or says that the job runs, raise what else it is.

    :raises RemoteException: if the procedure raised.
    :raises RemoteError: if the call could not be carried out, or there is no such job.
    :raises CancelledException: if the job was cancelled.
    """
    if isinstance(outcome, RemoteException | RemoteError):
        raise outcome
    if outcome is CALL_CANCELLED:
        raise CancelledException(f"job {job_id} was cancelled")
    return outcome


def answer(reply: dispatcher.Reply, kind: type[R]) -> R:
    """Return the reply to a request that can only be answered so or be refused.

    :raises RemoteError: if the dispatcher refused the request.
    """
    if isinstance(reply, kind):
        return reply
    raise outcome(reply, REFUSED)


def refuse_stream(reply: dispatcher.Reply) -> None:
    """Raise if the last reply to a request for packets says that there is no such job.

    Any other error there is the end of the job, which reading its packets does not raise: nothing
    in version 1 tells a job that ended with ``invalid_request`` from a request that is one.

    :raises RemoteError: ``invalid_jobid``.
    """
    if isinstance(reply, EndResult) and reply.kind is EndKind.ERROR:
        error = outcome(reply)
        if error.type == errors.INVALID_JOBID.name:
            raise error


def _queue_option(queue: object, concurrency: int | None) -> dispatcher.QueueOption:
    name = msgspec.Raw(checks.json_object("queue", queue))
    if concurrency is None:
        return dispatcher.QueueOption(name)
    return dispatcher.QueueOption(name, checks.count("concurrency", concurrency, 1))


def _idempotency_key(key: object) -> str:
    text = checks.text("idempotency_key", key)
    if not 1 <= len(text) <= MAX_KEY:
        raise ValueError(f"idempotency_key must have 1 to {MAX_KEY} characters, not {len(text)}")
    return text


def _dedup(dedup: object) -> dispatcher.Dedup:
    if not isinstance(dedup, dict):
        raise TypeError(f"dedup must be a dict, not {type(dedup).__name__}")
    if set(dedup) != {"key", "within"}:
        raise ValueError(
            f"dedup must have the keys 'key' and 'within', not {sorted(dedup, key=str)}"
        )
    return dispatcher.Dedup(
        msgspec.Raw(checks.json_object("dedup['key']", dedup["key"])),
        checks.seconds("dedup['within']", dedup["within"]),
    )
