"""What is read from the store, as functions of a reader's connection.

Each is one short statement whose rows are taken at once: an open read transaction would keep the
write-ahead log from being reset.
"""

from __future__ import annotations

from harpcaller.jobs import Job
from harpcaller.store.records import find
from harpcaller.store.statements import Connection


def job(connection: Connection, job_id: str) -> Job | None:
    """Return the job of this id, None if there is none."""
    record = find(connection, job_id)
    return None if record is None else record.job
