"""``harp call``: a procedure is called on a host, and what it gives is printed."""

from __future__ import annotations

from typing import Any

import click

from harp import HarpException, RemoteCall
from harp.cli import completers, signature, values
from harp.cli.negative_numbers import TakesNegativeNumbers
from harp.cli.session import Session, connected
from harp.cli.times import read_length
from harp.cli.values import Json

CATALOGUE_LIMIT = 5.0
"""Seconds to wait for what a host's daemon tells of its procedures; a call does without."""


@click.command(cls=TakesNegativeNumbers, add_help_option=False)
@click.argument("host", metavar="HOST", required=False, shell_complete=completers.hosts)
@click.argument(
    "procedure", metavar="PROCEDURE", required=False, shell_complete=completers.procedures
)
@click.argument("words", metavar="[ARG]... [KEY=VALUE]...", nargs=-1)
@click.option(
    "--json-args",
    "json_arguments",
    metavar="JSON",
    type=Json((list, dict), "array or object"),
    help="All arguments at once: an array of positional or an object of keyword arguments.",
)
@click.option(
    "--queue",
    metavar="JSON",
    type=Json(dict, "object"),
    shell_complete=completers.queues,
    help='The queue that the job waits in, any JSON object, such as \'{"disk": "web01"}\'.',
)
@click.option(
    "--concurrency",
    type=click.IntRange(1),
    metavar="N",
    help="How many jobs of the queue may run at once, 1 if nothing is said. It counts for the call"
    " that creates the queue.",
)
@click.option(
    "--timeout",
    callback=read_length,
    metavar="TIME",
    help="The longest silence, such as 90, 15m or 2h: from packet to packet, or until the result.",
)
@click.option("--max-exec-time", callback=read_length, metavar="TIME", help="The longest run.")
@click.option(
    "--info", metavar="JSON", type=Json(), help="Anything that is to be kept with the job."
)
@click.option(
    "--idempotency-key",
    metavar="TEXT",
    help="Names what is to be done once: a second call with it starts nothing and gets the first"
    " one's job.",
)
@click.option(
    "--detach", is_flag=True, help="Print the job's id on standard output, and do not wait."
)
@click.option(
    "-h",
    "--help",
    "wants_help",
    is_flag=True,
    help="Show this message; behind HOST PROCEDURE what that procedure does and takes.",
)
@connected
def call(
    session: Session,
    /,
    host: str | None,
    procedure: str | None,
    words: tuple[str, ...],
    json_arguments: list[Any] | dict[str, Any] | None,
    detach: bool,
    wants_help: bool,
    **options: Any,
) -> None:
    """Call a procedure on a host.

    The job's id goes to standard error at once, then packets and result to standard output as they
    come. On a terminal a line tells what the job waits for and how long it has taken, and Ctrl-C
    asks whether to cancel the job or to leave it running. Without a terminal Ctrl-C leaves it
    running.

    An ARG is a positional argument, KEY=VALUE one by the name of its parameter. They are converted
    to what the procedure declares. Where that is not known they are JSON, or texts if they are not
    JSON. -- ends the options: what follows may begin with a hyphen. A negative number may stand
    anywhere.

    \b
    Examples:
      harp call web01 restart nginx
      harp call web01 back_up databases='["orders"]' --queue '{"disk": "web01"}'
      harp call web01 back_up --help
    """  # noqa: D301 - click takes \\b for: leave these lines as they are
    if wants_help and procedure is None:
        click.echo(click.get_current_context().get_help())
        return
    if host is None or procedure is None:
        missing = "PROCEDURE" if host else "HOST"
        raise click.UsageError(f"Missing argument '{missing}'.")
    if wants_help:
        _show_help(session, host, procedure)
        return
    if json_arguments is not None and words:
        raise click.UsageError("--json-args beside other arguments: give all of them in one way")
    if json_arguments is not None:
        args, kwargs = values.whole(json_arguments)
    else:
        args, kwargs = _arguments(session, host, procedure, words)
    job = _submitted(session, host, procedure, args, kwargs, options)
    if detach:
        if session.output.as_json:
            session.output.item({"job": job.id()})
        else:
            session.output.line(job.id())
        return
    session.output.told({"job": job.id()}, f"job {job.id()}")
    from harp.cli import watching

    watching.watch(session.output, [job], {"since": 0}, host)


def _submitted(
    session: Session,
    host: str,
    procedure: str,
    args: list[Any],
    kwargs: dict[str, Any],
    options: dict[str, Any],
) -> RemoteCall:
    try:
        submit = getattr(session.rpc.host(host, **options), procedure)
        job: RemoteCall = session.waiting_for("submitting", lambda: submit(*args, **kwargs))
    except KeyboardInterrupt:
        session.output.note("the call may have been submitted: harp jobs tells")
        raise
    except AttributeError:
        raise click.UsageError(f"{procedure!r} can be no procedure: none begins with _") from None
    except (TypeError, ValueError) as error:
        raise click.UsageError(str(error)) from error
    return job


def _arguments(
    session: Session, host: str, procedure: str, words: tuple[str, ...]
) -> values.Arguments:
    """Return what the words mean, by the signature if it can be had."""
    if not words:
        return [], {}
    try:
        rpc = session.within(CATALOGUE_LIMIT)
        found = session.waiting_for("asking for the signature", lambda: rpc.procedures(host))
    except HarpException:
        return values.guess(words)  # the call itself will tell what is wrong
    described = [each for each in found if each.get("name") == procedure]
    if not described:
        return values.guess(words)
    return values.bind(words, signature.read_signature(described[0]), session.output.ask_secret)


def _show_help(session: Session, host: str, procedure: str) -> None:
    found = session.waiting_for("asking for the signature", lambda: session.rpc.procedures(host))
    signature.show(session.output, signature.named(found, procedure, host))
