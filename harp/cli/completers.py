"""What a shell offers for a word that is being typed: names asked from the dispatcher.

The words of a command line, and how each shell quotes them, are ``harp.cli.shells``'. A person who
presses Tab waits a short time at most, and is told nothing of what goes wrong.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeAlias

import click
from click.shell_completion import CompletionItem

from harp.cli.output import as_json, escaped

if TYPE_CHECKING:
    from harp import HarpCaller

Items: TypeAlias = "list[CompletionItem[str]]"

LIMIT = 1.0
"""Seconds within which the dispatcher must have answered; what has come by then is offered."""

MAX_JOBS = 200
"""How many jobs are looked at, the newest."""


def hosts(context: click.Context, parameter: click.Parameter, incomplete: str) -> Items:
    """Offer the hosts."""
    return _offered(context, incomplete, lambda rpc: ((each["name"], "") for each in rpc.hosts()))


def procedures(context: click.Context, parameter: click.Parameter, incomplete: str) -> Items:
    """Offer the procedures of the host that stands before."""
    host = context.params.get("host")
    if host is None:
        return []
    return _offered(
        context,
        incomplete,
        lambda rpc: ((each["name"], _first_line(each.get("doc"))) for each in rpc.procedures(host)),
    )


def called(context: click.Context, parameter: click.Parameter, incomplete: str) -> Items:
    """Offer the procedures of the newest jobs, of those on a host if that stands before."""
    host = context.params.get("host")
    return _offered(
        context,
        incomplete,
        lambda rpc: (
            (name, "")
            for name in {each["procedure"]: None for each in islice(rpc.jobs(host=host), MAX_JOBS)}
        ),
    )


def queues(context: click.Context, parameter: click.Parameter, incomplete: str) -> Items:
    """Offer the queues that there are."""
    return _offered(
        context,
        incomplete,
        lambda rpc: (
            (as_json(each["name"]), f"{each['running']} running, {each['waiting']} waiting")
            for each in rpc.queues()
        ),
    )


def jobs(context: click.Context, parameter: click.Parameter, incomplete: str) -> Items:
    """Offer jobs, the newest first."""
    return _jobs(context, incomplete, None)


def open_jobs(context: click.Context, parameter: click.Parameter, incomplete: str) -> Items:
    """Offer jobs that have not ended, the newest first."""
    return _jobs(context, incomplete, ["waiting", "running"])


def profiles(context: click.Context, parameter: click.Parameter, incomplete: str) -> Items:
    """Offer the profiles of the command's own configuration."""
    from harp.cli import connection

    with suppress(click.ClickException):
        names = connection.profile_names(os.environ)
        return [CompletionItem(name) for name in names if name.startswith(incomplete)]
    return []


def _jobs(context: click.Context, incomplete: str, state: list[str] | None) -> Items:
    return _offered(
        context,
        incomplete,
        lambda rpc: (
            (
                each["job_id"],
                f"{each['end'] or each['state']}: {each['procedure']} on {each['host']}",
            )
            for each in islice(rpc.jobs(state=state), MAX_JOBS)
        ),
    )


def _offered(
    context: click.Context,
    incomplete: str,
    ask: Callable[[HarpCaller], Iterable[tuple[str, str]]],
) -> Items:
    """Return what the dispatcher says within the limit, with a help for each."""
    found: Items = []

    def fill() -> None:
        # Whatever is wrong, there is nobody who could be told.
        with suppress(Exception):
            for name, text in ask(_dispatcher(context)):
                if name.startswith(incomplete) and name.isprintable():
                    found.append(CompletionItem(name, help=escaped(text) or None))

    # A thread, for the look-up of a name can't be interrupted; the process does not wait for it.
    asking = threading.Thread(target=fill, daemon=True)
    asking.start()
    asking.join(LIMIT)
    return list(found)


def _dispatcher(context: click.Context) -> HarpCaller:
    from harp.cli import connection

    said: dict[str, Any] = {}
    each: click.Context | None = context
    while each is not None and not (said.get("dispatcher") or said.get("profile")):
        said, each = each.params, each.parent
    chosen = connection.choose(
        said.get("dispatcher"), said.get("profile"), os.environ, lambda text: None
    )
    return replace(chosen, connect_timeout=LIMIT, reply_timeout=LIMIT).open()


def _first_line(doc: object) -> str:
    lines = doc.strip().splitlines() if isinstance(doc, str) else []
    return lines[0] if lines else ""
