"""Everything that changes a job, as functions run inside one transaction of the writer.

They can be run again in another transaction if theirs was rolled back. Every change of state
follows the table in ``harpcaller.jobs``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from sqlalchemy import Connection, bindparam, insert, select, update

from harp import errors
from harp.wire import results
from harp.wire.results import EndResult
from harpcaller.jobs import Job, JobEvent, JobState, NewJob, is_legal, state_after
from harpcaller.store import queues
from harpcaller.store.records import Record, find
from harpcaller.store.schema import in_state, jobs, packets

LOST = results.error(errors.MISSING_RESULT, "the dispatcher stopped while the job ran")


class Ending(msgspec.Struct, frozen=True):
    """What the end of a job changed.

    :param job: the job as it ended; None if it was not running, and nothing changed.
    :param released: jobs of its queue that now run, in the order of submission.
    """

    job: Job | None
    released: list[Job]


class Cancellation(msgspec.Struct, frozen=True):
    """What a request to cancel changed.

    :param before: the state that it found; None if there is no such job.
    :param job: the job as it is now; None if there is no such job.
    :param released: jobs of its queue that now run, in the order of submission.
    """

    before: JobState | None
    job: Job | None
    released: list[Job]


class Recovery(msgspec.Struct, frozen=True):
    """What had to be put right after the dispatcher stopped.

    :param closed: ids of the jobs that were running, in the order of submission.
    :param released: jobs that now run, in the order of submission.
    """

    closed: list[str]
    released: list[Job]


_INSERT = insert(jobs)
_START = (
    update(jobs)
    .where(jobs.c.seq == bindparam("at"))
    .values(state=bindparam("after"), started=bindparam("now"))
)
_END_VALUES: Mapping[str, Any] = {
    "state": bindparam("after"),
    "queue_id": None,
    "ended": bindparam("now"),
    "end_kind": bindparam("kind"),
    "end_value": bindparam("value"),
}
_END = update(jobs).where(jobs.c.seq == bindparam("at")).values(_END_VALUES)
_RUNNING_IDS = select(jobs.c.id).where(in_state(JobState.RUNNING)).order_by(jobs.c.seq)
_END_RUNNING = update(jobs).where(in_state(JobState.RUNNING)).values(_END_VALUES)

# One row; executed for many at once. It inserts nothing if the job is not running.
INSERT_PACKET = insert(packets).from_select(
    ["job", "number", "data", "recorded"],
    select(
        jobs.c.seq,
        bindparam("number", type_=packets.c.number.type),
        bindparam("data", type_=packets.c.data.type),
        bindparam("recorded", type_=packets.c.recorded.type),
    ).where(jobs.c.id == bindparam("job_id"), in_state(JobState.RUNNING)),
)


def submit(connection: Connection, new: NewJob, now: float) -> Job:
    """Insert a job, running if it need not wait."""
    place = None if new.queue is None else queues.place_for(connection, new.queue)
    state = JobState.WAITING
    if place is None or place.may_start:
        state = state_after(state, JobEvent.START)
    job = Job(
        id=new.id,
        host=new.host,
        procedure=new.procedure,
        arguments=new.arguments,
        info=new.info,
        timeout=new.timeout,
        max_exec_time=new.max_exec_time,
        queue=None if new.queue is None else new.queue.name,
        state=state,
        submitted=now,
        started=now if state is JobState.RUNNING else None,
    )
    values = msgspec.structs.asdict(job)
    del values["ended"], values["end"]
    connection.execute(_INSERT, values | {"queue_id": None if place is None else place.queue_id})
    return job


def end(
    connection: Connection, job_id: str, result: EndResult, now: float, release: bool
) -> Ending:
    """End a job that runs and, if told to, release those that waited for it."""
    record = find(connection, job_id)
    if record is None or not is_legal(record.job.state, JobEvent.FINISH):
        return Ending(None, [])
    return _end(connection, record, JobEvent.FINISH, result, now, release)


def cancel(connection: Connection, job_id: str, now: float, release: bool) -> Cancellation:
    """End a job that waits or runs and, if told to, release those that waited for it."""
    record = find(connection, job_id)
    if record is None:
        return Cancellation(None, None, [])
    before = record.job.state
    if not is_legal(before, JobEvent.CANCEL):
        return Cancellation(before, record.job, [])
    ending = _end(connection, record, JobEvent.CANCEL, results.CANCELLED, now, release)
    return Cancellation(before, ending.job, ending.released)


def recover(connection: Connection, now: float) -> Recovery:
    """Close the jobs that were running and let every queue go on."""
    closed = list(connection.execute(_RUNNING_IDS).scalars())
    after = state_after(JobState.RUNNING, JobEvent.LOSE)
    connection.execute(_END_RUNNING, _end_parameters(after, LOST, now))
    released = [
        record
        for queue_id in queues.all_queues(connection)
        for record in _release(connection, queue_id, now)
    ]
    released.sort(key=lambda record: record.seq)
    return Recovery(closed, [record.job for record in released])


def _end(
    connection: Connection,
    record: Record,
    event: JobEvent,
    result: EndResult,
    now: float,
    release: bool,
) -> Ending:
    after = state_after(record.job.state, event)
    connection.execute(_END, {"at": record.seq} | _end_parameters(after, result, now))
    ended = msgspec.structs.replace(record.job, state=after, ended=now, end=result)
    if record.queue_id is None or not release:
        return Ending(ended, [])
    released = _release(connection, record.queue_id, now)
    return Ending(ended, [record.job for record in released])


def _end_parameters(after: JobState, result: EndResult, now: float) -> dict[str, Any]:
    return {"after": after, "now": now, "kind": result.kind, "value": result.value}


def _release(connection: Connection, queue_id: int, now: float) -> list[Record]:
    released = [
        _start(connection, record, now) for record in queues.next_jobs(connection, queue_id)
    ]
    if not released:
        queues.remove_if_empty(connection, queue_id)
    return released


def _start(connection: Connection, record: Record, now: float) -> Record:
    after = state_after(record.job.state, JobEvent.START)
    connection.execute(_START, {"at": record.seq, "after": after, "now": now})
    job = msgspec.structs.replace(record.job, state=after, started=now)
    return record._replace(job=job)
