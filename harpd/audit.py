"""Lines of the log that tell who asked harpd for what, and what was decided."""

from __future__ import annotations

from contextlib import suppress

import msgspec
from twisted.logger import Logger

from harp import logs
from harp.wire import harpd

_log = Logger("harpd.audit")  # obeys no level


class Audit:
    """What is told of one request.

    :param peer: the client's address.
    :param user: whom the client says it is.
    :param request: None if only its beginning has come, which is one of a call.
    """

    def __init__(self, peer: str, user: str, request: harpd.Request | None = None) -> None:
        self._action = "describe" if isinstance(request, harpd.DescribeRequest) else "call"
        self._who: dict[str, str | None] = {"peer": peer, "user": user}
        if isinstance(request, harpd.CallRequest):
            self._who |= {"procedure": request.procedure, "job_id": _job(request)}

    def allowed(self, call: int | None = None) -> None:
        """Tell that the request is carried out.

        :param call: the number that a call has been given.
        """
        logs.audit(_log, "allowed", self._action, call=call, **self._who)

    def refused(self, reason: str) -> None:
        """Tell that the request is not carried out."""
        logs.audit(_log, "refused", self._action, reason=reason, **self._who)

    def cancelled(self, call: int) -> None:
        """Tell that the client has left its call."""
        logs.audit(_log, "allowed", "cancel", call=call, **self._who)


def hung_up() -> None:
    """Tell that the configuration is read again because of a signal."""
    logs.audit(_log, "allowed", "reload", peer="SIGHUP")


def _job(request: harpd.CallRequest) -> str | None:
    if request.context is not msgspec.UNSET:
        with suppress(msgspec.DecodeError):  # of something else under this name
            return msgspec.json.decode(request.context, type=_Context).job_id
    return None


class _Context(msgspec.Struct):
    job_id: str | None = None
