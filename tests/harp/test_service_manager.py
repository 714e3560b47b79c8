"""Tests of harp.service_manager: real datagrams, to a socket that is the service manager's."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import tempfile
import time
import uuid
from pathlib import Path

from twisted.internet.task import Clock
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from harp.service_manager import AGAIN, STATUS_INTERVAL, ServiceManager


class ManagerTestCase(SynchronousTestCase):
    """A socket in a folder of its own."""

    def setUp(self) -> None:
        folder = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, folder)
        self.address = str(folder / "notify")
        self.clock = Clock()
        self.end = self.bound(self.address)
        self.text = "3 hosts"

    def bound(self, address: str) -> socket.socket:
        """Return a socket of a service manager's."""
        end = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.addCleanup(end.close)
        end.bind(address)
        end.setblocking(False)
        return end

    def made(self, **more: str) -> ServiceManager:
        """Return a manager that listens at the address, and is told of a status."""
        manager = ServiceManager(self.clock, {"NOTIFY_SOCKET": self.address, **more})
        manager.watch(lambda: self.text)
        return manager

    def told(self) -> list[str]:
        """Return what has come."""
        found = []
        while True:
            try:
                found.append(self.end.recv(4096).decode())
            except BlockingIOError:
                return found


class StateTests(ManagerTestCase):
    """What the daemon says of its own life."""

    def test_life(self) -> None:
        """Each state is told in the words of sd_notify(3), nothing before there is one."""
        manager = self.made()
        self.assertEqual(self.told(), [])
        manager.ready()
        self.assertEqual(self.told(), ["READY=1\nSTATUS=3 hosts"])
        before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        manager.reloading()
        (message,) = self.told()
        state, _, stamp = message.partition("\nMONOTONIC_USEC=")
        self.assertEqual(state, "RELOADING=1")
        after = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        self.assertTrue(before <= int(stamp) <= after, (before, stamp, after))
        manager.stopping()
        self.assertEqual(self.told(), ["STOPPING=1"])

    def test_nothing_after_the_end_has_begun(self) -> None:
        """A daemon that stops is not taken for one that is ready again."""
        manager = self.made()
        manager.stopping()
        manager.reloading()
        manager.ready()
        self.assertEqual(self.told(), ["STOPPING=1"])

    def test_abstract(self) -> None:
        """An address with @ is one that is not on disk."""
        name = f"harpcaller-test-{uuid.uuid4()}"
        self.end = self.bound(f"\0{name}")
        self.address = f"@{name}"
        self.made().ready()
        self.assertEqual(len(self.told()), 1)

    def test_nobody(self) -> None:
        """Where nobody wants to know nothing is told, and no timer runs."""
        for environ in ({}, {"NOTIFY_SOCKET": ""}, {"NOTIFY_SOCKET": "vsock:2:1234"}):
            manager = ServiceManager(self.clock, environ)
            manager.watch(lambda: self.text)
            manager.ready()
            manager.stopping()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_environment(self) -> None:
        """What the daemon starts does not find the variables, and finds all others."""
        environ = {
            "NOTIFY_SOCKET": self.address,
            "WATCHDOG_USEC": "1000000",
            "WATCHDOG_PID": str(os.getpid()),
            "TZ": "UTC",
        }
        ServiceManager(self.clock, environ)
        self.assertEqual(environ, {"TZ": "UTC"})

    def test_gone(self) -> None:
        """That the manager is gone ends nothing, and is logged."""
        manager = self.made()
        os.unlink(self.address)
        with capturedLogs() as logs:
            manager.ready()
        (line,) = map(formatEvent, logs)
        self.assertIn("can't be told READY=1: [Errno 2]", line)

    def test_no_room(self) -> None:
        """While the manager's queue is full nobody waits; all is told later, in its order."""
        manager = self.made(WATCHDOG_USEC="1000000")
        self.fill()
        manager.ready()
        self.clock.advance(0.5)
        manager.stopping()
        self.assertNotIn("STOPPING=1", self.told())
        self.clock.advance(AGAIN)
        wanted = ["READY=1\nSTATUS=3 hosts", "WATCHDOG=1", "STOPPING=1"]
        self.assertEqual([m for m in self.told() if m in wanted], wanted)
        manager.close()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_no_room_for_a_reload(self) -> None:
        """Nor is the end of a reload lost, though it is told in the words that wait already."""
        manager = self.made()
        self.fill()
        manager.ready()
        manager.reloading()
        manager.ready()
        self.told()
        self.clock.advance(AGAIN)
        states = [message.partition("\n")[0] for message in self.told()]
        self.assertEqual(states, ["READY=1", "RELOADING=1", "READY=1"])

    def fill(self) -> None:
        """Leave no room in the manager's queue, whoever sends (of one sender there is a limit)."""
        sent = 1
        while sent:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as filler:
                filler.setblocking(False)
                sent = 0
                with contextlib.suppress(BlockingIOError):
                    while True:
                        filler.sendto(b"x", self.address)
                        sent += 1


class WatchdogTests(ManagerTestCase):
    """That the reactor turns is told in time, and only as long as it does."""

    def test_half(self) -> None:
        """It is told twice within the limit, until the daemon is gone."""
        manager = self.made(WATCHDOG_USEC="6000000", WATCHDOG_PID=str(os.getpid()))
        self.assertEqual(self.told(), ["WATCHDOG=1"])
        self.clock.advance(2.9)
        self.assertEqual(self.told(), [])
        self.clock.advance(0.1)
        self.assertEqual(self.told(), ["WATCHDOG=1"])
        manager.stopping()
        self.clock.advance(3)
        self.assertEqual(self.told(), ["STOPPING=1", "WATCHDOG=1"])
        manager.close()
        self.clock.advance(30)
        self.assertEqual(self.told(), [])

    def test_not_asked(self) -> None:
        """Where the manager does not ask, or asks another process, or nonsense, it is not told."""
        for more in (
            {},
            {"WATCHDOG_USEC": "0"},
            {"WATCHDOG_USEC": "-1"},
            {"WATCHDOG_USEC": "6000000", "WATCHDOG_PID": "1"},
        ):
            self.made(**more)
        self.clock.advance(60)
        self.assertEqual(self.told(), [])

    def test_status(self) -> None:
        """What the daemon does is told again when it has changed."""
        manager = self.made()
        manager.ready()
        self.told()
        self.clock.advance(STATUS_INTERVAL)
        self.assertEqual(self.told(), [])
        self.text = "4 hosts"
        self.clock.advance(STATUS_INTERVAL)
        self.assertEqual(self.told(), ["STATUS=4 hosts"])
