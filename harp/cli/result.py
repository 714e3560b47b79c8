"""``harp result``: the results of jobs."""

from __future__ import annotations

import click

from harp.cli import ending
from harp.cli.session import Session, connected


@click.command()
@click.argument("jobs", metavar="JOB...", nargs=-1, required=True)
@connected
def result(session: Session, jobs: tuple[str, ...]) -> None:
    """Wait for jobs and print their results."""
    for job in jobs:
        ending.show(session.output, session.rpc.job(job))
