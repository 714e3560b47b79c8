"""What is said on one channel about one request, for both protocols.

It moves bytes between a `harp.network.Channel` and the tables of ``harp.session``, which know what
may come. What a failure means for the caller is decided above.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Generic, Protocol, TypeVar

from harp.network import Channel, Endpoint, NetworkFailure, Silence

R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)


class Session(Protocol[R_co]):
    """The order of replies: `harp.session.Exchange` or `harp.session.OutgoingCall`."""

    def receive(self, data: bytes) -> Iterator[R_co]:
        """Take what has arrived and return the replies that are complete."""


class Conversation(Generic[R]):
    """The replies to one request, in the order and at the time in which they arrive."""

    def __init__(self, channel: Channel, session: Session[R]) -> None:
        self.channel = channel
        self._session = session
        self._replies: Iterator[R] = iter(())
        self._unsent: NetworkFailure | None = None

    @property
    def is_sent(self) -> bool:
        """Whether the request may have reached the peer: its line's end is its last byte."""
        return self._unsent is None

    async def send(self, line: bytes) -> None:
        """Send the request.

        :raises NetworkFailure: if the peer does not take it.
        """
        try:
            await self.channel.send(line)
        except NetworkFailure as failure:
            # A daemon that refuses a line says so and closes before it has read all of it.
            self._unsent = failure
            if isinstance(failure, Silence):
                raise

    async def next(self, timeout: float | None) -> R:
        """Return the next reply, whatever its place.

        :param timeout: how long the peer may be silent, in seconds; None: for ever.
        :raises NetworkFailure: if it does not come.
        :raises RemoteProtocolError: if it is not one, or not what may come here.
        """
        while (reply := next(self._replies, None)) is None:
            data = await self.channel.receive(timeout)
            if not data:
                raise self._unsent or NetworkFailure("the connection was closed")
            self._replies = self._session.receive(data)
        return reply

    def close(self) -> None:
        """Close the channel and forget the replies that nobody took."""
        self._replies = iter(())
        self.channel.close()


async def connect(endpoint: Endpoint) -> Channel:
    """Return a new channel.

    :raises NetworkFailure: saying that it was this that failed.
    """
    try:
        return await endpoint.connect()
    except NetworkFailure as failure:
        raise NetworkFailure(f"can't connect: {failure}") from failure
