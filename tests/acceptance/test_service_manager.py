"""What systemd sees of the daemons: told states, sockets handed over, lines of the journal."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import ssl
import struct
import sys
import tempfile
from pathlib import Path
from threading import Thread
from typing import Any, ClassVar

from twisted.trial.unittest import SynchronousTestCase

import harp
from harpcaller.demo.deployment import HOST, Daemon, StartError
from tests.acceptance.daemons import (
    PATIENCE,
    ask_harpd,
    deploy,
    eventually,
    harpd_processes,
    harpd_request,
)

ACTIVATE = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ.update(LISTEN_FDS="1", LISTEN_FDNAMES="x", LISTEN_PID=str(os.getpid()))
os.execv(sys.argv[2], sys.argv[2:])
"""
"""Starts a program with a socket as systemd does it (sd_listen_fds(3))."""

_CREDENTIALS = struct.Struct("3i")


class Manager:
    """A service manager's end: what came, and from which process."""

    def __init__(self) -> None:
        self.folder = tempfile.mkdtemp()
        self.address = f"{self.folder}/notify"
        self.messages: list[str] = []
        self.senders: set[int] = set()
        self._end = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._end.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        self._end.bind(self.address)
        os.chmod(self.address, 0o666)
        os.chmod(self.folder, 0o755)  # harpd may have become another user
        self._end.setblocking(False)

    def close(self) -> None:
        """Be there no more."""
        self._end.close()
        shutil.rmtree(self.folder)

    def has(self, wanted: str) -> bool:
        """Tell whether a message with that line has come."""
        while True:
            try:
                data, control, _, _ = self._end.recvmsg(4096, 100)
            except BlockingIOError:
                return any(wanted in message.split("\n") for message in self.messages)
            self.messages.append(data.decode())
            for _, _, credentials in control:
                self.senders.add(_CREDENTIALS.unpack(credentials)[0])

    def wait(self, wanted: str) -> None:
        """Return when it has."""
        eventually(lambda: self.has(wanted), f"{wanted} is told")

    def forget(self) -> None:
        """Count only what comes from now on."""
        self.has("")
        self.messages.clear()


class ManagedTestCase(SynchronousTestCase):
    """A deployment, and a service manager for one of its daemons."""

    listen: ClassVar[dict[str, Any]] = {}

    def setUp(self) -> None:
        self.deployment = deploy(harpd={"kill_grace": 0.5}, **self.listen)
        self.addCleanup(self.deployment.stop)
        self.manager = Manager()
        self.addCleanup(self.manager.close)

    def manage(self, daemon: Daemon, watchdog: str = "60000000") -> None:
        """Have a daemon tell the manager."""
        daemon.environment |= {"NOTIFY_SOCKET": self.manager.address, "WATCHDOG_USEC": watchdog}

    def tell(self, daemon: Daemon, number: signal.Signals) -> None:
        """Send a signal."""
        assert daemon.process is not None
        daemon.process.send_signal(number)

    def watch_life(self, daemon: Daemon, file: Path, procedures: str) -> None:
        """Check that what becomes of a running daemon is told, by itself alone."""
        assert daemon.process is not None
        pid = daemon.process.pid
        for contents, refused in ((file.read_text(), False), ("nonsense: 1\n", True)):
            self.manager.forget()
            file.write_text(contents)
            self.tell(daemon, signal.SIGHUP)
            self.manager.wait("READY=1")
            # Between them it may be told that the reactor turns, and what goes on.
            reloading, ready = (m for m in self.manager.messages if m.startswith("RE"))
            self.assertRegex(reloading, r"^RELOADING=1\nMONOTONIC_USEC=[0-9]+$")
            self.assertEqual("the last reload was refused" in ready, refused, ready)
            self.assertIn(procedures, ready)
        self.manager.wait("WATCHDOG=1")
        self.tell(daemon, signal.SIGTERM)
        daemon.process.wait(PATIENCE)
        self.manager.wait("STOPPING=1")
        self.assertNotIn("READY=1", self.manager.messages[-1])
        self.assertEqual(self.manager.senders, {pid})


class NotifyTests(ManagedTestCase):
    """Type=notify of the units."""

    def test_harpd(self) -> None:
        """Calls can be taken when it says so; reload, end and the turning reactor are told."""
        harpd = self.deployment.harpd
        self.manage(harpd, watchdog="400000")
        harpd.start()
        self.manager.wait("READY=1")
        answer = ask_harpd(self.deployment, harpd_request("add", [1]))
        self.assertIn(b'"result"', answer)
        for name, pid in harpd_processes(self.deployment).items():
            variables = Path(f"/proc/{pid}/environ").read_bytes()
            self.assertNotIn(b"NOTIFY_SOCKET", variables, name)
            self.assertNotIn(b"WATCHDOG", variables, name)
        self.watch_life(harpd, self.deployment.folder / "harpd.yaml", " procedures, ")

    def test_dispatcher(self) -> None:
        """It says so when it has its hosts; reload, end and the turning reactor are told."""
        dispatcher = self.deployment.harpcaller
        script = self.deployment.folder / "list-hosts"
        gate, asked = script.with_name("gate"), script.with_name("asked")
        first, _, rest = script.read_text().partition("\n")
        ask = f"env >{asked}.new; mv {asked}.new {asked}"
        wait = f"until [ -e {gate} ]; do sleep 0.05; done"
        script.write_text(f"{first}\n{ask}\n{wait}\n{rest}")
        self.manage(dispatcher, watchdog="400000")
        starting = Thread(target=dispatcher.start)
        starting.start()
        self.addCleanup(starting.join)
        self.addCleanup(gate.touch)
        eventually(asked.exists, "the hosts are asked for")
        self.assertFalse(self.manager.has("READY=1"))
        self.assertNotIn("NOTIFY_SOCKET", asked.read_text())
        gate.touch()
        starting.join()
        self.manager.wait("READY=1")
        self.watch_life(dispatcher, self.deployment.folder / "harpcaller.yaml", "1 hosts, 0 jobs")


class ActivationTests(ManagedTestCase):
    """The socket units: the port is there before the daemon, and while it is restarted."""

    listen: ClassVar[dict[str, Any]] = {"listen": ["systemd:domain=INET:index=0"]}

    def activate(self, daemon: Daemon, port: int) -> socket.socket:
        """Hand over a socket to a daemon."""
        opened = socket.create_server(("127.0.0.1", port))
        self.addCleanup(opened.close)
        daemon.inherited = [opened.fileno()]
        daemon.prefix = [sys.executable, "-c", ACTIVATE, str(opened.fileno())]
        return opened

    def test_dispatcher(self) -> None:
        """Who comes before the start, or between two runs, waits and is answered."""
        deployment = self.deployment
        dispatcher = deployment.harpcaller
        self.activate(dispatcher, deployment.port)
        for _ in range(2):
            with socket.create_connection(("127.0.0.1", deployment.port), PATIENCE) as early:
                early.sendall(b'{"harpcaller":1,"server_info":true}\n')
                dispatcher.start()
                self.assertIn(b'"harpcaller"', early.recv(4096))
            dispatcher.stop()

    def test_harpd(self) -> None:
        """Who comes before the start, or between two runs, waits and is answered."""
        deployment = self.deployment
        self.activate(deployment.harpd, deployment.harpd_port)
        context = ssl.create_default_context(cafile=str(deployment.ca_file))
        for _ in range(2):
            with socket.create_connection(("127.0.0.1", deployment.harpd_port), PATIENCE) as early:
                deployment.harpd.start()
                with context.wrap_socket(early, server_hostname=HOST) as connection:
                    connection.sendall(harpd_request("add", [1]))
                    self.assertIn(b'"result"', b"".join(iter(lambda: connection.recv(4096), b"")))
            deployment.harpd.stop()

    def test_another_socket(self) -> None:
        """Harpd does not start with a socket that its configuration does not mean."""
        self.activate(self.deployment.harpd, 0)
        error = self.assertRaises(StartError, self.deployment.harpd.start)
        self.assertIn("the socket that systemd has opened is at ('127.0.0.1', ", str(error))

    def test_no_socket(self) -> None:
        """The dispatcher does not start without the one that its configuration means."""
        error = self.assertRaises(StartError, self.deployment.harpcaller.start)
        self.assertIn("systemd has handed over no such socket", str(error))


class JournalTests(ManagedTestCase):
    """Under --nodaemon --pidfile= standard output is the log, for the journal to keep."""

    def test_lines(self) -> None:
        """From start to end each line is a JSON object, and nothing goes to standard error."""
        daemons = self.deployment.harpd, self.deployment.harpcaller
        for daemon in daemons:
            daemon.prefix = ["sh", "-c", f'exec "$@" 2>{daemon.name}.stderr', "sh"]
        with self.deployment:
            host = harp.HarpCaller("127.0.0.1", self.deployment.port).host(HOST)
            self.assertRaises(harp.RemoteException, host.fail("no\nway").get)
            self.assertEqual(host.print_much(1).get(), 1)
            for daemon in daemons:
                self.tell(daemon, signal.SIGHUP)
                eventually(lambda: b"SIGHUP" in daemon.log.read_bytes(), "it is read again")  # noqa: B023
        for daemon in daemons:
            self.assertEqual(daemon.log.with_name(f"{daemon.name}.stderr").read_text(), "")
            lines = [json.loads(line) for line in daemon.log.read_text().splitlines()]
            self.assertGreater(len(lines), 3)
            for line in lines:
                self.assertLessEqual({"time", "level", "logger", "message"}, line.keys())
