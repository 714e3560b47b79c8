"""What the dispatcher tells of a job (`harp.RemoteCall.detail`), for people and for programs."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any

from harp import (
    CALL_CANCELLED,
    CALL_NOT_FINISHED,
    RemoteCall,
    RemoteError,
    RemoteException,
    UnsupportedError,
)
from harp.cli.output import as_json


def facts(job: RemoteCall) -> dict[str, Any]:
    """Ask the dispatcher for all that it knows of a job, its result excepted.

    :raises HarpException: if it can't be asked, or does not tell.
    """
    found: dict[str, Any] = {
        "job": job.id(),
        "host": job.host(),
        "procedure": job.procedure(),
        "arguments": job.args(),
        "info": job.info(),
    }
    try:
        found |= job.detail()
    except UnsupportedError:  # it is older than that
        start, end = job.start_time(), job.end_time()
        state = "waiting" if start is None else "running"
        found["state"] = "ended" if end is not None else state
        found["time"] = {"submit": job.submit_time(), "start": start, "end": end}
    found["end"] = _end(job) if found["state"] == "ended" else None
    return found


def _end(job: RemoteCall) -> dict[str, Any] | None:
    outcome = job.result()
    if outcome is CALL_NOT_FINISHED:
        return None
    if outcome is CALL_CANCELLED:
        return {"kind": "cancelled"}
    if isinstance(outcome, RemoteException | RemoteError):
        kind = "exception" if isinstance(outcome, RemoteException) else "error"
        return {"kind": kind, "type": outcome.type, "message": outcome.message}
    return {"kind": "result"}


def lines(facts: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Return what `facts` has as names and texts; foreign text is in them."""
    for name in ("job", "host", "procedure"):
        yield name, str(facts[name])
    yield "arguments", as_json(facts["arguments"])
    if facts["info"] is not None:
        yield "info", as_json(facts["info"])
    yield "state", doing(facts) if facts["end"] is None else _ended(facts["end"])
    if queue := facts.get("queue"):
        at_once = queue.get("concurrency")  # of a queue that is gone nobody knows it
        limit = f", {at_once} at once" if at_once else ""
        yield "queue", as_json(queue["name"]) + limit
    time = facts["time"]
    yield "submitted", " ".join([moment(time["submit"]), *_who(facts)])
    if time["start"] is not None:
        yield "started", moment(time["start"])
    if time["end"] is not None:
        took = "" if time["start"] is None else f", after {time['end'] - time['start']:.3g} s"
        yield "ended", moment(time["end"]) + took
    for name, what in (("timeout", "timeout"), ("max_exec_time", "longest run")):
        if facts.get(name) is not None:
            yield what, f"{facts[name]:g} s"
    if facts.get("packets"):
        yield "packets", str(facts["packets"])


def doing(detail: dict[str, Any], host: str = "") -> str:
    """Return what a job does or waits for; foreign text is in it.

    :param detail: empty if it is not known.
    :param host: on which it runs, if that is known.
    """
    on = f" on {host}" if host else ""
    match detail:
        case {"state": "waiting", "waits_for": "queue", "queue": {"name": name, "position": place}}:
            before = f"{place} before it" if place else "next in it"
            return f"waiting in queue {as_json(name)}, {before}"
        case {"state": "waiting", "waits_for": "host"}:
            return f"waiting for a place{on or ' on its host'}"
        case {"state": "waiting", "waits_for": "dispatcher"}:
            return "waiting for a place in the dispatcher"
        case {"state": "running", "waits_for_lock": str(lock)}:
            return f"waiting for the lock {lock}{on}"
        case {"state": str(state)}:
            return f"{state}{on}"
    return f"going on{on}"


def moment(seconds: float) -> str:
    """Return a time as this machine's clock shows it."""
    return f"{datetime.fromtimestamp(seconds):%Y-%m-%d %H:%M:%S}"


def _ended(end: dict[str, Any]) -> str:
    if end["kind"] in ("exception", "error"):
        return f"ended, {end['kind']} {end['type']}: {end['message']}"
    return "ended, with a result" if end["kind"] == "result" else "ended, cancelled"


def _who(facts: dict[str, Any]) -> Iterator[str]:
    if facts.get("submitter"):
        yield f"by {facts['submitter']}"
    if facts.get("on_behalf_of"):
        yield f"on behalf of {facts['on_behalf_of']}"
    if facts.get("caller"):
        yield f"from {facts['caller']}"
