"""Back-pressure for both daemons: producers, and the last bytes of a connection.

For the daemons only; the client library does not import this, or Twisted.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import IPullProducer, IPushProducer
from zope.interface import implementer


def register_producer(transport: Any, producer: IPushProducer) -> None:
    """Let a transport, TLS or not, pause and resume a producer.

    A TCP transport that is to be closed, but has a paused producer, resumes it where it would
    close when its buffer is empty (``FileDescriptor.doWrite``). Below TLS that happens when the
    peer ends TLS; what is produced then is dropped, and neither end ever comes. So a producer that
    is resumed too late is taken away, which closes the connection.
    """
    transport.registerProducer(_Ending(transport, producer), True)


@implementer(IPushProducer)
class _Ending:
    def __init__(self, transport: Any, producer: IPushProducer) -> None:
        self._transport = transport
        self._producer = producer

    def pauseProducing(self) -> None:
        self._producer.pauseProducing()

    def resumeProducing(self) -> None:
        below = getattr(self._transport, "transport", None)  # what carries the TLS
        if getattr(below, "disconnecting", False):
            self._transport.unregisterProducer()
        else:
            self._producer.resumeProducing()

    def stopProducing(self) -> None:
        self._producer.stopProducing()


SLICE = 64 * 1024
"""How much of a long line is in a transport's hands at once, in bytes."""


def write_last(
    transport: Any, data: bytes, progress: Callable[[], None], done: Callable[[], None]
) -> None:
    """Write the last line of a connection, no faster than the peer takes it.

    :param progress: called whenever the peer has taken a slice.
    :param done: called when the last slice has been written.
    """
    if len(data) <= SLICE:
        transport.write(data)
        progress()
        done()
    else:
        last = _LastLine(transport, data, progress, done)
        transport.registerProducer(last, False)


@implementer(IPullProducer)
class _LastLine:
    def __init__(
        self, transport: Any, data: bytes, progress: Callable[[], None], done: Callable[[], None]
    ) -> None:
        self._transport = transport
        self._data = memoryview(data)
        self._progress = progress
        self._done = done

    def resumeProducing(self) -> None:
        self._transport.write(bytes(self._data[:SLICE]))
        self._data = self._data[SLICE:]
        self._progress()
        if not self._data:
            self._transport.unregisterProducer()
            self._done()

    def stopProducing(self) -> None:
        self._data = memoryview(b"")
