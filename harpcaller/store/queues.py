"""The queues as rows: made by their first job, removed with their last one, and who is first.

How many run is always counted from the rows of the running jobs; a counter could drift from them.
"""

from __future__ import annotations

import hashlib
from typing import NamedTuple

from sqlalchemy import and_, bindparam, case, delete, exists, func, insert, or_, select

from harpcaller.jobs import JobState, QueueSpec, WaitsFor
from harpcaller.store.schema import LARGEST_INTEGER, in_state, jobs, queues, waits_for
from harpcaller.store.statements import Connection, Statement


class Place(NamedTuple):
    """A new job's place in its queue.

    :param is_first: whether there is room for it and no other job waits before it.
    """

    queue_id: int
    is_first: bool


class Head(NamedTuple):
    """A queue's first job, whose turn it is.

    :param free: how many places the queue has, at least one.
    """

    seq: int
    host: str
    free: int


_of_queue = jobs.c.queue_id == queues.c.id
# Each counts or looks in a table of jobs of its own, whichever jobs are around it.
_running = (
    select(func.count())
    .select_from(jobs)
    .where(_of_queue, in_state(JobState.RUNNING))
    .correlate(queues)
    .scalar_subquery()
)
_waits = exists().where(_of_queue, in_state(JobState.WAITING)).correlate(queues)
_past_queue = (
    exists()
    .where(
        _of_queue,
        in_state(JobState.WAITING),
        or_(waits_for(WaitsFor.HOST), waits_for(WaitsFor.DISPATCHER)),
    )
    .correlate(queues)
)
_in_line = and_(_of_queue, in_state(JobState.WAITING), waits_for(WaitsFor.QUEUE))
# One at a time leaves the line. Only those that run take the queue's places, so one that waits for
# its host takes none, yet it keeps its turn.
_has_turn = and_(queues.c.concurrency > _running, ~_past_queue)

# A case, because SQLite works both sides of AND out, and counting is the dear one.
_PLACE = Statement(
    select(queues.c.id, case((_waits, False), else_=queues.c.concurrency > _running)).where(
        queues.c.digest == bindparam("digest")
    )
)
_CREATE = Statement(insert(queues), "digest", "name", "concurrency")
_HEAD = Statement(
    select(jobs.c.seq, jobs.c.host, queues.c.concurrency - _running)
    .join_from(queues, jobs, _in_line)
    .where(queues.c.id == bindparam("queue_id"), ~_past_queue)
    .order_by(jobs.c.seq)
    .limit(1)
)
_is_empty = ~exists().where(_of_queue)
_REMOVE_IF_EMPTY = Statement(delete(queues).where(queues.c.id == bindparam("queue_id"), _is_empty))
_REMOVE_EMPTY = Statement(delete(queues).where(_is_empty))

all_heads = (
    select(select(func.min(jobs.c.seq)).where(_in_line).correlate(queues).scalar_subquery())
    .where(_has_turn)
    .correlate(None)
)
"""The numbers of the jobs whose turn it is, in all queues."""


def digest_of(name: bytes) -> bytes:
    """Return what stands for a queue's name, or for another canonical JSON text, in an index."""
    return hashlib.sha256(name).digest()


def place_for(connection: Connection, spec: QueueSpec) -> Place:
    """Return the place of a job that is about to be inserted; its queue is created if need be."""
    digest = digest_of(spec.name)
    row = _PLACE.first(connection, digest=digest)
    if row is None:
        concurrency = min(spec.concurrency, LARGEST_INTEGER)
        _CREATE.run(connection, digest=digest, name=spec.name, concurrency=concurrency)
        row = _PLACE.first(connection, digest=digest)
        assert row is not None
    return Place(*row)


def head(connection: Connection, queue_id: int) -> Head | None:
    """Return the job of a queue that may leave its line now, if there is one."""
    row = _HEAD.first(connection, queue_id=queue_id)
    found = None if row is None else Head(*row)
    return found if found is not None and found.free > 0 else None


def remove_if_empty(connection: Connection, queue_id: int) -> None:
    """Remove the queue if its last job has ended."""
    _REMOVE_IF_EMPTY.run(connection, queue_id=queue_id)


def remove_empty(connection: Connection) -> None:
    """Remove every queue whose last job has ended."""
    _REMOVE_EMPTY.run(connection)
