"""Everything that changes a job, as functions run inside one transaction of the writer.

They can be run again in another transaction if theirs was rolled back. Every change of state
follows the table in ``harpcaller.jobs``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from sqlalchemy import Integer, bindparam, case, exists, insert, select, update

from harp import errors
from harp.errors import Origin
from harp.wire import results
from harp.wire.results import EndResult
from harpcaller.jobs import (
    Capacity,
    Job,
    JobEvent,
    JobState,
    NewJob,
    WaitsFor,
    is_legal,
    state_after,
)
from harpcaller.store import admission, repeats, secrets
from harpcaller.store.outcomes import (
    Cancellation,
    Ending,
    QueueCancellation,
    Recovery,
    Submission,
)
from harpcaller.store.portions import counted
from harpcaller.store.queues import digest_of
from harpcaller.store.records import Record, find, select_records, to_record
from harpcaller.store.schema import (
    LARGEST_INTEGER,
    in_state,
    is_running,
    jobs,
    packets,
    queues,
    waits_for,
)
from harpcaller.store.statements import Connection, Statement

LOST = results.error(errors.MISSING_RESULT, "the dispatcher stopped while the job ran")


_INSERT = Statement(
    insert(jobs),
    *("id", "host", "procedure", "arguments", "info", "timeout", "max_exec_time"),
    *("queue", "queue_id", "state", "submitted", "started", "waits_for", "caller", "dedup"),
    *("submitter", "on_behalf_of"),
)
_has_packets = exists().where(packets.c.job == jobs.c.seq)
_END_VALUES: Mapping[str, Any] = {
    "state": bindparam("after"),
    "waits_for": None,
    "queue_id": None,
    "ended": bindparam("now"),
    "end_kind": bindparam("kind"),
    "end_value": bindparam("value"),
    "end_origin": bindparam("origin"),
    "stream_ended": case((_has_packets, bindparam("now"))),
}
_END = Statement(update(jobs).where(jobs.c.seq == bindparam("at")).values(_END_VALUES))
_REPLACE_ARGUMENTS = Statement(
    update(jobs).where(jobs.c.id == bindparam("of_job")).values(arguments=bindparam("arguments"))
)
_RUNNING_IDS = Statement(select(jobs.c.id).where(is_running).order_by(jobs.c.seq))
_END_RUNNING = Statement(update(jobs).where(is_running).values(_END_VALUES))

# By what they wait for, the last one submitted first in each.
_WAITING_IN_QUEUE = {
    what: Statement(
        select_records.where(
            jobs.c.queue_id
            == select(queues.c.id).where(queues.c.digest == bindparam("digest")).scalar_subquery(),
            in_state(JobState.WAITING),
            waits_for(what),
            jobs.c.seq <= bindparam("up_to"),
        )
        .order_by(jobs.c.seq.desc())
        .limit(bindparam("most", type_=Integer))
    )
    for what in WaitsFor
}


def submit(
    connection: Connection, capacity: Capacity, new: NewJob, now: float, key_life: float
) -> Submission:
    """Insert a job, running if it need not wait, unless the call was made before."""
    found = repeats.claim(connection, new, now, key_life)
    if found is None:
        return Submission(new.id, _insert(connection, capacity, new, now))
    record = find(connection, found.job_id)
    return Submission(found.job_id, None if record is None else record.job, found.by)


def end(
    connection: Connection,
    capacity: Capacity,
    job_id: str,
    result: EndResult,
    origin: Origin | None,
    now: float,
    release: bool,
) -> Ending:
    """End a job that runs and, if told to, release those that waited for it."""
    record = find(connection, job_id)
    if record is None or not is_legal(record.job.state, JobEvent.FINISH):
        return Ending(None, [])
    job = _end(connection, record, JobEvent.FINISH, result, origin, now)
    return Ending(job, _released(connection, capacity, record, now) if release else [])


def cancel(
    connection: Connection, capacity: Capacity, job_id: str, now: float, release: bool
) -> Cancellation:
    """End a job that waits or runs and, if told to, release those that waited for it."""
    record = find(connection, job_id)
    if record is None:
        return Cancellation(None, None, [])
    before = record.job.state
    if not is_legal(before, JobEvent.CANCEL):
        return Cancellation(before, record.job, [])
    job = _end(connection, record, JobEvent.CANCEL, results.CANCELLED, None, now)
    released = _released(connection, capacity, record, now) if release else []
    return Cancellation(before, job, released)


def cancel_waiting(
    connection: Connection,
    capacity: Capacity,
    queue: bytes,
    up_to_seq: int,
    limit: int,
    now: float,
) -> QueueCancellation:
    """End jobs that wait in a queue and release those that waited for them.

    The last one submitted is the first to go, so that no job starts only to be cancelled.

    :param limit: the most jobs, long ones counted as several.
    """
    parameters = {"digest": digest_of(queue), "up_to": min(up_to_seq, LARGEST_INTEGER)}
    found: list[Record] = []
    left = limit
    for what in WaitsFor:  # one that has come past the queue was submitted before those in it
        if left <= 0:
            break
        with _WAITING_IN_QUEUE[what].rows(connection, **parameters, most=left) as rows:
            for record in map(to_record, rows):
                found.append(record)
                left -= counted(len(record.job.arguments) + len(record.job.info))
                if left <= 0:
                    break
    ended = [
        _end(connection, record, JobEvent.CANCEL, results.CANCELLED, None, now) for record in found
    ]
    released = _released(connection, capacity, found[-1], now) if found else []
    return QueueCancellation(ended, released)


def recover(connection: Connection, capacity: Capacity, now: float) -> Recovery:
    """Close the jobs that were running and let the others go on."""
    closed = [job_id for (job_id,) in _RUNNING_IDS.all(connection)]
    after = state_after(JobState.RUNNING, JobEvent.LOSE)
    _END_RUNNING.run(connection, **_end_parameters(after, LOST, Origin.DISPATCHER, now))
    admission.count_all_out(connection)
    return Recovery(closed, set_capacity(connection, capacity, now))


def replace_arguments(connection: Connection, job_id: str, shown: bytes, wipe: bool) -> None:
    """Show something else of a job's arguments.

    :param wipe: whether what was shown so far has secrets in it.
    """
    _REPLACE_ARGUMENTS.run(connection, of_job=job_id, arguments=shown)
    connection.has_wiped |= wipe


def set_capacity(connection: Connection, capacity: Capacity, now: float) -> list[Job]:
    """Let go on who can under another capacity; return those that now run."""
    return [record.job for record in admission.settle_all(connection, capacity, now)]


def _insert(connection: Connection, capacity: Capacity, new: NewJob, now: float) -> Job:
    queue_id, waits_for = admission.place_for(connection, new, capacity)
    state = JobState.WAITING
    if waits_for is None:
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
        waits_for=waits_for,
        caller=new.caller,
        submitter=new.submitter,
        on_behalf_of=new.on_behalf_of,
        shown_arguments=new.shown_arguments,
    )
    values = msgspec.structs.asdict(job)
    if new.shown_arguments is not None:
        values["arguments"] = new.shown_arguments
    values |= {"queue_id": queue_id, "dedup": repeats.dedup_column(new)}
    seq = _INSERT.insert(connection, **values)
    if state is JobState.RUNNING:
        admission.count_in(connection, new.host, seq)
        return job
    if new.shown_arguments is not None:
        secrets.keep(connection, seq, new.arguments)
    return job.without_secrets()


def _end(
    connection: Connection,
    record: Record,
    event: JobEvent,
    result: EndResult,
    origin: Origin | None,
    now: float,
) -> Job:
    after = state_after(record.job.state, event)
    _END.run(connection, at=record.seq, **_end_parameters(after, result, origin, now))
    if record.job.state is JobState.RUNNING:
        admission.count_out(connection, record.job.host, record.seq)
    else:
        secrets.wipe(connection, record.seq)
    return msgspec.structs.replace(
        record.job, state=after, waits_for=None, ended=now, end=result, origin=origin
    )


def _end_parameters(
    after: JobState, result: EndResult, origin: Origin | None, now: float
) -> dict[str, Any]:
    return {
        "after": after,
        "now": now,
        "kind": result.kind,
        "value": result.value,
        "origin": origin,
    }


def _released(connection: Connection, capacity: Capacity, ended: Record, now: float) -> list[Job]:
    released = admission.settle(connection, capacity, now, ended.queue_id, ended.job.host)
    return [record.job for record in released]
