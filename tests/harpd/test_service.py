"""Tests of harpd.service: the command line, and the joined parts over real TLS."""

from __future__ import annotations

import json
import os
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
from twisted.python.failure import Failure
from twisted.python.usage import UsageError
from twisted.trial.unittest import SynchronousTestCase, TestCase

from harpd import config
from harpd.daemon import Daemon
from harpd.service import Options, makeService
from tests.harpd.certificates import issued, write_configuration
from tests.harpd.connections import ACK, STREAM_ACK, error, request
from tests.harpd.waiting import alive, descriptors, eventually, processes, reactor
from tests.harpd.zygotes import write_procedures

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


class JoinedTests(TestCase):
    """The whole daemon in this process, its clients over TLS."""

    timeout = 30

    async def setUp(self) -> None:  # type: ignore[override]
        # What the reactor keeps open for good once it has run and listened.
        await reactor.listenTCP(0, Factory()).stopListening()
        self.before = descriptors()
        self.others = processes()

    async def start(self, procedures: str) -> Daemon:
        """Start a daemon on a free port; it is stopped with the test and leaves nothing."""
        folder = Path(self.mktemp()).absolute()
        loaded = config.load(write_configuration(folder, network="  address: 127.0.0.1\n"))
        file = write_procedures(folder / "procedures.py", procedures)
        self.config = replace(loaded, port=0, shutdown_grace=0.01)
        service = Daemon(reactor, self.config, file, lambda: self.config)
        service.privilegedStartService()
        service.startService()
        self.addCleanup(self.stop, service)
        self.spawner = service._spawner
        self.port = port_of(service)
        return service

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
        trust = optionsForClientTLS("localhost", Certificate.loadPEM(issued().root))
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
