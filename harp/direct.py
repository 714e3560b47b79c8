"""Calls of harpd without a dispatcher between, whichever way the program waits for them.

The order of messages is `harp.session.OutgoingCall`'s. A connection carries one call: whether a
call on a connection that harpd may just be closing has started could not be told.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Generic, TypeVar

import msgspec

from harp import calls, checks, outcomes
from harp.conversation import Conversation, connect
from harp.errors import CommunicationError, HarpException, RemoteProtocolError
from harp.items import Items
from harp.network import Endpoint, NetworkFailure
from harp.session import OutgoingCall
from harp.wire import harpd
from harp.wire.packets import Packets

I = TypeVar("I")  # noqa: E741


class DirectCall:
    """One request to harpd and its replies."""

    def __init__(self, endpoint: Endpoint, request: harpd.Request) -> None:
        self.address = endpoint.address
        self._endpoint = endpoint
        is_call = isinstance(request, harpd.CallRequest)
        self._name = f"{request.procedure}()" if is_call else "describe"  # type: ignore[union-attr]
        self._doubt = "; the procedure may have run" if is_call else ""
        self._session = OutgoingCall(request)
        self._conversation: Conversation[harpd.Reply] | None = None

    async def open(self) -> None:
        """Send the request.

        :raises CommunicationError: if that fails.
        """
        try:
            channel = await connect(self._endpoint)
        except NetworkFailure as failure:
            raise CommunicationError(f"{self.address}: {failure}", may_have_run=False) from failure
        self._conversation = Conversation(channel, self._session)
        try:
            await self._conversation.send(self._session.request_line())
        except NetworkFailure as failure:
            raise self._broken(failure) from failure
        except BaseException:
            self.close()
            raise

    async def next(self, patient: bool = True) -> harpd.Reply:
        """Return the next reply.

        :param patient: whether harpd may be silent for as long as it likes.
        :raises StopAsyncIteration: if there is none behind the last, or this is closed.
        :raises CommunicationError: if it does not come.
        """
        if self._conversation is None:
            raise StopAsyncIteration
        try:
            return await self._conversation.next(None if patient else self.address.reply_timeout)
        except NetworkFailure as failure:
            if self._conversation is None:  # closed while we waited
                raise StopAsyncIteration from None
            raise self._broken(failure) from failure
        except RemoteProtocolError as error:
            self.close()
            raise RemoteProtocolError(error.type, self._text(error.message, True)) from error
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the connection, which cancels a call that has not ended. It may be called twice."""
        conversation, self._conversation = self._conversation, None
        if conversation is not None:
            conversation.close()

    def abandon(self) -> None:
        """Close the connection soon, for the garbage collector."""
        if self._conversation is not None:
            self._conversation.channel.abandon()

    def _broken(self, failure: NetworkFailure) -> CommunicationError:
        assert self._conversation is not None
        sent = self._conversation.is_sent
        self.close()
        return CommunicationError(self._text(str(failure), sent), sent)

    def _text(self, reason: str, sent: bool) -> str:
        doubt = self._doubt if sent else ""
        return f"{self.address}: {self._name} without a whole reply: {reason}{doubt}"


class CallPackets(Items):
    """The core of `harp.HarpStreamIterator`."""

    def __init__(self, call: DirectCall) -> None:
        self._call = call
        self._arrived: Iterator[bytes] = iter(())

    async def _next(self) -> Any:
        packet = next(self._arrived, None)
        reply: object = harpd.Waiting(None)
        while packet is None and isinstance(reply, harpd.Waiting):
            reply = await self._call.next()
            if isinstance(reply, Packets):
                self._arrived = iter(reply.texts)
                packet = next(self._arrived)
        try:
            with self._call.address.blamed():
                if packet is not None:
                    return outcomes.decode_payload(packet)
                value = outcomes.value_of(outcomes.outcome(reply, outcomes.DIRECT))
        except HarpException:
            self.close()
            raise
        self.close()
        return outcomes.Result(value)

    def close(self) -> None:
        """Close the connection: a call that has not ended is cancelled. It may be called twice."""
        self._arrived = iter(())
        self._call.close()

    def __del__(self) -> None:
        call = getattr(self, "_call", None)
        if call is not None:
            call.abandon()


class Server(Generic[I]):
    """The core of `harp.HarpServer`."""

    def __init__(
        self, endpoint: Endpoint, user: str, password: str, context: dict[str, Any] | None
    ) -> None:
        self._endpoint = endpoint
        self._auth = harpd.Auth(checks.text("user", user), checks.text("password", password))
        self._context: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
        if context is not None:
            self._context = msgspec.Raw(checks.json_object("context", context))

    async def _call(self, procedure: str, /, *args: object, **kwargs: object) -> Any:
        request = harpd.CallRequest(
            harp=1,
            procedure=checks.text("procedure", procedure),
            arguments=msgspec.Raw(calls.arguments(procedure, args, kwargs)),
            auth=self._auth,
            context=self._context,
        )
        call = DirectCall(self._endpoint, request)
        is_stream = False
        try:
            await call.open()
            reply = await call.next(patient=False)
            is_accepted = isinstance(reply, harpd.Ack)
            is_stream = isinstance(reply, harpd.Ack) and reply.stream_result
            if is_stream:
                return self._packets(call)
            while isinstance(reply, harpd.Ack | harpd.Waiting):
                reply = await call.next()
            with call.address.blamed():
                outcome = outcomes.outcome(reply, outcomes.DIRECT, is_refusal=not is_accepted)
                return outcomes.value_of(outcome)
        finally:
            if not is_stream:
                call.close()

    async def _procedures(self) -> list[dict[str, Any]]:
        """Return what this daemon offers, each as a dict.

        :return: ``name``, ``doc``, ``streaming``, ``timeout`` in seconds, ``parameters`` (JSON
            Schema of the arguments by keyword), ``lock``, ``lock_wait`` in seconds.
        :raises RemoteError: if the login is refused, or harpd is too old to tell
            (``invalid_request``).
        :raises CommunicationError: if it can't be reached or does not answer.
        """
        request = harpd.DescribeRequest(harp=1, describe=True, auth=self._auth)
        call = DirectCall(self._endpoint, request)
        try:
            await call.open()
            reply = await call.next(patient=False)
            with call.address.blamed():
                if isinstance(reply, harpd.Procedures):
                    return outcomes.decode_payload(reply.procedures)  # type: ignore[no-any-return]
                outcome = outcomes.outcome(reply, outcomes.DIRECT, is_refusal=True)
                return outcomes.value_of(outcome)  # type: ignore[no-any-return]
        finally:
            call.close()

    def _packets(self, call: DirectCall) -> I:
        raise NotImplementedError

    def __repr__(self) -> str:
        return f"<harp.HarpServer {self._endpoint.address}>"
