"""What ``harp check`` found: one finding for each thing that was looked at."""

from __future__ import annotations

import enum
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from harp.cli.output import Output
from harp.cli.tables import Column, show


class State(enum.StrEnum):
    """How good it is, the best first."""

    OK = "ok"
    SKIPPED = "skipped"
    WARNING = "warning"
    ERROR = "error"


_STYLES = {"ok": "green", "skipped": "dim", "warning": "yellow", "error": "bold red"}
_COLUMNS = (Column("STATE", styles=_STYLES), Column("SUBJECT"), Column("FINDING"))


@dataclass(frozen=True)
class Finding:
    """What was found.

    :param subject: what was looked at.
    :param facts: for programs, beside the texts.
    """

    state: State
    subject: str
    text: str
    facts: dict[str, Any] = field(default_factory=dict)


def worst(states: Iterable[State]) -> State:
    """Return the worst of some states."""
    order = list(State)
    return max(states, key=order.index, default=State.OK)


def of_certificate(begins: datetime, ends: datetime, warn_days: float) -> tuple[State, str]:
    """Return how good it is that a certificate is valid from then till then, and a text.

    :param warn_days: fewer days than this are too few.
    """
    now = datetime.now(UTC)
    if now < begins:
        return State.ERROR, f"certificate NOT VALID before {begins:%Y-%m-%d %H:%M} UTC"
    left = (ends - now).total_seconds() / 86_400
    if left <= 0:
        return State.ERROR, f"certificate EXPIRED on {ends:%Y-%m-%d}"
    state = State.WARNING if left < warn_days else State.OK
    days = int(left)
    return state, f"certificate ends {ends:%Y-%m-%d}, {days} {'day' if days == 1 else 'days'} left"


def print_findings(output: Output, findings: list[Finding]) -> None:
    """Print them; a terminal gets long texts on several lines."""
    if output.as_json:
        for each in findings:
            fixed = {"state": each.state.value, "subject": each.subject, "finding": each.text}
            output.item({**fixed, **each.facts})
    elif output.is_terminal:
        _print_folded(output, findings)
    else:
        rows = ([each.state.value, each.subject, each.text] for each in findings)
        show(output, _COLUMNS, rows, "nothing was looked at")


def _print_folded(output: Output, findings: list[Finding]) -> None:
    from rich.table import Table
    from rich.text import Text

    from harp.cli.output import escaped

    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="bold")
    for column in _COLUMNS:
        table.add_column(column.title, overflow="fold", min_width=len(column.title))
    for each in findings:
        table.add_row(
            Text(each.state.value, _STYLES[each.state.value]),
            Text(escaped(each.subject)),
            Text(escaped(each.text)),
        )
    output.console.print(table)
