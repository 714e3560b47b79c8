"""Calls that were made before: found and noted in the transaction of their submission.

An idempotency key is noted in a table of its own, since it has to outlive its job; the key of a
dedup is a column of the job, since it means nothing without it.
"""

from __future__ import annotations

import enum
from typing import NamedTuple

from sqlalchemy import Integer, bindparam, delete, select, update
from sqlalchemy.dialects.sqlite import insert

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


_noted = insert(keys)
_CLAIM = Statement(
    _noted.on_conflict_do_update(
        index_elements=[keys.c.key],
        set_={name: _noted.excluded[name] for name in ("job_id", "submitted")},
        where=keys.c.submitted <= bindparam("dead"),
    ),
    *("key", "job_id", "submitted"),
)
_OWNER = Statement(select(keys.c.job_id).where(keys.c.key == bindparam("of_key")))
_HAND_OVER = Statement(
    update(keys).where(keys.c.key == bindparam("of_key")).values(job_id=bindparam("to"))
)
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


def claim(connection: Connection, new: NewJob, now: float, key_life: float) -> Found | None:
    """Return the job that the call is to get instead of one of its own.

    From now on its idempotency key stands for that job; for the new one, if there is none.
    """
    key = new.idempotency_key
    if key is not None:
        given = {"key": key, "job_id": new.id, "submitted": now}
        if not _CLAIM.run(connection, **given, dead=now - key_life):
            return Found(_OWNER.scalar(connection, of_key=key), Repeat.IDEMPOTENCY)
    if new.dedup is not None:
        since = now - new.dedup.within
        job_id = _FIND_DEDUP.scalar(connection, digest=digest_of(new.dedup.key), since=since)
        if job_id is not None:
            # The same call once more must get the same job, whenever it comes.
            if key is not None:
                _HAND_OVER.run(connection, of_key=key, to=job_id)
            return Found(job_id, Repeat.DEDUP)
    return None


def dedup_column(dedup: Dedup | None) -> bytes | None:
    """Return what is kept of a job's dedup."""
    return None if dedup is None else digest_of(dedup.key)


def prune_keys(connection: Connection, before: float, limit: int) -> int:
    """Remove keys noted at or before a time, the oldest first; return how many."""
    return _PRUNE_KEYS.run(connection, before=before, most=limit)
