"""The tables of the job store. Every change here needs a migration beside it."""

from __future__ import annotations

import enum
from typing import Any

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    ColumnElement,
    Double,
    Enum,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    Text,
    UniqueConstraint,
    literal_column,
    select,
)

from harp.errors import Origin
from harp.wire.results import EndKind
from harpcaller.jobs import JobState, WaitsFor

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

# Only a column of SQLite's own INTEGER type is the rowid itself.
RowNumber = BigInteger().with_variant(Integer, "sqlite")

# JSON has larger ones, a column has not.
LARGEST_INTEGER = 2**63 - 1


def _one_of(kind: type[enum.Enum], name: str) -> Enum:
    return Enum(
        kind,
        name=name,
        native_enum=False,
        length=16,
        values_callable=lambda members: [member.value for member in members],
    )


def _members(column: str, kind: type[enum.Enum]) -> CheckConstraint:
    # For IN and three values or more SQLite builds a table each time that it checks a row.
    values = " OR ".join(f"{column} = '{member.value}'" for member in kind)
    return CheckConstraint(values, name=column)


# A queue is here from its first job's submission to its last job's end.
queues = Table(
    "queues",
    metadata,
    Column("id", RowNumber, primary_key=True),
    # SHA-256 of the name, which may be longer than an index of PostgreSQL can take.
    Column("digest", LargeBinary, nullable=False, unique=True),
    Column("name", LargeBinary, nullable=False),
    Column("concurrency", BigInteger, nullable=False),
    CheckConstraint("concurrency >= 1", name="concurrency"),
)

jobs = Table(
    "jobs",
    metadata,
    # The order of submission.
    Column("seq", RowNumber, primary_key=True),
    Column("id", Text, nullable=False, unique=True),
    Column("host", Text, nullable=False),
    Column("procedure", Text, nullable=False),
    Column("arguments", LargeBinary, nullable=False),
    Column("info", LargeBinary, nullable=False),
    Column("timeout", Double, nullable=False),
    Column("max_exec_time", Double, nullable=False),
    # The queue's name outlives the queue; queue_id is the job's place in it, given up at its end.
    Column("queue", LargeBinary),
    Column("queue_id", RowNumber, ForeignKey(queues.c.id)),
    Column("state", _one_of(JobState, "state"), nullable=False),
    Column("submitted", Double, nullable=False),
    Column("started", Double),
    Column("ended", Double),
    Column("end_kind", _one_of(EndKind, "end_kind")),
    Column("end_value", LargeBinary),
    Column("end_origin", _one_of(Origin, "end_origin")),
    Column("waits_for", _one_of(WaitsFor, "waits_for")),
    Column("caller", Text),
    # SHA-256 of the key, and of who asks, by which later calls can find this job instead of
    # starting their own.
    Column("dedup", LargeBinary),
    # When the job ended, as long as it has packets.
    Column("stream_ended", Double),
    Column("submitter", Text),
    Column("on_behalf_of", Text),
    CheckConstraint(
        "state = 'waiting' AND waits_for IS NOT NULL AND started IS NULL AND ended IS NULL"
        " OR state = 'running' AND waits_for IS NULL AND started IS NOT NULL AND ended IS NULL"
        " OR state = 'ended' AND waits_for IS NULL AND ended IS NOT NULL AND queue_id IS NULL",
        name="times_of_state",
    ),
    CheckConstraint(
        "(end_kind IS NULL) = (ended IS NULL) AND (end_value IS NULL) = (ended IS NULL)"
        " AND (end_origin IS NULL OR ended IS NOT NULL)"
        " AND (stream_ended IS NULL OR ended IS NOT NULL AND stream_ended = ended)",
        name="end_of_ended",
    ),
    CheckConstraint(
        "state = 'ended' OR (queue_id IS NULL) = (queue IS NULL)", name="place_in_queue"
    ),
    CheckConstraint(
        "waits_for IS NULL OR waits_for <> 'queue' OR queue_id IS NOT NULL", name="waits_in_queue"
    ),
    _members("state", JobState),
    _members("end_kind", EndKind),
    _members("end_origin", Origin),
    _members("waits_for", WaitsFor),
)

# The jobs that run, once more: what admission counts. SQLite counts the rows of a whole table page
# by page, those that meet a condition one by one; with 5,000 that is 5 us and 190. A reference to
# the jobs would be followed at each job's removal, for which there is no index.
running = Table(
    "running",
    metadata,
    Column("host", Text, nullable=False),
    Column("job", RowNumber, nullable=False),
    PrimaryKeyConstraint("host", "job"),
    sqlite_with_rowid=False,
)


is_running = jobs.c.seq.in_(select(running.c.job))
"""The condition that is looked up in the jobs that run, not in all of them."""


def in_state(state: JobState) -> ColumnElement[bool]:
    """Return the condition with the state written out.

    SQLite then knows when it prepares a statement that a partial index fits.
    """
    return jobs.c.state == literal_column(f"'{state.value}'", jobs.c.state.type)


def waits_for(what: WaitsFor) -> ColumnElement[bool]:
    """Return the condition with what is waited for written out, as `in_state` does."""
    return jobs.c.waits_for == literal_column(f"'{what.value}'", jobs.c.waits_for.type)


def _index(name: str, *columns: Column[Any], where: ColumnElement[bool]) -> None:
    Index(name, *columns, sqlite_where=where, postgresql_where=where)


# What admission needs. Living jobs only, so that their size does not follow the history.
_index(
    "ix_jobs_of_queue",
    jobs.c.queue_id,
    jobs.c.state,
    jobs.c.waits_for,
    jobs.c.seq,
    where=jobs.c.queue_id.is_not(None),
)
# With the column of the condition in it SQLite need not look at the rows to count them.
_index(
    "ix_jobs_for_host",
    jobs.c.waits_for,
    jobs.c.host,
    jobs.c.seq,
    where=waits_for(WaitsFor.HOST),
)
_index("ix_jobs_next", jobs.c.waits_for, jobs.c.seq, where=waits_for(WaitsFor.DISPATCHER))
_index("ix_jobs_next_of_host", jobs.c.waits_for, jobs.c.host, where=waits_for(WaitsFor.DISPATCHER))

# What lists need: newest first, of all jobs, of those that wait, of a host, of a queue's name.
# SQLite has the number of the row, which is seq, at the end of every index.
Index("ix_jobs_submitted", jobs.c.submitted)
_index("ix_jobs_waiting", jobs.c.submitted, where=in_state(JobState.WAITING))
Index("ix_jobs_of_host", jobs.c.host, jobs.c.submitted)
_index(
    "ix_jobs_of_queue_name",
    jobs.c.queue,
    jobs.c.submitted,
    where=jobs.c.queue.is_not(None),
)
_index(
    "ix_jobs_of_submitter",
    jobs.c.submitter,
    jobs.c.submitted,
    where=jobs.c.submitter.is_not(None),
)
_index(
    "ix_jobs_on_behalf_of",
    jobs.c.on_behalf_of,
    jobs.c.submitted,
    where=jobs.c.on_behalf_of.is_not(None),
)
_index("ix_jobs_dedup", jobs.c.dedup, jobs.c.submitted, where=jobs.c.dedup.is_not(None))

# What pruning needs.
_index("ix_jobs_ended", jobs.c.ended, where=jobs.c.ended.is_not(None))
_index("ix_jobs_stream_ended", jobs.c.stream_ended, where=jobs.c.stream_ended.is_not(None))

# Which job an idempotency key stands for in a call of one submitter, who may be nobody (''), on
# behalf of one person. It outlives the job, so that a repeated call starts nothing even if the
# first one's job has been pruned.
keys = Table(
    "keys",
    metadata,
    Column("key", Text, nullable=False),
    Column("submitter", Text, nullable=False),
    Column("on_behalf_of", Text, nullable=False),
    Column("job_id", Text, nullable=False),
    Column("submitted", Double, nullable=False),
    PrimaryKeyConstraint("key", "submitter", "on_behalf_of"),
    Index("ix_keys_submitted", "submitted"),
    sqlite_with_rowid=False,
)

# The arguments of waiting jobs that may not be shown; see `harpcaller.store.secrets`.
secrets = Table(
    "secrets",
    metadata,
    Column("job", RowNumber, ForeignKey(jobs.c.seq), primary_key=True),
    Column("arguments", LargeBinary, nullable=False),
)

# Procedures of hosts that are known to have secret parameters, in the order in which that was said.
secret_procedures = Table(
    "secret_procedures",
    metadata,
    Column("seq", RowNumber, primary_key=True),
    Column("host", Text, nullable=False),
    Column("procedure", Text, nullable=False),
    UniqueConstraint("host", "procedure"),
)

# A row has packets that were recorded together (`harp.wire.packets.Packets`). With a primary key of
# two columns SQLite makes a rowid table and a unique index: rows are appended at the table's end,
# five times as many a second as into a WITHOUT ROWID table.
packets = Table(
    "packets",
    metadata,
    Column("job", RowNumber, ForeignKey(jobs.c.seq), nullable=False),
    # The number of the first.
    Column("first", BigInteger, nullable=False),
    Column("count", BigInteger, nullable=False),
    Column("data", LargeBinary, nullable=False),
    Column("recorded", Double, nullable=False),
    PrimaryKeyConstraint("job", "first"),
    CheckConstraint("first >= 0 AND count >= 1", name="numbers"),
)
