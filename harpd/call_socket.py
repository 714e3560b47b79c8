"""Our end of a call's own socket as a transport: the request goes at once, no descriptor is copied.

Twisted's own for a socket that is connected already copies its descriptor, and writes a turn later.
"""

from __future__ import annotations

import socket
from typing import Any

from twisted.internet.abstract import FileDescriptor
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IReactorTime
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure

_CHUNK = 65536


class CallSocket(FileDescriptor):
    """Carries a protocol over a socket.

    :param end: belongs to the transport from now on.
    """

    def __init__(self, reactor: Any, end: socket.socket, protocol: Protocol) -> None:
        super().__init__(reactor)
        self._clock: IReactorTime = reactor
        self._end = end
        end.setblocking(False)
        self._protocol = protocol
        self.connected = 1
        self.startReading()
        protocol.makeConnection(self)

    def fileno(self) -> int:
        """Return the descriptor that the reactor watches."""
        return self._end.fileno()

    def getHandle(self) -> socket.socket:
        """Return the socket."""
        return self._end

    def write(self, data: bytes) -> None:
        """Send what can be sent now, and the rest as soon as it is taken; to be called once."""
        sent = self.writeSomeData(data)
        if sent < len(data):
            super().write(data[sent:])

    def writeSomeData(self, data: bytes) -> int:
        """Send what can be sent now; what nobody will read is as good as sent."""
        try:
            return self._end.send(data)
        except BlockingIOError:
            return 0
        except OSError:
            return len(data)  # what the process wrote before it closed its end is read yet

    def doRead(self) -> Exception | None:
        """Take what has arrived."""
        try:
            data = self._end.recv(_CHUNK)
        except BlockingIOError:
            return None
        except OSError as error:
            return error
        if not data:
            return ConnectionDone()
        self._protocol.dataReceived(data)
        return None

    def loseConnection(self) -> None:
        """Close it now; what was not sent is dropped."""
        if self.connected:
            self.stopReading()
            self.stopWriting()
            self.connectionLost(connectionDone)

    def connectionLost(self, reason: Failure) -> None:
        """Close the socket; nothing more comes."""
        super().connectionLost(reason)  # type: ignore[no-untyped-call]
        self.connected = 0
        # Not at once, for the reason that `harpd.output` gives.
        self._clock.callLater(0, self._end.close)
        protocol = self._protocol
        del self._protocol  # which has us as its transport: a circle would keep what both hold
        protocol.connectionLost(reason)
