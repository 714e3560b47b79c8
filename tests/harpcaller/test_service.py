"""Tests of ``harpcaller.service``: the parts joined, on real sockets, files and processes."""

from __future__ import annotations

import io
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from twisted.application.service import IServiceCollection
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.error import CannotListenError, ConnectionRefusedError
from twisted.internet.interfaces import IListeningPort, IReactorTCP
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.logger import LogLevel, capturedLogs
from twisted.python.failure import Failure
from twisted.python.usage import UsageError
from twisted.trial.unittest import SynchronousTestCase, TestCase
from zope.interface import directlyProvides, providedBy

from harpcaller import config, service
from harpcaller.jobs import JobState
from harpcaller.service import DispatcherService, Options
from harpcaller.store import JobStore, StoreError
from tests.harpcaller.memory import authority
from tests.harpcaller.stores import ONE_AT_A_TIME, new_job, real_reactor

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
        }
        self.open_hosts()

    def open_hosts(self) -> None:
        """Let the hosts script print its host at once."""
        self._write_script(f"echo '{HOST_LINE}'")

    def close_hosts(self, test: TestCase) -> Callable[[], object]:
        """Let the hosts script wait until what is returned is called, or the test is over."""
        gate = self.folder / "gate"
        os.mkfifo(gate)
        self._write_script(f"read line <'{gate}'\necho '{HOST_LINE}'")
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


class OptionsTests(SynchronousTestCase):
    """The command line."""

    def setUp(self) -> None:
        self.deployment = Deployment(Path(self.mktemp()))

    def check(self, path: str) -> tuple[object, str]:
        """Return the exit status and the output of ``--test``."""
        printed = io.StringIO()
        self.patch(sys, "stdout", printed)
        left = self.assertRaises(SystemExit, Options().parseOptions, ["-c", path, "--test"])
        return left.code, printed.getvalue()

    def test_good(self) -> None:
        """A sound configuration is OK, and ready for the service."""
        path = self.deployment.write()
        self.assertEqual(self.check(path), (0, "OK\n"))
        options = Options()
        options.parseOptions(["--config", path])
        self.assertEqual(options.config, config.load(Path(path)))

    def test_mistakes(self) -> None:
        """Every mistake is told, each on a line with its key; the exit status says so too."""
        path = self.deployment.write(max_exec_tme=5, host_db_refresh=-1, listen=[])
        status, printed = self.check(path)
        self.assertEqual(status, 1)
        mistakes = printed.splitlines()
        self.assertEqual(len(mistakes), 3)
        for key in ("max_exec_tme", "host_db_refresh", "listen"):
            self.assertEqual(sum(key in mistake for mistake in mistakes), 1, key)
        refused = self.assertRaises(UsageError, Options().parseOptions, ["--config", path])
        self.assertEqual(str(refused).splitlines(), mistakes)

    def test_no_file(self) -> None:
        """A configuration that can't be read is a mistake like any other."""
        path = str(self.deployment.folder / "nowhere.yaml")
        status, printed = self.check(path)
        self.assertEqual((status, path in printed), (1, True))
        self.assertRaises(UsageError, Options().parseOptions, ["--config", path])

    def test_service(self) -> None:
        """The service that twistd gets is the dispatcher's, and nothing is opened yet."""
        options = Options()
        options.parseOptions(["--config", self.deployment.write()])
        made = service.makeService(options)
        (part,) = IServiceCollection(made)
        self.assertIsInstance(part, DispatcherService)
        self.assertFalse((self.deployment.folder / "jobs.db").exists())


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
        """The number of the port that was opened last."""
        return int(cast(Any, self.ports[-1].getHost()).port)


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

    def made(self, **changes: Any) -> DispatcherService:
        """Return the service, its ports bound."""
        loaded = config.load(Path(self.deployment.write(**changes)))
        made = DispatcherService(self.reactor, loaded)
        made.privilegedStartService()
        return made

    def started(self, **changes: Any) -> DispatcherService:
        """Return the service, started; it is stopped when the test is over."""
        made = self.made(**changes)
        made.startService()
        self.addCleanup(lambda: made.stopService() if made.running else None)
        return made

    async def begin(self, line: bytes) -> Client:
        """Return a client that is connected and has sent a line."""
        endpoint = TCP4ClientEndpoint(self.reactor.real, "127.0.0.1", self.reactor.port)
        client = Client(line)
        await connectProtocol(endpoint, client)
        return client

    async def ask(self, request: bytes) -> bytes:
        """Return all that a request is answered with."""
        return await (await self.begin(b'{"harpcaller":1,%b}' % request)).answer

    async def in_store(self, use: Callable[[JobStore], Deferred[Any]]) -> Any:
        """Return what is asked of the store while no service has it."""
        store = JobStore(self.deployment.database, real_reactor())
        await store.open()
        try:
            return await use(store)
        finally:
            await store.close()


class ServiceTests(ServiceTestCase):
    """From the start to the stop."""

    async def test_parts_are_joined(self) -> None:
        """Calls are taken, looked up in the hosts registry, recorded and answered."""
        self.started()
        answer = await self.ask(b'"host":"web99","procedure":"df","arguments":[]')
        job_id = json.loads(answer)["job_id"].encode()
        result = json.loads(await self.ask(b'"get_result":"%b"' % job_id))
        self.assertEqual(result["error"]["type"], "unknown_host")

    async def test_limits_of_the_configuration(self) -> None:
        """The limits of the configuration are those of the jobs."""
        made = self.started(default_timeout=7, max_exec_time=11)
        answer = await self.ask(b'"host":"web99","procedure":"df","arguments":[]')
        await made.stopService()
        job = await self.in_store(lambda store: store.job(json.loads(answer)["job_id"]))
        self.assertEqual((job.timeout, job.max_exec_time), (7, 11))

    async def test_before_it_is_ready(self) -> None:
        """Who asks before all is in order is answered when it is."""
        open_hosts = self.deployment.close_hosts(self)
        self.started()
        client = await self.begin(b'{"harpcaller":1,"get_status":"x"}')
        await self.ask(b"nonsense")  # is answered at once, so the other request has been seen
        self.assertFalse(client.answer.called)
        open_hosts()
        self.assertIn(b"invalid_jobid", await client.answer)

    async def test_last_run(self) -> None:
        """What ran when the dispatcher was killed is closed before the first answer."""
        job = await self.in_store(lambda store: store.submit(new_job(), 1.0))
        self.started()
        answer = await self.ask(b'"get_result":"%b"' % job.job_id.encode())
        self.assertEqual(json.loads(answer)["error"]["type"], "missing_result")

    async def test_stop(self) -> None:
        """A service that was stopped listens no more, and leaves its database to others."""
        made = self.started()
        await self.ask(b'"get_status":"x"')
        port = self.reactor.port
        await made.stopService()
        endpoint = TCP4ClientEndpoint(self.reactor.real, "127.0.0.1", port)
        with self.assertRaises(ConnectionRefusedError):
            await connectProtocol(endpoint, Protocol())
        self.assertIsNone(await self.in_store(lambda store: store.job("x")))

    async def test_stop_while_it_starts(self) -> None:
        """A service stopped before it was ready starts no job that waits, and stops properly."""

        async def submit(store: JobStore) -> str:
            await store.submit(new_job(ONE_AT_A_TIME), 1.0)
            return (await store.submit(new_job(ONE_AT_A_TIME), 1.0)).job_id

        waiting = await self.in_store(lambda store: Deferred.fromCoroutine(submit(store)))
        self.deployment.close_hosts(self)
        made = self.started()
        await self.ask(b"nonsense")
        await made.stopService()
        job = await self.in_store(lambda store: store.job(waiting))
        self.assertEqual((job.state, job.end), (JobState.WAITING, None))
        self.assertEqual(self.reactor.stops, 0)

    async def test_stop_at_once(self) -> None:
        """A service that is stopped as soon as it was started stops properly."""
        await self.started().stopService()
        self.assertEqual(self.reactor.stops, 0)


class CannotStartTests(ServiceTestCase):
    """When it can't start."""

    def test_port_in_use(self) -> None:
        """A port that is in use is told while twistd can still say so."""
        taken = self.reactor.listenTCP(0, Factory(), interface="127.0.0.1")
        self.addCleanup(taken.stopListening)
        listen = f"127.0.0.1:{self.reactor.port}"
        self.assertRaises(CannotListenError, self.made, listen=listen)

    async def test_store(self) -> None:
        """A database that can't be opened ends the daemon, with a failure in the log."""
        at_exit: list[object] = []
        self.patch(service, "atexit", SimpleNamespace(register=lambda *call: at_exit.append(call)))
        made = self.made(database="sqlite:///nowhere/jobs.db")
        stopped: Deferred[None] = Deferred()
        self.patch(self.reactor, "stop", lambda: stopped.callback(None))
        made.startService()
        await stopped
        (failure,) = self.flushLoggedErrors(StoreError)
        self.assertIn("nowhere", str(failure.value))
        self.assertEqual(at_exit, [(os._exit, 1)])
        await made.stopService()


class TrustTests(ServiceTestCase):
    """Which certificates are believed is told where it is dangerous."""

    async def warnings(self, **settings: Any) -> list[str]:
        """Start and stop a service, and return what it warned of."""
        with capturedLogs() as logged:
            made = self.started(**settings)
            await self.ask(b'"get_status":"x"')
            await made.stopService()
        return [each["log_format"] for each in logged if each["log_level"] is LogLevel.warn]

    async def test_nothing_is_verified(self) -> None:
        """Without certificates to verify by there is a warning at the start."""
        (warning,) = await self.warnings()
        self.assertIn("neither ca_file nor known_certs_file", warning)

    async def test_verified(self) -> None:
        """With either kind of them there is none."""
        authority().cert_pem.write_to_path(str(self.deployment.folder / "certificates.pem"))
        for key in ("ca_file", "known_certs_file"):
            self.assertEqual(await self.warnings(**{key: "certificates.pem"}), [], key)
