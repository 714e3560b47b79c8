"""harpd's end of connections over memory transports, with a clock and the processes faked."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, cast

from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, succeed
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from harpd.auth import Login
from harpd.call import Caller, CallProcess
from harpd.protocol import HarpdFactory, HarpdProtocol, Parts
from harpd.spawner import Spawner
from harpd.zygote_process import Catalogue, Offer

ACK = b'{"harp":1,"stream_result":false}\n'
STREAM_ACK = b'{"harp":1,"stream_result":true}\n'


def request(procedure: str = "plain", arguments: Any = (), password: str = "secret") -> bytes:
    """Return a request line."""
    message = {
        "harp": 1,
        "procedure": procedure,
        "arguments": arguments,
        "auth": {"user": "panel", "password": password},
    }
    return json.dumps(message).encode() + b"\n"


def error(type: str, message: str, data: str = "") -> bytes:
    """Return the line of an error.

    :param data: JSON.
    """
    more = f',"data":{data}' if data else ""
    return f'{{"harp":1,"error":{{"type":"{type}","message":"{message}"{more}}}}}\n'.encode()


class Wire(StringTransport):
    """A transport in memory; it stays open until a test says that it is closed."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.aborted = False
        self.options: list[str] = []

    def setTcpNoDelay(self, enabled: bool) -> None:
        """Take an option."""
        self.options += ["nodelay"] * enabled

    def setTcpKeepAlive(self, enabled: bool) -> None:
        """Take an option."""
        self.options += ["keepalive"] * enabled

    def abortConnection(self) -> None:
        """Note it."""
        self.aborted = True

    def unregisterProducer(self) -> None:
        """Forget the producer, if there is one, as the real ones do."""
        if self.producer is not None:
            super().unregisterProducer()  # type: ignore[no-untyped-call]


class FakeLogin:
    """Knows one password; answers at once, or when a test says so."""

    def __init__(self) -> None:
        self.held: Deferred[bool] | None = None

    def check(self, user: str, password: str) -> Deferred[bool]:
        """Tell whether it is the password."""
        return self.held or succeed((user, password) == ("panel", "secret"))


class FakeCall:
    """A call that was started: the process's end of its socket, and whether it was killed."""

    def __init__(self, arguments: bytes, procedure: str, caller: Caller) -> None:
        self.procedure = procedure
        self.kills = 0
        self.socket = StringTransport()
        self.process = CallProcess(arguments, caller, self.kill)
        self.process.makeConnection(self.socket)

    def kill(self) -> None:
        """Count it."""
        self.kills += 1

    def says(self, data: bytes) -> None:
        """Let the process report."""
        self.process.dataReceived(data)

    def ends(self, status: int = 0) -> None:
        """Let the process end."""
        self.process.connectionLost()
        self.process.exited(status)


class FakeSpawner:
    """Starts nothing; the calls are a test's to go on with."""

    offers: Catalogue = {
        "plain": Offer(False, None),
        "stream": Offer(True, None),
        "limited": Offer(False, 2.5),
    }

    def __init__(self) -> None:
        self.calls: list[FakeCall] = []
        self.held: Deferred[Catalogue] | None = None
        self.failure: Exception | None = None

    def catalogue(self) -> Deferred[Catalogue]:
        """Return the offers."""
        return self.held or succeed(self.offers)

    def next_number(self) -> int:
        """Return a number."""
        return len(self.calls) + 1

    def start(
        self, number: int, procedure: str, arguments: bytes, caller: Caller
    ) -> tuple[CallProcess, Callable[[], None]]:
        """Start a fake call."""
        if self.failure is not None:
            raise self.failure
        call = FakeCall(arguments, procedure, caller)
        self.calls.append(call)
        return call.process, call.kill


class Connection:
    """One connection and its client."""

    def __init__(self, factory: HarpdFactory) -> None:
        self.wire = Wire()
        self.protocol: HarpdProtocol = factory.buildProtocol(IPv4Address("TCP", "192.0.2.1", 5))
        self.protocol.makeConnection(self.wire)

    def sends(self, data: bytes) -> None:
        """Let the client send."""
        self.protocol.dataReceived(data)

    def leaves(self) -> None:
        """Let the client, or the end of TLS, close the connection."""
        self.protocol.connectionLost(Failure(ConnectionDone()))

    @property
    def received(self) -> bytes:
        """What the client has received."""
        data: bytes = self.wire.value()
        return data


class ConnectionTestCase(SynchronousTestCase):
    """Has a factory with everything that it needs."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.login = FakeLogin()
        self.spawner = FakeSpawner()
        parts = Parts(self.clock, cast(Login, self.login), cast(Spawner, self.spawner))
        self.factory = HarpdFactory(parts)

    def connect(self, data: bytes = b"") -> Connection:
        """Open a connection and send something."""
        connection = Connection(self.factory)
        if data:
            connection.sends(data)
        return connection

    def call(self, procedure: str = "plain") -> tuple[Connection, FakeCall]:
        """Open a connection and start a call."""
        connection = self.connect(request(procedure))
        return connection, self.spawner.calls[-1]

    def assert_ended(self, connection: Connection, received: bytes) -> None:
        """Check what the client got, and that the connection is being closed."""
        self.assertEqual(connection.received, received)
        self.assertTrue(connection.wire.disconnecting)
