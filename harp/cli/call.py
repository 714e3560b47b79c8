"""``harp call``: a procedure is called on a host, and what it gives is printed."""

from __future__ import annotations

from typing import Any

import click

from harp.cli import ending, values
from harp.cli.session import Session, connected


@click.command()
@click.argument("host")
@click.argument("procedure")
@click.argument("arguments", metavar="[ARG]... [KEY=VALUE]...", nargs=-1)
@click.option(
    "--queue",
    metavar="JSON",
    callback=values.read_object,
    help='The queue that the job waits in: a JSON object, such as \'{"disk": "web01"}\'.',
)
@click.option(
    "--concurrency",
    type=click.IntRange(1),
    metavar="N",
    help="How many jobs of the queue may run at once; counts for the call that creates it.",
)
@click.option(
    "--timeout", type=float, metavar="SECONDS", help="The longest silence between two messages."
)
@click.option("--max-exec-time", type=float, metavar="SECONDS", help="The longest run.")
@click.option(
    "--info", metavar="JSON", callback=values.read_json, help="Is kept with the job, for you."
)
@click.option("--detach", is_flag=True, help="Print the job's id and do not wait.")
@connected
def call(
    session: Session,
    host: str,
    procedure: str,
    arguments: tuple[str, ...],
    detach: bool,
    **options: Any,
) -> None:
    """Call a procedure on a host."""
    args, kwargs = values.split(arguments)
    try:
        job = getattr(session.rpc.host(host, **options), procedure)(*args, **kwargs)
    except (TypeError, ValueError) as error:
        raise click.UsageError(str(error)) from error
    if detach:
        session.output.line(f'{{"job":"{job.id()}"}}' if session.output.as_json else job.id())
        return
    session.output.told({"job": job.id()}, f"job {job.id()}")
    for packet in job.follow(since=0):
        session.output.item({"stream": packet} if session.output.as_json else packet)
    ending.show(session.output, job)
