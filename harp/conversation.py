"""One request and its replies, for both protocols, over the connections of ``harp.pool``.

It moves bytes between a `harp.network.Channel` and the tables of ``harp.session``, which know what
may come. Whether a request is sent again, and what its last reply means for the connection, is its
heirs' to say: ``harp.questions`` for the dispatcher, ``harp.direct_call`` for harpd.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Generic, Protocol, TypeVar

from harp.errors import CommunicationError, RemoteProtocolError
from harp.network import Channel, NetworkFailure, Silence
from harp.pool import Pool

R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)


class Session(Protocol[R_co]):
    """The order of replies: `harp.session.Exchange` or `harp.session.OutgoingCall`."""

    @property
    def ended(self) -> bool:
        """Whether the last reply has come."""

    @property
    def may_go_on(self) -> bool:
        """Whether the connection can carry another request, if the peer leaves it open."""

    def request_line(self) -> bytes:
        """Return what is to be sent."""

    def receive(self, data: bytes) -> Iterator[R_co]:
        """Take what has arrived and return the replies that are complete."""


class Ended(NetworkFailure):
    """The peer ended the connection in good order, which TLS can tell from its breaking."""


class Conversation(Generic[R]):
    """One request and its replies.

    :param name: what the request is called where it fails.
    :param doubt: what is added there if the request may have reached the peer.
    :param patience: how long the peer may be silent, in seconds; None: for ever.
    """

    def __init__(self, pool: Pool, name: str, doubt: str, patience: float | None) -> None:
        self.address = pool.endpoint.address
        self.patience = patience
        self._pool = pool
        self._name = name
        self._doubt = doubt
        self._channel: Channel | None = None
        self._session: Session[R]
        self._replies: Iterator[R] = iter(())
        self._unsent: NetworkFailure | None = None
        self._has_connected = False  # ever
        self._is_sent = False  # ever: the end of its line is its last byte
        self._is_kept = False  # the connection, from an earlier request
        self._is_heard = False  # the peer, on this connection
        self._is_answered = False  # by a whole reply

    # For its heirs.

    def _begin(self) -> Session[R]:
        """Return the session of another attempt."""
        raise NotImplementedError

    def _may_be_kept(self) -> bool:
        """Return whether the request may go on a connection that was kept open."""
        raise NotImplementedError

    def _repeat_after(self, failure: NetworkFailure) -> float | None:
        """Return after how many seconds the request is sent again, None if that is not safe."""
        raise NotImplementedError

    def _goes_on(self, last: R) -> bool:
        """Return whether the connection can carry another request after the last reply."""
        raise NotImplementedError

    # For who asks.

    async def open(self) -> None:
        """Send the request.

        :raises CommunicationError: if that fails.
        """
        try:
            await self._send(self._pool.take() if self._may_be_kept() else None)
        except NetworkFailure as failure:
            await self._recover(failure)

    async def next(self) -> R:
        """Return the next reply.

        :raises StopAsyncIteration: if there is none behind the last, or this is closed.
        :raises CommunicationError: if it does not come.
        """
        while True:
            for reply in self.arrived():
                return reply
            await self.wait()

    def arrived(self) -> Iterator[R]:
        """Return the replies that have arrived and that nobody took, one by one.

        :raises RemoteProtocolError: while iterating, if the peer broke the protocol.
        """
        try:
            for reply in self._replies:
                self._is_answered = True
                if self._session.ended:
                    self._finish(reply)
                yield reply
        except RemoteProtocolError as error:
            self.close()
            raise RemoteProtocolError(error.type, self._text(error.message)) from error

    async def wait(self, pulse: float | None = None) -> bool:
        """Return when something more has arrived.

        :param pulse: return after so many seconds of silence too, whatever patience there is.
        :return: whether something has arrived.
        :raises StopAsyncIteration: if nothing comes behind the last reply, or this is closed.
        :raises CommunicationError: if nothing comes.
        """
        while self._channel is not None:
            try:
                data = await self._channel.receive(self.patience if pulse is None else pulse)
                if not data:
                    raise Ended("the connection was closed") from self._unsent
            except NetworkFailure as failure:
                if pulse is not None and isinstance(failure, Silence):
                    return False
                if self._channel is not None:  # it was not closed while we waited
                    await self._recover(failure)
            except BaseException:
                self.close()
                raise
            else:
                self._is_heard = True
                self._replies = self._session.receive(data)
                return True
        raise StopAsyncIteration

    def close(self) -> None:
        """Close the connection; there are no more replies then. It may be called twice."""
        self._replies = iter(())
        channel, self._channel = self._channel, None
        if channel is not None:
            channel.close()

    def abandon(self) -> None:
        """Close the connection soon, for the garbage collector."""
        if self._channel is not None:
            self._channel.abandon()

    async def _send(self, kept: Channel | None) -> None:
        self._is_kept = kept is not None
        try:
            channel = kept or await self._pool.endpoint.connect()
        except NetworkFailure as failure:
            raise NetworkFailure(f"can't connect: {failure}") from failure
        self._has_connected = True
        self._is_heard = False
        self._unsent = None
        self._channel = channel
        self._session = self._begin()
        try:
            await channel.send(self._session.request_line())
            self._is_sent = True
        except NetworkFailure as failure:
            # A daemon that refuses a line says so and closes before it has read all of it.
            self._unsent = failure
            if isinstance(failure, Silence):
                raise
        except BaseException:
            self.close()
            raise

    async def _recover(self, failure: NetworkFailure) -> None:
        """Send the request again, or say what went wrong."""
        while True:
            self.close()
            self._pool.forget()
            delay = self._repeat_after(failure)
            if delay is None:
                raise CommunicationError(self._text(str(failure)), self._is_sent) from failure
            try:
                await self._pool.endpoint.pause(delay)
                await self._send(None)
            except NetworkFailure as another:
                failure = another
            else:
                return

    def _finish(self, last: R) -> None:
        channel = self._channel
        if channel is not None and self._goes_on(last) and self._session.may_go_on:
            self._channel = None
            self._pool.give(channel)
        else:
            self.close()

    def _text(self, reason: str) -> str:
        if not self._has_connected:
            return f"{self.address}: {reason}"
        doubt = self._doubt if self._is_sent else ""
        return f"{self.address}: {self._name} without a whole reply: {reason}{doubt}"
