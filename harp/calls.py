"""What a caller's values become in a request, and what replies become for the caller.

Without any I/O: the shell around it moves the bytes, ``harp.session`` keeps the order of messages.
"""

from __future__ import annotations

import enum
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import msgspec

from harp import errors
from harp.errors import CancelledException, RemoteError, RemoteException, RemoteProtocolError
from harp.wire import dispatcher
from harp.wire.results import EndKind, EndResult
from harp.wire.text import Fault

R = TypeVar("R")


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
class CallOptions:
    """What a call asks for beside its procedure; already checked."""

    queue: dispatcher.QueueOption | None
    timeout: float | None
    max_exec_time: float | None
    info: msgspec.Raw


def call_options(
    queue: dict[str, Any] | None,
    concurrency: int | None,
    timeout: float | None,
    max_exec_time: float | None,
    info: object,
) -> CallOptions:
    """Check the options of `harp.HarpCaller.host` and freeze them as they are now.

    :raises TypeError: if one has a wrong type.
    :raises ValueError: if one has a wrong value.
    """
    if queue is None and concurrency is not None:
        raise ValueError("concurrency without queue: a job without a queue waits for no other")
    return CallOptions(
        None if queue is None else _queue_option(queue, concurrency),
        None if timeout is None else seconds("timeout", timeout),
        None if max_exec_time is None else seconds("max_exec_time", max_exec_time),
        dispatcher.NULL if info is None else msgspec.Raw(_json(info, "info")),
    )


def call_request(
    host: str,
    procedure: str,
    args: tuple[object, ...],
    kwargs: Mapping[str, object],
    options: CallOptions,
) -> dispatcher.Call:
    """Return the request that submits a call.

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
            _json(key, f"the name {key!r}") + b":" + _json(value, f"{procedure}(): argument {key}")
            for key, value in kwargs.items()
        ]
        arguments = b"{" + b",".join(pairs) + b"}"
    else:
        values = [
            _json(value, f"{procedure}(): argument {number}")
            for number, value in enumerate(args, start=1)
        ]
        arguments = b"[" + b",".join(values) + b"]"
    return dispatcher.Call(
        harpcaller=1,
        host=host,
        procedure=procedure,
        arguments=msgspec.Raw(arguments),
        timeout=options.timeout,
        max_exec_time=options.max_exec_time,
        queue=options.queue,
        info=options.info,
    )


def stream_start(since: int | None, recent: int | None) -> dict[str, Any]:
    """Check where a stream is to be read from.

    :raises TypeError: if one is not a whole number.
    :raises ValueError: if one is negative, or both are given.
    """
    if since is not None and recent is not None:
        raise ValueError("since and recent are two ways to say where to begin: give one of them")
    return {
        "since": None if since is None else _count("since", since, 0),
        "recent": None if recent is None else _count("recent", recent, 0),
    }


def seconds(name: str, value: object) -> float:
    """Return a length of time after a check.

    :raises TypeError: if it is not a number.
    :raises ValueError: if it is not above 0 or is infinite.
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name} must be a number of seconds, not {type(value).__name__}")
    if not 0 < value < math.inf:
        raise ValueError(f"{name} must be a number of seconds above 0, not {value}")
    return value


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


def outcome(reply: dispatcher.Reply) -> Any:
    """Return the value of an end result, or what stands for it: an exception or a `NoValue`.

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
    kind = RemoteError if reply.kind is EndKind.ERROR else RemoteException
    return kind(fault.type, fault.message, data)


def value_of(outcome: Any, job_id: str) -> Any:
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
    raise outcome(reply)


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


def _json(value: object, name: str) -> bytes:
    # The stdlib's encoder, because msgspec's writes what JSON can't carry as something else: NaN
    # as null, bytes as base64, a set as a list.
    try:
        text = json.dumps(value, allow_nan=False, ensure_ascii=False, separators=(",", ":"))
        return text.encode()
    except TypeError as error:
        raise TypeError(f"{name}: {error}") from error
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{name}: {error}") from error


def _queue_option(queue: object, concurrency: int | None) -> dispatcher.QueueOption:
    if not isinstance(queue, dict):
        raise TypeError(f"queue must be a dict, not {type(queue).__name__}")
    name = msgspec.Raw(_json(queue, "queue"))
    if concurrency is None:
        return dispatcher.QueueOption(name)
    return dispatcher.QueueOption(name, _count("concurrency", concurrency, 1))


def _count(name: str, value: object, minimum: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be a whole number, not {type(value).__name__}")
    if value < minimum:
        raise ValueError(f"{name} must be {minimum} or more, not {value}")
    return int(value)
