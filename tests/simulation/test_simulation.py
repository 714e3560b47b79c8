"""The dispatcher among clients, harpds and faults, under many seeds."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.simulation.violation import Violation
from tests.simulation.world import run

SEEDS = 2000
FOUND: dict[int, str] = {}
"""Seeds that once failed, and what they showed."""


class SimulationTests(SynchronousTestCase):
    """Limits, order, acknowledged jobs, single starts, ends and followers, whatever happens."""

    def test_found(self) -> None:
        """What once went wrong does not again."""
        for seed in FOUND:
            run(seed)
