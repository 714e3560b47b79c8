"""Tests of ``harpcaller.reload``: each key takes effect while jobs run, or all stays as it was."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import socket
import threading
from pathlib import Path
from typing import Any

import trustme
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.error import ConnectError
from twisted.internet.protocol import Protocol
from twisted.internet.ssl import PrivateCertificate
from twisted.internet.threads import deferToThread
from twisted.logger import capturedLogs
from twisted.trial.unittest import TestCase

from harp.session import IncomingCall
from harp.wire import harpd
from harp.wire.results import EndKind, EndResult
from harpcaller import config, logs, retention
from harpcaller.demo.deployment import Daemon
from harpcaller.demo.ports import free_port
from harpcaller.service import DispatcherService
from tests.harpcaller.services import Deployment, Harpds, ServiceTestCase

SESSION = IncomingCall()
ANSWER = SESSION.send(harpd.Ack(False)) + SESSION.send(EndResult(EndKind.RESULT, b"1"))


class ReloadTestCase(ServiceTestCase):
    """A test with a service that runs."""

    def setUp(self) -> None:
        """Choose a port."""
        super().setUp()
        self.port = free_port()
        self.deployment.settings["listen"] = [f"127.0.0.1:{self.port}"]
        self.addCleanup(logs.set_level, "info")

    async def ready(self, **settings: Any) -> DispatcherService:
        """Return a service that is ready."""
        made = self.started(**settings)
        await self.ask(b'"get_status":"x"')
        return made

    async def reload(self, **settings: Any) -> list[str]:
        """Write the configuration, ask for a reload and return the mistakes that are told."""
        self.deployment.write(**settings)
        answer = await self.told(b'"reload":true', self.port)
        mistakes: list[str] = answer.get("mistakes", [])
        self.assertEqual(answer["reloaded"], not mistakes)
        return mistakes

    async def assert_closed(self, port: int) -> None:
        """Check that nobody listens on a port."""
        endpoint = TCP4ClientEndpoint(self.reactor.real, "127.0.0.1", port)
        with self.assertRaises(ConnectError):
            await connectProtocol(endpoint, Protocol())

    async def limits(self) -> tuple[float, float]:
        """Return the time limits that a job gets now."""
        job_id = await self.call("web99")
        detail = (await self.told(b'"get_status":"%b","detail":true' % job_id))["detail"]
        return detail["timeout"], detail["max_exec_time"]

    async def hosts(self) -> list[str]:
        """Return the names of the hosts that are known."""
        return [each["name"] for each in (await self.told(b'"list_hosts":{}'))["hosts"]]


class KeyTests(ReloadTestCase):
    """What comes into force."""

    async def test_listen(self) -> None:
        """New addresses are opened, old ones closed, and who is being answered stays."""
        harpds = self.harpds()
        await self.ready()
        job_id = await self.call()
        waiting = await self.begin(b'{"harpcaller":1,"get_result":"%b"}' % job_id)
        other = free_port()
        self.assertEqual(await self.reload(listen=[f"127.0.0.1:{other}"]), [])
        await self.assert_closed(self.port)
        self.assertEqual(await self.told(b'"cancel":"%b"' % job_id, other), {"cancelled": True})
        self.assertEqual(json.loads(await waiting.answer), {"cancelled": True})
        await self.until(lambda: not harpds.connections)

    async def test_limits(self) -> None:
        """The time limits are those of the jobs to come."""
        harpds = self.harpds()
        await self.ready(default_timeout=7, max_exec_time=11)
        job_id = await self.call()
        self.assertEqual(await self.reload(default_timeout=8, max_exec_time=12), [])
        self.assertEqual(await self.limits(), (8, 12))
        old = (await self.told(b'"get_status":"%b","detail":true' % job_id))["detail"]
        self.assertEqual((old["state"], old["timeout"]), ("running", 7))
        self.assertEqual(len(harpds.connections), 1)

    async def test_capacity(self) -> None:
        """Where more may run than before, what waits for it starts."""
        harpds = self.harpds()
        await self.ready(max_running=1)
        jobs = [await self.call() for _ in range(3)]
        self.assertEqual(await self.reload(max_running=10, max_running_per_host=2), [])
        await self.until(lambda: len(harpds.connections) == 2)
        self.assertEqual(
            [await self.state(each) for each in jobs], ["running", "running", "waiting"]
        )
        self.assertEqual(await self.reload(max_running=10), [])
        await self.until(lambda: len(harpds.connections) == 3)

    async def test_hosts_script(self) -> None:
        """The script is run again at once; another one takes its place."""
        await self.ready()
        self.deployment.know("web02", 1)
        self.assertEqual(await self.reload(), [])
        while await self.hosts() != ["web01", "web02"]:
            pass
        other = self.deployment.folder / "other"
        script = self.deployment.folder / "hosts"
        other.write_text(script.read_text().replace("web02", "web03"))
        other.chmod(0o700)
        self.assertEqual(await self.reload(host_db_script="other"), [])
        while await self.hosts() != ["web01", "web03"]:
            pass

    async def test_hosts_file(self) -> None:
        """A file in place of the script is in force at once, and read again each time."""
        await self.ready()
        for key in ("host_db", "host_db_script"):
            del self.deployment.settings[key]
        file = self.deployment.folder / "hosts.yaml"
        for name in ("web04", "web05"):
            file.write_text(f"{name}: {{address: 10.0.0.1, credentials: {{user: u, password: p}}}}")
            self.assertEqual(await self.reload(hosts_file="hosts.yaml"), [])
            self.assertEqual(await self.hosts(), [name])

    async def test_log_level(self) -> None:
        """The level that is logged is the new one."""
        await self.ready()
        for level, expected in (("warn", 0), ("info", 1)):
            self.assertEqual(await self.reload(log_level=level), [])
            with capturedLogs() as logged:
                await self.ask(b'"get_result":"%b"' % await self.call("web99"))
            ended = [each for each in logged if "ended" in each["log_format"]]
            self.assertEqual(len(ended), expected)

    async def test_rules(self) -> None:
        """Rules are in force at once, for connections that are open and jobs that are there too."""
        sha = hashlib.sha256(b"secret").hexdigest()
        keys: dict[str, Any] = {"users": {"anna": {"tokens": f"sha256:{sha}"}}}
        await self.ready(**keys)
        job_id = await self.call("web99")
        asked = b'"get_status":"%b"' % job_id
        as_anna = b'"auth":{"token":"secret"},'
        keys["rules"] = [{"who": "anna", "administer": True}]
        self.assertEqual(await self.reload(**keys), [])
        for who in (b"", as_anna):
            self.assertEqual((await self.told(who + asked))["error"]["type"], "not_allowed")
        error = (await self.told(b'"reload":true'))["error"]
        self.assertEqual(error["type"], "not_allowed")
        keys["rules"][0]["see"] = ["all"]
        self.deployment.write(**keys)
        self.assertEqual(await self.told(as_anna + b'"reload":true'), {"reloaded": True})
        self.assertIn("call", await self.told(as_anna + asked))
        # What can't be understood changes nothing.
        keys["rules"][0]["see"] = ["bert"]
        self.deployment.write(**keys)
        answer = await self.told(as_anna + b'"reload":true')
        self.assertIn("rules.1.see", answer["mistakes"][0])
        self.assertIn("call", await self.told(as_anna + asked))
        self.assertEqual((await self.told(asked))["error"]["type"], "not_allowed")

    async def test_followed_job(self) -> None:
        """Who waits for a job goes on waiting where rules come into force that would refuse it."""
        self.harpds()
        made = await self.ready()
        job_id = await self.call()
        waiting = await self.begin(b'{"harpcaller":1,"get_result":"%b"}' % job_id)
        await self.until(lambda: made._dispatcher._announcements._watchers)
        rules = [{"who": "anonymous", "cancel": "all"}]
        self.assertEqual(await self.reload(rules=rules), [])
        refused = await self.told(b'"get_result":"%b"' % job_id)
        self.assertEqual(refused["error"]["type"], "not_allowed")
        self.assertEqual(await self.told(b'"cancel":"%b"' % job_id), {"cancelled": True})
        self.assertEqual(json.loads(await waiting.answer), {"cancelled": True})

    async def test_ages(self) -> None:
        """What is too old by the new ages is forgotten."""
        self.patch(retention, "INTERVAL", 0.01)
        await self.ready()
        job_id = await self.call("web99")
        await self.ask(b'"get_result":"%b"' % job_id)
        self.assertEqual(await self.reload(max_age=0.0001), [])
        while b"invalid_jobid" not in await self.ask(b'"get_status":"%b"' % job_id):
            pass

    async def test_idempotency_key_life(self) -> None:
        """A key stands for its job as long as the new configuration says."""
        await self.ready()
        key = b',"idempotency_key":"k"'
        first = await self.call("web99", key)
        self.assertEqual(await self.call("web99", key), first)
        self.assertEqual(await self.reload(idempotency_key_life=0.0001), [])
        while await self.call("web99", key) == first:
            pass

    async def test_shutdown_grace(self) -> None:
        """Who stops the dispatcher waits as long as the new configuration says."""
        harpds = self.harpds()
        made = await self.ready(shutdown_grace=3600)
        await self.call()
        await self.until(lambda: harpds.connections)
        self.assertEqual(await self.reload(shutdown_grace=0.1), [])
        await made.stopService()


class TrustTests(ReloadTestCase):
    """Certificates of harpd."""

    def played(self, authority: trustme.CA) -> Harpds:
        """Play harpd with a certificate of an authority."""
        harpds = Harpds(ANSWER)
        pem = authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.bytes()
        options = PrivateCertificate.loadPEM(pem).options()
        port: Any = self.reactor.listenSSL(0, harpds, options, interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        self.deployment.know("web01", port.getHost().port)
        return harpds

    async def outcome(self) -> Any:
        """Return how a job ends now."""
        return await self.told(b'"get_result":"%b"' % await self.call())

    async def test_changed(self) -> None:
        """The next job is judged by the new certificates, whatever connections there are."""
        old, new = trustme.CA(), trustme.CA()
        harpds = self.played(old)
        file = self.deployment.folder / "ca.pem"
        old.cert_pem.write_to_path(str(file))
        await self.ready(ca_file="ca.pem")
        self.assertEqual(await self.outcome(), {"result": 1})
        (kept,) = harpds.connections
        self.assertEqual(await self.reload(ca_file="ca.pem"), [])
        self.assertEqual(await self.outcome(), {"result": 1})
        self.assertEqual(harpds.connections, [kept])
        new.cert_pem.write_to_path(str(file))
        self.assertEqual(await self.reload(ca_file="ca.pem"), [])
        self.assertEqual((await self.outcome())["error"]["type"], "ssl")
        await self.until(lambda: not harpds.connections)
        self.assertEqual(await self.reload(), [])
        self.assertEqual(await self.outcome(), {"result": 1})
        await self.until(lambda: len(harpds.connections) == 1)


class MistakeTests(ReloadTestCase):
    """What can't come into force leaves everything as it was."""

    async def test_mistakes(self) -> None:
        """Every mistake is told with its place and logged; what runs runs on."""
        harpds = self.harpds()
        await self.ready(default_timeout=7, max_exec_time=11)
        job_id = await self.call()
        await self.until(lambda: harpds.connections)
        with capturedLogs() as logged:
            first, second = await self.reload(max_running="many", max_age=-1, max_exec_time=12)
        self.assertTrue(first.startswith(f"{self.deployment.file}: max_running, line 1: "), first)
        self.assertTrue(second.startswith(f"{self.deployment.file}: max_age, line 1: "), second)
        (told,) = [each for each in logged if "stays as it was" in each["log_format"]]
        self.assertEqual(told["mistakes"], f"{first}; {second}")
        self.assertEqual(await self.limits(), (7, 11))
        self.assertEqual(await self.state(job_id), "running")
        self.assertEqual(len(harpds.connections), 1)

    async def test_no_yaml(self) -> None:
        """A file that can't be parsed is a mistake like any other, and is not quoted."""
        await self.ready(max_exec_time=11)
        self.deployment.file.write_text("listen: '*:1'\npassword: s3cret: x\n")
        (mistake,) = (await self.told(b'"reload":true'))["mistakes"]
        self.assertIn("line 2, column 17: is not YAML", mistake)
        self.assertNotIn("s3cret", mistake)
        self.assertEqual(await self.limits(), (11, 11))
        self.deployment.file.unlink()
        (mistake,) = (await self.told(b'"reload":true'))["mistakes"]
        self.assertIn("can't be read", mistake)

    async def test_database(self) -> None:
        """Another database needs a restart; nothing else comes into force either."""
        await self.ready(max_exec_time=11)
        (mistake,) = await self.reload(max_exec_time=12, database="sqlite:///other.db")
        self.assertEqual(
            mistake, f"{self.deployment.file}: database: can't be changed but by a restart"
        )
        self.assertEqual(await self.limits(), (11, 11))
        self.assertFalse((self.deployment.folder / "other.db").exists())

    async def test_address_in_use(self) -> None:
        """An address that can't be bound is named; nothing else comes into force either."""
        await self.ready(max_exec_time=11)
        other = free_port()
        with socket.create_server(("127.0.0.1", 0)) as taken:
            listen = [f"127.0.0.1:{other}", f"127.0.0.1:{taken.getsockname()[1]}"]
            (mistake,) = await self.reload(max_exec_time=12, listen=listen)
        self.assertTrue(mistake.startswith(f"listen: {listen[1]}: "), mistake)
        self.assertEqual(await self.limits(), (11, 11))
        await self.assert_closed(other)

    async def test_hosts_file(self) -> None:
        """A mistake in the hosts file is told with its place there; the old hosts stay."""
        for key in ("host_db", "host_db_script"):
            del self.deployment.settings[key]
        self.deployment.settings["hosts_file"] = "hosts.yaml"
        file = self.deployment.folder / "hosts.yaml"
        file.write_text("web04: {address: 10.0.0.1, credentials: {user: u, password: p}}")
        await self.ready()
        file.write_text("web05: {address: 10.0.0.1, credentials: {user: u}}")
        (mistake,) = await self.reload()
        self.assertIn(f"hosts_file, line 1: {file}: web05.credentials.password", mistake)
        self.assertEqual(await self.hosts(), ["web04"])

    async def test_own_mistake(self) -> None:
        """A mistake in the dispatcher itself is for the log, and the next reload may succeed."""
        await self.ready()
        load = config.load

        def fail(path: Path) -> config.Config:
            raise ZeroDivisionError("secret")

        self.patch(config, "load", fail)
        self.assertEqual(await self.reload(), ["an internal failure, see the log"])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.patch(config, "load", load)
        self.assertEqual(await self.reload(), [])


class TurnTests(ReloadTestCase):
    """When the reload comes at an awkward moment."""

    async def test_two_at_once(self) -> None:
        """The second waits for the first, then reads what is in the file by then."""
        await self.ready(max_exec_time=11)
        load, may_go_on, begun = config.load, threading.Semaphore(0), threading.Semaphore(0)
        loads = []

        def slow_load(path: Path) -> config.Config:
            loads.append(path)
            begun.release()
            may_go_on.acquire()
            return load(path)

        self.patch(config, "load", slow_load)
        first = await self.begin(b'{"harpcaller":1,"reload":true}')
        await deferToThread(begun.acquire)
        second = await self.begin(b'{"harpcaller":1,"reload":true}')
        await self.ask(b'"get_status":"x"')  # the other request has been seen by then
        self.assertEqual(len(loads), 1)
        self.deployment.write(max_exec_time=12)
        may_go_on.release()
        self.assertEqual(json.loads(await first.answer), {"reloaded": True})
        self.assertFalse(second.answer.called)
        self.deployment.write(max_exec_time=13)
        may_go_on.release()
        self.assertEqual(json.loads(await second.answer), {"reloaded": True})
        self.assertEqual(await self.limits(), (13, 13))

    async def test_hang_up(self) -> None:
        """SIGHUP is a reload too, and the log tells of it as of one that somebody asked for."""
        await self.ready(max_exec_time=11)
        self.deployment.write(max_exec_time=12)
        with capturedLogs() as lines:
            os.kill(os.getpid(), signal.SIGHUP)
            while await self.limits() != (12, 12):
                pass
        told = [line["audit"] for line in lines if line.get("audit", {})]
        reloads = [each for each in told if each["action"] == "reload"]
        self.assertEqual(reloads, [{"action": "reload", "decision": "allowed", "peer": "SIGHUP"}])

    async def test_hang_up_while_it_starts(self) -> None:
        """A SIGHUP that comes too early is obeyed as soon as that can be done."""
        open_hosts = self.deployment.close_hosts(self)
        self.started(max_exec_time=11)
        await self.ask(b"nonsense")
        self.deployment.write(max_exec_time=12)
        os.kill(os.getpid(), signal.SIGHUP)
        open_hosts()
        open_hosts()  # for the run that the reload begins
        while await self.limits() != (12, 12):
            pass

    async def test_while_it_stops(self) -> None:
        """A dispatcher that is being stopped takes no new configuration, and SIGHUP is nothing."""
        harpds = self.harpds()
        made = await self.ready(shutdown_grace=60, max_exec_time=11)
        await self.call()
        await self.until(lambda: harpds.connections)
        stopped = made.stopService()
        os.kill(os.getpid(), signal.SIGHUP)
        (mistake,) = await self.reload(max_exec_time=12)
        self.assertIn("being started or stopped", mistake)
        harpds.connections[0].leave()
        await stopped

    async def test_stopped_in_mid_reload(self) -> None:
        """Who stops the dispatcher while it reloads waits for that, and everything is closed."""
        made = await self.ready()
        load, may_go_on, begun = config.load, threading.Semaphore(0), threading.Semaphore(0)

        def slow_load(path: Path) -> config.Config:
            begun.release()
            may_go_on.acquire()
            return load(path)

        self.patch(config, "load", slow_load)
        other = free_port()
        self.deployment.write(listen=[f"127.0.0.1:{other}"])
        answer = await self.begin(b'{"harpcaller":1,"reload":true}')
        await deferToThread(begun.acquire)
        stopped = made.stopService()
        may_go_on.release()
        await stopped
        self.assertEqual(json.loads(await answer.answer), {"reloaded": True})
        await self.assert_closed(self.port)
        await self.assert_closed(other)


class DaemonTests(TestCase):
    """The daemon itself, started by twistd."""

    timeout = 60

    async def test_hang_up(self) -> None:
        """SIGHUP changes its address; with a mistake it stays; SIGTERM ends it."""
        deployment = Deployment(Path(self.mktemp()))
        first, second = free_port(), free_port()
        path = deployment.write(listen=[f"127.0.0.1:{first}"])
        daemon = Daemon(deployment.folder, "harpcaller", [f"--config={path}"])
        await deferToThread(daemon.start)
        self.addCleanup(daemon.kill)
        process = daemon.process
        assert process is not None

        async def logged(text: bytes) -> None:
            while text not in daemon.log.read_bytes():
                self.assertIsNone(process.poll())
                await deferToThread(lambda: None)

        deployment.write(listen=[f"127.0.0.1:{second}"])
        process.send_signal(signal.SIGHUP)
        await logged(b"is in force")
        with socket.create_connection(("127.0.0.1", second)):
            pass
        self.assertRaises(ConnectionRefusedError, socket.create_connection, ("127.0.0.1", first))
        deployment.write(max_running=0)
        process.send_signal(signal.SIGHUP)
        await logged(b"max_running, line 1: must be a whole number")
        with socket.create_connection(("127.0.0.1", second)):
            pass
        self.assertEqual(await deferToThread(daemon.stop), -signal.SIGTERM)

    async def test_hang_up_at_birth(self) -> None:
        """A SIGHUP that comes before it is ready does not end it."""
        deployment = Deployment(Path(self.mktemp()))
        open_hosts = deployment.close_hosts(self)
        path = deployment.write()
        daemon = Daemon(deployment.folder, "harpcaller", [f"--config={path}"])
        started = deferToThread(daemon.start)
        self.addCleanup(daemon.kill)
        while not (deployment.folder / "gate.asked").exists():
            await deferToThread(lambda: None)
        process = daemon.process
        assert process is not None
        process.send_signal(signal.SIGHUP)
        open_hosts()
        open_hosts()
        await started
        while b"is in force" not in daemon.log.read_bytes():
            self.assertIsNone(process.poll())
            await deferToThread(lambda: None)
        self.assertEqual(await deferToThread(daemon.stop), -signal.SIGTERM)
