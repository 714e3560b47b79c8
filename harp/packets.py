"""The packets of a job, one by one, whichever way the program waits for them."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any

from harp import outcomes
from harp.errors import HarpException
from harp.items import Items
from harp.questions import Question
from harp.wire import dispatcher


class Packets(Items):
    """The core of `harp.StreamIterator`.

    :param numbered: whether to give ``(number, packet)`` instead of packets.
    """

    _question: Question | None = None

    def __init__(self, numbered: bool) -> None:
        self._numbered = numbered

    async def _open(self, question: Coroutine[Any, Any, Question]) -> None:
        self._question = await question

    async def _next(self) -> Any:
        if self._question is None:
            raise StopAsyncIteration
        reply = await self._question.next()
        try:
            with self._question.address.blamed():
                if isinstance(reply, dispatcher.NumberedPacket):
                    value = outcomes.decode_payload(reply.data)
                    return (reply.packet, value) if self._numbered else value
                outcomes.refuse_stream(reply)
        except HarpException:
            self.close()
            raise
        raise StopAsyncIteration

    def close(self) -> None:
        """Close the connection; there are no more packets then. It may be called twice."""
        if self._question is not None:
            self._question.close()

    def __del__(self) -> None:
        if self._question is not None:
            self._question.abandon()
