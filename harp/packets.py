"""The packets of a job, one by one, whichever way the program waits for them."""

from __future__ import annotations

import weakref
from collections.abc import Coroutine, Iterator
from typing import Any

from harp import outcomes
from harp.items import Items
from harp.questions import Question
from harp.wire import dispatcher


class Packets(Items):
    """The core of `harp.StreamIterator`.

    :param numbered: whether to give ``(number, packet)`` instead of packets.
    :param pulse: seconds of silence after which CALL_NOT_FINISHED is given, None: never.
    """

    _question: Question | None = None

    def __init__(self, numbered: bool, pulse: float | None = None) -> None:
        self._numbered = numbered
        self._pulse = pulse

    async def _open(self, question: Coroutine[Any, Any, Question]) -> None:
        self._question = await question
        weakref.finalize(self, self._question.abandon)

    async def _more(self) -> Iterator[Any]:
        if self._question is None:
            raise StopAsyncIteration
        if not await self._question.wait(self._pulse):
            return iter((outcomes.CALL_NOT_FINISHED,))
        return _values(self._question, self._numbered)

    def close(self) -> None:
        """Close the connection; there are no more packets then. It may be called twice."""
        super().close()
        if self._question is not None:
            self._question.close()


def _values(question: Question, numbered: bool) -> Iterator[Any]:
    for reply in question.arrived():
        try:
            if not isinstance(reply, dispatcher.NumberedPacket):
                outcomes.refuse_stream(reply)
                return
            value = outcomes.decode_payload(reply.data)
        except BaseException:
            question.close()  # a reader who went on would have a gap
            with question.address.blamed():
                raise
        yield (reply.packet, value) if numbered else value
