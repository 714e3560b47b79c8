"""The wall clock jumps, forward and back, as when somebody sets it."""

from __future__ import annotations

import harp
from harpcaller.demo.deployment import HOST, Daemon
from tests.faults import preload
from tests.faults.setting import FaultTestCase

HOUR = 3600
JUMPS = (23 * HOUR, -48 * HOUR, 0)
"""Seconds from the true time; less than idempotency keys live, see protocol.md."""


class ClockTests(FaultTestCase):
    """Time limits, queues and keys do not follow the wall clock."""

    def jump(self, daemon: Daemon) -> None:
        """Let the clock of a daemon jump between calls, and look at its jobs each time."""
        if reason := preload.missing():
            self.skipTest(reason)
        orders = preload.Orders(daemon)
        self.begin()
        staying = self.rpc.host(HOST, timeout=HOUR, max_exec_time=HOUR).stay()
        with staying.follow(since=0) as packets:
            next(packets)
        queued = self.rpc.host(HOST, queue={"order": 1})
        keyed = self.rpc.host(HOST, idempotency_key="once")
        once = keyed.process_id()
        jobs = []
        for number, seconds in enumerate(JUMPS):
            orders.give(clock=seconds)
            jobs += [queued.add(10 * number, each) for each in range(5)]
            self.others_go_on()
            self.assertEqual(self.host.count(3).get(), 3)
            self.assertEqual(keyed.process_id().id(), once.id())
            # No limit of those that run has passed.
            for job in (self.running, staying):
                self.assertIs(job.result(), harp.CALL_NOT_FINISHED)
        self.assertGreater(orders.obeyed()["clock"], 0)
        results = [10 * number + each for number in range(len(JUMPS)) for each in range(5)]
        self.assertEqual([job.get() for job in jobs], results)
        self.assertTrue(staying.cancel())
        self.all_is_well()

    def test_of_the_dispatcher(self) -> None:
        """Two days to and fro: running jobs go on, queues and idempotency keys hold."""
        self.jump(self.deploy().harpcaller)

    def test_of_harpd(self) -> None:
        """The same on the machine of the calls: its time limits, its TLS sessions."""
        self.jump(self.deploy().harpd)
