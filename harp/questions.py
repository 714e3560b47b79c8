"""One request to the dispatcher and its replies, sent again where that is safe.

Which extensions it uses is ``harp.dispatchers``' to say.
"""

from __future__ import annotations

import msgspec

from harp import errors
from harp.conversation import Conversation
from harp.network import NetworkFailure, Silence
from harp.pool import Pool
from harp.session import Exchange
from harp.wire import dispatcher
from harp.wire.results import EndKind, EndResult
from harp.wire.text import Fault

REPEATS = (0.25, 1.0, 3.0)
"""Seconds before each further attempt to submit a call whose answer did not come because the
connection broke: enough for a dispatcher that is started again."""


class Question(Conversation[dispatcher.Reply]):
    """One request and its replies.

    It goes on a connection that was kept open, if there is one. If that breaks before a reply, the
    dispatcher had most likely closed it, and the request is sent again on a new one; but not a call
    without an idempotency key, which is never sent on an old one. A call with a key is sent again
    several times (`REPEATS`).

    :param request: sent as it is.
    :param patient: whether the dispatcher may be silent for as long as it likes.
    """

    def __init__(self, pool: Pool, request: dispatcher.Request, patient: bool = False) -> None:
        self._is_call = isinstance(request, dispatcher.Call)
        super().__init__(
            pool,
            type(request).__name__,
            "; the call may have been submitted" if self._is_call else "",
            None if patient else pool.endpoint.address.reply_timeout,
        )
        self._request = request
        self._has_key = isinstance(request, dispatcher.Call) and request.idempotency_key is not None
        self._repeats = iter(REPEATS if self._has_key else ())

    def _begin(self) -> Exchange:
        return Exchange(self._request)

    def _may_be_kept(self) -> bool:
        return self._has_key or not self._is_call

    def _repeat_after(self, failure: NetworkFailure) -> float | None:
        in_vain = self._is_answered or not self._has_connected or isinstance(failure, Silence)
        if in_vain:
            return None
        if self._is_kept and not self._has_key:
            return 0
        return next(self._repeats, None)

    def _goes_on(self, last: dispatcher.Reply) -> bool:
        if is_misunderstood(last):
            self._pool.forget()  # it may be an older one by now
            return False
        return True


_CLOSING = {errors.PARSE_ERROR.name, errors.INVALID_PROTOCOL.name, errors.INVALID_REQUEST.name}


def is_misunderstood(reply: dispatcher.Reply) -> bool:
    """Return whether the dispatcher did not understand a request; it closes then."""
    if not (isinstance(reply, EndResult) and reply.kind is EndKind.ERROR):
        return False
    return msgspec.json.decode(reply.value, type=Fault).type in _CLOSING
