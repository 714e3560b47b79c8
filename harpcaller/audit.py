"""Lines of the log that tell who asked the dispatcher for what, and what was decided."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import msgspec
from twisted.logger import Logger

from harp import logs
from harp.wire import dispatcher as wire
from harpcaller.identities import Identity
from harpcaller.permissions import REQUESTS

_log = Logger("harpcaller.audit")  # obeys no level


def allowed(identity: Identity, request: wire.Request, job_id: str | None = None) -> None:
    """Tell that a request is carried out.

    :param job_id: the id that a call has been given.
    """
    _tell("allowed", identity, request, {} if job_id is None else {"job_id": job_id})


def refused(identity: Identity, request: wire.Request | None, reason: str) -> None:
    """Tell that a request is not carried out.

    :param request: None if only its beginning was looked at.
    """
    _tell("refused", identity, request, {"reason": reason})


def hung_up() -> None:
    """Tell that the configuration is read again because of a signal."""
    logs.audit(_log, "allowed", "reload", peer="SIGHUP")


def _tell(
    decision: Literal["allowed", "refused"],
    identity: Identity,
    request: wire.Request | None,
    more: Mapping[str, str],
) -> None:
    action, target = ("unknown", {}) if request is None else _what(request)
    logs.audit(
        _log,
        decision,
        action,
        user=identity.name,
        on_behalf_of=identity.on_behalf_of,
        peer=identity.peer,
        **target,
        **more,
    )


def _what(request: wire.Request) -> tuple[str, dict[str, str]]:
    """Return what was asked for; no payload is in it."""
    kind = REQUESTS.get(type(request))
    if kind is None:
        return type(request).__name__, {}
    match request:
        case wire.Call():
            return kind.action, {"host": request.host, "procedure": request.procedure}
        case wire.ListProcedures():
            return kind.action, {"host": request.list_procedures}
        case wire.ListQueue(list_queue=queue) | wire.CancelQueue(cancel_queue=queue):
            return kind.action, {"queue": _text(queue.name)}
        case wire.PruneJobs():
            return kind.action, {"older_than": f"{request.prune_jobs.older_than:g}"}
    return kind.action, {"job_id": kind.job_id(request)} if kind.job_id is not None else {}


def _text(raw: msgspec.Raw) -> str:
    return bytes(raw)[:1000].decode(errors="replace")
