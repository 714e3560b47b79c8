"""The whole daemon in this process, its clients over TLS."""

from __future__ import annotations

import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol, wrapClientTLS
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.ssl import Certificate, optionsForClientTLS
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase

from harp.service_manager import ServiceManager
from harp.settings import ConfigError, Contents
from harpd import config
from harpd.daemon import Daemon
from harpd.keeper_process import KeeperProcess
from tests.harpd.certificates import issued, write_configuration
from tests.harpd.waiting import descriptors, eventually, processes, reactor
from tests.harpd.zygotes import KILL_GRACE, write_procedures


class Client(Protocol):
    """A bare client: what it got, and whether its connection has ended."""

    def __init__(self) -> None:
        self.received = bytearray()
        self.ended: Deferred[None] = Deferred()
        self.reason = connectionDone

    def dataReceived(self, data: bytes) -> None:
        """Keep it."""
        self.received += data

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Tell it."""
        self.reason = reason
        self.ended.callback(None)


def port_of(daemon: Daemon) -> int:
    """Return the port that a daemon listens on."""
    address = daemon._port and daemon._port.getHost()
    assert isinstance(address, IPv4Address)
    return address.port


class JoinedTestCase(TestCase):
    """The whole daemon in this process, its clients over TLS."""

    timeout = 30

    async def setUp(self) -> None:  # type: ignore[override]
        # What the reactor keeps open for good once it has run and listened.
        await reactor.listenTCP(0, Factory()).stopListening()
        self.before = descriptors()
        self.others = processes()

    async def start(self, procedures: str, *, started: bool = True, **changes: Any) -> Daemon:
        """Start a daemon on a free port; it is stopped with the test and leaves nothing.

        :param started: whether it is more than privileged.
        :param changes: to the configuration.
        """
        self.folder = folder = Path(self.mktemp()).absolute()
        network = f"  address: 127.0.0.1\nkill_grace: {KILL_GRACE}\n"
        loaded = config.load(write_configuration(folder, network=network))
        self.file = file = write_procedures(folder / "procedures.py", procedures)
        graces = {"shutdown_grace": 0.01, "kill_grace": KILL_GRACE}
        self.config = self.original = replace(loaded, port=0, **(graces | changes))
        self.mistake: ConfigError | None = None
        self.root = issued().root
        keeper = KeeperProcess(reactor, str(folder / "harpd.yaml"), file)
        manager = ServiceManager(reactor, {})
        service = self.daemon = Daemon(reactor, self.config, keeper, self.read, manager)
        self.addCleanup(signal.signal, signal.SIGHUP, signal.getsignal(signal.SIGHUP))
        service.privilegedStartService()
        if started:
            service.startService()
        self.addCleanup(self.stop, service)
        self.spawner = service._spawner
        self.port = port_of(service)
        return service

    def read(self, contents: Contents) -> config.Config:
        """Be what reads the configuration again."""
        if self.mistake is not None:
            raise self.mistake
        return self.config

    async def stop(self, service: Daemon) -> None:
        """Stop the daemon; no process and no descriptor may be left."""
        if service.running:
            await maybeDeferred(service.stopService)
        self.assertEqual(processes() - self.others, set())
        await eventually(lambda: not descriptors() - self.before, "the last descriptor's end")

    @property
    def calls(self) -> dict[int, Any]:
        """The calls whose processes have not ended."""
        assert self.spawner._zygote is not None
        return self.spawner._zygote._calls

    async def connect(self, data: bytes = b"") -> Client:
        """Connect and send something."""
        trust = optionsForClientTLS("localhost", Certificate.loadPEM(self.root))
        endpoint = wrapClientTLS(trust, TCP4ClientEndpoint(reactor, "127.0.0.1", self.port))
        client: Client = await connectProtocol(endpoint, Client())
        self.addCleanup(self.leave, client)
        assert client.transport is not None
        client.transport.write(data)
        return client

    async def leave(self, client: Client) -> None:
        """End a connection that is still there."""
        if not client.ended.called:
            client.transport.abortConnection()  # type: ignore[union-attr]
            await client.ended

    async def answer(self, data: bytes) -> bytes:
        """Return all that is answered to a request."""
        client = await self.connect(data)
        await client.ended
        return bytes(client.received)
