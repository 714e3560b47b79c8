"""The table of packets: recorded many to a row, read as they were recorded.

What removes them is `harpcaller.store.pruning`.
"""

from __future__ import annotations

from sqlalchemy import Integer, bindparam, case, func, insert, select

from harp.wire.packets import Packets, portions
from harpcaller.jobs import JobState
from harpcaller.packets import Recorded
from harpcaller.store.schema import LARGEST_INTEGER, in_state, jobs, packets
from harpcaller.store.statements import Connection, Statement
from harpcaller.store.writer import Rows

ROW_COST = 256 * 1024
"""The most that one row has (`Packets.cost`), but one longer packet always fits."""

_seq = select(jobs.c.seq).where(jobs.c.id == bindparam("job_id")).scalar_subquery()

_last = (
    select(packets.c.first + packets.c.count)
    .where(packets.c.job == _seq)
    .order_by(packets.c.first.desc())
    .limit(1)
)
_COUNT = Statement(_last)
# One row; executed for many at once. It inserts nothing if the job is not running, and fails, for
# a column would be null, if the packets do not follow those that are there.
INSERT = Statement(
    insert(packets).from_select(
        ["job", "first", "count", "data", "recorded"],
        select(
            jobs.c.seq,
            case(
                (
                    bindparam("first", type_=packets.c.first.type)
                    == func.coalesce(_last.scalar_subquery(), 0),
                    bindparam("first", type_=packets.c.first.type),
                )
            ),
            bindparam("count", type_=packets.c.count.type),
            bindparam("data", type_=packets.c.data.type),
            bindparam("recorded", type_=packets.c.recorded.type),
        ).where(jobs.c.id == bindparam("job_id"), in_state(JobState.RUNNING)),
    )
)

# From the row on that has the first one wanted, or, where that is not kept any more, the next.
_since = bindparam("since", type_=packets.c.first.type)
_row_of_since = (
    select(func.max(packets.c.first))
    .where(packets.c.job == _seq, packets.c.first <= _since)
    .scalar_subquery()
)
_PAGE = Statement(
    select(packets.c.first, packets.c.count, packets.c.data, packets.c.recorded)
    .where(
        packets.c.job == _seq,
        packets.c.first >= func.coalesce(_row_of_since, 0),
        packets.c.first + packets.c.count > _since,
    )
    .order_by(packets.c.first)
    .limit(bindparam("most", type_=Integer))
)


def rows(job_id: str, recorded: Recorded) -> Rows:
    """Return what `INSERT` takes."""
    found = []
    first = recorded.first
    for portion in portions(recorded.packets, ROW_COST):
        found.append(
            {
                "job_id": job_id,
                "first": first,
                "count": portion.count,
                "data": portion.data,
                "recorded": recorded.recorded,
            }
        )
        first += portion.count
    return found


def page(
    connection: Connection, job_id: str, since: int, max_batches: int, max_cost: int
) -> list[Recorded]:
    """Return packets in their order, as many batches as fit; the first of them in any case."""
    found: list[Recorded] = []
    cost = 0
    wanted = min(since, LARGEST_INTEGER)
    # Row by row: one packet may be as large as a reply line.
    with _PAGE.rows(connection, job_id=job_id, since=wanted, most=max_batches) as selected:
        for first, count, data, recorded in selected:
            batch = Recorded(first, Packets(count, data), recorded)
            cost += batch.packets.cost
            if found and cost > max_cost:
                break
            found.append(batch)
            if cost >= max_cost:
                break  # before another row is fetched
    return found


def packet_count(connection: Connection, job_id: str) -> int:
    """Return the number that the next packet will have."""
    return _COUNT.scalar(connection, job_id=job_id) or 0
