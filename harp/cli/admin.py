"""``harp admin``: what only those may do who run the dispatcher."""

from __future__ import annotations

from datetime import datetime

import click

from harp.cli.session import Session, connected
from harp.cli.status import Failure, Status
from harp.cli.times import read_length


@click.group()
def admin() -> None:
    """Look after the dispatcher: see its rules' key administer."""


@admin.command()
@connected
def info(session: Session) -> None:
    """Show the dispatcher's version and extensions, and what its clock says."""
    found = session.rpc.server_info()
    if session.output.as_json:
        session.output.item(found)
        return
    session.output.line(f"version     {found['version']}")
    session.output.line(f"extensions  {' '.join(found['extensions'])}")
    if found["time"] is not None:
        clock = datetime.fromtimestamp(found["time"]).astimezone()
        session.output.line(f"clock       {clock.isoformat(' ', 'seconds')}")


@admin.command()
@connected
def reload(session: Session) -> None:
    """Have the dispatcher read its configuration again: all of it comes into force, or none."""
    found = session.rpc.reload()
    if not found["reloaded"]:
        mistakes = found["mistakes"]
        raise Failure(
            "\n".join(["the configuration stays as it was:", *mistakes]),
            told={"error": {"type": "not_reloaded", "message": "; ".join(mistakes)}, **found},
        )
    if session.output.as_json:
        session.output.item(found)
    else:
        session.output.line("the configuration is in force")


@admin.command()
@click.option(
    "--older-than",
    metavar="LENGTH",
    callback=read_length,
    required=True,
    help="Jobs that ended longer ago: seconds, or 90m, 12h, 30d, 8w.",
)
@connected
def prune(session: Session, older_than: float) -> None:
    """Forget jobs that ended long ago, with their results and packets."""
    try:
        count = session.rpc.prune(older_than)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--older-than") from error
    if session.output.as_json:
        session.output.item({"pruned": count})
    else:
        session.output.line(f"{count} {'job' if count == 1 else 'jobs'} forgotten")


@admin.command()
@click.option("--yes", is_flag=True, help="Do not ask.")
@connected
def stop(session: Session, yes: bool) -> None:
    """Stop the dispatcher for everybody, in good order.

    It takes no more calls at once, and ends when the jobs that run have ended, or after its
    shutdown_grace. Waiting jobs are kept. Nothing but its machine can start it again: systemctl
    start harpcaller. Where systemd listens for it (harpcaller.socket), the next client starts it.
    """
    if not yes and not session.output.confirm("Stop the dispatcher for everybody?"):
        raise Failure("nothing was stopped", Status.CANCELLED)
    found = session.rpc.stop_dispatcher()
    if session.output.as_json:
        session.output.item(found)
        return
    running = found["running"]
    text = "the dispatcher is stopping"
    if running:
        jobs = "job runs and has" if running == 1 else "jobs run and have"
        text += f": {running} {jobs} up to {found['grace']:g} s"
    session.output.line(text)
