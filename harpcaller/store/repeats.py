"""Calls that were made before: found and noted in the transaction of their submission.

An idempotency key is noted in a table of its own, since it has to outlive its job; the key of a
dedup is a column of the job, since it means nothing without it.
"""

from __future__ import annotations

import enum
from typing import NamedTuple

from sqlalchemy import Integer, bindparam, delete, insert, select

from harpcaller.jobs import Dedup, NewJob
from harpcaller.store.queues import digest_of
from harpcaller.store.schema import jobs, keys
from harpcaller.store.statements import Connection, Statement

KEY_LIFE = 24 * 3600.0
"""Seconds for which an idempotency key stands for its job, see protocol.md."""


class Repeat(enum.Enum):
    """By what a call was found to be a repeated one."""

    IDEMPOTENCY = "idempotency"
    DEDUP = "dedup"


class Found(NamedTuple):
    """The job that a repeated call gets."""

    job_id: str
    by: Repeat


_FIND_KEY = Statement(select(keys.c.job_id, keys.c.submitted).where(keys.c.key == bindparam("key")))
_NOTE_KEY = Statement(insert(keys), "key", "job_id", "submitted")
_FORGET_KEY = Statement(delete(keys).where(keys.c.key == bindparam("old_key")))
_FIND_DEDUP = Statement(
    select(jobs.c.id)
    .where(jobs.c.dedup == bindparam("digest"), jobs.c.submitted > bindparam("since"))
    .order_by(jobs.c.submitted.desc())
    .limit(1)
)
_PRUNE_KEYS = Statement(
    delete(keys).where(
        keys.c.key.in_(
            select(keys.c.key)
            .where(keys.c.submitted <= bindparam("before"))
            .order_by(keys.c.submitted)
            .limit(bindparam("most", type_=Integer))
            .correlate(None)
        )
    )
)


def find(connection: Connection, new: NewJob, now: float, key_life: float) -> Found | None:
    """Return the job that the call is to get instead of one of its own.

    If there is none, its idempotency key is free to be noted.
    """
    if new.idempotency_key is not None:
        row = _FIND_KEY.first(connection, key=new.idempotency_key)
        if row is not None:
            job_id, submitted = row
            if submitted > now - key_life:
                return Found(job_id, Repeat.IDEMPOTENCY)
            _FORGET_KEY.run(connection, old_key=new.idempotency_key)
    if new.dedup is not None:
        since = now - new.dedup.within
        job_id = _FIND_DEDUP.scalar(connection, digest=digest_of(new.dedup.key), since=since)
        if job_id is not None:
            return Found(job_id, Repeat.DEDUP)
    return None


def note(connection: Connection, key: str | None, job_id: str, now: float) -> None:
    """Note the job that a call with an idempotency key got."""
    if key is not None:
        _NOTE_KEY.run(connection, key=key, job_id=job_id, submitted=now)


def dedup_column(dedup: Dedup | None) -> bytes | None:
    """Return what is kept of a job's dedup."""
    return None if dedup is None else digest_of(dedup.key)


def prune_keys(connection: Connection, before: float, limit: int) -> int:
    """Remove keys noted at or before a time, the oldest first; return how many."""
    return _PRUNE_KEYS.run(connection, before=before, most=limit)
