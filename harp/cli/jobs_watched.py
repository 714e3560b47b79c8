"""Jobs as they change: a table that stays on a terminal, or a line for each change."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any, TypeVar

from harp import CommunicationError
from harp.cli import job_table, tables
from harp.cli.output import escaped
from harp.cli.session import Session

T = TypeVar("T")


def show(
    session: Session, listing: Callable[[], Iterator[dict[str, Any]]], limit: int, interval: float
) -> None:
    """Show the newest jobs on a terminal until Ctrl-C."""
    from rich.console import Group
    from rich.live import Live
    from rich.text import Text

    console = session.output.console

    def newest() -> list[dict[str, Any]]:
        return list(islice(listing(), min(limit, max(1, console.height - 3))))

    first = newest()
    shown = Group()
    with Live(console=console, auto_refresh=False) as live:
        for found in looks(first, newest, interval):
            if isinstance(found, CommunicationError):
                trouble = Text(f"trying again: {escaped(str(found))}", no_wrap=True)
                live.update(Group(*shown.renderables, trouble), refresh=True)
                continue
            moment = time.time()
            rows = (job_table.row(job, moment) for job in found)
            lines = tables.lines(job_table.COLUMNS, rows, console.width)
            shown = Group(*lines) if found else Group("no such jobs")
            live.update(shown, refresh=True)


def tell_changes(
    session: Session, listing: Callable[[], Iterator[dict[str, Any]]], limit: int, interval: float
) -> None:
    """Print those of the newest jobs that are new or have changed, until Ctrl-C."""
    output = session.output
    known: dict[str, dict[str, Any]] = {}
    is_first, is_lost = True, False

    def newest() -> list[dict[str, Any]]:
        return list(islice(listing(), limit))

    for look in looks(newest(), newest, interval):
        if isinstance(look, CommunicationError):
            if not is_lost:
                output.told({"lost": str(look)}, f"{look}; trying again")
            is_lost = True
            continue
        is_lost = False
        found = {job["job_id"]: job for job in look}
        changed = [job for key, job in found.items() if known.get(key) != job][::-1]
        if output.as_json:
            for job in changed:
                output.item(job)
        else:
            moment = time.time()
            rows = [job_table.row(job, moment) for job in changed]
            for line in tables.lines(job_table.COLUMNS, rows, None, titled=is_first):
                output.line(line.plain.rstrip())
        known, is_first = found, False


def looks(first: T, look: Callable[[], T], interval: float) -> Iterator[T | CommunicationError]:
    """Look again and again; a dispatcher that was there may be away for any time.

    :param first: what the first look found.
    :param interval: seconds between two looks.
    :return: what each look found, or why it found nothing.
    """
    found: T | CommunicationError = first
    while True:
        yield found
        time.sleep(interval)
        try:
            found = look()
        except CommunicationError as error:
            found = error
