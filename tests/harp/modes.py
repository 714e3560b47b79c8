"""Both ways to use the client, behind one face, so that each promise is tested of both.

A test awaits what a method gives: the value itself in one mode, a Deferred in the other. Peers
answer in threads of their own, so that the blocking mode may block.
"""

from __future__ import annotations

import gc
import socket
import ssl
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import trustme
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

import harp
from harp import deferred
from tests.harp.peer import PATIENCE, Script, ScriptedDispatcher


class Blocking:
    """Methods that block."""

    module: Any = harp

    def __init__(self) -> None:
        self.first: tuple[Any, ...] = ()

    async def items(self, iterator: Any) -> list[Any]:
        """Read an iterator to its end."""
        return list(iterator)

    async def next(self, iterator: Any) -> Any:
        """Read one item."""
        return next(iterator)

    async def done(self, value: Any) -> Any:
        """Return what a method gave."""
        return value


class Deferring:
    """Methods that return Deferreds, over the reactor that runs the tests."""

    module: Any = deferred

    def __init__(self) -> None:
        self.first = (reactor,)

    async def items(self, iterator: Any) -> list[Any]:
        """Read an iterator to its end."""
        return [item async for item in iterator]

    async def next(self, iterator: Any) -> Any:
        """Read one item."""
        return await anext(iterator)

    async def done(self, value: Any) -> Any:
        """Wait for what a method gave."""
        assert isinstance(value, Deferred), value
        return await value


@cache
def authority() -> trustme.CA:
    """Return the authority that all trusted peers have their certificates from."""
    return trustme.CA()


def identity(name: str = "127.0.0.1", issuer: trustme.CA | None = None) -> ssl.SSLContext:
    """Return the server's side of TLS with a certificate for a name."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    (issuer or authority()).issue_cert(name).configure_cert(context)
    return context


def hear(lines: list[bytes]) -> Callable[[socket.socket], None]:
    """Wait for one more line and keep it."""

    def read(connection: socket.socket) -> None:
        line = b""
        while not line.endswith(b"\n"):
            byte = connection.recv(1)
            if not byte:
                break
            line += byte
        lines.append(line)

    return read


class ContractTestCase(TestCase):
    """What holds in both modes. A heir sets `mode`."""

    mode: Any
    timeout = 60

    def peer(self, *scripts: Script, **options: Any) -> ScriptedDispatcher:
        """Start a peer that ends with the test."""
        peer = ScriptedDispatcher(scripts, **options)
        self.addCleanup(peer.stop)
        return peer

    def caller(self, port: int, **options: Any) -> Any:
        """Return a client of a dispatcher."""
        caller = self.mode.module.HarpCaller(
            *self.mode.first, "127.0.0.1", port, **{"reply_timeout": PATIENCE, **options}
        )
        self._close_later(caller.close)
        return caller

    def server(self, port: int, **options: Any) -> Any:
        """Return a client of a harpd."""
        defaults = {"ca_file": self.ca_file(), "reply_timeout": PATIENCE}
        server = self.mode.module.HarpServer(
            *self.mode.first, "127.0.0.1", "panel", "secret", port, **{**defaults, **options}
        )
        self._close_later(server.close_connections)
        return server

    def _close_later(self, close_connections: Callable[[], None]) -> None:
        def close() -> Deferred[None]:
            close_connections()
            # A reactor closes a turn later, and what comes next may block to see it closed.
            return deferLater(reactor, 0, lambda: None)

        self.addCleanup(close)

    def ca_file(self) -> Path:
        """Return a file with the authority."""
        path = Path(self.mktemp())
        path.write_bytes(authority().cert_pem.bytes())
        return path

    async def failure(self, kind: type[Exception], action: Callable[[], Any]) -> Any:
        """Return what a method raises."""
        try:
            value = await self.mode.done(action())
        except kind as error:
            return error
        raise AssertionError(f"{value!r} instead of {kind.__name__}")

    def tearDown(self) -> None:
        """Fail if a socket was left to the garbage collector."""
        gc.collect()
        left = [w for w in self.flushWarnings() if w["category"] is ResourceWarning]
        self.assertEqual(left, [])


def both_modes(contract: type[ContractTestCase]) -> dict[str, type[ContractTestCase]]:
    """Return the test cases of a contract, one for each mode, by their names."""
    made = {}
    for mode in (Blocking, Deferring):
        name = f"{mode.__name__}{contract.__name__}"
        fields = {"mode": mode(), "__module__": contract.__module__, "__doc__": contract.__doc__}
        made[name] = type(name, (contract, TestCase), fields)
    return made
