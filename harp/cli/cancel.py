"""``harp cancel``: jobs are ended, or never started."""

from __future__ import annotations

import click

from harp import RemoteCall
from harp.cli import completers
from harp.cli.session import Session, connected
from harp.cli.several import for_each


@click.command()
@click.argument(
    "jobs", metavar="JOB...", nargs=-1, required=True, shell_complete=completers.open_jobs
)
@connected
def cancel(session: Session, /, jobs: tuple[str, ...]) -> None:
    """Cancel jobs, whether they wait or run.

    Everything that a running job has started on its host is ended. A job that has ended already
    stays what it is, and that is said; the exit status is 0 all the same.
    """
    output = session.output

    def cancel_one(job: RemoteCall) -> None:
        was_going_on = session.waiting_for("cancelling", job.cancel)
        if output.as_json:
            output.item({"job": job.id(), "cancelled": was_going_on})
        else:
            output.text(f"{job.id()} {'cancelled' if was_going_on else 'had ended already'}")

    for_each(session, jobs, cancel_one)
