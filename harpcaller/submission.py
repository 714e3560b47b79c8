"""A call as it was asked for, made into a job as it will be recorded."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from harp import errors
from harp.wire import dispatcher as wire
from harp.wire.lines import ENVELOPE_ROOM, MAX_REQUEST
from harp.wire.text import encode
from harpcaller.identities import Identity
from harpcaller.jobs import Dedup, NewJob, QueueSpec
from harpcaller.queues import canonical_queue_name
from harpcaller.refusal import RefusedError
from harpcaller.secrecy import NOT_SHOWN


@dataclass(frozen=True)
class Limits:
    """The time limits of the configuration, in seconds.

    :param default_timeout: the longest silence of a job that asks for no other.
    :param max_exec_time: the longest run of any job.
    """

    default_timeout: float
    max_exec_time: float


def new_job(
    call: wire.Call, job_id: str, identity: Identity, limits: Limits, has_secrets: bool = False
) -> NewJob:
    """Return the job that a call asks for.

    :param identity: who asks.
    :param has_secrets: whether harpd has said of the procedure that it has secret parameters.
    :raises RefusedError: ``invalid_request``, if a name is no sound JSON or harpd would not take
        so long a request.
    """
    _check_size(call)
    queue = dedup = shown = None
    if call.queue is not None:
        name = canonical_name(call.queue.name, "queue.name")
        queue = QueueSpec(name, call.queue.concurrency)
    if call.dedup is not None:
        dedup = Dedup(canonical_name(call.dedup.key, "dedup.key"), call.dedup.within)
    if call.shown_arguments is not msgspec.UNSET:
        shown = bytes(call.shown_arguments)
    elif has_secrets:
        shown = NOT_SHOWN
    return NewJob(
        id=job_id,
        host=call.host,
        procedure=call.procedure,
        arguments=bytes(call.arguments),
        info=bytes(call.info),
        timeout=min(call.timeout or limits.default_timeout, limits.max_exec_time),
        max_exec_time=min(call.max_exec_time or limits.max_exec_time, limits.max_exec_time),
        queue=queue,
        idempotency_key=call.idempotency_key,
        dedup=dedup,
        caller=identity.peer,
        submitter=identity.name,
        on_behalf_of=identity.on_behalf_of,
        shown_arguments=shown,
    )


def canonical_name(raw: msgspec.Raw, key: str) -> bytes:
    """Return the one spelling of a name that is a JSON object.

    :param key: where in the request it stands.
    :raises RefusedError: ``invalid_request``, if it can't be a name.
    """
    try:
        return canonical_queue_name(bytes(raw))
    except ValueError as error:
        raise RefusedError(errors.INVALID_REQUEST, f"{error} - at `$.{key}`") from error


def _check_size(call: wire.Call) -> None:
    length = len(encode(call.procedure)) + len(bytes(call.arguments))
    longest = MAX_REQUEST - ENVELOPE_ROOM
    if length > longest:
        raise RefusedError(
            errors.INVALID_REQUEST,
            f"{length} bytes are more than the {longest} that harpd takes - at `$.arguments`",
        )
