"""The arguments of waiting jobs that may not be shown, until they run or are cancelled.

What is removed here must be gone from the file. SQLite overwrites what it deletes, but not the
copies that it leaves behind when it moves rows from page to page. Only the beginning of a row is
moved; so here that is padding, and all the rest is in pages of this one row.
"""

from __future__ import annotations

from sqlalchemy import ColumnElement, bindparam, delete, func, insert, select

from harpcaller.store.schema import jobs, secrets
from harpcaller.store.statements import Connection, Statement

PADDING = 4096
"""Bytes before the arguments: at least as many as a page has (SQLite's file format, 1.6)."""

_KEEP = Statement(insert(secrets), "job", "arguments")
_WIPE = Statement(delete(secrets).where(secrets.c.job == bindparam("of_job")))

of_job: ColumnElement[bytes | None] = (
    select(func.substr(secrets.c.arguments, PADDING + 1))
    .where(secrets.c.job == jobs.c.seq)
    .correlate(jobs)
    .scalar_subquery()
)
"""The secret arguments of a job, null if it has none."""


def keep(connection: Connection, seq: int, arguments: bytes) -> None:
    """Keep the arguments of a job that waits."""
    _KEEP.run(connection, job=seq, arguments=bytes(PADDING) + arguments)


def wipe(connection: Connection, seq: int) -> None:
    """Remove the arguments of a job, if any are kept."""
    if _WIPE.run(connection, of_job=seq):
        connection.has_wiped = True
