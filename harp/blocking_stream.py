"""The packets of a job, read one by one from the dispatcher by a program that may block."""

from __future__ import annotations

from typing import Any

from harp import calls
from harp.connection import Address, Connection
from harp.errors import HarpException
from harp.wire import dispatcher


class StreamIterator:
    """Packets of a job, as `RemoteCall.stream` and `RemoteCall.follow` return them.

    A packet is yielded as soon as it has arrived, and no more than what one read from the socket
    brought is kept: a slow reader slows the connection, not the job. It belongs to one thread.

    Iterating raises nothing for the job's own failure; `RemoteCall.get` and `RemoteCall.result`
    tell of that. It raises `RemoteError` if there is no such job, and `CommunicationError` if the
    conversation breaks off before its end.

    The connection is closed after the last packet and after a failure. A reader that leaves
    earlier closes it by `close` or by a ``with`` statement.
    """

    def __init__(self, address: Address, request: dispatcher.StreamRequest, numbered: bool) -> None:
        self._address = address
        self._numbered = numbered
        patient = isinstance(request, dispatcher.FollowStream)
        self._connection = Connection(address, request, patient)

    def __iter__(self) -> StreamIterator:
        return self

    def __next__(self) -> Any:
        reply = next(self._connection)
        try:
            with self._address.blamed():
                if isinstance(reply, dispatcher.NumberedPacket):
                    value = calls.decode_payload(reply.data)
                    return (reply.packet, value) if self._numbered else value
                calls.refuse_stream(reply)
        except HarpException:
            self.close()
            raise
        self.close()
        raise StopIteration

    def all(self) -> list[Any]:
        """Return the packets that are left as a list, when the last of them has arrived."""
        return list(self)

    def close(self) -> None:
        """Close the connection; there are no more packets then. It may be called twice."""
        self._connection.close()

    def __enter__(self) -> StreamIterator:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()
