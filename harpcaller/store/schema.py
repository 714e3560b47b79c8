"""The tables of the job store. Every change here needs a migration beside it."""

from __future__ import annotations

import enum

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
    literal_column,
)

from harp.wire.results import EndKind
from harpcaller.jobs import JobState

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
        create_constraint=True,
        length=16,
        values_callable=lambda members: [member.value for member in members],
    )


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
    CheckConstraint(
        "state = 'waiting' AND queue_id IS NOT NULL AND started IS NULL AND ended IS NULL"
        " OR state = 'running' AND started IS NOT NULL AND ended IS NULL"
        " OR state = 'ended' AND ended IS NOT NULL AND queue_id IS NULL",
        name="times_of_state",
    ),
    CheckConstraint(
        "(end_kind IS NULL) = (ended IS NULL) AND (end_value IS NULL) = (ended IS NULL)",
        name="end_of_ended",
    ),
    CheckConstraint(
        "state = 'ended' OR (queue_id IS NULL) = (queue IS NULL)", name="place_in_queue"
    ),
)


def in_state(state: JobState) -> ColumnElement[bool]:
    """Return the condition with the state written out.

    SQLite then knows when it prepares a statement that a partial index fits.
    """
    return jobs.c.state == literal_column(f"'{state.value}'", jobs.c.state.type)


# Both hold living jobs only, so that their size does not follow the history.
Index(
    None,
    jobs.c.queue_id,
    jobs.c.state,
    jobs.c.seq,
    sqlite_where=jobs.c.queue_id.is_not(None),
    postgresql_where=jobs.c.queue_id.is_not(None),
)
Index(
    "ix_jobs_running",
    jobs.c.seq,
    sqlite_where=in_state(JobState.RUNNING),
    postgresql_where=in_state(JobState.RUNNING),
)

# With a primary key of two columns SQLite makes a rowid table and a unique index: packets are
# appended at the table's end, five times as many a second as into a WITHOUT ROWID table.
packets = Table(
    "packets",
    metadata,
    Column("job", RowNumber, ForeignKey(jobs.c.seq), nullable=False),
    Column("number", BigInteger, nullable=False),
    Column("data", LargeBinary, nullable=False),
    Column("recorded", Double, nullable=False),
    PrimaryKeyConstraint("job", "number"),
    CheckConstraint("number >= 0", name="number"),
)
