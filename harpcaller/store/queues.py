"""Which job of a queue may start next, read and written in the transaction of its cause.

How many run is always counted from the rows of the running jobs; a counter could drift from them.
"""

from __future__ import annotations

import hashlib
from typing import NamedTuple

from sqlalchemy import Connection, Integer, bindparam, delete, exists, func, insert, select

from harpcaller.jobs import JobState, QueueSpec
from harpcaller.store.records import Record, select_records, to_record
from harpcaller.store.schema import LARGEST_INTEGER, in_state, jobs, queues


class Place(NamedTuple):
    """A new job's place in its queue.

    :param may_start: whether there is room for it and no other job waits before it.
    """

    queue_id: int
    may_start: bool


_running = (
    select(func.count())
    .select_from(jobs)
    .where(jobs.c.queue_id == queues.c.id, in_state(JobState.RUNNING))
    .scalar_subquery()
)
_waits = exists().where(jobs.c.queue_id == queues.c.id, in_state(JobState.WAITING))

_ROOM_BY_DIGEST = select(queues.c.id, queues.c.concurrency - _running, _waits).where(
    queues.c.digest == bindparam("digest")
)
_ROOM_BY_ID = select(queues.c.concurrency - _running).where(queues.c.id == bindparam("queue_id"))
_CREATE = insert(queues)
_NEXT = (
    select_records.where(jobs.c.queue_id == bindparam("queue_id"), in_state(JobState.WAITING))
    .order_by(jobs.c.seq)
    .limit(bindparam("room", type_=Integer))
)
_REMOVE_EMPTY = delete(queues).where(
    queues.c.id == bindparam("queue_id"), ~exists().where(jobs.c.queue_id == queues.c.id)
)
_ALL = select(queues.c.id).order_by(queues.c.id)


def place_for(connection: Connection, spec: QueueSpec) -> Place:
    """Return the place of a job that is about to be inserted; its queue is created if need be."""
    digest = hashlib.sha256(spec.name).digest()
    row = connection.execute(_ROOM_BY_DIGEST, {"digest": digest}).one_or_none()
    if row is None:
        concurrency = min(spec.concurrency, LARGEST_INTEGER)
        values = {"digest": digest, "name": spec.name, "concurrency": concurrency}
        connection.execute(_CREATE, values)
        row = connection.execute(_ROOM_BY_DIGEST, {"digest": digest}).one()
    queue_id, room, waits = row
    return Place(queue_id, room > 0 and not waits)


def next_jobs(connection: Connection, queue_id: int) -> list[Record]:
    """Return the waiting jobs that there is room for, in the order of submission."""
    room = connection.execute(_ROOM_BY_ID, {"queue_id": queue_id}).scalar_one()
    if room <= 0:
        return []
    return [
        to_record(row) for row in connection.execute(_NEXT, {"queue_id": queue_id, "room": room})
    ]


def remove_if_empty(connection: Connection, queue_id: int) -> None:
    """Remove the queue if its last job has ended."""
    connection.execute(_REMOVE_EMPTY, {"queue_id": queue_id})


def all_queues(connection: Connection) -> list[int]:
    """Return every queue that there is."""
    return list(connection.execute(_ALL).scalars())
