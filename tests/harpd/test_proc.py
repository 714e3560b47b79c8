"""Tests of harpd.proc."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from harpd.proc import Options, Procedure, Result, procedure, progress, streaming_procedure


def double(x: int, times: int = 2) -> int:
    """Return more."""
    return x * times


def count(to: int) -> Iterator[object]:
    """Count."""
    yield from range(to)
    yield Result(to)


class MarkTests(SynchronousTestCase):
    """What the decorators make of a function."""

    def test_bare(self) -> None:
        """Without parentheses there are no options."""
        for mark, streaming in [(procedure, False), (streaming_procedure, True)]:
            marked = mark(double)
            self.assertIsInstance(marked, Procedure)
            found = (marked.timeout, marked.uid, marked.gid, marked.streaming)
            self.assertEqual(found, (None, None, None, streaming))

    def test_options(self) -> None:
        """Options are kept as they were given; none need be."""
        for mark, streaming in [(procedure, False), (streaming_procedure, True)]:
            marked = mark(timeout=1.5, uid="nobody", gid=["users", 7])(double)
            found = (marked.timeout, marked.uid, marked.gid, marked.streaming)
            self.assertEqual(found, (1.5, "nobody", ["users", 7], streaming))
            self.assertEqual(mark()(double).function, double)

    def test_all_options(self) -> None:
        """Every option of the decorators is one of the class, and the other way round."""
        options: Options = {
            "timeout": 1,
            "uid": 2,
            "gid": 3,
            "context": "x",
            "lock": "l",
            "lock_wait": 0,
            "address_space": 1 << 30,
            "cpu": 4,
            "open_files": 50,
            "processes": 6,
            "max_packet": 7,
            "max_output": 8,
            "umask": 0o027,
            "directory": "/srv",
            "environment": {"A": "b"},
        }
        self.assertEqual(set(options), set(Options.__annotations__))
        for mark in (procedure, streaming_procedure):
            marked = vars(mark(**options)(double))
            self.assertEqual({name: marked[name] for name in options}, options)

    def test_unknown_option(self) -> None:
        """A misspelt option is an error where it stands."""
        for mark in (procedure, streaming_procedure):
            with self.assertRaisesRegex(TypeError, "time_out"):
                mark(time_out=5)(double)  # type: ignore[call-overload]

    def test_subclass(self) -> None:
        """A subclass may be called itself, and say options for all of its instances."""

        class Restart(Procedure):
            timeout = 5
            uid = "nobody"

            def __init__(self, service: str, timeout: float | None = None) -> None:
                super().__init__(timeout=timeout, gid=7)
                self.service = service

            def __call__(self, force: bool = False) -> tuple[str, bool]:
                return self.service, force

        restart = Restart("nginx")
        found = (restart.timeout, restart.uid, restart.gid, restart.function, restart(True))
        self.assertEqual(found, (5, "nobody", 7, None, ("nginx", True)))
        self.assertEqual(Restart("nginx", timeout=1).timeout, 1)
        with self.assertRaisesRegex(TypeError, "Procedure has neither a function nor"):
            Procedure()()

    def test_still_a_function(self) -> None:
        """Who imports the file can call what is marked as if it were not."""
        self.assertEqual(procedure(double)(3, times=3), 9)
        *packets, last = streaming_procedure(timeout=1)(count)(2)
        self.assertEqual((packets, last.value), ([0, 1], 2))
        self.assertEqual(procedure(double).__doc__, "Return more.")

    def test_any_argument(self) -> None:
        """A keyword argument may have any name."""

        @procedure
        def names(**given: int) -> list[str]:
            return list(given)

        self.assertEqual(names(self=1, function=2), ["self", "function"])


class ProgressTests(SynchronousTestCase):
    """The packet that says how far a procedure is."""

    def test_packet(self) -> None:
        """It has what is said and nothing else."""
        self.assertEqual(progress(3), {"progress": {"done": 3}})
        self.assertEqual(progress(0, 0), {"progress": {"done": 0, "total": 0}})
        self.assertEqual(progress(12.5, unit="s"), {"progress": {"done": 12.5, "unit": "s"}})
        whole = {"progress": {"done": 11, "total": 10, "unit": "files"}}
        self.assertEqual(progress(11, total=10, unit="files"), whole)

    def test_mistakes(self) -> None:
        """What is wrong is named."""
        cases: list[tuple[dict[str, Any], type[Exception], str]] = [
            ({"done": "3"}, TypeError, "done must be a number, not '3'"),
            ({"done": True}, TypeError, "done must be a number, not True"),
            ({"done": None}, TypeError, "done must be a number, not None"),
            ({"done": -1}, ValueError, "done must be a finite number from 0, not -1"),
            ({"done": 1, "total": [2]}, TypeError, "total must be a number, not [2]"),
            ({"done": 1, "total": -0.5}, ValueError, "total must be a finite number from 0"),
            ({"done": float("nan")}, ValueError, "done must be a finite number from 0, not nan"),
            ({"done": 1, "total": float("inf")}, ValueError, "total must be a finite number"),
            ({"done": 1, "unit": 5}, TypeError, "unit must be a text, not 5"),
            ({"done": 1, "unit": " "}, ValueError, "unit is empty"),
        ]
        for given, kind, text in cases:
            error = self.assertRaises(kind, lambda given=given: progress(**given))
            self.assertIn(f"progress: {text}", str(error))
