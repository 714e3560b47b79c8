"""What the tests of the dispatcher's side towards its clients share: clients, and what serves them.

The clients' transports are in memory; what they speak with are the real protocol and the real API.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IAddress, ITCPTransport
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from zope.interface import alsoProvides

from harpcaller.announcements import Announcements
from harpcaller.api import Parts
from harpcaller.connection import ClientFactory, RequestConnection, Respond
from harpcaller.connections import Connections, endpoint_by
from harpcaller.dispatcher import Dispatcher
from harpcaller.gate import Gate
from harpcaller.hosts import HostsRegistry
from harpcaller.permissions import Permissions
from harpcaller.retention import Ages, Retention
from harpcaller.rules import Rule
from harpcaller.store import JobStore
from harpcaller.submission import Limits
from harpcaller.terms import Terms
from tests.harpcaller.memory import hosts, trust

NOW = 1000.25
"""The time at which everything is recorded."""


def never_reloaded() -> Deferred[list[str]]:
    """Stand for the reload in a test that asks for none."""
    raise AssertionError("nobody asked for a reload")


def never_stopped() -> float:
    """Stand for the end of the dispatcher in a test that asks for none."""
    raise AssertionError("nobody asked for that")


def parts(
    reactor: Any,
    store: JobStore,
    registry: HostsRegistry | None = None,
    reload: Callable[[], Deferred[list[str]]] = never_reloaded,
    ready: Callable[[], Deferred[None] | None] = lambda: None,
    now: Callable[[], float] = lambda: NOW,
    rules: Sequence[Rule] | None = None,
    stop: Callable[[], float] = never_stopped,
) -> Parts:
    """Return what the API answers with, on a store."""
    registry = registry or hosts()
    announcements = Announcements()
    connections = Connections(reactor, endpoint_by(reactor, trust()), registry.lookup)
    limits = Limits(default_timeout=600, max_exec_time=600)
    return Parts(
        version="1.2.3",
        permissions=Permissions(registry.lookup, rules),
        dispatcher=Dispatcher(reactor, now, store, registry, connections, announcements, limits),
        store=store,
        hosts=registry,
        connections=connections,
        retention=Retention(reactor, now, store, Ages(None, None)),
        reload=reload,
        stop=stop,
        now=now,
        announcements=announcements,
        ready=ready,
    )


def gate(reactor: Any, **terms: Any) -> Gate:
    """Return a gate; it knows no users if none are given."""
    return Gate(reactor.seconds, Terms(**terms))


class ClientEnd(StringTransport):
    """A transport, as those of TCP and unix sockets are to a protocol.

    :ivar late: what was written when the client had left.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.late = b""

    def write(self, data: bytes) -> None:
        if self.connected:
            super().write(data)  # type: ignore[no-untyped-call]
        else:
            self.late += data

    def unregisterProducer(self) -> None:
        self.producer = None

    @property
    def registered(self) -> Any:
        """The producer that there is."""
        assert self.producer is not None
        return self.producer

    def lose(self, protocol: RequestConnection, reason: Exception) -> None:
        """End the connection in the order in which a reactor does it."""
        self.connected = False
        if self.producer is not None:
            self.producer.stopProducing()
            self.producer = None
        protocol.connectionLost(Failure(reason))


class TcpEnd(ClientEnd):
    """A transport of TCP.

    :ivar half_closed: whether the dispatcher ended its direction.
    """

    def __init__(self) -> None:
        super().__init__()
        self.options: dict[str, bool] = {}
        self.half_closed = False
        alsoProvides(self, ITCPTransport)

    def setTcpNoDelay(self, enabled: bool) -> None:
        self.options["no delay"] = enabled

    def setTcpKeepAlive(self, enabled: bool) -> None:
        self.options["keep alive"] = enabled

    def loseWriteConnection(self) -> None:
        self.half_closed = True


class Client:
    """A client's connection.

    :param entrance: lets it in; None for one to which everybody is let in who comes locally.
    """

    def __init__(
        self,
        reactor: Any,
        respond: Respond,
        transport: ClientEnd | None = None,
        entrance: Gate | None = None,
        is_local: bool = True,
        address: IAddress | None = None,
    ) -> None:
        self.transport = transport or ClientEnd()
        factory = ClientFactory(reactor, respond, entrance or gate(reactor), is_local)
        self.protocol = factory.buildProtocol(address)
        self.protocol.makeConnection(self.transport)

    def say(self, data: bytes) -> None:
        """Send bytes."""
        self.protocol.dataReceived(data)

    def end(self) -> None:
        """End the client's direction only."""
        self.protocol.readConnectionLost()

    def leave(self) -> None:
        """End the connection."""
        done = ConnectionDone() if self.transport.disconnecting else ConnectionLost()
        self.transport.lose(self.protocol, done)

    @property
    def got(self) -> bytes:
        """What the client was sent."""
        return bytes(self.transport.value())

    def take(self) -> bytes:
        """Return what the client was sent since this was asked last."""
        taken = self.got
        self.transport.clear()
        return taken

    @property
    def is_open(self) -> bool:
        """Whether the dispatcher has neither closed nor cut the connection."""
        return not (self.transport.disconnecting or self.transport.disconnected)

    @property
    def is_closed(self) -> bool:
        """Whether the dispatcher closed the connection when all would be sent."""
        return self.transport.disconnecting and not self.transport.disconnected

    @property
    def is_cut(self) -> bool:
        """Whether the dispatcher cut the connection."""
        return bool(self.transport.disconnected)
