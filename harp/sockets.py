"""The network as a program without an event loop uses it: sockets that block, and ``ssl``.

Nothing here waits other than by blocking, so that a coroutine of the core comes to its end in one
go (`run`). It imports no Twisted.
"""

from __future__ import annotations

import os
import select
import socket
import ssl
import time
from collections.abc import Callable, Coroutine
from contextlib import suppress
from functools import partial, wraps
from typing import Any, Concatenate, ParamSpec, TypeVar

from harp.network import CHUNK, Address, NetworkFailure, Silence, Trust
from harp.probes import probe

LOOKED_AT_FOR = 3600.0
"""Seconds after which a certificate is looked at again, though its session could be resumed."""

P = ParamSpec("P")
S = TypeVar("S")
T = TypeVar("T")


def run(steps: Coroutine[Any, Any, T]) -> T:
    """Return what a coroutine of the core returns, where every wait of it blocks the thread."""
    try:
        steps.send(None)
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]
    raise AssertionError("a step of the blocking client did not block")


def blocking(
    method: Callable[Concatenate[S, P], Coroutine[Any, Any, T]],
) -> Callable[Concatenate[S, P], T]:
    """Make a method that blocks of a coroutine method of the core."""

    @wraps(method)
    def call(self: S, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return run(method(self, *args, **kwargs))

    call.__name__ = method.__name__.lstrip("_")
    return call


class SocketChannel:
    """A connected socket.

    :param send_timeout: how long the peer may refuse to take more, in seconds.
    """

    def __init__(self, connected: socket.socket, send_timeout: float) -> None:
        self._socket = connected
        self._send_timeout = send_timeout
        self._timeout: float | None = -1.0  # what the socket has, so that it is told changes only
        self._owner = os.getpid()
        self._poll = select.poll()
        self._poll.register(connected, select.POLLIN)

    async def send(self, data: bytes) -> None:
        """Send all of it."""
        try:
            self._set_timeout(self._send_timeout)
            self._socket.sendall(data)
        except TimeoutError as error:
            told = f"the request was not taken for {self._send_timeout:g} seconds"
            raise Silence(told) from error
        except OSError as error:
            raise NetworkFailure(_reason(error)) from error

    async def receive(self, timeout: float | None) -> bytes:
        """Return what has arrived, at least one byte; none at the end of the connection."""
        try:
            self._set_timeout(timeout)
            return self._socket.recv(CHUNK)
        except TimeoutError as error:
            raise Silence(f"nothing came for {timeout:g} seconds") from error
        except OSError as error:
            raise NetworkFailure(_reason(error)) from error

    def is_quiet(self) -> bool:
        """Return whether the connection is still there and nothing has come unasked.

        The channel of another process is not for this one, though it inherited the descriptor.
        """
        # Below TLS: whatever the peer sends unasked, its goodbye included, makes it readable.
        return self._owner == os.getpid() and not self._poll.poll(0)

    def close(self) -> None:
        """Close the connection at once.

        A child process may hold the descriptor too. So the connection is shut down, but only by the
        process that made it.
        """
        if self._owner == os.getpid() and self._socket.fileno() >= 0:
            with suppress(OSError):  # it is gone already
                self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    abandon = close

    def _set_timeout(self, timeout: float | None) -> None:
        if timeout != self._timeout:
            self._timeout = timeout
            self._socket.settimeout(timeout)


class TlsChannel(SocketChannel):
    """A connected socket with TLS.

    :param learn: called with what resumes the session, when the first bytes have come: in TLS 1.3
        its ticket comes before them.
    """

    def __init__(
        self,
        secured: ssl.SSLSocket,
        send_timeout: float,
        learn: Callable[[ssl.SSLSession | None], None],
    ) -> None:
        super().__init__(secured, send_timeout)
        self._secured: ssl.SSLSocket | None = secured
        self._learn = learn

    async def receive(self, timeout: float | None) -> bytes:
        """Return what has arrived, at least one byte; none when the peer ended it in good order."""
        data = await super().receive(timeout)
        secured, self._secured = self._secured, None
        if secured is not None:
            self._learn(secured.session)
        return data


class PlainEndpoint:
    """A daemon that is spoken to without TLS, over TCP or a unix socket."""

    def __init__(self, address: Address) -> None:
        self.address = address

    async def connect(self) -> SocketChannel:
        """Return a new channel."""
        return SocketChannel(_connected(self.address), self.address.reply_timeout)

    async def pause(self, seconds: float) -> None:
        """Return after so many seconds."""
        time.sleep(seconds)

    def now(self) -> float:
        """Return the seconds of a clock that is never set."""
        return time.monotonic()


class TlsEndpoint(PlainEndpoint):
    """A daemon that is spoken to with TLS 1.2 or newer.

    A new connection resumes the session of an earlier one, whose certificate was looked at: nobody
    else can, and what is trusted never changes here. A certificate may expire, so it is looked at
    again after `LOOKED_AT_FOR`.

    :raises ValueError: if the authorities or the certificate to be shown can't be read.
    """

    def __init__(self, address: Address, trust: Trust) -> None:
        super().__init__(address)
        self._trust = trust
        self._context = _context(trust)
        # What resumes a session, and when the certificate of the first of its line was looked at.
        self._learned: tuple[ssl.SSLSession | None, float] = (None, 0.0)

    async def connect(self) -> TlsChannel:
        """Return a new channel; the peer has proved who it is."""
        plain = _connected(self.address)
        session, looked_at = self._learned
        if self.now() - looked_at > LOOKED_AT_FOR:
            session = None
        try:
            plain.settimeout(self.address.connect_timeout)
            secured = self._context.wrap_socket(
                plain,
                server_hostname=self._trust.server_name,
                session=session,
                suppress_ragged_eofs=False,  # else a connection that breaks looks ended
            )
        except (OSError, ValueError) as error:  # ValueError: a name that can't be one
            plain.close()
            raise NetworkFailure(_reason(error)) from error
        except BaseException:
            plain.close()
            raise
        if not secured.session_reused:
            looked_at = self.now()
        return TlsChannel(secured, self.address.reply_timeout, partial(self._learn, looked_at))

    def _learn(self, looked_at: float, session: ssl.SSLSession | None) -> None:
        self._learned = session, looked_at

    def __reduce__(self) -> tuple[type[TlsEndpoint], tuple[Address, Trust]]:
        return TlsEndpoint, (self.address, self._trust)


def _context(trust: Trust) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=trust.ca_file)
    except (OSError, ValueError) as error:
        raise ValueError(f"ca_file {trust.ca_file} can't be used: {_reason(error)}") from error
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # Some builds of Python set it, and OpenSSL then takes a connection that breaks for one ended.
    context.options &= ~ssl.OP_IGNORE_UNEXPECTED_EOF
    if not trust.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if trust.own is not None:
        try:
            context.load_cert_chain(*trust.own, password=_no_password)
        except (OSError, ValueError) as error:
            raise ValueError(f"cert {trust.own[0]} can't be used: {_reason(error)}") from error
    return context


def _no_password() -> str:
    # Else OpenSSL asks for one on the terminal.
    raise ValueError("its key is encrypted")


def _connected(address: Address) -> socket.socket:
    connected = None
    try:
        if address.path is not None:
            connected = socket.socket(socket.AF_UNIX)
            connected.settimeout(address.connect_timeout)
            connected.connect(address.path)
            return connected
        connected = socket.create_connection((address.host, address.port), address.connect_timeout)
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        probe(connected)  # a wait may have no time limit
    except (OSError, UnicodeError) as error:
        if connected is not None:
            connected.close()
        raise NetworkFailure(_reason(error)) from error
    return connected


def _reason(error: OSError | ValueError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the certificate is refused: {error.verify_message}"
    return getattr(error, "strerror", None) or str(error)
