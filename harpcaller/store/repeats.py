"""Calls that were made before: found and noted in the transaction of their submission.

Both keys are of one submitter, and of one person on whose behalf it submits: nobody learns by a key
of somebody else's job.

An idempotency key is noted in a table of its own, since it has to outlive its job; the key of a
dedup is a column of the job, since it means nothing without it.
"""

from __future__ import annotations

import enum
from typing import NamedTuple

import msgspec
from sqlalchemy import Integer, bindparam, delete, select, tuple_, update
from sqlalchemy.dialects.sqlite import insert

from harpcaller.jobs import NewJob
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


_key = [keys.c.key, keys.c.submitter, keys.c.on_behalf_of]
_of_key = (
    keys.c.key == bindparam("of_key"),
    keys.c.submitter == bindparam("whose"),
    keys.c.on_behalf_of == bindparam("for_whom"),
)
_noted = insert(keys)
_CLAIM = Statement(
    _noted.values(
        submitter=bindparam("whose"), on_behalf_of=bindparam("for_whom")
    ).on_conflict_do_update(
        index_elements=_key,
        set_={name: _noted.excluded[name] for name in ("job_id", "submitted")},
        where=keys.c.submitted <= bindparam("dead"),
    ),
    *("key", "job_id", "submitted"),
)
_OWNER = Statement(select(keys.c.job_id).where(*_of_key))
_HAND_OVER = Statement(update(keys).where(*_of_key).values(job_id=bindparam("to")))
_FIND_DEDUP = Statement(
    select(jobs.c.id)
    .where(
        jobs.c.dedup == bindparam("digest"),
        jobs.c.submitted > bindparam("since"),
        jobs.c.submitted < bindparam("until"),
    )
    .order_by(jobs.c.submitted.desc())
    .limit(1)
)
_PRUNE_KEYS = Statement(
    delete(keys).where(
        tuple_(*_key).in_(
            select(*_key)
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
        given = {"job_id": new.id, "submitted": now, "dead": now - key_life}
        if not _CLAIM.run(connection, **_whose(new), key=key, **given):
            return Found(_OWNER.scalar(connection, **_whose(new), of_key=key), Repeat.IDEMPOTENCY)
    if new.dedup is not None:
        # When the clock was set back there are jobs of the future, which must not count for long.
        since, until = now - new.dedup.within, now + new.dedup.within
        digest = dedup_column(new)
        job_id = _FIND_DEDUP.scalar(connection, digest=digest, since=since, until=until)
        if job_id is not None:
            # The same call once more must get the same job, whenever it comes.
            if key is not None:
                _HAND_OVER.run(connection, **_whose(new), of_key=key, to=job_id)
            return Found(job_id, Repeat.DEDUP)
    return None


def dedup_column(new: NewJob) -> bytes | None:
    """Return what is kept of a job's dedup."""
    if new.dedup is None:
        return None
    if new.submitter is None and new.on_behalf_of is None:
        return digest_of(new.dedup.key)
    # What follows the zero byte can't be a part of the key, which is JSON.
    whose = msgspec.json.encode([new.submitter, new.on_behalf_of])
    return digest_of(new.dedup.key + b"\0" + whose)


def _whose(new: NewJob) -> dict[str, str]:
    return {"whose": new.submitter or "", "for_whom": new.on_behalf_of or ""}


def prune_keys(connection: Connection, before: float, limit: int) -> int:
    """Remove keys noted at or before a time, the oldest first; return how many."""
    return _PRUNE_KEYS.run(connection, before=before, most=limit)
