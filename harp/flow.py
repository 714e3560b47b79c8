"""Back-pressure for both daemons: a producer that a closing connection does not keep alive.

For the daemons only; the client library does not import this, or Twisted.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.interfaces import IPushProducer
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
