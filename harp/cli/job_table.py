"""Jobs as a table: what is shown of each in a list."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from harp.cli.output import as_json
from harp.cli.tables import Column
from harp.cli.times import brief

_STATES = {
    "waiting": "yellow",
    "running": "cyan",
    "result": "green",
    "exception": "red",
    "error": "red",
    "cancelled": "magenta",
}

COLUMNS: Sequence[Column] = (
    Column("JOB", is_whole=True),
    Column("STATE", is_whole=True, styles=_STATES),
    Column("HOST"),
    Column("PROCEDURE"),
    Column("AGE", is_whole=True, is_number=True),
    Column("RAN", is_whole=True, is_extra=True, is_number=True),
    Column("QUEUE", is_extra=True),
    Column("USER", is_extra=True),
)
"""AGE is the time since the job was submitted, RAN for how long it ran."""


def row(job: dict[str, Any], now: float) -> list[str]:
    """Return what is shown of a job.

    :param job: as `harp.HarpCaller.jobs` has it.
    :param now: unix seconds.
    """
    times = job["time"]
    started, ended = times["start"], times["end"]
    ran = "" if started is None else brief((now if ended is None else ended) - started)
    return [
        job["job_id"],
        job["end"] or job["state"],
        job["host"],
        job["procedure"],
        brief(now - times["submit"]),
        ran,
        "" if job["queue"] is None else as_json(job["queue"]),
        _who(job["submitter"], job["on_behalf_of"]),
    ]


def _who(submitter: str | None, on_behalf_of: str | None) -> str:
    if on_behalf_of is None:
        return submitter or ""
    return f"{on_behalf_of} by {submitter}"
