"""``harp hosts``: the hosts that the dispatcher knows."""

from __future__ import annotations

from typing import Any

import click

from harp.cli import tables
from harp.cli.session import Session, connected
from harp.cli.status import Failure
from harp.cli.tables import Column

COLUMNS = (
    Column("HOST"),
    Column("ADDRESS"),
    Column("PORT", is_whole=True, is_number=True),
    Column("TAGS"),
    Column("CERTIFICATE FOR", is_extra=True),
)


@click.command()
@click.option("--refresh", is_flag=True, help="Have the dispatcher read its hosts again first.")
@click.option(
    "--accept-loss",
    is_flag=True,
    help="With --refresh: take the new list even if most of the hosts are missing from it.",
)
@connected
def hosts(session: Session, refresh: bool, accept_loss: bool) -> None:
    """List the hosts that the dispatcher knows."""
    if accept_loss and not refresh:
        raise click.UsageError("--accept-loss without --refresh")
    if refresh:
        done = session.rpc.refresh_hosts(accept_loss=accept_loss)
        if done["problem"] is not None:
            raise Failure(
                f"the old list of {done['hosts_known']} hosts stays: {done['problem']}",
                told={"error": {"type": "not_refreshed", "message": done["problem"]}, **done},
            )
    found = session.rpc.hosts()
    if session.output.as_json:
        for host in found:
            session.output.item(host)
    else:
        tables.show(session.output, COLUMNS, map(_row, found), "there are no hosts")


def _row(host: dict[str, Any]) -> list[str]:
    tags = ",".join(host["tags"])
    return [host["name"], host["address"], str(host["port"]), tags, host["server_name"] or ""]
