"""What the client's core asks of the network, and how a failure of it is told.

The core (``harp.conversation``, ``harp.dispatchers``, ``harp.client`` …) is written once, as
coroutines over the two protocols below. ``harp.sockets`` provides them with sockets that block,
``harp.transports`` with Twisted.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from os import PathLike
from typing import Protocol

from harp import checks
from harp.errors import RemoteProtocolError

CHUNK = 64 * 1024
"""How much is read at once, in bytes; no more is kept for a reader who takes his time."""

_MAX_PORT = 65535
_UNIX = "unix:"
_MAX_PATH = 107  # bytes, as unix(7) has it


@dataclass(frozen=True)
class Address:
    """Where a daemon is and for how long it may be silent; the values are checked.

    :param host: name or address; or ``unix:`` and the path of a socket, which has no port.
    :param connect_timeout: for connecting to one of the host's addresses, in seconds.
    :param reply_timeout: for each piece of a reply that is due at once, in seconds.
    """

    host: str
    port: int
    connect_timeout: float
    reply_timeout: float

    def __post_init__(self) -> None:
        checks.text("host", self.host)
        if self.path is not None and not (
            0 < len(self.path.encode()) <= _MAX_PATH and "\0" not in self.path
        ):
            raise ValueError(
                f"host {self.host!r} needs a path of 1 to {_MAX_PATH} bytes behind {_UNIX!r}"
            )
        checks.whole_number("port", self.port)
        if not 0 < self.port <= _MAX_PORT:
            raise ValueError(f"port must be from 1 to {_MAX_PORT}, not {self.port}")
        checks.seconds("connect_timeout", self.connect_timeout)
        checks.seconds("reply_timeout", self.reply_timeout)

    @property
    def path(self) -> str | None:
        """The path of the unix socket, None if it is none."""
        return self.host[len(_UNIX) :] if self.host.startswith(_UNIX) else None

    @property
    def is_this_machine(self) -> bool:
        """Whether what is said there does not leave this machine."""
        if self.path is not None or self.host.rstrip(".").lower() == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    def __str__(self) -> str:
        if self.path is not None:
            return self.host
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    @contextmanager
    def blamed(self) -> Iterator[None]:
        """Add the address to what is said about a peer that broke the protocol."""
        try:
            yield
        except RemoteProtocolError as error:
            raise RemoteProtocolError(error.type, f"{self}: {error.message}") from error


@dataclass(frozen=True)
class Trust:
    """Whose certificate a daemon may have; the values are checked.

    :param ca_file: PEM file of the authorities, None for those of the system.
    :param server_name: to whom the certificate must be made out.
    :param verify: False if any certificate will do.
    :param own: the files in PEM of the certificate that is shown to the daemon and of its key, None
        if there is none. One file may have both.
    """

    ca_file: str | PathLike[str] | None
    server_name: str
    verify: bool
    own: tuple[str | PathLike[str], str | PathLike[str]] | None = None

    def __post_init__(self) -> None:
        checks.text("server_name", self.server_name)
        if self.ca_file is not None and not self.verify:
            raise ValueError("ca_file with verify_certificate=False: it would not be looked at")


class NetworkFailure(Exception):
    """The network failed, or the machine at the other end; the text says how."""


class Silence(NetworkFailure):
    """Nothing came for as long as one may wait."""


class Channel(Protocol):
    """A connection, secured if that was asked for."""

    async def send(self, data: bytes) -> None:
        """Send all of it.

        :raises NetworkFailure: if the end of it was certainly not sent.
        """

    async def receive(self, timeout: float | None) -> bytes:
        """Return what has arrived, at least one byte; none when the peer ended it in good order.

        :param timeout: how long to wait, in seconds; None: for ever.
        :raises Silence: if nothing came in that time.
        :raises NetworkFailure: if the connection broke; TLS that was not ended is broken.
        """

    def is_quiet(self) -> bool:
        """Return whether the connection is still there and nothing has come unasked."""

    def close(self) -> None:
        """Close the connection at once; it may be called twice."""

    def abandon(self) -> None:
        """Close the connection soon, for the garbage collector, which may run in any thread."""


class Endpoint(Protocol):
    """Where a channel leads to."""

    @property
    def address(self) -> Address:
        """The daemon's address."""

    async def connect(self) -> Channel:
        """Return a new channel.

        :raises NetworkFailure: if none came about; nothing was sent then.
        """

    async def pause(self, seconds: float) -> None:
        """Return after so many seconds."""

    def now(self) -> float:
        """Return the seconds of a clock that is never set."""
