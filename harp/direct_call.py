"""One request to harpd and its replies, sent again only where harpd can't have taken it up."""

from __future__ import annotations

import msgspec

from harp import errors
from harp.conversation import Conversation, Ended
from harp.network import NetworkFailure
from harp.pool import Pool
from harp.session import OutgoingCall
from harp.wire import harpd
from harp.wire.results import EndKind, EndResult
from harp.wire.text import Fault

OLD_FOR = 3600.0
"""Seconds for which a harpd that refused to keep a connection is not asked for it again."""

_VERSION_1: frozenset[str] = frozenset()


class DirectCall(Conversation[harpd.Reply]):
    """One request and its replies.

    It goes on a connection that was kept open, if there is one. If harpd ended that in good order
    before it replied to anything, it has not taken up the request, which is sent again on a new
    one. In any other case the procedure may have run.

    :param request: sent as it is.
    """

    def __init__(self, pool: Pool, request: harpd.Request) -> None:
        is_call = isinstance(request, harpd.CallRequest)
        super().__init__(
            pool,
            f"{request.procedure}()" if isinstance(request, harpd.CallRequest) else "describe",
            "; the procedure may have run" if is_call else "",
            pool.endpoint.address.reply_timeout,
        )
        self._request = request
        self._is_accepted = False

    def _begin(self) -> OutgoingCall:
        return OutgoingCall(self._request)

    def _may_be_kept(self) -> bool:
        return self._request.keepalive

    def _repeat_after(self, failure: NetworkFailure) -> float | None:
        if not (self._is_kept and isinstance(failure, Ended) and not self._is_heard):
            return None
        self._has_connected = self._is_sent = False  # as good as never
        return 0

    def _goes_on(self, last: harpd.Reply) -> bool:
        # After what it refused harpd closes, or may do so.
        return self._is_accepted or not isinstance(last, EndResult)

    async def first(self) -> harpd.Reply:
        """Return the reply that is due at once; what comes after it may take its time."""
        reply = await self.next()
        self._is_accepted = not isinstance(reply, EndResult)
        self.patience = None
        return reply


async def ask(pool: Pool, request: harpd.Request) -> tuple[DirectCall, harpd.Reply]:
    """Send a request and return what has its replies, and the first of them.

    An old harpd, which refuses to keep the connection, is asked again without that.

    :raises CommunicationError: if it can't be sent or there is no reply.
    """
    is_call = isinstance(request, harpd.CallRequest)
    if is_call and pool.offered == _VERSION_1:
        return await _ask(pool, request)
    call, reply = await _ask(pool, msgspec.structs.replace(request, keepalive=True))
    if is_call and _is_invalid_request(reply):
        # An error in place of the acknowledgement: nothing has run.
        call, reply = await _ask(pool, request)
        if not _is_invalid_request(reply):
            pool.remember(_VERSION_1, OLD_FOR)
    return call, reply


async def _ask(pool: Pool, request: harpd.Request) -> tuple[DirectCall, harpd.Reply]:
    call = DirectCall(pool, request)
    await call.open()
    return call, await call.first()


def _is_invalid_request(reply: harpd.Reply) -> bool:
    return (
        isinstance(reply, EndResult)
        and reply.kind is EndKind.ERROR
        and msgspec.json.decode(reply.value, type=Fault).type == errors.INVALID_REQUEST.name
    )
