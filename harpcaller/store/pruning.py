"""Removing what is old, in portions so small that nobody waits for them.

They are functions run inside one transaction of the writer; whoever calls them comes again until
there is no more.
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec
from sqlalchemy import Integer, bindparam, delete, func, select, update

from harpcaller.store.portions import counted
from harpcaller.store.schema import jobs, packets
from harpcaller.store.statements import Connection, Statement


class Pruned(msgspec.Struct, frozen=True):
    """What one portion removed.

    :param removed: how many jobs, or packets where only streams are pruned.
    :param more: whether there may be more to remove.
    """

    removed: int
    more: bool


_most = bindparam("most", type_=Integer)
_OLD_JOBS = Statement(
    select(
        jobs.c.seq,
        jobs.c.stream_ended.is_not(None),
        func.length(jobs.c.arguments) + func.length(jobs.c.info) + func.length(jobs.c.end_value),
    )
    .where(jobs.c.ended < bindparam("before"))
    .order_by(jobs.c.ended)
    .limit(_most)
)
_OLD_STREAMS = Statement(
    select(jobs.c.seq)
    .where(jobs.c.stream_ended < bindparam("before"))
    .order_by(jobs.c.stream_ended)
    .limit(_most)
)
_of_job = packets.c.job == bindparam("of_job")
_FIRST_PACKETS = Statement(
    select(packets.c.first, packets.c.count, func.length(packets.c.data))
    .where(_of_job)
    .order_by(packets.c.first)
    .limit(_most)
)
_REMOVE_PACKETS = Statement(delete(packets).where(_of_job, packets.c.first <= bindparam("last")))
_REMOVE_JOB = Statement(delete(jobs).where(jobs.c.seq == bindparam("at")))
_STREAM_IS_GONE = Statement(
    update(jobs).where(jobs.c.seq == bindparam("at")).values(stream_ended=None)
)


def prune_jobs(connection: Connection, ended_before: float, limit: int) -> Pruned:
    """Remove jobs that ended before a time, with their packets, the oldest first.

    :param limit: the most rows to be removed, long ones counted as several; a job whose packets
        are more goes in several portions.
    """
    left = limit
    removed = []
    # Row by row: long ones take their time even to be looked at.
    with _OLD_JOBS.rows(connection, before=ended_before, most=limit) as found:
        for seq, has_packets, size in found:
            if has_packets and left > 0:
                left -= _remove_packets(connection, seq, left).rows
            if left <= 0:
                break
            removed.append({"at": seq})
            left -= counted(size)
    _REMOVE_JOB.run_many(connection, removed)
    return Pruned(len(removed), left <= 0)


def prune_streams(connection: Connection, ended_before: float, limit: int) -> Pruned:
    """Remove the packets of jobs that ended before a time.

    :param limit: as for `prune_jobs`.
    """
    left = limit
    removed = 0
    for (seq,) in _OLD_STREAMS.all(connection, before=ended_before, most=limit):
        gone = _remove_packets(connection, seq, left)
        removed += gone.packets
        left -= gone.rows
        if left <= 0:
            break
        _STREAM_IS_GONE.run(connection, at=seq)
        left -= 1
    return Pruned(removed, left <= 0)


class _Gone(NamedTuple):
    packets: int
    rows: int


def _remove_packets(connection: Connection, seq: int, most: int) -> _Gone:
    last, count, rows = None, 0, 0
    with _FIRST_PACKETS.rows(connection, of_job=seq, most=most) as found:
        for first, packet_count, size in found:
            last, count, rows = first, count + packet_count, rows + counted(size)
            if rows >= most:
                break
    if last is not None:
        _REMOVE_PACKETS.run(connection, of_job=seq, last=last)
    return _Gone(count, rows)
