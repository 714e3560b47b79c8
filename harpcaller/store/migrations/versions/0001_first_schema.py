"""Jobs, their packets and their queues."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_row_number = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Create the tables."""
    op.create_table(
        "queues",
        sa.Column("id", _row_number, nullable=False),
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column("name", sa.LargeBinary(), nullable=False),
        sa.Column("concurrency", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_queues")),
        sa.CheckConstraint("concurrency >= 1", name=op.f("ck_queues_concurrency")),
        sa.UniqueConstraint("digest", name=op.f("uq_queues_digest")),
    )
    op.create_table(
        "jobs",
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
        sa.PrimaryKeyConstraint("seq", name=op.f("pk_jobs")),
        sa.CheckConstraint(
            "state = 'waiting' AND queue_id IS NOT NULL AND started IS NULL AND ended IS NULL"
            " OR state = 'running' AND started IS NOT NULL AND ended IS NULL"
            " OR state = 'ended' AND ended IS NOT NULL AND queue_id IS NULL",
            name=op.f("ck_jobs_times_of_state"),
        ),
        sa.CheckConstraint(
            "(end_kind IS NULL) = (ended IS NULL) AND (end_value IS NULL) = (ended IS NULL)",
            name=op.f("ck_jobs_end_of_ended"),
        ),
        sa.CheckConstraint(
            "state = 'ended' OR (queue_id IS NULL) = (queue IS NULL)",
            name=op.f("ck_jobs_place_in_queue"),
        ),
        sa.UniqueConstraint("id", name=op.f("uq_jobs_id")),
        sa.ForeignKeyConstraint(["queue_id"], ["queues.id"], name=op.f("fk_jobs_queue_id")),
        sa.CheckConstraint("state IN ('waiting', 'running', 'ended')", name=op.f("ck_jobs_state")),
        sa.CheckConstraint(
            "end_kind IN ('result', 'exception', 'error', 'cancelled')",
            name=op.f("ck_jobs_end_kind"),
        ),
    )
    op.create_index(
        op.f("ix_jobs_queue_id_state_seq"),
        "jobs",
        ["queue_id", "state", "seq"],
        sqlite_where=sa.text("queue_id IS NOT NULL"),
        postgresql_where=sa.text("queue_id IS NOT NULL"),
    )
    op.create_index(
        op.f("ix_jobs_running"),
        "jobs",
        ["seq"],
        sqlite_where=sa.text("state = 'running'"),
        postgresql_where=sa.text("state = 'running'"),
    )
    op.create_table(
        "packets",
        sa.Column("job", _row_number, nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("data", sa.LargeBinary(), nullable=False),
        sa.Column("recorded", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("job", "number", name=op.f("pk_packets")),
        sa.CheckConstraint("number >= 0", name=op.f("ck_packets_number")),
        sa.ForeignKeyConstraint(["job"], ["jobs.seq"], name=op.f("fk_packets_job")),
    )


def downgrade() -> None:
    """Drop the tables and all that is in them."""
    op.drop_table("packets")
    op.drop_table("jobs")
    op.drop_table("queues")
