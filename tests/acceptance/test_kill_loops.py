"""Whatever is killed under load: nothing acknowledged is lost, run twice, or left behind."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tests.acceptance import kill_loops
from tests.acceptance.cutting_network import MOMENTS

SEED = 21
JOBS = 100
"""Fewer than these would show nothing."""


class KillLoopTests(SynchronousTestCase):
    """The short form; ``python -m tests.acceptance.kill_loops`` is as long as one likes."""

    def test_short(self) -> None:
        """Daemons and harpd's helpers are killed, kept connections cut, while clients call."""
        with kill_loops.deployment() as deployment:
            report = kill_loops.run(deployment, 0, len(kill_loops.VICTIMS), SEED)
        self.assertEqual(report.faults, [])
        self.assertGreater(report.ends.get("result", 0), JOBS)
        self.assertEqual(set(report.cuts), set(MOMENTS))
        self.assertGreater(report.ends.get("missing_result", 0), 0)
