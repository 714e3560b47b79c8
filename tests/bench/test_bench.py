"""`python -m bench`: that it does its work and reports it; how fast, no test says."""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import pstats
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

from twisted.trial.unittest import SynchronousTestCase

from bench import __main__ as bench
from bench.clients import Step, in_processes, percentile
from bench.figures import RATE, Figure, Limit, WrongResultError
from bench.setting import Setting

ROOT = Path(__file__).parents[2]
TIME_LIMIT = 120
"""Seconds after which it is taken to hang."""


class ProgramTests(SynchronousTestCase):
    """The program, with real daemons and a hundredth of the work."""

    def test_quick(self) -> None:
        """The table and the file have each figure with its goal, its limit and their ratio."""
        file = Path(self.mktemp()).absolute()
        profiles = Path(self.mktemp()).absolute()
        command = [sys.executable, "-m", "bench", "latency", "submit", "--quick"]
        done = subprocess.run(
            [*command, "--json", str(file), "--profile", str(profiles)],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=TIME_LIMIT,
            check=False,
        )
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        found = json.loads(file.read_text())
        names = [figure["name"] for figure in found["figures"]]
        self.assertEqual(names, ["latency p50", "latency p99", "submit"])
        rows = done.stdout.splitlines()[1:-1]
        for figure, row in zip(found["figures"], rows, strict=True):
            self.assertTrue(row.startswith(figure["name"]), row)
            self.assertIn("met" if figure["met"] else "MISSED", row)
            self.assertEqual(figure["ratio"], figure["value"] / figure["limit"])
            self.assertGreater(figure["ratio"], 0)
            self.assertGreater(figure["goal"], 0)
        self.assertEqual(found["mistakes"], {})
        self.assertEqual(list(found["seconds"]), ["latency", "submit"])
        for name, daemon in itertools.product(("latency", "submit"), ("harpd", "harpcaller")):
            pstats.Stats(str(profiles / name / f"0-{daemon}.stats"))
        self.assertLessEqual({"cpus", "python", "versions", "date"}, found["machine"].keys())

    def run_one(self, benchmark: object, *options: str) -> tuple[int, str]:
        """Return the exit status and the output with one benchmark in place of all."""
        printed = io.StringIO()
        with (
            mock.patch.dict(bench.BENCHMARKS, {"one": benchmark}, clear=True),
            mock.patch.object(sys, "argv", ["bench", *options]),
            contextlib.redirect_stdout(printed),
        ):
            return bench.main(), printed.getvalue()

    def test_wrong_result(self) -> None:
        """A wrong result is named, and ends the program with a failure."""

        def wrong(setting: Setting) -> Iterator[Figure]:
            yield Figure("one", 1, RATE, Limit(1, "a limit"), 1)
            raise WrongResultError("packets: 1, not 2")

        status, printed = self.run_one(wrong)
        self.assertEqual(status, 1)
        self.assertIn("one: WRONG: packets: 1, not 2", printed)

    def test_missed_goal(self) -> None:
        """A goal that is missed is marked, and is no failure."""

        def slow(setting: Setting) -> Iterator[Figure]:
            yield Figure("one", 1, RATE, Limit(1, "a limit"), 2)

        status, printed = self.run_one(slow)
        self.assertEqual(status, 0)
        self.assertIn("MISSED", printed)

    def test_unknown_name(self) -> None:
        """A name that there is not is refused before anything is measured."""
        with contextlib.redirect_stderr(io.StringIO()) as complaint:
            self.assertRaises(SystemExit, self.run_one, None, "two")
        self.assertIn("no such benchmark: two", complaint.getvalue())


class FigureTests(SynchronousTestCase):
    """Whether a figure meets its goals."""

    def met(self, value: float, unit: str, goal: float | None, goal_ratio: float | None) -> object:
        """Ask it of a figure whose limit is 100."""
        return Figure("a name", value, unit, Limit(100, "a limit"), goal, goal_ratio).met

    def test_rate(self) -> None:
        """Of a rate more is better, and both of its goals count."""
        self.assertIs(self.met(50, RATE, 50, None), True)
        self.assertIs(self.met(49, RATE, 50, None), False)
        self.assertIs(self.met(50, RATE, 50, 0.6), False)
        self.assertIs(self.met(60, RATE, 50, 0.6), True)

    def test_other(self) -> None:
        """Of everything else less is better."""
        self.assertIs(self.met(6, "ms", 6, None), True)
        self.assertIs(self.met(7, "ms", 6, None), False)
        self.assertIs(self.met(130, "ms", None, 1.3), True)
        self.assertIs(self.met(131, "ms", None, 1.3), False)

    def test_none(self) -> None:
        """What has no goal neither meets nor misses one."""
        self.assertIsNone(self.met(1, RATE, None, None))


class ClientsTests(SynchronousTestCase):
    """Clients in threads of processes."""

    def test_all_steps_count(self) -> None:
        """Each client's steps are in the outcome."""
        outcome = in_processes(lambda number: lambda: number, 5, processes=2, threads=3)
        self.assertEqual(len(outcome.times), 30)
        self.assertEqual(outcome.times, sorted(outcome.times))

    def test_failure(self) -> None:
        """A client that fails fails the whole, be it before it begins or later."""

        def prepare(number: int) -> Step:
            if number == 3:
                raise LookupError("client 3 can't begin")
            return lambda: None

        error = self.assertRaises(WrongResultError, in_processes, prepare, 5, 2, 2)
        self.assertIn("client 3 can't begin", str(error))
        error = self.assertRaises(
            WrongResultError, in_processes, lambda number: lambda: 1 // (number - 1), 5, 2, 2
        )
        self.assertIn("ZeroDivisionError", str(error))

    def test_percentile(self) -> None:
        """A part of the values does not exceed it."""
        values = [float(value) for value in range(1, 101)]
        self.assertEqual(percentile(values, 0.5), 50)
        self.assertEqual(percentile(values, 0.99), 99)
        self.assertEqual(percentile([7.0], 0.99), 7)
