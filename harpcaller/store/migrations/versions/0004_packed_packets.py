"""Packets that were recorded together share a row."""

from collections.abc import Iterable, Iterator
from itertools import groupby

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

# Of the packets in a row, each counted as 65 bytes more than it has.
_ROW_COST = 256 * 1024


def upgrade() -> None:
    """Make the table anew and fill it row by row: it may be larger than the memory."""
    op.create_table(
        "new_packets",
        sa.Column("job", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("first", sa.BigInteger(), nullable=False),
        sa.Column("count", sa.BigInteger(), nullable=False),
        sa.Column("data", sa.LargeBinary(), nullable=False),
        sa.Column("recorded", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("job", "first", name=op.f("pk_packets")),
        sa.ForeignKeyConstraint(["job"], ["jobs.seq"], name=op.f("fk_packets_job")),
        sa.CheckConstraint("first >= 0 AND count >= 1", name=op.f("ck_packets_numbers")),
    )
    connection = op.get_bind()
    kept = connection.exec_driver_sql(
        "SELECT job, number, data, recorded FROM packets ORDER BY job, number"
    )
    # What one commit recorded has one time.
    for (job, recorded), rows in groupby(kept, lambda row: (row[0], row[3])):
        for first, texts in _runs((number, data) for _, number, data, _ in rows):
            connection.exec_driver_sql(
                "INSERT INTO new_packets VALUES (?, ?, ?, ?, ?)",
                (job, first, len(texts), b"\n".join(texts), recorded),
            )
    op.drop_table("packets")
    op.rename_table("new_packets", "packets")


def _runs(packets: Iterable[tuple[int, bytes]]) -> Iterator[tuple[int, list[bytes]]]:
    """Return those that follow each other, as many as a row may have."""
    first, texts, cost = 0, list[bytes](), 0
    for number, data in packets:
        size = len(data) + 65
        if texts and (number != first + len(texts) or cost + size > _ROW_COST):
            yield first, texts
            texts, cost = [], 0
        if not texts:
            first = number
        texts.append(data)
        cost += size
    if texts:
        yield first, texts
