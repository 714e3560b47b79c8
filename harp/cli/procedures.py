"""``harp procedures``: what a host offers."""

from __future__ import annotations

from difflib import get_close_matches
from typing import Any

import click

from harp.cli import completers, tables
from harp.cli.output import escaped
from harp.cli.session import Session, connected
from harp.cli.signature import description, read_signature
from harp.cli.status import Failure
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
    found = session.rpc.procedures(host)
    output = session.output
    if name is not None:
        found = [_only(found, host, name)]
    if output.as_json:
        for each in found:
            output.item(each)
    elif name is not None:
        for line in description(found[0]):
            output.line(escaped(line))
    else:
        tables.show(output, COLUMNS, map(_row, found), f"{host} offers nothing to you")


def _only(found: list[dict[str, Any]], host: str, name: str) -> dict[str, Any]:
    by_name = {each.get("name"): each for each in found}
    if name not in by_name:
        names = [each for each in by_name if isinstance(each, str)]
        close = get_close_matches(name, names)
        hint = f"Is it {' or '.join(close)}?" if close else None
        raise Failure(f"{host} offers no procedure {name} to you", remedy=hint)
    return by_name[name]


def _row(procedure: dict[str, Any]) -> list[str]:
    doc = procedure.get("doc")
    lines = doc.strip().splitlines() if isinstance(doc, str) else []
    return [str(read_signature(procedure)), lines[0] if lines else ""]
