"""Rows of the table of jobs as values.

What only reads, here and in the modules of lists and packets, is one short statement whose rows are
taken at once: an open read transaction would keep the write-ahead log from being reset.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from sqlalchemy import bindparam, select

from harp.wire.results import EndResult
from harpcaller.jobs import Job
from harpcaller.store.schema import jobs
from harpcaller.store.statements import Connection, Statement


class Record(NamedTuple):
    """A job and what only the store knows of it.

    :param seq: its place in the order of submission.
    :param queue_id: the queue in which it waits or runs.
    """

    seq: int
    queue_id: int | None
    job: Job


# Those in the middle are as `Job` has its fields.
COLUMNS = [
    jobs.c.seq,
    jobs.c.queue_id,
    jobs.c.id,
    jobs.c.host,
    jobs.c.procedure,
    jobs.c.arguments,
    jobs.c.info,
    jobs.c.timeout,
    jobs.c.max_exec_time,
    jobs.c.queue,
    jobs.c.state,
    jobs.c.submitted,
    jobs.c.started,
    jobs.c.ended,
    jobs.c.end_kind,
    jobs.c.end_value,
    jobs.c.waits_for,
    jobs.c.caller,
    jobs.c.end_origin,
    jobs.c.submitter,
    jobs.c.on_behalf_of,
]
"""What `to_record` takes, in its order."""

select_records = select(*COLUMNS)

_by_id = jobs.c.id == bindparam("job_id")
_BY_ID = Statement(select_records.where(_by_id))
_OWNERS = Statement(select(jobs.c.submitter, jobs.c.on_behalf_of).where(_by_id))


def to_record(row: Sequence[Any]) -> Record:
    """Return what a row of `COLUMNS` means."""
    seq, queue_id, *fields, end_kind, end_value, waits_for, caller, origin, submitter, behalf = row
    end = None if end_kind is None else EndResult(end_kind, end_value)
    job = Job(*(*fields, end, waits_for, caller, origin, submitter, behalf))
    return Record(seq, queue_id, job)


def find(connection: Connection, job_id: str) -> Record | None:
    """Return the job of this id, None if there is none."""
    row = _BY_ID.first(connection, job_id=job_id)
    return None if row is None else to_record(row)


def job(connection: Connection, job_id: str) -> Job | None:
    """Return the job of this id as everybody sees it, None if there is none."""
    record = find(connection, job_id)
    return None if record is None else record.job


def owners(connection: Connection, job_id: str) -> tuple[str | None, str | None] | None:
    """Return who submitted the job of this id and for whom, None if there is none."""
    row = _OWNERS.first(connection, job_id=job_id)
    return None if row is None else (row[0], row[1])
