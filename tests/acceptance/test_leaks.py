"""Nothing is left behind: processes, descriptors and memory, counted before and after."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

import harp
from harpd.tree import descendants
from tests.acceptance.daemons import (
    HOST,
    children,
    deploy,
    descriptors,
    eventually,
    harpd_processes,
    resident_kib,
)

CALLS = 500

WARM_UP = 200
"""Calls after which caches and allocators have what they keep."""

LONG, LONG_COUNT = 1_000_000, 60
"""The size of long packets in bytes, and how many there are."""

LONG_KIB = 20_000_000 // 1024
"""What a process may grow by for them, however many there are, also if their reader is late."""

MEMORY_KIB = 4096
"""What a process may grow by in all calls: a leak of 8 KiB a call would be found."""


@dataclass(frozen=True)
class Holdings:
    """What one process has."""

    descendants: int
    descriptors: int


class LeakTests(SynchronousTestCase):
    """A long run costs no more than a short one."""

    def setUp(self) -> None:
        self.deployment = deploy()
        self.addCleanup(self.deployment.stop)
        self.deployment.__enter__()
        harpd, harpcaller = self.deployment.harpd.process, self.deployment.harpcaller.process
        assert harpd is not None
        assert harpcaller is not None
        inner = {name: pid for name, pid in harpd_processes(self.deployment).items() if pid}
        self.assertEqual(set(inner), {"keeper", "guard", "zygote"})
        self.processes = {"harpd": harpd.pid, "harpcaller": harpcaller.pid, **inner}

    def holdings(self) -> dict[str, Holdings]:
        return {
            name: Holdings(len(descendants(pid)), descriptors(pid))
            for name, pid in self.processes.items()
        }

    def memory(self) -> dict[str, int]:
        return {name: resident_kib(pid) for name, pid in self.processes.items()}

    def test_calls_of_all_kinds(self) -> None:
        """Calls that succeed, fail, stream, are cancelled, refused or left by their client."""
        kinds = self.kinds()
        for _ in range(WARM_UP):
            next(kinds)
        # The hosts script may be running, connections may be closing.
        before = self.settled()
        memory = self.memory()
        for _ in range(CALLS):
            next(kinds)
        eventually(lambda: self.holdings() == before, f"{self.holdings()} becomes {before}")
        for name, kib in self.memory().items():
            self.assertLess(kib - memory[name], MEMORY_KIB, name)

    def test_long_packets(self) -> None:
        """Packets of 1 MB, whose follower begins to read when the job has ended."""
        host = harp.HarpCaller("127.0.0.1", self.deployment.port).host(HOST)
        host.add(1).get()
        memory = self.memory()
        job = host.long_texts(LONG_COUNT, LONG)
        with job.follow(since=0) as packets:
            job.get()
            self.assertEqual([len(packet) for packet in packets], [LONG] * LONG_COUNT)
        for name, kib in self.memory().items():
            self.assertLess(kib - memory[name], LONG_KIB, name)

    def settled(self) -> dict[str, Holdings]:
        """Return what the processes have when no call is under way."""
        eventually(lambda: not children(self.processes["zygote"]), "the calls' processes end")
        seen = [self.holdings()]

        def is_steady() -> bool:
            seen.append(self.holdings())
            return len(seen) > 50 and all(held == seen[-1] for held in seen[-50:])

        eventually(is_steady, "nothing changes any more")
        return seen[-1]

    def kinds(self) -> Iterator[Any]:
        """Make a call at each step."""
        rpc = harp.HarpCaller("127.0.0.1", self.deployment.port)
        host = rpc.host(HOST)
        while True:
            yield host.add(1).get()
            yield host.fail("no").result(wait=True)
            yield host.nothing().result(wait=True)
            yield host.exit_hard(3).result(wait=True)
            yield host.die_by(9).result(wait=True)
            yield host.crash_with_child().result(wait=True)
            yield host.print_much(1).result(wait=True)
            yield host.large(128).result(wait=True)
            yield host.close_descriptors("/dev/null").result(wait=True)
            yield host.count(20).follow(since=0).all()
            yield rpc.host("nowhere").add(1).result(wait=True)
            job = rpc.host(HOST, queue={"name": "leaks"}).stay()
            with job.follow(since=0) as packets:
                next(packets)
            job.cancel()
            yield job.result(wait=True)
