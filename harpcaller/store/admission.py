"""Which jobs may run: the way of a waiting job past its queue, its host and the dispatcher.

Each step is a statement in the transaction of its cause, and finds its job by a partial index, so
its cost does not follow the number of those that wait. All limits are counted from rows.
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec
from sqlalchemy import Integer, bindparam, case, delete, exists, func, insert, select, update

from harpcaller.jobs import Capacity, JobEvent, JobState, NewJob, WaitsFor, state_after
from harpcaller.store import queues, secrets
from harpcaller.store.records import COLUMNS, Record, to_record
from harpcaller.store.schema import LARGEST_INTEGER, jobs, running, waits_for
from harpcaller.store.statements import Connection, Row, Statement


class Place(NamedTuple):
    """Where a new job stands.

    :param queue_id: its queue, if it has one.
    :param waits_for: what it waits for; None if it runs.
    """

    queue_id: int | None
    waits_for: WaitsFor | None


_count = select(func.count()).select_from(jobs)
_count_running = select(func.count()).select_from(running)
_of_host = jobs.c.host == bindparam("of_host")
_is_next = waits_for(WaitsFor.DISPATCHER)
_for_host = waits_for(WaitsFor.HOST)
_max_running = bindparam("max_running", type_=Integer)

_HOST_TAKEN = Statement(
    select(
        _count_running.where(running.c.host == bindparam("of_host")).scalar_subquery()
        + _count.where(_of_host, _is_next).scalar_subquery()
    )
)
_HOST_AWAITED = Statement(select(exists().where(_of_host, _for_host)))
_AWAITED_HOSTS = Statement(select(jobs.c.host).where(_for_host).distinct())

_ANY_NEXT = Statement(select(exists().where(_is_next)))
_any_next = exists().where(_is_next).correlate(None)
_has_room = _count_running.scalar_subquery() < _max_running
# A case, because SQLite works both sides of AND out.
_HAS_ROOM = Statement(select(case((_any_next, False), else_=_has_room)))

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

_start = (
    update(jobs)
    .values(
        state=state_after(JobState.WAITING, JobEvent.START),
        started=bindparam("now"),
        waits_for=None,
    )
    .returning(*COLUMNS, secrets.of_job)
)
_START_AT_ONCE = Statement(_start.where(jobs.c.seq == bindparam("at"), ~_any_next, _has_room))
_first_next = select(jobs.c.seq).where(_is_next).order_by(jobs.c.seq).limit(1).correlate(None)
_START_NEXT = Statement(_start.where(jobs.c.seq == _first_next.scalar_subquery(), _has_room))

_COUNT_IN = Statement(insert(running), "host", "job")
_COUNT_OUT = Statement(
    delete(running).where(running.c.host == bindparam("of_host"), running.c.job == bindparam("at"))
)
_COUNT_ALL_OUT = Statement(delete(running))


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
    has_room = _HAS_ROOM.scalar(connection, max_running=_limit(capacity))
    return Place(queue_id, None if has_room else WaitsFor.DISPATCHER)


def count_in(connection: Connection, host: str, seq: int) -> None:
    """Count a job that begins to run."""
    _COUNT_IN.run(connection, host=host, job=seq)


def count_out(connection: Connection, host: str, seq: int) -> None:
    """Count a job no more that ran."""
    _COUNT_OUT.run(connection, of_host=host, at=seq)


def count_all_out(connection: Connection) -> None:
    """Count no job any more: none runs."""
    _COUNT_ALL_OUT.run(connection)


def settle(
    connection: Connection, capacity: Capacity, now: float, queue_id: int | None, host: str
) -> list[Record]:
    """Let go on who can, where a job of a queue and a host has ended.

    :return: those that now run, in the order in which they started.
    """
    if queue_id is not None:
        started = _advance_queue(connection, capacity, now, queue_id)
        if started:  # nobody waited for the dispatcher, and who does since found no room
            return started
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
    limit = _limit(capacity)
    # Asked first, for most often there is none, and a change costs more even if it finds nothing.
    while _ANY_NEXT.scalar(connection):
        row = _START_NEXT.first(connection, now=now, max_running=limit)
        if row is None:
            break
        record = _started(connection, row)
        started.append(record)
        # One by one: the next of its queue may have been submitted before others that wait here.
        if record.queue_id is not None:
            started += _advance_queue(connection, capacity, now, record.queue_id)
    return started


def _advance_queue(
    connection: Connection, capacity: Capacity, now: float, queue_id: int
) -> list[Record]:
    """Let the first of a queue go on; return those that now run."""
    started: list[Record] = []
    limit = _limit(capacity)
    head = queues.head(connection, queue_id)
    while head is not None:
        row = None
        if capacity.max_running_per_host is None:  # else it may have to wait for its host
            row = _START_AT_ONCE.first(connection, at=head.seq, now=now, max_running=limit)
        if row is None:
            _MOVE.run(connection, at=head.seq, what=_after_queue(capacity))
            _advance_host(connection, capacity, head.host)
            break
        started.append(_started(connection, row))
        head = queues.head(connection, queue_id) if head.free > 1 else None
    return started


def _started(connection: Connection, row: Row) -> Record:
    *columns, arguments = row
    record = to_record(columns)
    count_in(connection, record.job.host, record.seq)
    if arguments is None:
        return record
    secrets.wipe(connection, record.seq)
    shown = record.job.arguments
    job = msgspec.structs.replace(record.job, arguments=arguments, shown_arguments=shown)
    return record._replace(job=job)


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
