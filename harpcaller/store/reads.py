"""What is read from the store, as functions of a reader's connection.

Each is one short statement whose rows are taken at once: an open read transaction would keep the
write-ahead log from being reset.
"""

from __future__ import annotations

from typing import NamedTuple

from sqlalchemy import Integer, bindparam, func, select

from harpcaller.jobs import Job
from harpcaller.store.records import find
from harpcaller.store.schema import LARGEST_INTEGER, jobs, packets
from harpcaller.store.statements import Connection, Statement


class Packet(NamedTuple):
    """One packet of a job.

    :param data: JSON.
    :param recorded: when it came, in unix seconds.
    """

    number: int
    data: bytes
    recorded: float


_seq = select(jobs.c.seq).where(jobs.c.id == bindparam("job_id")).scalar_subquery()
_PAGE = Statement(
    select(packets.c.number, packets.c.data, packets.c.recorded)
    .where(packets.c.job == _seq, packets.c.number >= bindparam("since"))
    .order_by(packets.c.number)
    .limit(bindparam("max_packets", type_=Integer))
)
_LAST_NUMBER = Statement(select(func.max(packets.c.number)).where(packets.c.job == _seq))


def job(connection: Connection, job_id: str) -> Job | None:
    """Return the job of this id, None if there is none."""
    record = find(connection, job_id)
    return None if record is None else record.job


def page(
    connection: Connection, job_id: str, since: int, max_packets: int, max_bytes: int
) -> list[Packet]:
    """Return packets in their order, as many as fit; the first of them in any case."""
    found: list[Packet] = []
    size = 0
    first = min(since, LARGEST_INTEGER)
    # Row by row: one packet may be as large as a reply line.
    with _PAGE.rows(connection, job_id=job_id, since=first, max_packets=max_packets) as rows:
        for row in rows:
            packet = Packet(*row)
            size += len(packet.data)
            if found and size > max_bytes:
                break
            found.append(packet)
    return found


def packet_count(connection: Connection, job_id: str) -> int:
    """Return the number that the next packet will have."""
    last = _LAST_NUMBER.scalar(connection, job_id=job_id)
    return 0 if last is None else last + 1
