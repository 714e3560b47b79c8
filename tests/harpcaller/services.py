"""What the tests of the joined parts share: a deployment in a folder, a service, its peers."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.interfaces import IListeningPort, IReactorTCP
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.task import deferLater
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase
from zope.interface import directlyProvides, providedBy

from harp.service_manager import ServiceManager
from harpcaller import config
from harpcaller.service import DispatcherService
from harpcaller.store import JobStore
from tests.harpcaller.stores import real_reactor

HOST_LINE = json.dumps(
    {"hostname": "web01", "address": "127.0.0.1", "credentials": {"user": "u", "password": "p"}}
)


class Deployment:
    """A configuration in a folder of its own.

    :ivar file: the configuration.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        self.folder = folder.absolute()
        self.file = self.folder / "harpcaller.yaml"
        self.database = f"sqlite:///{self.folder / 'jobs.db'}"
        self.settings: dict[str, Any] = {
            "listen": "127.0.0.1:0",
            "database": "sqlite:///jobs.db",
            "host_db": "hosts.db",
            "host_db_script": "hosts",
            "shutdown_grace": 0.1,
        }
        self._hosts = {"web01": HOST_LINE}
        self.open_hosts()

    def know(self, host: str, port: int) -> None:
        """Have the hosts script print one more host."""
        login = {"user": "u", "password": "p"}
        entry = {"hostname": host, "address": "127.0.0.1", "port": port, "credentials": login}
        self._hosts[host] = json.dumps(entry)
        self.open_hosts()

    def open_hosts(self) -> None:
        """Let the hosts script print its hosts at once."""
        self._write_script("\n".join(f"echo '{line}'" for line in self._hosts.values()))

    def close_hosts(self, test: TestCase) -> Callable[[], object]:
        """Let the hosts script wait until what is returned is called, or the test is over."""
        gate = self.folder / "gate"
        os.mkfifo(gate)
        self._write_script(f"touch '{gate}.asked'\nread line <'{gate}'\necho '{HOST_LINE}'")
        # Open for both directions, so that neither end waits for the other.
        end = os.open(gate, os.O_RDWR)
        test.addCleanup(os.close, end)
        return lambda: os.write(end, b"\n")

    def write(self, **changes: Any) -> str:
        """Write the configuration and return its path."""
        self.file.write_text(json.dumps(self.settings | changes))  # JSON is YAML
        return str(self.file)

    def _write_script(self, body: str) -> None:
        script = self.folder / "hosts"
        script.write_text(f"#!/bin/sh\n{body}\n")
        script.chmod(0o700)


class KnownReactor:
    """The real reactor, except that it is noted what listens, and that it goes on for ever."""

    def __init__(self) -> None:
        self.real = cast(IReactorTCP, real_reactor())
        self.ports: list[IListeningPort] = []
        self.stops = 0
        directlyProvides(self, providedBy(self.real))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real, name)

    def listenTCP(self, *args: Any, **kwargs: Any) -> IListeningPort:
        port = self.real.listenTCP(*args, **kwargs)
        self.ports.append(port)
        return port

    def stop(self) -> None:
        self.stops += 1

    @property
    def port(self) -> int:
        """The number of the open port that was opened last."""
        ports = [each for each in cast(list[Any], self.ports) if each.connected]
        return int(ports[-1].getHost().port)


class Harpd(Protocol):
    """harpd's end of one connection: it says nothing unless it is told what."""

    def __init__(self, kind: Harpds) -> None:
        self._kind = kind

    def connectionMade(self) -> None:
        self._kind.connections.append(self)

    def dataReceived(self, data: bytes) -> None:
        if self._kind.answer is not None:
            cast(Any, self.transport).write(self._kind.answer)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._kind.connections.remove(self)

    def leave(self) -> None:
        """End the connection."""
        cast(Any, self.transport).loseConnection()


class Harpds(Factory):
    """Plays harpd.

    :param answer: what every request is answered with.
    """

    noisy = False

    def __init__(self, answer: bytes | None = None) -> None:
        self.answer = answer
        self.connections: list[Harpd] = []

    def buildProtocol(self, addr: object) -> Harpd:
        return Harpd(self)


class Client(Protocol):
    """Sends a line and gathers all that is answered.

    :ivar answer: fires when the connection has ended.
    """

    def __init__(self, line: bytes) -> None:
        self._line = line
        self._received = b""
        self.answer: Deferred[bytes] = Deferred()

    def connectionMade(self) -> None:
        assert self.transport is not None
        self.transport.write(self._line + b"\n")

    def dataReceived(self, data: bytes) -> None:
        self._received += data

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.answer.callback(self._received)


class ServiceTestCase(TestCase):
    """A test with a configuration, and a service once it is made."""

    timeout = 30  # seconds, after which what does not come is taken never to come

    def setUp(self) -> None:
        """Lay out a deployment."""
        self.deployment = Deployment(Path(self.mktemp()))
        self.reactor = KnownReactor()
        self.addCleanup(signal.signal, signal.SIGHUP, signal.getsignal(signal.SIGHUP))

    def made(self, **changes: Any) -> DispatcherService:
        """Return the service, its ports bound."""
        loaded = config.load(Path(self.deployment.write(**changes)))
        manager = ServiceManager(self.reactor, {})
        made = DispatcherService(self.reactor, self.deployment.file, loaded, manager)
        made.privilegedStartService()
        return made

    def started(self, **changes: Any) -> DispatcherService:
        """Return the service, started; it is stopped when the test is over."""
        made = self.made(**changes)
        made.startService()
        self.addCleanup(lambda: made.stopService() if made.running else None)
        return made

    async def begin(self, line: bytes, port: int | None = None) -> Client:
        """Return a client that is connected, to the last port that was opened, and sent a line."""
        endpoint = TCP4ClientEndpoint(self.reactor.real, "127.0.0.1", port or self.reactor.port)
        client = Client(line)
        await connectProtocol(endpoint, client)
        return client

    async def ask(self, request: bytes, port: int | None = None) -> bytes:
        """Return all that a request is answered with."""
        return await (await self.begin(b'{"harpcaller":1,%b}' % request, port)).answer

    async def told(self, request: bytes, port: int | None = None) -> Any:
        """Return what a request is answered with by one line."""
        return json.loads(await self.ask(request, port))

    async def call(self, host: str = "web01", more: bytes = b"") -> bytes:
        """Return the id of a job that was submitted."""
        request = b'"host":"%b","procedure":"df","arguments":[]%b' % (host.encode(), more)
        return bytes((await self.told(request))["job_id"].encode())

    async def until(self, condition: Callable[[], object]) -> None:
        """Let the reactor turn until something has come about."""
        while not condition():
            await deferLater(cast(Any, self.reactor.real), 0.005)

    async def state(self, job_id: bytes) -> str:
        """Return the state of a job."""
        status = await self.told(b'"get_status":"%b","detail":true' % job_id)
        return str(status["detail"]["state"])

    def harpds(self, host: str = "web01", answer: bytes | None = None) -> Harpds:
        """Play harpd on a host; to be called before the service is made."""
        played = Harpds(answer)
        port = self.reactor.real.listenTCP(0, played, interface="127.0.0.1")  # type: ignore[arg-type]
        self.addCleanup(port.stopListening)
        self.deployment.know(host, cast(Any, port.getHost()).port)
        return played

    async def in_store(self, use: Callable[[JobStore], Deferred[Any]]) -> Any:
        """Return what is asked of the store while no service has it."""
        store = JobStore(self.deployment.database, real_reactor())
        await store.open()
        try:
            return await use(store)
        finally:
            await store.close()
