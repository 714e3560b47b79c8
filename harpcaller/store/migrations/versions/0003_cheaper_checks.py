"""Constraints that cost less; the jobs that run in a table of their own, to be counted."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_row_number = sa.BigInteger().with_variant(sa.Integer(), "sqlite")

_COPY = """
    INSERT INTO new_jobs (
        seq, id, host, procedure, arguments, info, timeout, max_exec_time, queue, queue_id, state,
        submitted, started, ended, end_kind, end_value, end_origin, waits_for, caller, dedup,
        stream_ended
    )
    SELECT
        seq, id, host, procedure, arguments, info, timeout, max_exec_time, queue, queue_id, state,
        submitted, started, ended, end_kind, end_value, end_origin, waits_for, caller, dedup,
        stream_ended
    FROM jobs
"""


def upgrade() -> None:
    """Make the table of jobs anew, since SQLite can't change constraints; fill the other one."""
    op.create_table(
        "new_jobs",
        sa.Column("seq", _row_number, nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("host", sa.Text(), nullable=False),
        sa.Column("procedure", sa.Text(), nullable=False),
        sa.Column("arguments", sa.LargeBinary(), nullable=False),
        sa.Column("info", sa.LargeBinary(), nullable=False),
        sa.Column("timeout", sa.Double(), nullable=False),
        sa.Column("max_exec_time", sa.Double(), nullable=False),
        sa.Column("queue", sa.LargeBinary()),
        sa.Column("queue_id", _row_number),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("submitted", sa.Double(), nullable=False),
        sa.Column("started", sa.Double()),
        sa.Column("ended", sa.Double()),
        sa.Column("end_kind", sa.String(16)),
        sa.Column("end_value", sa.LargeBinary()),
        sa.Column("end_origin", sa.String(16)),
        sa.Column("waits_for", sa.String(16)),
        sa.Column("caller", sa.Text()),
        sa.Column("dedup", sa.LargeBinary()),
        sa.Column("stream_ended", sa.Double()),
        sa.PrimaryKeyConstraint("seq", name=op.f("pk_jobs")),
        sa.CheckConstraint(
            "state = 'waiting' AND waits_for IS NOT NULL AND started IS NULL AND ended IS NULL"
            " OR state = 'running' AND waits_for IS NULL AND started IS NOT NULL AND ended IS NULL"
            " OR state = 'ended' AND waits_for IS NULL AND ended IS NOT NULL AND queue_id IS NULL",
            name=op.f("ck_jobs_times_of_state"),
        ),
        sa.CheckConstraint(
            "(end_kind IS NULL) = (ended IS NULL) AND (end_value IS NULL) = (ended IS NULL)"
            " AND (end_origin IS NULL OR ended IS NOT NULL)"
            " AND (stream_ended IS NULL OR ended IS NOT NULL AND stream_ended = ended)",
            name=op.f("ck_jobs_end_of_ended"),
        ),
        sa.CheckConstraint(
            "state = 'ended' OR (queue_id IS NULL) = (queue IS NULL)",
            name=op.f("ck_jobs_place_in_queue"),
        ),
        sa.CheckConstraint(
            "waits_for IS NULL OR waits_for <> 'queue' OR queue_id IS NOT NULL",
            name=op.f("ck_jobs_waits_in_queue"),
        ),
        sa.UniqueConstraint("id", name=op.f("uq_jobs_id")),
        sa.ForeignKeyConstraint(["queue_id"], ["queues.id"], name=op.f("fk_jobs_queue_id")),
        sa.CheckConstraint(
            "state = 'waiting' OR state = 'running' OR state = 'ended'",
            name=op.f("ck_jobs_state"),
        ),
        sa.CheckConstraint(
            "end_kind = 'result' OR end_kind = 'exception' OR end_kind = 'error'"
            " OR end_kind = 'cancelled'",
            name=op.f("ck_jobs_end_kind"),
        ),
        sa.CheckConstraint(
            "end_origin = 'client' OR end_origin = 'dispatcher' OR end_origin = 'network'"
            " OR end_origin = 'harpd' OR end_origin = 'procedure'",
            name=op.f("ck_jobs_end_origin"),
        ),
        sa.CheckConstraint(
            "waits_for = 'queue' OR waits_for = 'host' OR waits_for = 'dispatcher'",
            name=op.f("ck_jobs_waits_for"),
        ),
    )
    op.execute(_COPY)
    # The packets' reference is by name, so it is the new table's.
    op.drop_table("jobs")
    op.rename_table("new_jobs", "jobs")
    _index(
        "ix_jobs_of_queue", "queue_id", "state", "waits_for", "seq", where="queue_id IS NOT NULL"
    )
    _index("ix_jobs_for_host", "waits_for", "host", "seq", where="waits_for = 'host'")
    _index("ix_jobs_next", "waits_for", "seq", where="waits_for = 'dispatcher'")
    _index("ix_jobs_next_of_host", "waits_for", "host", where="waits_for = 'dispatcher'")
    op.create_index(op.f("ix_jobs_submitted"), "jobs", ["submitted"])
    _index("ix_jobs_waiting", "submitted", where="state = 'waiting'")
    op.create_index(op.f("ix_jobs_of_host"), "jobs", ["host", "submitted"])
    _index("ix_jobs_of_queue_name", "queue", "submitted", where="queue IS NOT NULL")
    _index("ix_jobs_dedup", "dedup", "submitted", where="dedup IS NOT NULL")
    _index("ix_jobs_ended", "ended", where="ended IS NOT NULL")
    _index("ix_jobs_stream_ended", "stream_ended", where="stream_ended IS NOT NULL")
    op.create_table(
        "running",
        sa.Column("host", sa.Text(), nullable=False),
        sa.Column("job", _row_number, nullable=False),
        sa.PrimaryKeyConstraint("host", "job", name=op.f("pk_running")),
        sqlite_with_rowid=False,
    )
    op.execute("INSERT INTO running (host, job) SELECT host, seq FROM jobs WHERE state = 'running'")


def _index(name: str, *columns: str, where: str) -> None:
    op.create_index(
        op.f(name),
        "jobs",
        list(columns),
        sqlite_where=sa.text(where),
        postgresql_where=sa.text(where),
    )
