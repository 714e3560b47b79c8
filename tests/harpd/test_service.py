"""Tests of harpd.service: the command line, and the joined parts over real TLS."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

from twisted.application.service import IService
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, ensureDeferred, maybeDeferred
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol, wrapClientTLS
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.ssl import Certificate, optionsForClientTLS
from twisted.logger import LogLevel, capturedLogs, formatEvent
from twisted.python.failure import Failure
from twisted.python.usage import UsageError
from twisted.trial.unittest import SynchronousTestCase, TestCase

from harp.settings import ConfigError
from harpd import config
from harpd.auth.passwords import PasswordTable
from harpd.daemon import Daemon
from harpd.service import Options, makeService
from harpd.zygote_process import ProceduresError
from tests.harpd.certificates import issued, write_configuration
from tests.harpd.connections import ACK, STREAM_ACK, error, request
from tests.harpd.spawners import guard_pid, zygote_pid
from tests.harpd.waiting import PATIENCE, alive, descriptors, eventually, processes, reactor
from tests.harpd.zygotes import KILL_GRACE, write_procedures

GOOD = "@procedure\ndef plain(*args): return list(args)\n"


class OptionsTests(SynchronousTestCase):
    """Both files are read before the daemon starts."""

    def setUp(self) -> None:
        self.others = processes()
        self.folder = Path(self.mktemp()).absolute()
        self.config = write_configuration(self.folder)
        self.procedures = write_procedures(self.folder / "procedures.py", GOOD)

    def options(self, *more: str) -> Options:
        """Return the options of a command line."""
        options = Options()
        options.parseOptions([f"--config={self.config}", f"--procedures={self.procedures}", *more])
        return options

    def check(self) -> tuple[int, str]:
        """Return the exit status of --test and what it prints."""
        printed = StringIO()
        self.patch(sys, "stdout", printed)
        ended = self.assertRaises(SystemExit, self.options, "--test")
        assert isinstance(ended.code, int)
        return ended.code, printed.getvalue()

    def test_good(self) -> None:
        """Files without mistakes are kept as what they say."""
        options = self.options()
        self.assertEqual(options.config.port, 4306)
        self.assertEqual(options.procedures, self.procedures)

    def test_relative(self) -> None:
        """The procedures file is found from wherever the daemon goes."""
        self.procedures = os.path.relpath(self.procedures)
        self.assertTrue(os.path.isabs(self.options().procedures))

    def test_mistakes(self) -> None:
        """With mistakes the daemon does not start; those of both files are told at once."""
        self.config = write_configuration(self.folder, network="  port: x\n")
        write_procedures(self.procedures, "@procedure(timeout=0)\ndef f(): pass")
        found = str(self.assertRaises(UsageError, self.options))
        self.assertEqual(len(found.splitlines()), 2)
        self.assertIn("network.port, line 4: ", found)
        self.assertIn("procedures.py, line 3: procedure f: ", found)

    def test_check_good(self) -> None:
        """--test says OK and ends with status 0."""
        self.assertEqual(self.check(), (0, "OK\n"))

    def test_check_mistakes(self) -> None:
        """--test says every mistake and ends with status 1, whichever file has them."""
        write_procedures(self.procedures, "nonsense")
        status, printed = self.check()
        self.assertEqual(status, 1)
        self.assertEqual(
            printed, f"{self.procedures}, line 3: NameError: name 'nonsense' is not defined\n"
        )
        write_procedures(self.procedures, GOOD)
        self.config.unlink()
        status, printed = self.check()
        expected = f"{self.config}: can't be read: No such file or directory\n"
        self.assertEqual((status, printed), (1, expected))

    def test_modules_of_procedures(self) -> None:
        """The procedures are checked with the configured folders."""
        (self.folder / "service_test_module.py").write_text("x = 1")
        write_procedures(self.procedures, "import service_test_module\n" + GOOD)
        self.assertEqual(self.check()[0], 1)
        write_configuration(self.folder, network=f"python: {{path: {self.folder}}}\n")
        self.assertEqual(self.check(), (0, "OK\n"))

    def test_service(self) -> None:
        """The plugin makes the service from the options; nothing runs yet."""
        from twisted.plugins import harpd_plugin

        self.assertIs(harpd_plugin.harpd.options, Options)
        self.assertIs(harpd_plugin.harpd.makeService, makeService)
        service = makeService(self.options())
        self.assertTrue(IService.providedBy(service))
        self.assertEqual(processes() - self.others, set())


class Client(Protocol):
    """A bare client: what it got, and whether its connection has ended."""

    def __init__(self) -> None:
        self.received = bytearray()
        self.ended: Deferred[None] = Deferred()

    def dataReceived(self, data: bytes) -> None:
        """Keep it."""
        self.received += data

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Tell it."""
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

    async def start(self, procedures: str, **changes: Any) -> Daemon:
        """Start a daemon on a free port; it is stopped with the test and leaves nothing.

        :param changes: to the configuration.
        """
        self.folder = folder = Path(self.mktemp()).absolute()
        loaded = config.load(write_configuration(folder, network="  address: 127.0.0.1\n"))
        self.file = file = write_procedures(folder / "procedures.py", procedures)
        graces = {"shutdown_grace": 0.01, "kill_grace": KILL_GRACE}
        self.config = self.original = replace(loaded, port=0, **(graces | changes))
        self.mistake: ConfigError | None = None
        self.root = issued().root
        service = self.daemon = Daemon(reactor, self.config, file, self.read)
        service.privilegedStartService()
        service.startService()
        self.addCleanup(self.stop, service)
        self.spawner = service._spawner
        self.port = port_of(service)
        return service

    def read(self) -> config.Config:
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


class JoinedTests(JoinedTestCase):
    """Calls through all parts."""

    async def test_call(self) -> None:
        """A call goes through all parts and back; its connection is closed."""
        await self.start(GOOD)
        answer = await self.answer(request(arguments=[1, "ż"]))
        self.assertEqual(answer, ACK + '{"result":[1,"ż"]}\n'.encode())

    async def test_refusals(self) -> None:
        """Who may not call, and what can't be called, is refused."""
        await self.start(GOOD)
        expected = error("auth_error", "unknown user or wrong password")
        self.assertEqual(await self.answer(request(password="x")), expected)
        self.assertIn(b"no_such_procedure", await self.answer(request("nothing")))

    async def test_large_results(self) -> None:
        """Calls with more than fits into a buffer come whole and leave nothing open."""
        await self.start("@procedure\ndef plain(): return 'x' * 3_000_000")
        await self.answer(request())
        await eventually(lambda: not self.calls, "the end of the first call")
        before = len(descriptors())
        for _ in range(3):
            answer = await self.answer(request())
            self.assertEqual(len(answer), len(ACK) + len('{"result":""}\n') + 3_000_000)
        await eventually(lambda: not self.calls, "the end of all calls")
        await eventually(lambda: len(descriptors()) <= before, "the end of what they had open")

    async def test_slow_client(self) -> None:
        """A client that does not read holds up the procedure; then it gets everything."""
        await self.start("""
            @streaming_procedure
            def stream(file):
                for number in range(200):
                    yield "x" * 100_000
                    with open(file, "w") as progress:
                        progress.write(str(number))
        """)
        file = Path(self.mktemp()).absolute()
        client = await self.connect(request("stream", [str(file)]))
        await eventually(file.exists, "the first packet")
        client.transport.pauseProducing()  # type: ignore[union-attr]
        (call,) = self.calls.values()
        await eventually(
            lambda: call.process.transport not in reactor.getReaders(), "the pause of the process"
        )
        self.assertLess(int(file.read_text() or 0), 150)
        client.transport.resumeProducing()  # type: ignore[union-attr]
        await client.ended
        self.assertEqual(client.received.count(b"\n"), 202)

    async def test_client_leaves(self) -> None:
        """The process of a call ends when its client leaves."""
        await self.start("""
            @streaming_procedure
            def stream():
                yield os.getpid()
                signal.pause()
        """)
        client = await self.connect(request("stream"))
        await eventually(lambda: client.received.count(b"\n") == 2, "the packet")
        pid = json.loads(client.received.splitlines()[1])["stream"]
        self.assertTrue(alive(pid))
        client.transport.loseConnection()  # type: ignore[union-attr]
        await eventually(lambda: not alive(pid), "the end of its process")

    async def test_timeout(self) -> None:
        """A procedure that exceeds its limit is ended and told."""
        await self.start("@procedure(timeout=0.1)\ndef plain(): signal.pause()")
        expected = error("timeout", "the procedure's own limit of 0.1 s was exceeded")
        self.assertEqual(await self.answer(request()), ACK + expected)

    async def test_stop(self) -> None:
        """When the daemon is stopped its calls get shutdown and can tidy up."""
        file = Path(self.mktemp()).absolute()
        service = await self.start("""
            @streaming_procedure
            def stream(file):
                try:
                    yield "ready"
                    signal.pause()
                finally:
                    open(file, "w").close()
        """)
        client = await self.connect(request("stream", [str(file)]))
        await eventually(lambda: b"ready" in client.received, "the packet")
        await maybeDeferred(service.stopService)
        self.assertTrue(client.ended.called)
        expected = (
            STREAM_ACK + b'{"stream":"ready"}\n' + error("shutdown", "harpd is being stopped")
        )
        self.assertEqual(client.received, expected)
        self.assertTrue(file.exists())

    async def test_call_before_loaded(self) -> None:
        """A call that comes before the procedures are loaded waits for them."""
        await self.start("import time\nfor n in range(300_000): pass\n" + GOOD)
        self.assertEqual(await self.answer(request()), ACK + b'{"result":[]}\n')

    async def test_not_loaded(self) -> None:
        """A daemon whose procedures can't be loaded any more says so to every client."""
        await self.start("nonsense")
        answers: list[Any] = [await ensureDeferred(self.answer(request())) for _ in range(2)]
        for answer in answers:
            self.assertIn(b'"type":"procedure_loading_error"', answer)
            self.assertIn(b"line 3: NameError", answer)


WAITING = """
    VERSION = {version!r}

    @streaming_procedure
    def stream(file):
        yield "ready"
        while not os.path.exists(file):
            os.sched_yield()
        yield Result(VERSION)

    @procedure
    def plain():
        return VERSION
"""


class ReloadTests(JoinedTestCase):
    """Procedures, users, certificates and address are changed together or not at all."""

    async def first(self) -> Daemon:
        """Start a daemon that answers with the version of its procedures, which is 1."""
        daemon = await self.start(WAITING.format(version=1))
        self.assertEqual(await self.answer(request()), ACK + b'{"result":1}\n')
        return daemon

    def change(self, version: object = 2, **changes: Any) -> None:
        """Change procedures and configuration."""
        write_procedures(self.file, WAITING.format(version=version))
        self.config = replace(self.config, **changes)

    async def reload(self, daemon: Daemon) -> list[str]:
        """Reload and return the mistakes that were logged."""
        with capturedLogs() as logged:
            daemon.reload()
            await eventually(lambda: daemon._reloading is None, "the end of reloading")
        return [formatEvent(event) for event in logged if event["log_level"] is LogLevel.error]

    async def assert_unchanged(self, daemon: Daemon) -> None:
        """Check that everything is as it was at start."""
        zygote = self.spawner._zygote
        self.assertEqual(await self.answer(request()), ACK + b'{"result":1}\n')
        self.assertIs(daemon._config, self.original)
        self.assertEqual(self.spawner._all, {zygote})

    async def test_hang_up(self) -> None:
        """SIGHUP is what asks for it; the process that gets it goes on."""
        daemon = await self.first()
        self.change()
        os.kill(os.getpid(), signal.SIGHUP)
        await eventually(lambda: daemon._reloading is not None, "that it has been asked for")
        await eventually(lambda: daemon._reloading is None, "the end of reloading")
        self.assertEqual(await self.answer(request()), ACK + b'{"result":2}\n')
        await maybeDeferred(daemon.stopService)
        self.assertEqual(signal.getsignal(signal.SIGHUP), signal.SIG_DFL)

    async def test_running_calls(self) -> None:
        """Running calls finish on the old code, whose zygote ends with the last of them."""
        daemon = await self.first()
        file = Path(self.mktemp()).absolute()
        client = await self.connect(request("stream", [str(file)]))
        await eventually(lambda: b"ready" in client.received, "the packet")
        old = guard_pid(self.spawner)
        self.change()
        self.assertEqual(await self.reload(daemon), [])
        self.assertEqual(await self.answer(request()), ACK + b'{"result":2}\n')
        self.assertTrue(alive(old))
        file.touch()
        await client.ended
        self.assertEqual(client.received, STREAM_ACK + b'{"stream":"ready"}\n{"result":1}\n')
        await eventually(lambda: not alive(old), "the end of the old zygote")
        self.assertEqual(len(self.spawner._all), 1)

    async def test_killed_while_retired(self) -> None:
        """A call of an old zygote can be ended with all that it started."""
        daemon = await self.first()
        client = await self.connect(request("stream", ["/nonexistent"]))
        await eventually(lambda: b"ready" in client.received, "the packet")
        old = guard_pid(self.spawner)
        self.change()
        await self.reload(daemon)
        client.transport.abortConnection()  # type: ignore[union-attr]
        await eventually(lambda: not alive(old), "the end of the old zygote")

    async def test_procedures_with_mistakes(self) -> None:
        """Procedures that can't be loaded change nothing, users neither."""
        daemon = await self.first()
        self.change("x", authenticator=PasswordTable({}, {"panel": "other"}))
        write_procedures(self.file, "nonsense")
        mistakes = await self.reload(daemon)
        self.assertIn("line 3: NameError", mistakes[0])
        self.assertEqual(mistakes[1:], ["nothing of it is used, all stays as it was"])
        await eventually(lambda: len(self.spawner._all) == 1, "the end of the one that failed")
        await self.assert_unchanged(daemon)

    async def test_configuration_with_mistakes(self) -> None:
        """Nor does a configuration with mistakes; good procedures beside it are not taken."""
        daemon = await self.first()
        self.change()
        self.mistake = ConfigError(["network.port, line 4: is bad"])
        mistakes = await self.reload(daemon)
        self.assertEqual(mistakes[0], "network.port, line 4: is bad")
        await self.assert_unchanged(daemon)
        self.mistake = None
        self.assertEqual(await self.reload(daemon), [])
        self.assertEqual(await self.answer(request()), ACK + b'{"result":2}\n')

    async def test_users(self) -> None:
        """Who was taken out is refused, though he has just been let in."""
        daemon = await self.first()
        self.change(authenticator=PasswordTable({}, {"panel": "other"}))
        await self.reload(daemon)
        self.assertIn(b"auth_error", await self.answer(request()))
        self.assertIn(b'{"result":2}', await self.answer(request(password="other")))

    async def test_certificate(self) -> None:
        """New connections are shown the new certificate; those that are open stay."""
        daemon = await self.first()
        file = Path(self.mktemp()).absolute()
        client = await self.connect(request("stream", [str(file)]))
        await eventually(lambda: b"ready" in client.received, "the packet")
        (self.folder / "cert.pem").write_bytes(b"".join(issued(2).chain))
        (self.folder / "key.pem").write_bytes(issued(2).key)
        self.change(tls=config.load(self.folder / "harpd.yaml").tls)
        await self.reload(daemon)
        self.root = issued(2).root
        self.assertEqual(await self.answer(request()), ACK + b'{"result":2}\n')
        file.touch()
        await client.ended
        self.assertIn(b'{"result":1}', client.received)

    async def test_port(self) -> None:
        """Another port is opened and the old one closed; one that is taken changes nothing."""
        daemon = await self.first()
        with socket.create_server(("127.0.0.1", 0)) as taken:
            self.change(port=taken.getsockname()[1])
            mistakes = await self.reload(daemon)
        self.assertIn("Couldn't listen on", mistakes[0])
        await eventually(lambda: len(self.spawner._all) == 1, "the end of the new zygote")
        await self.assert_unchanged(daemon)
        old = self.port
        self.assertEqual(await self.reload(daemon), [])
        self.port = port_of(daemon)
        self.assertEqual(self.port, self.config.port)
        self.assertEqual(await self.answer(request()), ACK + b'{"result":2}\n')
        with self.assertRaises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", old)).close()

    async def test_twice(self) -> None:
        """What is asked for while another reading goes on is done after it."""
        daemon = await self.first()
        self.change(2)
        daemon.reload()
        self.change(3)
        await self.reload(daemon)
        self.assertEqual(await self.answer(request()), ACK + b'{"result":3}\n')

    async def test_stopped_meanwhile(self) -> None:
        """A daemon that is stopped while it reads leaves nothing either."""
        daemon = await self.first()
        self.change()
        daemon.reload()
        await maybeDeferred(daemon.stopService)
        self.assertIsNone(daemon._reloading)

    async def test_mended(self) -> None:
        """A daemon whose zygote could not be replaced takes what can be loaded at once."""
        daemon = await self.first()
        write_procedures(self.file, "nonsense")
        os.kill(zygote_pid(self.spawner), signal.SIGKILL)
        await eventually(
            lambda: isinstance(self.spawner._catalogue, ProceduresError), "that it can't be loaded"
        )
        self.change()
        await self.reload(daemon)
        self.assertEqual(await self.answer(request()), ACK + b'{"result":2}\n')


class GraceTests(JoinedTestCase):
    """A daemon that is stopped lets running calls end."""

    async def test_grace(self) -> None:
        """They end by themselves, new calls get shutdown."""
        daemon = await self.start(WAITING.format(version=1), shutdown_grace=PATIENCE)
        file = Path(self.mktemp()).absolute()
        client = await self.connect(request("stream", [str(file)]))
        await eventually(lambda: b"ready" in client.received, "the packet")
        stopped = maybeDeferred(daemon.stopService)
        expected = error("shutdown", "harpd is being stopped")
        self.assertEqual(await self.answer(request()), expected)
        file.touch()
        await stopped
        self.assertTrue(client.received.endswith(b'{"result":1}\n'))


class LockTests(JoinedTestCase):
    """Locks, with real processes."""

    async def test_lock(self) -> None:
        """Of calls that name one lock one runs at a time, and all run."""
        await self.start("""
            @procedure(lock="door")
            def plain(folder):
                os.mkdir(folder)
                os.rmdir(folder)
        """)
        folder = str(Path(self.mktemp()).absolute())
        clients = [await self.connect(request(arguments=[folder])) for _ in range(10)]
        for client in clients:
            await client.ended
            self.assertEqual(client.received, ACK + b'{"result":null}\n')
        locks = self.daemon._factory._parts.locks
        await eventually(lambda: not locks.is_taken("door"), "the end of the last process")

    async def test_zygote_dies(self) -> None:
        """A lock is free when the processes of its call are gone, not when its end is known."""
        await self.start("""
            @streaming_procedure(lock="door")
            def stream():
                try:
                    yield os.getpid()
                    while True:
                        signal.pause()
                finally:
                    signal.pause()

            @procedure(lock="door", lock_wait=0)
            def plain():
                return "free"
        """)
        client = await self.connect(request("stream"))
        await eventually(lambda: client.received.count(b"\n") == 2, "the packet")
        pid = json.loads(client.received.splitlines()[1])["stream"]
        os.kill(zygote_pid(self.spawner), signal.SIGKILL)
        await client.ended
        self.assertIn(b'"killed"', client.received)
        while b"locked" in (answer := await self.answer(request())):
            pass
        self.assertEqual(answer, ACK + b'{"result":"free"}\n')
        self.assertFalse(alive(pid))
