"""``harp jobs``: the jobs that the dispatcher knows, once or as they change."""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import islice
from typing import Any

import click

from harp.cli import completers, job_table, jobs_watched, tables, values
from harp.cli.session import Session, connected
from harp.cli.times import read_moment

LIMIT = 100
"""How many jobs are listed if nothing is said."""

INTERVAL = 2.0
"""Seconds between two looks, if nothing is said."""


@click.command()
@click.option(
    "--state",
    type=click.Choice(["waiting", "running", "ended"]),
    multiple=True,
    help="Jobs in this state; may be given several times.",
)
@click.option(
    "--end",
    type=click.Choice(["result", "exception", "error", "cancelled"]),
    multiple=True,
    help="Jobs that ended so; may be given several times.",
)
@click.option("--host", metavar="HOST", shell_complete=completers.hosts, help="Jobs on this host.")
@click.option(
    "--procedure", metavar="NAME", shell_complete=completers.called, help="Jobs of this procedure."
)
@click.option(
    "--queue",
    metavar="JSON",
    type=values.Json(dict, "object"),
    shell_complete=completers.queues,
    help="Jobs of this queue, by its name: a JSON object.",
)
@click.option(
    "--since",
    metavar="MOMENT",
    callback=read_moment,
    help="Jobs submitted since then: 2h, 30d (ago), 2026-11-23 or 2026-11-23T14:30.",
)
@click.option("--before", metavar="MOMENT", callback=read_moment, help="Jobs of before then.")
@click.option("--user", metavar="NAME", help="Jobs that NAME submitted, or had submitted.")
@click.option(
    "--limit",
    type=click.IntRange(1),
    metavar="N",
    default=LIMIT,
    show_default=True,
    help="At most so many, the newest.",
)
@click.option("--all", "is_all", is_flag=True, help="However many there are.")
@click.option("--watch", is_flag=True, help="Look again and again, until Ctrl-C.")
@click.option(
    "--interval",
    type=click.FloatRange(0.1, 3600),
    metavar="SECONDS",
    default=INTERVAL,
    show_default=True,
    help="How long --watch waits between two looks.",
)
@connected
def jobs(
    session: Session,
    state: tuple[str, ...],
    end: tuple[str, ...],
    since: float | None,
    before: float | None,
    user: str | None,
    limit: int,
    is_all: bool,
    watch: bool,
    interval: float,
    **filters: Any,
) -> None:
    """List jobs, the newest first.

    AGE is the time since a job was submitted, RAN for how long it ran. With --watch a terminal
    shows the newest ones, as many as fit; elsewhere a job is printed when it is new or has changed.
    A dispatcher that goes away is waited for.
    """
    if watch and is_all:
        raise click.UsageError("--all with --watch: there is no end of what is to be looked at")

    def listing() -> Iterator[dict[str, Any]]:
        found: Iterator[dict[str, Any]] = session.rpc.jobs(
            state=list(state) or None,
            end=list(end) or None,
            submitted_since=since,
            submitted_before=before,
            submitter=user,
            **filters,
        )
        return found

    if not watch:
        show(session, listing(), None if is_all else limit, "no such jobs")
    elif session.output.is_terminal:
        jobs_watched.show(session, listing, limit, interval)
    else:
        jobs_watched.tell_changes(session, listing, limit, interval)


def show(
    session: Session, found: Iterator[dict[str, Any]], limit: int | None, nothing: str
) -> None:
    """Print jobs.

    :param limit: how many at most; None for all.
    :param nothing: told people if there are none.
    """
    output = session.output
    some = islice(found, limit)
    if output.as_json:
        for job in some:
            output.item(job)
    else:
        now = time.time()
        rows = (job_table.row(job, now) for job in some)
        tables.show(output, job_table.COLUMNS, rows, nothing)
    if limit is not None and next(found, None) is not None:
        text = f"These are {limit}, there are more: --limit or --all shows them."
        output.told({"limit": limit, "more": True}, text)
