"""Removing what is old, in portions so small that nobody waits for them.

They are functions run inside one transaction of the writer; whoever calls them comes again until
there is no more.
"""

from __future__ import annotations

import msgspec
from sqlalchemy import Connection, Integer, bindparam, delete, select, update

from harpcaller.store.schema import jobs, packets


class Pruned(msgspec.Struct, frozen=True):
    """What one portion removed.

    :param removed: how many jobs, or packets where only streams are pruned.
    :param more: whether there may be more to remove.
    """

    removed: int
    more: bool


_most = bindparam("most", type_=Integer)
_OLD_JOBS = (
    select(jobs.c.seq, jobs.c.stream_ended.is_not(None))
    .where(jobs.c.ended < bindparam("before"))
    .order_by(jobs.c.ended)
    .limit(_most)
)
_OLD_STREAMS = (
    select(jobs.c.seq)
    .where(jobs.c.stream_ended < bindparam("before"))
    .order_by(jobs.c.stream_ended)
    .limit(_most)
)
_REMOVE_PACKETS = delete(packets).where(
    packets.c.job == bindparam("of_job"),
    packets.c.number.in_(
        select(packets.c.number)
        .where(packets.c.job == bindparam("of_job"))
        .order_by(packets.c.number)
        .limit(_most)
        .correlate(None)
    ),
)
_REMOVE_JOB = delete(jobs).where(jobs.c.seq == bindparam("at"))
_STREAM_IS_GONE = update(jobs).where(jobs.c.seq == bindparam("at")).values(stream_ended=None)


def prune_jobs(connection: Connection, ended_before: float, limit: int) -> Pruned:
    """Remove jobs that ended before a time, with their packets, the oldest first.

    :param limit: the most rows to be removed; a job whose packets are more goes in several
        portions.
    """
    found = connection.execute(_OLD_JOBS, {"before": ended_before, "most": limit}).all()
    left = limit
    removed = []
    for seq, has_packets in found:
        if has_packets:
            left -= _remove_packets(connection, seq, left)
        if left <= 0:
            break
        removed.append({"at": seq})
        left -= 1
    if removed:
        connection.execute(_REMOVE_JOB, removed)
    return Pruned(len(removed), left <= 0)


def prune_streams(connection: Connection, ended_before: float, limit: int) -> Pruned:
    """Remove the packets of jobs that ended before a time, so many at the most."""
    found = connection.execute(_OLD_STREAMS, {"before": ended_before, "most": limit}).scalars()
    left = limit
    removed = 0
    for seq in found.all():
        count = _remove_packets(connection, seq, left)
        removed += count
        left -= count
        if left <= 0:
            break
        connection.execute(_STREAM_IS_GONE, {"at": seq})
        left -= 1
    return Pruned(removed, left <= 0)


def _remove_packets(connection: Connection, seq: int, most: int) -> int:
    return connection.execute(_REMOVE_PACKETS, {"of_job": seq, "most": most}).rowcount
