"""Of which procedures harpd has said that some of their parameters are secret."""

from __future__ import annotations

from sqlalchemy import bindparam, delete, func, insert, select

from harpcaller.store.schema import secret_procedures
from harpcaller.store.statements import Connection, Statement

_table = secret_procedures
_ADD = Statement(insert(_table), "host", "procedure")
_FORGET = Statement(
    delete(_table).where(
        _table.c.host == bindparam("of_host"), _table.c.procedure == bindparam("of_procedure")
    )
)
_FORGET_OLDEST = Statement(
    delete(_table).where(
        _table.c.seq <= select(func.max(_table.c.seq)).scalar_subquery() - bindparam("kept")
    )
)
_ALL = Statement(select(_table.c.host, _table.c.procedure).order_by(_table.c.seq))


def note(
    connection: Connection, host: str, procedure: str, has_secrets: bool, at_most: int
) -> None:
    """Keep what harpd has said of a procedure.

    :param at_most: how many are kept: those that were added last.
    """
    _FORGET.run(connection, of_host=host, of_procedure=procedure)
    if has_secrets:
        _ADD.run(connection, host=host, procedure=procedure)
        _FORGET_OLDEST.run(connection, kept=at_most)


def everything(connection: Connection) -> list[tuple[str, str]]:
    """Return host and procedure of each that has secrets, those that were added last at the end."""
    return [(host, procedure) for host, procedure in _ALL.all(connection)]
