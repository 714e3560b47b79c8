"""Tests of harpd.proc."""

from __future__ import annotations

from collections.abc import Iterator

from twisted.trial.unittest import SynchronousTestCase

from harpd.proc import Procedure, Result, procedure, streaming_procedure


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

    def test_unknown_option(self) -> None:
        """A misspelt option is an error where it stands."""
        for mark in (procedure, streaming_procedure):
            with self.assertRaisesRegex(TypeError, "time_out"):
                mark(time_out=5)(double)  # type: ignore[call-overload]

    def test_still_a_function(self) -> None:
        """Who imports the file can call what is marked as if it were not."""
        self.assertEqual(procedure(double)(3, times=3), 9)
        *packets, last = streaming_procedure(timeout=1)(count)(2)
        self.assertEqual((packets, last.value), ([0, 1], 2))
        self.assertEqual(procedure(double).__doc__, "Return more.")
