"""Tests of ``harpcaller.service``: the parts joined, on real sockets, files and processes."""

from __future__ import annotations

import io
import json
import os
import socket
import ssl
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from twisted.application.service import IServiceCollection
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.error import CannotListenError, ConnectionRefusedError
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.threads import deferToThread
from twisted.logger import LogLevel, capturedLogs
from twisted.python.usage import UsageError
from twisted.trial.unittest import SynchronousTestCase

from harpcaller import config, listen, logs, service
from harpcaller.demo.ports import free_port
from harpcaller.jobs import JobState
from harpcaller.service import DispatcherService, Options
from harpcaller.store import JobStore, StoreError
from tests.harpcaller.memory import authority
from tests.harpcaller.services import Deployment, ServiceTestCase
from tests.harpcaller.stores import ONE_AT_A_TIME, new_job, real_reactor


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
        """The service that twistd gets is the dispatcher's, and nothing is opened yet.

        Its times are not those of the wall clock, which somebody may set.
        """
        options = Options()
        options.parseOptions(["--config", self.deployment.write()])
        reactor: Any = real_reactor()
        self.patch(reactor, "seconds", reactor.seconds)
        made = service.makeService(options)
        self.assertIs(reactor.seconds, time.monotonic)
        (part,) = IServiceCollection(made)
        self.assertIsInstance(part, DispatcherService)
        self.assertFalse((self.deployment.folder / "jobs.db").exists())


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

    async def test_one_connection(self) -> None:
        """One connection, plain or with TLS, carries requests of every kind and length."""
        pem = authority().issue_cert("127.0.0.1").private_key_and_cert_chain_pem
        pem.write_to_path(str(self.deployment.folder / "identity.pem"))
        tls = ssl.create_default_context()
        authority().configure_trust(tls)
        port = free_port()
        identity = self.deployment.folder / "identity.pem"
        plain = f"127.0.0.1:{port}"
        secured = f"ssl:{port}:privateKey={identity}:interface=127.0.0.1"

        def talk(context: ssl.SSLContext | None) -> None:
            connection = socket.create_connection(("127.0.0.1", port))
            if context is not None:
                connection = context.wrap_socket(connection, server_hostname="127.0.0.1")
            with connection, connection.makefile("rb") as replies:

                def ask(**request: Any) -> Any:
                    line = json.dumps({"harpcaller": 1, "keepalive": True} | request)
                    connection.sendall(line.encode() + b"\n")
                    return json.loads(replies.readline())

                arguments = ["x" * 500_000]
                for _ in range(3):
                    called = ask(host="web99", procedure="df", arguments=arguments)["job_id"]
                    self.assertEqual(ask(get_result=called)["error"]["type"], "unknown_host")
                    self.assertEqual(ask(get_status=called)["call"]["arguments"], arguments)
                    self.assertIn("error", ask(follow_stream=called, since=0))
                    self.assertEqual(ask(get_status="x")["error"]["type"], "invalid_jobid")
                    self.assertIn("extensions", ask(server_info=True))

        for address, context in ((plain, None), (secured, tls)):
            made = self.started(listen=address)
            await deferToThread(talk, context)
            await made.stopService()

    async def test_stop_on_request(self) -> None:
        """Who may stop it is answered, and the daemon ends; asked again, it does not end twice."""
        made = self.started(shutdown_grace=7)
        wanted = {"stopping": True, "running": 0, "grace": 7}
        for _ in range(2):
            self.assertEqual(await self.told(b'"stop":true'), wanted)
        await self.until(lambda: self.reactor.stops)
        await made.stopService()
        self.assertEqual(self.reactor.stops, 1)

    async def test_stop_when_stopping(self) -> None:
        """A request to stop changes nothing where a signal has done it already."""
        harpds = self.harpds()
        made = self.started(shutdown_grace=60)
        await self.call()
        await self.until(lambda: harpds.connections)
        stopped = made.stopService()
        wanted = {"stopping": True, "running": 1, "grace": 60}
        self.assertEqual(await self.told(b'"stop":true'), wanted)
        harpds.connections[0].leave()
        await stopped
        self.assertEqual(self.reactor.stops, 0)

    async def test_stop_with_grace(self) -> None:
        """When it stops, new calls are refused, and what runs gets its time and its result."""
        harpds = self.harpds()
        made = self.started(shutdown_grace=60)
        job_id = await self.call()
        await self.until(lambda: harpds.connections)
        waiting = await self.begin(b'{"harpcaller":1,"get_result":"%b"}' % job_id)
        stopped = made.stopService()
        refused = await self.told(b'"host":"web01","procedure":"df","arguments":[]')
        self.assertEqual(refused["error"]["type"], "shutdown")
        self.assertEqual(await self.state(job_id), "running")
        self.assertFalse(stopped.called)
        harpds.connections[0].leave()
        self.assertEqual(json.loads(await waiting.answer)["error"]["type"], "ssl")
        await stopped

    async def test_stop_when_the_grace_is_over(self) -> None:
        """What runs longer than it may ends, and who waits for it is told so; the rest waits on."""
        harpds = self.harpds()
        made = self.started(shutdown_grace=0.2, max_running=1)
        running, waiting = await self.call(), await self.call()
        await self.until(lambda: harpds.connections)
        client = await self.begin(b'{"harpcaller":1,"get_result":"%b"}' % running)
        await made.stopService()
        self.assertEqual(json.loads(await client.answer)["error"]["type"], "shutdown")
        await self.until(lambda: not harpds.connections)
        job = await self.in_store(lambda store: store.job(waiting.decode()))
        self.assertEqual((job.state, job.end), (JobState.WAITING, None))

    async def test_stop_while_it_recovers(self) -> None:
        """Who stops it while the last run's jobs are put in order loses none that waits."""

        async def submit(store: JobStore) -> str:
            await store.submit(new_job(ONE_AT_A_TIME), 1.0)
            return (await store.submit(new_job(ONE_AT_A_TIME), 1.0)).job_id

        waiting = await self.in_store(lambda store: Deferred.fromCoroutine(submit(store)))
        harpds = self.harpds()
        recovering: Deferred[None] = Deferred()
        recover = JobStore.recover

        def slow_recover(store: JobStore, now: float) -> Deferred[Any]:
            recovering.callback(None)
            return recover(store, now)

        self.patch(JobStore, "recover", slow_recover)
        made = self.started(shutdown_grace=60)
        await recovering
        stopped = made.stopService()
        await self.until(lambda: harpds.connections)
        harpds.connections[0].leave()
        await stopped
        job = await self.in_store(lambda store: store.job(waiting))
        self.assertIn(b'"type":"ssl"', job.end.value)

    async def test_stop_while_it_starts(self) -> None:
        """A service stopped before it was ready starts no job that waits, and stops properly."""

        async def submit(store: JobStore) -> str:
            await store.submit(new_job(ONE_AT_A_TIME), 1.0)
            return (await store.submit(new_job(ONE_AT_A_TIME), 1.0)).job_id

        waiting = await self.in_store(lambda store: Deferred.fromCoroutine(submit(store)))
        self.deployment.close_hosts(self)
        made = self.started()
        await self.until((self.deployment.folder / "gate.asked").exists)
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

    async def test_port_that_takes_its_time(self) -> None:
        """What a plug-in's endpoint says only later ends the daemon as well."""
        self.patch(service, "atexit", SimpleNamespace(register=lambda *call: None))
        later: Deferred[object] = Deferred()
        self.patch(listen, "endpoint", lambda *_: SimpleNamespace(listen=lambda _: later))
        self.made()
        self.assertEqual(self.reactor.stops, 0)
        later.errback(CannotListenError("127.0.0.1", 1, OSError("in use")))
        self.assertEqual(self.reactor.stops, 1)
        self.assertEqual(len(self.flushLoggedErrors(CannotListenError)), 1)

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


class LogLevelTests(ServiceTestCase):
    """What is logged at all."""

    async def messages(self, level: str) -> set[LogLevel]:
        """Return the levels of what a service logs from its start to its stop."""
        self.addCleanup(logs.set_level, "info")
        with capturedLogs() as logged:
            made = self.started(log_level=level)
            await self.ask(b'"get_status":"x"')
            await made.stopService()
        ours = [each for each in logged if str(each["log_namespace"]).startswith("harpcaller")]
        return {each["log_level"] for each in ours}

    async def test_info(self) -> None:
        """At the level info it is told that the dispatcher is ready, and what it warns of."""
        self.assertEqual(await self.messages("info"), {LogLevel.info, LogLevel.warn})

    async def test_warn(self) -> None:
        """At the level warn nothing below is told, not even that."""
        self.assertEqual(await self.messages("warn"), {LogLevel.warn})


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
