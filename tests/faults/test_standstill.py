"""A process stands still for a while, as by SIGSTOP, or on a machine that has stopped for it."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager

import harp
from harpcaller.demo.deployment import HOST
from tests.acceptance.daemons import is_alive
from tests.faults.setting import LONG, FaultTestCase, eventually

STANDSTILL = 60.0 if LONG else 1.0
"""Seconds; the fault itself."""


class StandstillTests(FaultTestCase):
    """A process that stands still is waited for, no longer than the job's limits say."""

    def setUp(self) -> None:
        self.deploy()
        self.begin()

    @contextmanager
    def stopped(self, pid: int) -> Iterator[None]:
        """Stop a process for the ``with`` block."""
        os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(pid, signal.SIGCONT)

    def stop(self, pid: int) -> None:
        """Stop harpd or what is below it: its jobs are late, or end by their timeout."""
        with self.stopped(pid):
            late = self.host.add(4)
            impatient = self.rpc.host(HOST, timeout=0.5).add(5)
            self.others_go_on()
            error = self.error_of(impatient)
            self.assertEqual(error.type, "timeout")
            self.assertTrue(error.message.startswith("timeout:"), error.message)
            time.sleep(STANDSTILL)
            self.assertIs(late.result(), harp.CALL_NOT_FINISHED)
        self.assertEqual(late.get(), 5)
        self.all_is_well()

    def test_harpd(self) -> None:
        """Jobs of its host are late, those of others are not."""
        self.stop(self.pid("harpd"))

    def test_zygote(self) -> None:
        """As harpd: what can't be forked is waited for."""
        self.stop(self.helper("zygote"))

    def test_guard_and_keeper(self) -> None:
        """They have nothing to do as long as the zygote lives."""
        for name in ("guard", "keeper"):
            with self.stopped(self.helper(name)):
                self.assertEqual(self.host.add(1).get(), 2)
                self.others_go_on()
            self.all_is_well()

    def test_process_of_a_call(self) -> None:
        """A process that stands still is killed when its job is cancelled."""
        job = self.host.stay()
        with job.follow(since=0) as packets:
            process, child = next(packets)
        os.kill(process, signal.SIGSTOP)
        self.others_go_on()
        self.assertEqual(self.host.add(1).get(), 2)
        self.assertTrue(job.cancel())
        eventually(lambda: not (is_alive(process) or is_alive(child)), "its tree ends")
        self.all_is_well()

    def test_dispatcher(self) -> None:
        """Its clients wait; nothing that ran meanwhile is lost, no limit has passed for ever."""
        streamed = self.host.count(1000)
        with self.stopped(self.pid("harpcaller")):
            self.release()
            time.sleep(STANDSTILL)
        self.assertEqual(streamed.get(), 1000)
        self.assertEqual(streamed.stream().all(), list(range(1000)))
        self.others_go_on()
        self.all_is_well()
