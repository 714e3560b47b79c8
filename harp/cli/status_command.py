"""``harp status``: what is known of jobs."""

from __future__ import annotations

import click

from harp import RemoteCall
from harp.cli import completers, job_facts
from harp.cli.session import Session, connected
from harp.cli.several import for_each


@click.command()
@click.argument("jobs", metavar="JOB...", nargs=-1, required=True, shell_complete=completers.jobs)
@connected
def status(session: Session, /, jobs: tuple[str, ...]) -> None:
    """Tell what is known of jobs.

    The exit status tells whether that could be told, not how the jobs ended; harp result tells
    that.
    """
    output = session.output
    first = jobs[0]

    def show(job: RemoteCall) -> None:
        facts = session.waiting_for("asking", lambda: job_facts.facts(job))
        if output.as_json:
            output.item(facts)
            return
        if job.id() != first:
            output.line("")
        for name, text in job_facts.lines(facts):
            output.text(f"{name:<11} {text}")

    for_each(session, jobs, show)
