"""Tests of ``harp.logfile``."""

from __future__ import annotations

import subprocess
import sys
from io import StringIO
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from twisted.logger import (
    FileLogObserver,
    LogEvent,
    Logger,
    LogLevel,
    formatEventAsClassicLogText,
    textFileLogObserver,
)
from twisted.python.failure import Failure
from twisted.python.reflect import namedAny
from twisted.trial.unittest import SynchronousTestCase, TestCase

from harp import logfile

_FORMATS = st.sampled_from(
    ["plain", "", "{a} and {b}", "{a!r:>20}", "{a.real} {b}", "{call()}", "{nothing}", "{", "x\ny"]
)


class LineTests(SynchronousTestCase):
    """A line of the log is the one that Twisted would make."""

    @given(_FORMATS, st.integers(), st.text(), st.sampled_from(list(LogLevel.iterconstants())))
    def test_of_a_logger(self, template: str, a: int, b: str, level: object) -> None:
        """Whatever is logged, and however faulty its format is."""
        events: list[LogEvent] = []
        logger = Logger("harp.test", observer=events.append)  # type: ignore[arg-type]
        logger.emit(level, template, a=a, b=b, call=lambda: "called")  # type: ignore[arg-type]
        self.assertEqual(logfile.line_of(events[0]), formatEventAsClassicLogText(events[0]))

    def test_of_others(self) -> None:
        """Events of Twisted's older way, of failures, and of nobody."""
        events: list[LogEvent] = [
            {"log_system": "-", "log_format": "{x}", "x": 1, "log_time": 1.0},
            {"log_format": "no time", "log_namespace": "a", "log_level": LogLevel.info},
            {"log_format": b"bytes", "log_time": 1.0, "log_namespace": "a", "log_level": None},
            {"log_time": 1.0},
            {},
        ]
        logger = Logger("harp.test", observer=events.append)  # type: ignore[arg-type]
        logger.failure("it {what}", Failure(ValueError("no")), what="failed")
        for event in events:
            self.assertEqual(logfile.line_of(event), formatEventAsClassicLogText(event))


class UseTests(TestCase):
    """twistd logs where its options say."""

    def _made(self, **options: object) -> FileLogObserver:
        twistd = {"logger": None, "syslog": False, "nodaemon": False, "logfile": None, **options}
        logfile.use(twistd)
        observer = namedAny(twistd["logger"])()
        assert isinstance(observer, FileLogObserver)
        return observer

    def test_standard_output(self) -> None:
        """It is that of a process that stays in the foreground."""
        output = StringIO()
        self.patch(sys, "stdout", output)
        for options in ({}, {"logfile": "-"}):
            Logger("harp", observer=self._made(nodaemon=True, **options)).info("said")
        self.assertEqual(output.getvalue().count("[harp#info] said\n"), 2)
        with self.assertRaises(SystemExit):
            self._made(logfile="-")

    def test_file(self) -> None:
        """A file is appended to, and begun anew when SIGUSR1 comes."""
        name = self.mktemp()
        program = (
            "import os, signal, sys, time\n"
            "from twisted.internet import reactor\n"
            "from twisted.logger import Logger\n"
            "from harp import logfile\n"
            "options = {'logger': '', 'syslog': 0, 'nodaemon': 1, 'logfile': sys.argv[1]}\n"
            "logfile.use(options)\n"
            "log = Logger('harp', observer=logfile.observer())\n"
            "log.info('before')\n"
            "os.kill(os.getpid(), signal.SIGUSR1)\n"
            "reactor.callLater(0, reactor.callLater, 0, reactor.stop)\n"
            "reactor.run()\n"
            "log.info('behind')\n"
        )
        subprocess.run([sys.executable, "-c", program, name], check=True)
        self.assertIn("[harp#info] before\n", Path(name + ".1").read_text())
        self.assertIn("[harp#info] behind\n", Path(name).read_text())

    def test_left_alone(self) -> None:
        """What an operator asks twistd for otherwise is kept to; no twistd, no log."""
        for options in ({"logger": textFileLogObserver}, {"logger": None, "syslog": True}):
            before = {"syslog": False, **options}
            after = dict(before)
            logfile.use(after)
            self.assertEqual(after, before)
        logfile.use(None)
