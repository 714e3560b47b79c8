"""Tests of harpd.description: what callers are told of a procedure."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Literal

import msgspec
from hypothesis import example, given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from harpd.arguments import Parameters
from harpd.catalogue import Entry
from harpd.description import MAX_DOC, MAX_SCHEMA, describe
from harpd.options import MAX_LOCK_NAME
from harpd.orders import MAX_MESSAGE
from harpd.proc import Procedure, StreamingProcedure, procedure, streaming_procedure


def entry(marked: Procedure, timeout: float | None = None) -> Entry:
    """Return the entry of a procedure."""
    return Entry("f", marked, Parameters(marked.function or marked.__call__), None, timeout)


def documented(doc: str | None) -> Procedure:
    """Return a procedure with this docstring."""

    def f() -> None: ...

    f.__doc__ = doc
    return procedure(f)


class DescribeTests(SynchronousTestCase):
    """A description has all that a caller needs to know."""

    def test_description(self) -> None:
        """Name, documentation, parameters and limits."""

        @streaming_procedure(lock="l", lock_wait=1.5, uid=7)
        def f(a: int, b: str = "x") -> None:
            """Do it.

            Slowly.
            """

        self.assertEqual(
            describe(entry(f, 2.5)),
            {
                "name": "f",
                "doc": "Do it.\n\nSlowly.",
                "streaming": True,
                "timeout": 2.5,
                "parameters": {
                    "type": "object",
                    "properties": {
                        "a": {"type": "integer"},
                        "b": {"type": "string", "default": "x"},
                    },
                    "required": ["a"],
                    "additionalProperties": False,
                    "positional": ["a", "b"],
                },
                "lock": "l",
                "lock_wait": 1.5,
            },
        )

    def test_nothing_said(self) -> None:
        """What a procedure does not say is null."""
        found = describe(entry(documented(None)))
        null = {name for name, value in found.items() if value is None}
        self.assertEqual(null, {"doc", "timeout", "lock", "lock_wait"})
        self.assertIs(found["streaming"], False)

    def test_documentation_of_instances(self) -> None:
        """An instance of a subclass is documented by its method, its class or itself."""

        class Method(Procedure):
            """Class."""

            def __call__(self) -> None:
                """Call.

                It.
                """

        class Class(StreamingProcedure):
            """Class."""

            def __call__(self) -> None: ...

        class Silent(Procedure):
            def __call__(self) -> None: ...

        own, unfit = Method(), Method()
        own.__doc__ = "Own."
        vars(unfit)["__doc__"] = 5
        for marked, doc in [
            (Method(), "Call.\n\nIt."), (Class(), "Class."), (Silent(), None), (own, "Own."),
            (procedure(Method()), "Class."), (unfit, None),
        ]:  # fmt: skip
            self.assertEqual(describe(entry(marked))["doc"], doc)


class SizeTests(SynchronousTestCase):
    """A description fits into a message, whatever the operator wrote."""

    def assert_fits(self, marked: Procedure) -> dict[str, Any]:
        """Check that a description can be sent to the front and from there to a caller."""
        marked.lock = "\U0001f600" * MAX_LOCK_NAME
        description = describe(entry(marked))
        self.assertLess(len(json.dumps({"procedure": description}).encode()), MAX_MESSAGE)
        msgspec.json.encode(description)
        return description

    @given(st.integers(0, MAX_DOC), st.sampled_from(["x", "\u017c", "\U0001f600", "\udcff", '"']))
    @example(0, "x")
    @settings(deadline=None)
    def test_long_documentation(self, plain: int, sign: str) -> None:
        """A long docstring is cut, as late as can be."""
        doc = "y" * plain + sign * 2 * MAX_DOC
        found = self.assert_fits(documented(doc))["doc"]
        self.assertTrue(found.endswith("…"))
        self.assertIn(MAX_DOC - len(json.dumps(found)), range(12))
        self.assertTrue(doc.encode(errors="backslashreplace").startswith(found[:-1].encode()))

    def test_documentation_that_fits(self) -> None:
        """One of just the limit is not cut."""
        doc = "x" * (MAX_DOC - 2)  # without the quotes
        self.assertEqual(self.assert_fits(documented(doc))["doc"], doc)
        self.assertTrue(self.assert_fits(documented(doc + "x"))["doc"].endswith("…"))

    def test_large_schema(self) -> None:
        """Parameters that take too much, or that can't be sent, are described as any object."""

        def large(a: Any = "x" * MAX_SCHEMA) -> None: ...

        def less_large(a: Any = "x" * (MAX_SCHEMA - 200)) -> None: ...

        def unfit(a: Literal["\udcff"]) -> None: ...

        functions: list[Callable[..., None]] = [large, unfit]
        for function in functions:
            parameters = self.assert_fits(procedure(function))["parameters"]
            self.assertEqual(parameters, {"type": "object"})
        parameters = self.assert_fits(procedure(less_large))["parameters"]
        self.assertEqual(list(parameters["properties"]), ["a"])
