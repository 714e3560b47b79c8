"""One request to the dispatcher and its replies, sent again where that is safe.

Which extensions it uses is ``harp.dispatchers``' to say.
"""

from __future__ import annotations

import msgspec

from harp import errors
from harp.conversation import Conversation, connect
from harp.errors import CommunicationError, RemoteProtocolError
from harp.network import NetworkFailure, Silence
from harp.pool import Pool
from harp.session import Exchange
from harp.wire import dispatcher
from harp.wire.results import EndKind, EndResult
from harp.wire.text import Fault

REPEATS = (0.25, 1.0, 3.0)
"""Seconds before each further attempt to submit a call whose answer did not come because the
connection broke: enough for a dispatcher that is started again."""


class Question:
    """One request and its replies.

    It goes on a connection that was kept open, if there is one. If that breaks before a reply, the
    dispatcher had most likely closed it, and the request is sent again on a new one; but not a call
    without an idempotency key, which is never sent on an old one. A call with a key is sent again
    several times (`REPEATS`).

    :param request: sent as it is.
    :param patient: whether the dispatcher may be silent for as long as it likes.
    """

    def __init__(self, pool: Pool, request: dispatcher.Request, patient: bool = False) -> None:
        self.address = pool.endpoint.address
        self._pool = pool
        self._request = request
        self._patience = None if patient else self.address.reply_timeout
        self._has_key = isinstance(request, dispatcher.Call) and request.idempotency_key is not None
        self._repeats = iter(REPEATS if self._has_key else ())
        self._exchange = Exchange(request)
        self._conversation: Conversation[dispatcher.Reply] | None = None
        self._connected = False
        self._sent = False
        self._answered = False

    async def open(self) -> None:
        """Send the request.

        :raises CommunicationError: if that fails.
        """
        try:
            await self._send()
        except NetworkFailure as failure:
            await self._repeat(failure)

    async def next(self) -> dispatcher.Reply:
        """Return the next reply.

        :raises StopAsyncIteration: if there is none behind the last, or this is closed.
        :raises CommunicationError: if it does not come.
        """
        while self._conversation is not None:
            try:
                reply = await self._conversation.next(self._patience)
            except NetworkFailure as failure:
                if self._conversation is not None:  # it was not closed while we waited
                    await self._repeat(failure)
            except RemoteProtocolError as error:
                self.close()
                raise RemoteProtocolError(error.type, self._text(error.message)) from error
            except BaseException:
                self.close()
                raise
            else:
                self._answered = True
                if self._exchange.ended:
                    self._end(reply)
                return reply
        raise StopAsyncIteration

    def close(self) -> None:
        """Close the connection; there are no more replies then. It may be called twice."""
        conversation, self._conversation = self._conversation, None
        if conversation is not None:
            conversation.close()

    def abandon(self) -> None:
        """Close the connection soon, for the garbage collector."""
        if self._conversation is not None:
            self._conversation.channel.abandon()

    async def _send(self) -> None:
        is_safe = self._has_key or not isinstance(self._request, dispatcher.Call)
        channel = self._pool.take() if is_safe else None
        if channel is None:
            channel = await connect(self._pool.endpoint)
        elif not self._has_key:
            self._repeats = iter((0,))
        self._connected = True
        self._exchange = Exchange(self._request)
        self._conversation = Conversation(channel, self._exchange)
        try:
            await self._conversation.send(self._exchange.request_line())
        except BaseException:
            self.close()
            raise
        self._sent = self._sent or self._conversation.is_sent

    async def _repeat(self, failure: NetworkFailure) -> None:
        """Send the request again, or say what went wrong."""
        while True:
            self.close()
            self._pool.forget()
            in_vain = self._answered or not self._connected or isinstance(failure, Silence)
            delay = None if in_vain else next(self._repeats, None)
            if delay is None:
                raise CommunicationError(self._text(str(failure)), self._sent) from failure
            try:
                await self._pool.endpoint.pause(delay)
                await self._send()
            except NetworkFailure as another:
                failure = another
            else:
                return

    def _end(self, last: dispatcher.Reply) -> None:
        conversation = self._conversation
        assert conversation is not None
        if _is_refused(last):
            self._pool.forget()  # it may be an older one by now
            self.close()
        elif self._exchange.may_go_on:
            self._conversation = None
            self._pool.give(conversation.channel)
        else:
            self.close()

    def _text(self, reason: str) -> str:
        if not self._connected:
            return f"{self.address}: {reason}"
        kind = type(self._request).__name__
        in_doubt = self._sent and isinstance(self._request, dispatcher.Call)
        doubt = "; the call may have been submitted" if in_doubt else ""
        return f"{self.address}: {kind} without a whole reply: {reason}{doubt}"


_CLOSING = {errors.PARSE_ERROR.name, errors.INVALID_PROTOCOL.name, errors.INVALID_REQUEST.name}


def _is_refused(reply: dispatcher.Reply) -> bool:
    """Return whether the dispatcher did not understand the request; it closes then."""
    if not (isinstance(reply, EndResult) and reply.kind is EndKind.ERROR):
        return False
    return msgspec.json.decode(reply.value, type=Fault).type in _CLOSING
