"""Tests of ``harp.cli.values`` and ``harp.cli.signature`` against what harpd describes."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from typing import Any, Literal, TypedDict

import click
from hypothesis import example, given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from harp import Secret
from harp.cli.signature import Signature, description, named, read_signature
from harp.cli.status import Failure
from harp.cli.values import bind, decoded, guess
from harpd import proc
from harpd.arguments import Parameters

KEYWORDS = (
    *("type", "enum", "anyOf", "items", "prefixItems", "properties", "additionalProperties"),
    *("required", "positional", "default", "writeOnly"),
)
ANY_SCHEMA = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.sampled_from(["string", "array"]),
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(KEYWORDS), inner),
    max_leaves=10,
)


class Disk(TypedDict):
    """A parameter's type."""

    name: str
    size: int


def signature(function: Callable[..., Any]) -> Signature:
    """Return the signature of a procedure as harpd describes it to the command."""
    schema = json.loads(json.dumps(Parameters(function).schema()))
    return read_signature({"name": "f", "parameters": schema})


def nobody(name: str) -> str | None:
    """Is asked for secrets, and does not answer."""
    return None


class SignatureTests(SynchronousTestCase):
    """What people see of a procedure."""

    def test_as_its_author_wrote_it(self) -> None:
        """Names, types and defaults are those of the function."""

        def plain(a: Any, b: str, c: int = 1, d: float = 0.5, e: bool = True) -> None: ...

        def nested(
            a: list[str], b: dict[str, int], c: tuple[int, str], d: Disk, e: str | None = None
        ) -> None: ...

        def named(a: Literal["x", 1], *, b: proc.Secret, c: proc.Secret[int] = 5) -> None: ...

        def open_ended(*names: int, **sizes: float) -> None: ...

        for function, text in (
            (plain, "f(a, b: str, c: int = 1, d: float = 0.5, e: bool = true)"),
            (
                nested,
                "f(a: list[str], b: dict[str, int], c: tuple[int, str],"
                " d: {name: str, size: int}, e: str | None = null)",
            ),
            (named, 'f(a: "x" | 1, *, b: Secret, c: Secret[int] = ...)'),
            (open_ended, "f(*args: int, **kwargs: float)"),
        ):
            self.assertEqual(str(signature(function)), text)

    def test_all_that_is_known(self) -> None:
        """The docstring keeps its lines; what the daemon does around a call is told."""
        described = {
            "name": "f",
            "doc": "Do it.\n\n  Twice.",
            "streaming": True,
            "timeout": 5.0,
            "lock": "disk",
            "lock_wait": 30,
            "parameters": {"additionalProperties": False},
        }
        told = [
            *("f()", "", "  Do it.", "", "    Twice.", "", "  It streams packets while it runs."),
            *("  It may be silent for 5 s.", "  It waits for the lock disk, for at most 30 s."),
        ]
        self.assertEqual(description(described), told)

    @given(ANY_SCHEMA)
    @example({"anyOf": [None]})
    def test_other_daemons(self, found: Any) -> None:
        """Whatever a daemon says of a procedure, it is shown and its arguments are bound."""
        parameters = {"properties": {"a": found}, "items": found, "additionalProperties": found}
        for each in ({**parameters, "positional": ["a"]}, found):
            procedure = {"name": "f", "parameters": each, "doc": found, "lock": found}
            self.assertTrue(description(procedure))
            for words in (["1", "b=x"], ["a=1"], ["x", "y"]):
                with contextlib.suppress(click.UsageError):
                    bind(words, read_signature(procedure), nobody)

    def test_nested_too_deep(self) -> None:
        """A schema that is nested too deep breaks nothing."""
        schema: dict[str, Any] = {}
        for _ in range(2000):
            schema = {"type": "array", "items": schema, "anyOf": [schema]}
        procedure = {"name": "f", "parameters": {"properties": {"a": schema}}}
        self.assertEqual(len(description(procedure)), 1)
        found = bind(["a=1"], read_signature(procedure), nobody)
        self.assertEqual(found, ([], {"a": 1}))

    def test_no_such_procedure(self) -> None:
        """Names that are like it are told; where there is none, how to find them."""
        procedures = [{"name": "restart"}, {"name": "disk"}]
        self.assertIs(named(procedures, "disk", "web01"), procedures[1])
        for name, remedy in (
            ("restrat", "Did you mean restart?"),
            ("x", "harp procedures web01 lists them."),
        ):
            failure = self.assertRaises(Failure, named, procedures, name, "web01")
            self.assertEqual((failure.exit_code, failure.remedy), (5, remedy))


class BindingTests(SynchronousTestCase):
    """What words become by a signature."""

    def bound(self, function: Callable[..., Any], *words: str) -> Any:
        """Return the arguments, positional or by name."""
        args, kwargs = bind(words, signature(function), nobody)
        self.assertFalse(args and kwargs)
        return args or kwargs

    def refused(self, function: Callable[..., Any], *words: str) -> str:
        """Return why the words are no arguments."""
        error = self.assertRaises(click.UsageError, self.bound, function, *words)
        told, _, shown = str(error.message).partition("\n  ")
        self.assertEqual(shown, str(signature(function)))
        return told

    def test_types(self) -> None:
        """Each type reads its words; what does not fit is told with what would."""

        def f(
            text: str = "",
            number: int = 0,
            fraction: float = 0,
            flag: bool = False,
            some: list[int] = [],  # noqa: B006
            size: dict[str, int] = {},  # noqa: B006
            kind: Literal["a", 1] = 1,
            maybe: int | None = None,
            name: str | None = None,
            either: int | str = 1,
            anything: Any = None,
        ) -> None: ...

        for word, value in (
            ("text=5", "5"),
            ("text=", ""),
            ('text="x"', '"x"'),
            ("text=a=b\nc", "a=b\nc"),
            ("number=-5", -5),
            ("fraction=5", 5),
            ("fraction=1e3", 1000.0),
            ("flag=true", True),
            ("flag=No", False),
            ("some=[1]", [1]),
            ('size={"a":1}', {"a": 1}),
            ("kind=a", "a"),
            ("kind=1", 1),
            ("maybe=null", None),
            ("maybe=7", 7),
            ("name=null", None),
            ("name=7", "7"),
            ("either=7", 7),
            ("either=x", "x"),
            ("anything=7", 7),
            ("anything=x", "x"),
            ("anything=NaN", "NaN"),
        ):
            self.assertEqual(self.bound(f, word), {word.partition("=")[0]: value}, word)
        for word, told in (
            ("number=5.0", "number must be int, not '5.0'"),
            ("number=true", "number must be int, not 'true'"),
            ("number=", "number must be int, not ''"),
            ("fraction=NaN", "fraction must be float, not 'NaN'"),
            ("flag=1", "flag must be bool, not '1'"),
            ("some=1", "some must be list[int], not '1'"),
            ("size=[]", "size must be dict[str, int], not '[]'"),
            ("kind=b", "kind must be \"a\" | 1, not 'b'"),
            ("maybe=x", "maybe must be int | None, not 'x'"),
        ):
            self.assertEqual(self.refused(f, word), told)

    def test_both_kinds(self) -> None:
        """Both kinds may be mixed: the protocol gets all of them by name then."""

        def f(a: str, b: int = 1, *, c: int = 2) -> None: ...

        self.assertEqual(self.bound(f, "x", "2"), ["x", 2])
        self.assertEqual(self.bound(f, "x", "c=3"), {"a": "x", "c": 3})
        self.assertEqual(self.refused(f, "x", "a=y"), "a is given twice: by position and by name")
        self.assertEqual(self.refused(f, "c=3"), "missing: a")
        self.assertEqual(
            self.refused(f, "x", "2", "3"), "there are 3 positional arguments, 2 at most"
        )
        self.assertIn(
            "there is no parameter d; the parameters are: a, b, c.", self.refused(f, "d=1")
        )
        error = self.assertRaises(click.UsageError, self.bound, f, "a=1", "a=2")
        self.assertEqual(error.message, "a= is given twice")

    def test_further_arguments(self) -> None:
        """What has no parameter of its own is read as the rest is declared."""

        def f(a: str, *rest: int, **extra: float) -> None: ...

        self.assertEqual(self.bound(f, "x", "1", "2"), ["x", 1, 2])
        self.assertEqual(self.bound(f, "a=x", "size=1.5"), {"a": "x", "size": 1.5})
        self.assertEqual(self.refused(f, "x", "y"), "args must be int, not 'y'")
        self.assertIn("can't be mixed", self.refused(f, "x", "1", "size=1"))

    def test_secrets(self) -> None:
        """A secret is marked as one, asked for if it is missing, and in no message."""

        def f(user: str, password: proc.Secret, pin: proc.Secret[int] = 0) -> None: ...

        self.assertEqual(self.bound(f, "ada", "x"), ["ada", Secret("x")])
        self.assertEqual(self.refused(f, "ada"), "missing: password")
        found = bind(["ada"], signature(f), {"password": "typed"}.get)
        self.assertEqual(found, ([], {"user": "ada", "password": Secret("typed")}))
        told = self.refused(f, "ada", "x", "12a4")
        self.assertEqual(told, "pin must be Secret[int], not what is given")


class GuessTests(SynchronousTestCase):
    """What words become where nothing is known."""

    def test_json_or_text(self) -> None:
        """JSON is JSON, all else is text."""
        words = ["5", "x", '"5"', "[1,", "true", "NaN", '{"a": 1}', "", "a b=c"]
        values = [5, "x", "5", "[1,", True, "NaN", {"a": 1}, "", "a b=c"]
        self.assertEqual(guess(words), (values, {}))
        self.assertEqual(guess(["a=5", "b=x=y"]), ([], {"a": 5, "b": "x=y"}))
        self.assertEqual(guess([]), ([], {}))

    def test_both_kinds(self) -> None:
        """They can't be mixed: nobody knows the names."""
        error = self.assertRaises(click.UsageError, guess, ["5", "a=5"])
        self.assertIn("a= is a keyword argument and others are positional", error.message)
        self.assertRaises(click.UsageError, guess, ["a=5", "a=6"])

    def test_no_json(self) -> None:
        """Nothing that JSON can't carry, and nothing that breaks the parser."""
        for text in ("NaN", "Infinity", "[NaN]", "", "[" * 100_000, "9" * 5000):
            self.assertRaises(ValueError, decoded, text)
