"""Tests of harpd.daemon: the joined parts over real TLS, their reload and their end."""

from __future__ import annotations

import json
import os
import resource
import signal
import socket
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

from twisted.internet.defer import ensureDeferred, maybeDeferred
from twisted.internet.error import ConnectionDone
from twisted.logger import LogLevel, capturedLogs, formatEvent

from harp.settings import ConfigError, Contents
from harpd import config, daemon
from harpd.auth.passwords import PasswordTable
from harpd.daemon import Daemon
from harpd.limits import Limits
from harpd.offers import ProceduresError
from tests.harpd.certificates import issued
from tests.harpd.connections import ACK, STREAM_ACK, error, request
from tests.harpd.joined import JoinedTestCase, port_of
from tests.harpd.spawners import guard_pid, zygote_pid
from tests.harpd.waiting import PATIENCE, alive, descriptors, eventually, reactor
from tests.harpd.zygotes import write_procedures

GOOD = "@procedure\ndef plain(*args): return list(args)\n"


class JoinedTests(JoinedTestCase):
    """Calls through all parts."""

    async def test_call(self) -> None:
        """A call goes through all parts and back; its connection is closed."""
        await self.start(GOOD)
        answer = await self.answer(request(arguments=[1, "ż"]))
        self.assertEqual(answer, ACK + '{"result":[1,"ż"]}\n'.encode())

    async def test_kept_connection(self) -> None:
        """One connection carries call after call, whatever their results weigh."""
        await self.start("@procedure\ndef plain(size): return 'x' * size")
        client = await self.connect()
        for size in (1, 3_000_000, 100_000, 0):
            client.received.clear()
            assert client.transport is not None
            client.transport.write(request(arguments=[size], keepalive=True))
            expected = len(ACK) + len('{"result":""}\n') + size
            await eventually(lambda: len(client.received) >= expected, "the result")  # noqa: B023
            self.assertEqual(len(client.received), expected)
        self.assertFalse(client.ended.called)
        assert client.transport is not None
        client.transport.write(request(arguments=[2]))
        await client.ended
        self.assertTrue(client.received.endswith(ACK + b'{"result":"xx"}\n'))

    async def test_kept_connection_at_the_end(self) -> None:
        """A daemon that stops ends a kept connection in good order: no request is being read."""
        service = await self.start(GOOD)
        client = await self.connect(request(keepalive=True))
        await eventually(lambda: client.received.endswith(b'{"result":[]}\n'), "the result")
        await maybeDeferred(service.stopService)
        await client.ended
        self.assertIsInstance(client.reason.value, ConnectionDone)

    async def test_describe(self) -> None:
        """What the procedures file tells is told, over the kept connection too."""
        await self.start(GOOD.replace("def plain(*args):", "def plain(*args):\n    'Say.'\n   "))
        auth = '"auth":{"user":"panel","password":"secret"}'
        answer = await self.answer(f'{{"harp":1,"describe":true,{auth}}}\n'.encode())
        (described,) = json.loads(answer)["procedures"]
        self.assertEqual((described["name"], described["doc"]), ("plain", "Say."))
        self.assertEqual(described["parameters"]["type"], "object")

    async def test_context(self) -> None:
        """A procedure gets what the caller knows of the call, and what harpd does."""
        await self.start("@procedure(context=True)\ndef plain(context): return context")
        answer = await self.answer(request(context={"job_id": "x", "user": "root"}))
        expected = {"job_id": "x", "user": "panel", "client": "127.0.0.1"}
        self.assertEqual(json.loads(answer.splitlines()[1]), {"result": expected})

    async def test_descriptors(self) -> None:
        """The daemon has as many as it may; a call begins with what the daemon began with."""
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        lower = min(soft, hard) - 100
        resource.setrlimit(resource.RLIMIT_NOFILE, (lower, hard))
        self.addCleanup(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        await self.start("""
            @procedure
            def plain():
                import resource
                return resource.getrlimit(resource.RLIMIT_NOFILE)
        """)
        self.assertEqual(resource.getrlimit(resource.RLIMIT_NOFILE), (hard, hard))
        answer = await self.answer(request())
        self.assertEqual(answer, ACK + b'{"result":[%d,%d]}\n' % (lower, hard))

    async def test_few_descriptors(self) -> None:
        """Where it may have few, there are not more connections than it can serve."""
        self.patch(daemon, "raise_descriptors", lambda: 100)
        with capturedLogs() as logs:
            service = await self.start(GOOD)
        self.assertEqual(service._factory.limits, Limits().within(100))
        (warning,) = [
            formatEvent(e) for e in logs if e["log_level"] is LogLevel.warn and "all" in e
        ]
        self.assertIn("so max_connections is 50 and connections_before_login is 25", warning)

    async def test_ready_late(self) -> None:
        """It is ready when the procedures can be called, though they can't at first."""
        service = await self.start("raise ValueError")
        spawner = service._spawner
        await eventually(lambda: bool(spawner._catalogue), "that they can't be loaded is known")
        self.assertTrue(service._status().startswith("no procedures, see the log, "))
        self.assertFalse(service._is_ready)
        write_procedures(self.file, GOOD)
        await eventually(lambda: service._is_ready, "they are loaded later")
        self.assertTrue(service._status().startswith("1 procedures, 0 calls, "))

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

    async def test_hang_up_at_the_end(self) -> None:
        """SIGHUP does not end a daemon that is giving its calls their grace."""
        daemon = await self.start(
            "@procedure\ndef plain(seconds):\n    import time; time.sleep(seconds); return 1",
            shutdown_grace=20,
        )
        client = await self.connect(request(arguments=[0.5]))
        await eventually(lambda: client.received == ACK, "the acknowledgement")
        stopped = maybeDeferred(daemon.stopService)
        os.kill(os.getpid(), signal.SIGHUP)
        await stopped
        self.assertEqual(client.received, ACK + b'{"result":1}\n')

    async def test_hang_up_at_the_start(self) -> None:
        """SIGHUP that comes before the daemon has started is heeded when it has."""
        await self.start(GOOD, started=False)
        os.kill(os.getpid(), signal.SIGHUP)
        await eventually(lambda: self.daemon._is_asked_again, "that it has been asked for")
        self.daemon.startService()
        self.assertIsNotNone(self.daemon._reloading)
        await eventually(lambda: self.daemon._reloading is None, "the end of reloading")

    async def test_audit(self) -> None:
        """A reload is told in one line of the audit, whatever becomes of it."""
        daemon = await self.first()
        for mistake in (None, ConfigError(["x"])):
            self.mistake = mistake
            with capturedLogs() as logs:
                await self.reload(daemon)
            self.assertEqual(
                [event["audit"] for event in logs if "audit" in event],
                [{"action": "reload", "decision": "allowed", "peer": "SIGHUP"}],
            )

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
        await eventually(lambda: len(self.spawner._all) == 1, "the keeper's word of it")

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

    async def test_left_behind_while_retired(self) -> None:
        """What was told to end with a call is killed when its time is up, as in any zygote."""
        daemon = await self.start("""
            @streaming_procedure
            def stream():
                ready, told = os.pipe()
                ignoring = os.fork()
                if ignoring == 0:
                    os.setsid()
                    signal.signal(signal.SIGTERM, signal.SIG_IGN)
                    os.write(told, b"x")
                    while True:
                        signal.pause()
                os.read(ready, 1)
                signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
                yield ignoring
                while True:
                    signal.pause()
        """)
        client = await self.connect(request("stream"))
        await eventually(lambda: client.received.count(b"\n") == 2, "the packet")
        pid = json.loads(client.received.splitlines()[1])["stream"]
        self.change()
        await self.reload(daemon)
        client.transport.abortConnection()  # type: ignore[union-attr]
        await eventually(lambda: not alive(pid), "its end")

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
        self.change(3, authenticator=PasswordTable({}, {"panel": "third"}))
        await self.reload(daemon)
        self.assertEqual(await self.answer(request(password="third")), ACK + b'{"result":3}\n')

    async def test_stopped_meanwhile(self) -> None:
        """A daemon that is stopped while it reads leaves nothing either."""
        daemon = await self.first()
        self.change()
        daemon.reload()
        await maybeDeferred(daemon.stopService)
        self.assertIsNone(daemon._reloading)

    async def test_slow_file_system(self) -> None:
        """While files are read calls go on, and an end waits for them and starts nothing more."""
        daemon = await self.first()
        readable = threading.Event()

        def read(contents: Contents) -> config.Config:
            readable.wait(PATIENCE)
            return self.config

        self.patch(daemon, "_read", read)
        self.addCleanup(readable.set)
        daemon.reload()
        self.assertEqual(await self.answer(request()), ACK + b'{"result":1}\n')
        stopped = maybeDeferred(daemon.stopService)
        await eventually(lambda: not self.spawner._all, "the end of the zygote")
        self.assertNoResult(stopped)
        readable.set()
        await stopped
        self.assertIsNone(daemon._reloading)
        self.assertEqual(self.spawner._all, set())

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
        self.assertFalse(locks.is_taken("door"))

    async def test_one_after_the_other(self) -> None:
        """A caller that waits for the end of its call never meets its own lock."""
        await self.start("@procedure(lock='door', lock_wait=0)\ndef plain(): return 1")
        for _ in range(20):
            self.assertEqual(await self.answer(request()), ACK + b'{"result":1}\n')

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
