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
from harpd.factory import HarpdFactory
from harpd.offers import Catalogue, Offer
from harpd.parts import Parts, Policy
from harpd.protocol import HarpdProtocol
from harpd.spawner import Spawner

ACK = b'{"harp":1,"stream_result":false}\n'
STREAM_ACK = b'{"harp":1,"stream_result":true}\n'


def request(
    procedure: str = "plain", arguments: Any = (), password: str = "secret", **more: Any
) -> bytes:
    """Return a request line.

    :param more: its optional keys.
    """
    message = {
        "harp": 1,
        "procedure": procedure,
        "arguments": arguments,
        "auth": {"user": "panel", "password": password},
        **more,
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
        self.full = False
        self.options: list[str] = []

    def write(self, data: bytes) -> None:
        """Take it; a full transport pauses its producer, as the real ones do."""
        super().write(data)  # type: ignore[no-untyped-call]
        if self.full and self.producer is not None:
            self.producer.pauseProducing()

    def goes_on(self) -> None:
        """Let the transport ask its producer for more."""
        assert self.producer is not None
        self.producer.resumeProducing()

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

    def check(self, user: str, password: str, address: str) -> Deferred[bool]:
        """Tell whether it is the password."""
        return self.held or succeed((user, password) == ("panel", "secret"))


class FakeCall:
    """A planned call: the process's end of its socket once it is started, and its kills."""

    def __init__(self, spawner: FakeSpawner, number: int) -> None:
        self.number = number
        self.kills = 0
        self.given_up = False
        self.socket = StringTransport()
        self._spawner = spawner

    def start(
        self,
        procedure: str,
        arguments: bytes,
        context: bytes,
        caller: Caller,
        gone: Callable[[], None],
    ) -> CallProcess:
        """Start a fake process."""
        if self._spawner.failure is not None:
            raise self._spawner.failure
        self.procedure = procedure
        self.gone = gone
        self.process = CallProcess(arguments, caller, self.kill, context)
        self.process.makeConnection(self.socket)
        self._spawner.calls.append(self)
        return self.process

    def kill(self) -> None:
        """Count it."""
        self.kills += 1

    def give_up(self) -> None:
        """Note it."""
        self.given_up = True

    def says(self, data: bytes) -> None:
        """Let the process report."""
        self.process.dataReceived(data)

    def ends(self, status: int = 0) -> None:
        """Let the process end."""
        self.gone()
        self.process.connectionLost()
        self.process.exited(status)


class FakeSpawner:
    """Starts nothing; the calls are a test's to go on with."""

    offers: Catalogue = {
        "plain": Offer(False),
        "stream": Offer(True),
        "limited": Offer(False, 2.5),
        "locked": Offer(True, 2.5, "door"),
        "impatient": Offer(False, None, "door", 4),
        "hasty": Offer(False, None, "door", 0),
    }

    def __init__(self) -> None:
        self.planned: list[FakeCall] = []
        self.calls: list[FakeCall] = []
        self.held: Deferred[Catalogue] | None = None
        self.failure: Exception | None = None

    def catalogue(self) -> Deferred[Catalogue]:
        """Return the offers."""
        return self.held or succeed(self.offers)

    def plan(self) -> FakeCall:
        """Return a call that is not started."""
        self.planned.append(FakeCall(self, len(self.planned) + 1))
        return self.planned[-1]


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
        self.policy = Policy()
        login, spawner = cast(Login, self.login), cast(Spawner, self.spawner)
        parts = self.parts = Parts(self.clock, login, spawner, self.policy, now=lambda: 1000.25)
        self.factory = HarpdFactory(parts)

    def connect(self, data: bytes = b"") -> Connection:
        """Open a connection and send something."""
        connection = Connection(self.factory)
        if data:
            connection.sends(data)
        return connection

    def call(self, procedure: str = "plain", **more: Any) -> tuple[Connection, FakeCall]:
        """Open a connection and start a call."""
        connection = self.connect(request(procedure, **more))
        return connection, self.spawner.calls[-1]

    def assert_ended(self, connection: Connection, received: bytes) -> None:
        """Check what the client got, and that the connection is being closed."""
        self.assertEqual(connection.received, received)
        self.assertTrue(connection.wire.disconnecting)
