"""``harp follow``: the packets of jobs, as they come."""

from __future__ import annotations

import click

from harp.cli import completers, watching
from harp.cli.session import Session, connected


@click.command()
@click.argument("jobs", metavar="JOB...", nargs=-1, required=True, shell_complete=completers.jobs)
@click.option(
    "--since",
    type=click.IntRange(0),
    metavar="N",
    help="Begin with packet N; they count from 0.",
)
@click.option(
    "--recent",
    type=click.IntRange(0),
    metavar="N",
    help="Begin with the last N packets of those that are recorded.",
)
@connected
def follow(
    session: Session, /, jobs: tuple[str, ...], since: int | None, recent: int | None
) -> None:
    """Print the packets of jobs as they come, then their results.

    All packets are printed, also those that came before. The exit status is that of the first JOB
    that has no result. Of several jobs each line begins with the job's id. Ctrl-C asks on a
    terminal whether to cancel the jobs or to leave them running; elsewhere it leaves them running.
    """
    if since is not None and recent is not None:
        raise click.UsageError("--since and --recent are two ways to say where to begin")
    wanted = [session.rpc.job(job) for job in dict.fromkeys(jobs)]
    start = {"since": since or 0} if recent is None else {"recent": recent}
    watching.watch(session.output, wanted, start)
