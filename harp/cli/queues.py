"""``harp queues``: the queues that there are, the jobs of one, and their end."""

from __future__ import annotations

from typing import Any

import click

from harp.cli import completers, jobs, tables, values
from harp.cli.output import as_json
from harp.cli.session import Session, connected
from harp.cli.tables import Column

COLUMNS = (
    Column("QUEUE"),
    Column("RUNNING", is_whole=True, is_number=True),
    Column("WAITING", is_whole=True, is_number=True),
    Column("CONCURRENCY", is_whole=True, is_number=True),
)


@click.command()
@click.argument(
    "queue",
    required=False,
    type=values.Json(dict, "object"),
    shell_complete=completers.queues,
)
@click.option("--cancel", is_flag=True, help="Cancel all jobs of QUEUE that wait or run now.")
@click.option(
    "--limit",
    type=click.IntRange(1),
    metavar="N",
    default=jobs.LIMIT,
    show_default=True,
    help="At most so many jobs of QUEUE.",
)
@click.option("--all", "is_all", is_flag=True, help="All jobs of QUEUE.")
@connected
def queues(
    session: Session, queue: dict[str, Any] | None, cancel: bool, limit: int, is_all: bool
) -> None:
    """List the queues, or the jobs of one in the order in which they run.

    QUEUE is its name, a JSON object such as '{"disk": "web01"}'.
    """
    if cancel:
        if queue is None:
            raise click.UsageError("--cancel without a QUEUE")
        _cancel(session, queue)
    elif queue is not None:
        found = session.rpc.queue(queue)
        jobs.show(session, found, None if is_all else limit, "there is no such queue now")
    elif session.output.as_json:
        for each in session.rpc.queues():
            session.output.item(each)
    else:
        tables.show(session.output, COLUMNS, map(_row, session.rpc.queues()), "there are no queues")


def _cancel(session: Session, queue: dict[str, Any]) -> None:
    count = session.rpc.cancel_queue(queue)
    if session.output.as_json:
        session.output.item({"cancelled_jobs": count})
    else:
        session.output.line(f"{count} {'job' if count == 1 else 'jobs'} cancelled")


def _row(queue: dict[str, Any]) -> list[str]:
    numbers = (queue["running"], queue["waiting"], queue["concurrency"])
    return [as_json(queue["name"]), *map(str, numbers)]
