"""Whose jobs they are, keys of each submitter, and what has to be known of secret arguments."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

_row_number = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Add columns, which costs nothing however many jobs there are, and make the keys anew."""
    for name in ("submitter", "on_behalf_of"):
        op.add_column("jobs", sa.Column(name, sa.Text()))
    _index("ix_jobs_of_submitter", "submitter")
    _index("ix_jobs_on_behalf_of", "on_behalf_of")
    op.create_table(
        "new_keys",
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("submitter", sa.Text(), nullable=False),
        sa.Column("on_behalf_of", sa.Text(), nullable=False),
        sa.Column("job_id", sa.Text(), nullable=False),
        sa.Column("submitted", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("key", "submitter", "on_behalf_of", name=op.f("pk_keys")),
        sqlite_with_rowid=False,
    )
    # All calls so far were nobody's in particular.
    op.execute("INSERT INTO new_keys SELECT key, '', '', job_id, submitted FROM keys")
    op.drop_table("keys")
    op.rename_table("new_keys", "keys")
    op.create_index(op.f("ix_keys_submitted"), "keys", ["submitted"])
    op.create_table(
        "secrets",
        sa.Column("job", _row_number, nullable=False),
        sa.Column("arguments", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("job", name=op.f("pk_secrets")),
        sa.ForeignKeyConstraint(["job"], ["jobs.seq"], name=op.f("fk_secrets_job")),
    )
    op.create_table(
        "secret_procedures",
        sa.Column("seq", _row_number, nullable=False),
        sa.Column("host", sa.Text(), nullable=False),
        sa.Column("procedure", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("seq", name=op.f("pk_secret_procedures")),
        sa.UniqueConstraint("host", "procedure", name=op.f("uq_secret_procedures_host_procedure")),
    )


def _index(name: str, column: str) -> None:
    where = sa.text(f"{column} IS NOT NULL")
    op.create_index(
        op.f(name), "jobs", [column, "submitted"], sqlite_where=where, postgresql_where=where
    )
