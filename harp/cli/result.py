"""``harp result``: the results of jobs."""

from __future__ import annotations

import click

from harp.cli import completers, watching
from harp.cli.session import Session, connected


@click.command()
@click.argument("jobs", metavar="JOB...", nargs=-1, required=True, shell_complete=completers.jobs)
@connected
def result(session: Session, /, jobs: tuple[str, ...]) -> None:
    """Wait for jobs and print their results.

    The exit status is that of the first JOB that has no result. Of several jobs each line begins
    with the job's id.
    """
    wanted = [session.rpc.job(job) for job in dict.fromkeys(jobs)]
    watching.watch(session.output, wanted, None)
