"""One TCP connection that carries one request to the dispatcher and what answers it.

It moves bytes and says what went wrong with the network; ``harp.session`` knows what may come.
Nothing is shared between two connections, so threads and forks need no care.
"""

from __future__ import annotations

import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from harp.errors import CommunicationError, RemoteProtocolError
from harp.session import Exchange
from harp.wire import dispatcher

_CHUNK = 64 * 1024
"""How much is read at once, in bytes; no more is kept for a reader who takes his time."""

if sys.platform == "linux":
    # A wait has no time limit, so a peer whose machine is gone is found out in 60 + 15 * 4 seconds.
    _KEEPALIVE = {socket.TCP_KEEPIDLE: 60, socket.TCP_KEEPINTVL: 15, socket.TCP_KEEPCNT: 4}


@dataclass(frozen=True)
class Address:
    """Where the dispatcher is and for how long it may be silent.

    :param connect_timeout: for connecting to one of the host's addresses, in seconds.
    :param reply_timeout: for each piece of a reply that is due at once, in seconds.
    """

    host: str
    port: int
    connect_timeout: float
    reply_timeout: float

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    @contextmanager
    def blamed(self) -> Iterator[None]:
        """Add the address to what is said about a peer that broke the protocol."""
        try:
            yield
        except RemoteProtocolError as error:
            raise RemoteProtocolError(error.type, f"{self}: {error.message}") from error


class Connection:
    """The replies to one request, in the order and at the time in which they arrive.

    :param address: the dispatcher's.
    :param request: it has been sent when the constructor returns.
    :param patient: whether the dispatcher may be silent for as long as it likes.
    :raises CommunicationError: here and while iterating, if the conversation fails.
    """

    def __init__(self, address: Address, request: dispatcher.Request, patient: bool) -> None:
        self._address = address
        self._request = request
        self._exchange = Exchange(request)
        self._replies: Iterator[dispatcher.Reply] = iter(())
        self._send_error: OSError | None = None
        line = self._exchange.request_line()
        self._socket = self._connect()
        try:
            self._send(line)
            if patient:
                self._socket.settimeout(None)
        except BaseException:
            self.close()
            raise

    def __iter__(self) -> Iterator[dispatcher.Reply]:
        return self

    def __next__(self) -> dispatcher.Reply:
        try:
            while (reply := next(self._replies, None)) is None:
                if self._exchange.ended or self._socket.fileno() < 0:
                    raise StopIteration
                self._replies = self._exchange.receive(self._receive())
        except RemoteProtocolError as error:
            self.close()
            raise RemoteProtocolError(error.type, self._told(error.message)) from error
        except BaseException:
            self.close()
            raise
        return reply

    def close(self) -> None:
        """Close the socket and forget the replies that nobody took."""
        self._replies = iter(())
        self._socket.close()

    def _connect(self) -> socket.socket:
        address = self._address
        try:
            connected = socket.create_connection(
                (address.host, address.port), address.connect_timeout
            )
            connected.settimeout(address.reply_timeout)
            connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            if sys.platform == "linux":
                for option, value in _KEEPALIVE.items():
                    connected.setsockopt(socket.IPPROTO_TCP, option, value)
        except (OSError, UnicodeError) as error:
            raise CommunicationError(f"{address}: can't connect: {_reason(error)}") from error
        return connected

    def _send(self, line: bytes) -> None:
        try:
            self._socket.sendall(line)
        except ConnectionError as error:
            # A dispatcher that refuses a line says so and closes before it has read all of it.
            self._send_error = error
        except OSError as error:
            self._send_error = error
            raise CommunicationError(self._told(_reason(error))) from error

    def _receive(self) -> bytes:
        try:
            data = self._socket.recv(_CHUNK)
        except TimeoutError as error:
            silence = f"nothing came for {self._address.reply_timeout:g} seconds"
            raise CommunicationError(self._told(silence)) from error
        except OSError as error:
            raise CommunicationError(self._told(_reason(error))) from error
        if not data:
            reason = _reason(self._send_error) if self._send_error else "the connection was closed"
            raise CommunicationError(self._told(reason)) from self._send_error
        return data

    def _told(self, reason: str) -> str:
        kind = type(self._request).__name__
        # The line's end is the last byte to be sent: without it nothing was submitted.
        in_doubt = isinstance(self._request, dispatcher.Call) and self._send_error is None
        doubt = "; the call may have been submitted" if in_doubt else ""
        return f"{self._address}: {kind} without a whole reply: {reason}{doubt}"


def ask(address: Address, request: dispatcher.Request, patient: bool = False) -> dispatcher.Reply:
    """Send a request that has one reply and return it.

    :param patient: whether the dispatcher may be silent for as long as it likes.
    :raises CommunicationError: if there is no reply or one that the protocol does not allow.
    """
    connection = Connection(address, request, patient)
    try:
        return next(connection)
    finally:
        connection.close()


def _reason(error: OSError | UnicodeError) -> str:
    return getattr(error, "strerror", None) or str(error)
