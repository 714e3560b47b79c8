"""What replies become for the caller: values, exceptions, and what stands for a missing value.

Without any I/O; both protocols' end results come here. What values become in a request is
``harp.calls``'.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Any, TypeVar

import msgspec

from harp import errors
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


class NoValue(enum.Enum):
    """What a job has in the place of a result: it has not ended, or it was cancelled.

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
_REFUSALS = {
    row.name for row in (errors.INVALID_JOBID, errors.NOT_AUTHENTICATED, errors.NOT_ALLOWED)
}
"""What no job can have ended with."""
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


def outcome(reply: object, origins: frozenset[Origin] = ANYWHERE, is_refusal: bool = False) -> Any:
    """Return the value of an end result, or what stands for it: an exception or a `NoValue`.

    :param origins: where an error can have arisen, seen from here.
    :param is_refusal: whether it is certain that an error has come before anything was started.
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
    is_refusal = is_refusal or (origins is REFUSED and row is errors.INVALID_REQUEST)
    return RemoteError(fault.type, fault.message, data, origin, False if is_refusal else None)


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
    """Raise if the last reply to a request for packets says that there are none for the caller.

    Any other error there is the end of the job, which reading its packets does not raise: nothing
    in version 1 tells a job that ended with ``invalid_request`` from a request that is one.

    :raises RemoteError: ``invalid_jobid``, ``not_authenticated``, ``not_allowed``.
    """
    if isinstance(reply, EndResult) and reply.kind is EndKind.ERROR:
        error = outcome(reply)
        if error.type in _REFUSALS:
            raise error
