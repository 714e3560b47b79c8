"""Tests of ``harp.logfile``."""

from __future__ import annotations

import json
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
    textFileLogObserver,
)
from twisted.python.reflect import namedAny
from twisted.trial.unittest import SynchronousTestCase, TestCase

from harp import logfile
from harp.logs import audit


class LineTests(SynchronousTestCase):
    """A line of the log is one JSON object."""

    def line(self, event: LogEvent) -> dict[str, object]:
        """Return what the line of an event says, and check what holds for every line."""
        line = logfile.line_of(event)
        assert line is not None
        self.assertTrue(line.endswith("\n"))
        self.assertNotRegex(line[:-1], "[\\x00-\\x1f\\x7f-\\x9f\u2028\u2029\u202a-\u202e]")
        told = json.loads(line)
        assert isinstance(told, dict)
        return told

    def event(self, template: str, **fields: object) -> LogEvent:
        """Return the event that a logger makes."""
        events: list[LogEvent] = []
        logger = Logger("harp.test", observer=events.append)  # type: ignore[arg-type]
        logger.warn(template, **fields)
        return events[0]

    @given(st.text())
    def test_any_text(self, text: str) -> None:
        """Whatever somebody chose to have logged comes back as it was, and harms no terminal."""
        told = self.line(self.event("said: {text}", text=text))
        self.assertEqual(told["message"], f"said: {text}")
        self.assertEqual((told["level"], told["logger"]), ("warn", "harp.test"))
        self.assertEqual(set(told), {"time", "level", "logger", "message"})

    def test_halves_of_characters(self) -> None:
        """What is no text, as in some names of files, is told as Python would write it."""
        told = self.line(self.event("{name}", name="a\udcff\n"))
        self.assertEqual(told["message"], "a\\udcff\n")

    def test_time(self) -> None:
        """The time is that of the event, in UTC, to the millisecond."""
        event = self.event("x") | {"log_time": 1_000_000_000.1239}
        self.assertEqual(self.line(event)["time"], "2001-09-09T01:46:40.123Z")

    def test_failure(self) -> None:
        """A failure brings where it was raised."""
        events: list[LogEvent] = []
        try:
            raise ValueError("no \x1b[2J")
        except ValueError:
            Logger("harp", observer=events.append).failure("it {what}", what="broke")  # type: ignore[arg-type]
        told = self.line(events[0])
        self.assertEqual((told["message"], told["level"]), ("it broke", "critical"))
        self.assertRegex(str(told["traceback"]), r"(?s)test_logfile.*ValueError: no \x1b\[2J")

    def test_of_others(self) -> None:
        """Events of Twisted's older way, faulty ones, and those of nobody."""
        for event, message in (
            ({"log_system": "-", "log_format": "{x}", "x": 1, "log_time": 1.0}, "1"),
            (
                {"log_format": "no time", "log_namespace": "a", "log_level": LogLevel.info},
                "no time",
            ),
            ({"log_format": b"bytes", "log_time": 1.0, "log_level": None}, "bytes"),
        ):
            self.assertEqual(self.line(event)["message"], message)
        self.assertIn("nothing", str(self.line(self.event("{nothing}"))["message"]))
        self.assertIn("{", str(self.line(self.event("{"))["message"]))
        for event in ({"log_time": 1.0}, {}):
            self.assertIsNone(logfile.line_of(event))

    def test_audit(self) -> None:
        """Who did what stands in fields of its own; what nobody knows is left out."""
        events: list[LogEvent] = []
        log = Logger("harp.audit", observer=events.append)  # type: ignore[arg-type]
        audit(
            log, "refused", "call", user="panel", peer="::1", job_id=None, reason="a\n" + "b" * 999
        )
        told = self.line(events[0])
        self.assertEqual(told["message"], "call refused")
        fields = told["audit"]
        assert isinstance(fields, dict)
        self.assertRegex(fields.pop("reason"), r"^a\\nb{198}… \(1001 characters\)$")
        self.assertEqual(
            fields, {"action": "call", "decision": "refused", "user": "panel", "peer": "::1"}
        )


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
        self.assertEqual(output.getvalue().count('"message":"said"}\n'), 2)
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
        self.assertIn('"message":"before"}\n', Path(name + ".1").read_text())
        self.assertIn('"message":"behind"}\n', Path(name).read_text())

    def test_left_alone(self) -> None:
        """What an operator asks twistd for otherwise is kept to; no twistd, no log."""
        for options in ({"logger": textFileLogObserver}, {"logger": None, "syslog": True}):
            before = {"syslog": False, **options}
            after = dict(before)
            logfile.use(after)
            self.assertEqual(after, before)
        logfile.use(None)
