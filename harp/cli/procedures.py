"""``harp procedures``: what a host offers."""

from __future__ import annotations

from typing import Any

import click

from harp.cli import completers, signature, tables
from harp.cli.session import Session, connected
from harp.cli.tables import Column

COLUMNS = (Column("PROCEDURE"), Column("DESCRIPTION", is_extra=True))


@click.command()
@click.argument("host", shell_complete=completers.hosts)
@click.argument("name", required=False, shell_complete=completers.procedures)
@connected
def procedures(session: Session, host: str, name: str | None) -> None:
    """List what HOST offers, or tell all that is known of the procedure NAME.

    Only what you may call is shown.
    """
    found = session.waiting_for(f"asking {host}", lambda: session.rpc.procedures(host))
    if name is not None:
        signature.show(session.output, signature.named(found, name, host))
    elif session.output.as_json:
        for each in found:
            session.output.item(each)
    else:
        nothing = f"{host} offers nothing to you"
        tables.show(session.output, COLUMNS, map(_row, found), nothing)


def _row(procedure: dict[str, Any]) -> list[str]:
    doc = procedure.get("doc")
    lines = doc.strip().splitlines() if isinstance(doc, str) else []
    return [str(signature.read_signature(procedure)), lines[0] if lines else ""]
