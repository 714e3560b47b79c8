"""No descriptors, no processes or no memory are left, as the kernel's limits have it."""

from __future__ import annotations

import contextlib
import resource
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import harp
from tests.acceptance.daemons import descriptors
from tests.faults import groups
from tests.faults.setting import FaultTestCase, eventually


def status_kib(pid: int, field: str) -> int:
    """Return a figure of proc(5), ``/proc/PID/status``."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1])
    raise AssertionError(f"no {field}")


class ResourceTests(FaultTestCase):
    """A daemon that gets nothing more refuses what is new, and keeps what it has."""

    def setUp(self) -> None:
        self.deploy()
        self.begin()

    @contextmanager
    def limited(self, pid: int, which: int, most: int) -> Iterator[None]:
        """Lower a limit of a process that runs, for the ``with`` block."""
        before = resource.prlimit(pid, which)
        resource.prlimit(pid, which, (most, before[1]))
        try:
            yield
        finally:
            resource.prlimit(pid, which, before)

    @contextmanager
    def crowd(self, port: int, count: int) -> Iterator[None]:
        """Keep so many connections open that say nothing."""
        crowd = []
        try:
            for _ in range(count):
                crowd.append(socket.create_connection(("127.0.0.1", port), 20))
            yield
        finally:
            for connection in crowd:
                connection.close()

    def test_descriptors_of_the_dispatcher(self) -> None:
        """Who can't be taken is sent away at once; who is connected goes on."""
        pid = self.pid("harpcaller")
        self.others_go_on()  # so that there is a connection with each of the hosts
        before = descriptors(pid)
        with (
            self.limited(pid, resource.RLIMIT_NOFILE, before + 10),
            self.crowd(self.deployment.port, 30),
        ):
            self.assertEqual(self.host.add(1).get(), 2)
            self.others_go_on()
            stranger = harp.HarpCaller("127.0.0.1", self.deployment.port)
            with self.assertRaises(harp.CommunicationError):
                stranger.host("any").add(1)
            jobs = [self.host.sleep(0.05) for _ in range(20)]
            ends = [job.result(wait=True) for job in jobs]
            for end in ends:
                if end is not None:
                    assert isinstance(end, harp.RemoteError), end
                    self.assertIn(end.type, {"network_error", "os_error"})
        eventually(lambda: descriptors(pid) < before + 10, "the crowd's connections are closed")
        self.assertEqual(stranger.host("any").add(1).result(wait=True).type, "unknown_host")
        self.all_is_well()

    def test_descriptors_of_harpd(self) -> None:
        """Calls that get none end with an error that says so, or find no connection."""
        pid = self.pid("harpd")
        before = descriptors(pid)
        with self.limited(pid, resource.RLIMIT_NOFILE, before + 2):
            jobs = [self.host.sleep(0.2) for _ in range(10)]
            self.others_go_on()
            errors = [end for job in jobs if (end := job.result(wait=True)) is not None]
        self.assertTrue(errors)
        for error in errors:
            assert isinstance(error, harp.RemoteError), error
            self.assertIn(error.type, {"system_error", "network_error", "closed", "ssl"})
        self.all_is_well()

    def test_processes(self) -> None:
        """A call that can't be forked ends with system_error, which names fork."""
        zygote = self.helper("zygote")
        limit = groups.no_more_processes(zygote)
        if isinstance(limit, str):
            self.skipTest(limit)
        self.addCleanup(limit)
        for _ in range(3):
            error = self.error_of(self.host.add(1))
            self.assertEqual(error.type, "system_error")
            self.assertIn("fork", error.message)
            self.assertFalse(error.may_have_run)
        self.others_go_on()
        limit()
        self.all_is_well()

    def no_memory(self, pid: int, provoke: Callable[[], None]) -> None:
        """Let a process have no more address space than it has, and make it ask for more."""
        kib = status_kib(pid, "VmSize")
        with self.limited(pid, resource.RLIMIT_AS, (kib + 1024) << 10):
            provoke()
            self.others_go_on()
        self.all_is_well()

    def test_memory_of_the_dispatcher(self) -> None:
        """A result that it can't hold does not end it."""

        def provoke() -> None:
            job = self.host.large(15 * 1024)
            with contextlib.suppress(harp.CommunicationError):
                # Not after a time limit: that harpd was not listened to any more is told.
                self.assertIn(self.error_of(job).type, {"closed", "os_error"})

        self.no_memory(self.pid("harpcaller"), provoke)

    def test_memory_of_harpd(self) -> None:
        """As that of the dispatcher."""

        def provoke() -> None:
            error = self.error_of(self.host.large(15 * 1024))
            self.assertIn(error.type, {"closed", "system_error", "killed"})

        self.no_memory(self.pid("harpd"), provoke)

    def test_memory_of_the_zygote(self) -> None:
        """A call inherits the limit: what it can't hold is its own exception, or its end."""

        def provoke() -> None:
            for _ in range(3):
                end = self.host.large(15 * 1024).result(wait=True)
                assert isinstance(end, harp.RemoteError | harp.RemoteException), end
                self.assertIn(end.type, {"MemoryError", "killed", "system_error"})

        self.no_memory(self.helper("zygote"), provoke)
