"""Which jobs may run: the way of a waiting job past its queue, its host and the dispatcher.

Each step is a statement in the transaction of its cause, and finds its job by a partial index, so
its cost does not follow the number of those that wait. All limits are counted from rows.
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec
from sqlalchemy import Integer, bindparam, case, exists, func, select, update

from harpcaller.jobs import Capacity, JobEvent, JobState, NewJob, WaitsFor, state_after
from harpcaller.store import queues
from harpcaller.store.records import Record, select_records, to_record
from harpcaller.store.schema import LARGEST_INTEGER, in_state, jobs, waits_for
from harpcaller.store.statements import Connection, Statement


class Place(NamedTuple):
    """Where a new job stands.

    :param queue_id: its queue, if it has one.
    :param waits_for: what it waits for; None if it runs.
    """

    queue_id: int | None
    waits_for: WaitsFor | None


_count = select(func.count()).select_from(jobs)
_of_host = jobs.c.host == bindparam("of_host")
_is_next = waits_for(WaitsFor.DISPATCHER)
_for_host = waits_for(WaitsFor.HOST)

_HOST_TAKEN = Statement(
    select(
        _count.where(_of_host, in_state(JobState.RUNNING)).scalar_subquery()
        + _count.where(_of_host, _is_next).scalar_subquery()
    )
)
_HOST_AWAITED = Statement(select(exists().where(_of_host, _for_host)))
_any_next = exists().where(_is_next)
_room = (
    bindparam("max_running", type_=Integer)
    - _count.where(in_state(JobState.RUNNING)).scalar_subquery()
)
# A case, because SQLite works both sides of OR and AND out, and counting is the dear one.
_ROOM_FOR_NEW = Statement(select(case((_any_next, 0), else_=_room)))
_ROOM_FOR_NEXT = Statement(select(case((_any_next, _room), else_=0)))
_NEXT = Statement(select_records.where(_is_next).order_by(jobs.c.seq).limit(1))
_AWAITED_HOSTS = Statement(select(jobs.c.host).where(_for_host).distinct())

_MOVE = Statement(
    update(jobs).where(jobs.c.seq == bindparam("at")).values(waits_for=bindparam("what"))
)
_MOVE_FROM_HOST = Statement(
    update(jobs)
    .where(
        jobs.c.seq.in_(
            select(jobs.c.seq)
            .where(_of_host, _for_host)
            .order_by(jobs.c.seq)
            .limit(bindparam("room", type_=Integer))
            .correlate(None)
        )
    )
    .values(waits_for=WaitsFor.DISPATCHER)
)
_MOVE_HEADS = Statement(
    update(jobs).where(jobs.c.seq.in_(queues.all_heads)).values(waits_for=bindparam("what"))
)
_BACK_TO_HOST = Statement(update(jobs).where(_is_next).values(waits_for=WaitsFor.HOST))
_PAST_HOST = Statement(update(jobs).where(_for_host).values(waits_for=WaitsFor.DISPATCHER))
_START = Statement(
    update(jobs)
    .where(jobs.c.seq == bindparam("at"))
    .values(state=bindparam("after"), started=bindparam("now"), waits_for=None)
)


def place_for(connection: Connection, new: NewJob, capacity: Capacity) -> Place:
    """Return the place of a job that is about to be inserted; its queue is created if need be."""
    queue_id = None
    if new.queue is not None:
        queue_id, is_first = queues.place_for(connection, new.queue)
        if not is_first:
            return Place(queue_id, WaitsFor.QUEUE)
    if capacity.max_running_per_host is not None:
        awaited = _HOST_AWAITED.scalar(connection, of_host=new.host)
        if awaited or _room_on_host(connection, new.host, capacity.max_running_per_host) <= 0:
            return Place(queue_id, WaitsFor.HOST)
    room = _ROOM_FOR_NEW.scalar(connection, max_running=_limit(capacity))
    return Place(queue_id, None if room > 0 else WaitsFor.DISPATCHER)


def settle(
    connection: Connection, capacity: Capacity, now: float, queue_id: int | None, host: str
) -> list[Record]:
    """Let go on who can, where a job of a queue and a host has ended.

    :return: those that now run, in the order in which they started.
    """
    if queue_id is not None and not _advance_queue(connection, capacity, queue_id):
        queues.remove_if_empty(connection, queue_id)
    _advance_host(connection, capacity, host)
    return _start_all(connection, capacity, now)


def settle_all(connection: Connection, capacity: Capacity, now: float) -> list[Record]:
    """Let go on who can, whatever has changed; cost follows the number of those past their queue.

    :return: those that now run, in the order in which they started.
    """
    queues.remove_empty(connection)
    _MOVE_HEADS.run(connection, what=_after_queue(capacity))
    if capacity.max_running_per_host is None:
        _PAST_HOST.run(connection)
    else:
        # The limit may be lower than when they came past it.
        _BACK_TO_HOST.run(connection)
        for (host,) in _AWAITED_HOSTS.all(connection):
            _advance_host(connection, capacity, host)
    return _start_all(connection, capacity, now)


def _start_all(connection: Connection, capacity: Capacity, now: float) -> list[Record]:
    started: list[Record] = []
    room = _ROOM_FOR_NEXT.scalar(connection, max_running=_limit(capacity))
    while len(started) < room and (row := _NEXT.first(connection)) is not None:
        record = _start(connection, to_record(row), now)
        started.append(record)
        # One by one: the next of its queue may have been submitted before others that wait here.
        if record.queue_id is not None:
            _advance_queue(connection, capacity, record.queue_id)
    return started


def _advance_queue(connection: Connection, capacity: Capacity, queue_id: int) -> bool:
    head = queues.head(connection, queue_id)
    if head is None:
        return False
    _MOVE.run(connection, at=head.seq, what=_after_queue(capacity))
    _advance_host(connection, capacity, head.host)
    return True


def _after_queue(capacity: Capacity) -> WaitsFor:
    return WaitsFor.DISPATCHER if capacity.max_running_per_host is None else WaitsFor.HOST


def _advance_host(connection: Connection, capacity: Capacity, host: str) -> None:
    if capacity.max_running_per_host is None:
        return
    room = _room_on_host(connection, host, capacity.max_running_per_host)
    if room > 0:
        _MOVE_FROM_HOST.run(connection, of_host=host, room=min(room, LARGEST_INTEGER))


def _room_on_host(connection: Connection, host: str, limit: int) -> int:
    taken: int = _HOST_TAKEN.scalar(connection, of_host=host)
    return limit - taken


def _limit(capacity: Capacity) -> int:
    return min(capacity.max_running, LARGEST_INTEGER)


def _start(connection: Connection, record: Record, now: float) -> Record:
    after = state_after(record.job.state, JobEvent.START)
    _START.run(connection, at=record.seq, after=after, now=now)
    job = msgspec.structs.replace(record.job, state=after, started=now, waits_for=None)
    return record._replace(job=job)
