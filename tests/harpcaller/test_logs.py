"""Tests of ``harpcaller.logs``."""

from __future__ import annotations

from twisted.logger import Logger, capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from harpcaller import logs


class Part:
    """A part of the dispatcher that logs."""

    _log = logs.logger("harpcaller.part")

    def say(self) -> None:
        """Log a message of each level."""
        for level in logs.LEVELS:
            getattr(self._log, level)("said by {who}", who="a part")


class LevelTests(SynchronousTestCase):
    """What is logged at least."""

    def setUp(self) -> None:
        self.addCleanup(logs.set_level, "info")

    def said(self) -> list[str]:
        """Return the levels of what comes through."""
        with capturedLogs() as logged:
            Part().say()
        for each in logged:
            self.assertIsInstance(each["log_source"], Part)
        return [each["log_level"].name for each in logged]

    def test_default(self) -> None:
        """As long as nothing is configured, it is info."""
        self.assertEqual(self.said(), ["info", "warn", "error", "critical"])

    def test_levels(self) -> None:
        """Each level lets itself and what is above it through, one after the other."""
        for number, level in enumerate(logs.LEVELS):
            logs.set_level(level)
            self.assertEqual(self.said(), list(logs.LEVELS[number:]))

    def test_failure(self) -> None:
        """A failure is told at every level."""
        logs.set_level("critical")
        try:
            raise ZeroDivisionError
        except ZeroDivisionError:
            Part._log.failure("mistake")
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_others(self) -> None:
        """What others log is theirs."""
        logs.set_level("critical")
        with capturedLogs() as logged:
            Logger("elsewhere").debug("said")
        self.assertEqual(len(logged), 1)
