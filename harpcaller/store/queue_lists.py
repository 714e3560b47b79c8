"""What can be asked about queues: all of them, one, its jobs in order, a job's position.

Like everything that is read these are functions of a reader's connection (``store/records.py``).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import msgspec
from sqlalchemy import (
    ColumnElement,
    Integer,
    bindparam,
    func,
    literal_column,
    select,
    union_all,
)

from harpcaller.jobs import JobState, WaitsFor
from harpcaller.store.cursors import Cursor, Page
from harpcaller.store.listing import (
    MAX_EXAMINED,
    SUMMARY,
    JobSummary,
    of_owners,
    owner_parameters,
    text_size,
)
from harpcaller.store.queues import digest_of
from harpcaller.store.schema import LARGEST_INTEGER, in_state, jobs, queues, waits_for
from harpcaller.store.statements import Connection, Statement


class QueueSummary(msgspec.Struct, frozen=True):
    """A queue as it is now.

    :param name: canonical JSON.
    :param last_seq: the place of its last job in the order of submission.
    """

    name: bytes
    concurrency: int
    running: int
    waiting: int
    last_seq: int


_cursor = Cursor(">q")
_of_queue = jobs.c.queue_id == queues.c.id
_count = select(func.count()).select_from(jobs)
_QUEUES = select(
    queues.c.id,
    queues.c.name,
    queues.c.concurrency,
    _count.where(_of_queue, in_state(JobState.RUNNING)).correlate(queues).scalar_subquery(),
    _count.where(_of_queue, in_state(JobState.WAITING)).correlate(queues).scalar_subquery(),
    select(func.max(jobs.c.seq)).where(_of_queue).correlate(queues).scalar_subquery(),
)
_QUEUES_PAGE = Statement(
    _QUEUES.where(queues.c.id > bindparam("after"))
    .order_by(queues.c.id)
    .limit(bindparam("most", type_=Integer))
)
_by_digest = queues.c.digest == bindparam("digest")
_QUEUE = Statement(_QUEUES.where(_by_digest))

_runs = (in_state(JobState.RUNNING), jobs.c.waits_for.is_(None))
# A queue runs in the order of submission. Each place in it has that order in the index, which
# SQLite merges.
_queue_id = select(queues.c.id).where(_by_digest).scalar_subquery()
_stages = (_runs, *((in_state(JobState.WAITING), waits_for(what)) for what in WaitsFor))


def _in_order(*columns: ColumnElement[Any], where: Sequence[ColumnElement[bool]] = ()) -> Any:
    """Return what selects columns of a queue's jobs, and their place before these."""
    wanted = select(jobs.c.seq.label("place"), *columns).where(
        jobs.c.queue_id == _queue_id, jobs.c.seq > bindparam("after"), *where
    )
    stages = (wanted.where(*stage) for stage in _stages)
    return union_all(*stages).order_by(literal_column("place"))


_most = bindparam("most", type_=Integer)
_QUEUE_JOBS = Statement(_in_order(*SUMMARY).limit(_most))
_CEILING = Statement(_in_order().limit(1).offset(bindparam("before_it", type_=Integer)))


@lru_cache(64)
def _queue_jobs_of(owners: int) -> Statement:
    """Return what reads those of a queue's jobs that are of one of so many owners."""
    where = (of_owners(owners), jobs.c.seq <= bindparam("up_to"))
    return Statement(_in_order(*SUMMARY, where=where).limit(_most))


_RUNNING_IDS = Statement(
    select(jobs.c.id)
    .where(jobs.c.queue_id == _queue_id, *_runs, jobs.c.seq <= bindparam("up_to"))
    .order_by(jobs.c.seq)
)

_others = jobs.alias("others")
_POSITION = Statement(
    select(
        select(func.count())
        .select_from(_others)
        .where(
            _others.c.queue_id == jobs.c.queue_id,
            _others.c.state == literal_column("'waiting'", jobs.c.state.type),
            _others.c.seq < jobs.c.seq,
        )
        .correlate(jobs)
        .scalar_subquery()
    ).where(
        jobs.c.id == bindparam("job_id"), in_state(JobState.WAITING), jobs.c.queue_id.is_not(None)
    )
)


def queues_page(connection: Connection, limit: int, cursor: str | None) -> Page[QueueSummary]:
    """Return a page of the queues, oldest first.

    :raises ValueError: if the cursor is malformed.
    """
    with _QUEUES_PAGE.rows(connection, after=_after(cursor), most=limit + 1) as rows:
        summaries = ((queue_id, QueueSummary(*fields)) for queue_id, *fields in rows)
        entries = (((key,), summary, len(summary.name)) for key, summary in summaries)
        return _cursor.page(entries, limit)


def queue(connection: Connection, name: bytes) -> QueueSummary | None:
    """Return the queue of this name, None if there is none now."""
    row = _QUEUE.first(connection, digest=digest_of(name))
    return None if row is None else QueueSummary(*row[1:])


def queue_jobs(
    connection: Connection,
    name: bytes,
    limit: int,
    cursor: str | None,
    owners: frozenset[str] | None = None,
) -> Page[JobSummary]:
    """Return a page of a queue's living jobs, in the order in which they run.

    With owners it can be short, even empty, and have a cursor: then its rows were all that could be
    looked at.

    :param owners: only jobs that one of these has submitted, or on whose behalf that was done.
    :raises ValueError: if the cursor is malformed.
    """
    wanted: dict[str, Any] = {"digest": digest_of(name), "after": _after(cursor)}
    statement, ceiling = _QUEUE_JOBS, None
    if owners is not None:
        if not owners:
            return Page([], None)
        ceiling = _CEILING.first(connection, **wanted, before_it=MAX_EXAMINED - 1)
        wanted["up_to"] = LARGEST_INTEGER if ceiling is None else ceiling[0]
        wanted |= owner_parameters(owners)
        statement = _queue_jobs_of(len(owners))
    with statement.rows(connection, **wanted, most=limit + 1) as rows:
        summaries = ((seq, JobSummary(*fields)) for seq, *fields in rows)
        entries = (((key,), summary, text_size(summary)) for key, summary in summaries)
        return _cursor.page(entries, limit, ceiling)


def running_jobs(connection: Connection, name: bytes, up_to_seq: int) -> list[str]:
    """Return the ids of a queue's jobs that run, of those submitted up to a place."""
    up_to = min(up_to_seq, LARGEST_INTEGER)
    return [
        job_id for (job_id,) in _RUNNING_IDS.all(connection, digest=digest_of(name), up_to=up_to)
    ]


def position(connection: Connection, job_id: str) -> int | None:
    """Return how many waiting jobs of its queue come before a job; None unless it waits in one."""
    found: int | None = _POSITION.scalar(connection, job_id=job_id)
    return found


def _after(cursor: str | None) -> float:
    (after,) = (0,) if cursor is None else _cursor.read(cursor)
    return after
