"""Tests of harpd.arguments: arguments find their parameters, or it is said why not."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from harpd.arguments import ArgumentError, Parameters

if TYPE_CHECKING:
    from nowhere import Unknown  # type: ignore[import-not-found]

CONTEXT = {"user": "u", "client": "c"}
Count = int


def many(a, b=1, *rest, c, d=2, **extra):  # type: ignore[no-untyped-def]
    """Have all kinds of parameters that can be given by name."""
    return {"a": a, "b": b, "rest": rest, "c": c, "d": d, "extra": extra}


def by_position(a, b=1, /):  # type: ignore[no-untyped-def]
    """Have parameters that can be given by position only."""
    return {"a": a, "b": b}


def plain(a, b=1):  # type: ignore[no-untyped-def]
    """Have the usual parameters."""
    return {"a": a, "b": b}


def by_name(*, a, b=1):  # type: ignore[no-untyped-def]
    """Have parameters that can be given by name only."""
    return {"a": a, "b": b}


def optional(a=1, b=2, *rest, c=3, **extra):  # type: ignore[no-untyped-def]
    """Need nothing."""
    return {"a": a, "b": b, "rest": rest, "c": c, "extra": extra}


def hinted(
    count: int,
    options: dict[str, list[int]] | None = None,
    label: str = None,  # type: ignore[assignment]  # noqa: RUF013
    *sizes: float,
    unknown: Unknown = None,
    **colours: str,
) -> None:
    """Have type hints, one of which only type checkers can resolve."""


def call(
    function: Callable[..., Any], arguments: list[Any] | dict[str, Any], context: str | None = None
) -> Any:
    """Bind arguments and call the function with them."""
    args, kwargs = Parameters(function, context).bind(arguments, CONTEXT)
    return function(*args, **kwargs)


class ArgumentsTestCase(SynchronousTestCase):
    """Tests with arguments that do not fit."""

    def assert_refused(
        self,
        function: Callable[..., Any],
        arguments: list[Any] | dict[str, Any],
        message: str,
        data: dict[str, str | None],
        context: str | None = None,
    ) -> None:
        """Check what is said of arguments."""
        with self.assertRaises(ArgumentError) as caught:
            call(function, arguments, context)
        self.assertEqual((str(caught.exception), caught.exception.data), (message, data))


class BindTests(ArgumentsTestCase):
    """Arguments find their parameters as Python's own would."""

    @given(
        st.sampled_from([many, optional, by_position, plain, by_name]),
        st.lists(st.integers(), max_size=4)
        | st.dictionaries(st.sampled_from("abcdx"), st.integers()),
    )
    @settings(max_examples=300, deadline=None)
    def test_like_python(
        self, function: Callable[..., Any], arguments: list[int] | dict[str, int]
    ) -> None:
        """What Python would take is taken and arrives where it would, the rest is refused."""
        args, kwargs = (arguments, {}) if isinstance(arguments, list) else ([], arguments)
        try:
            expected = function(*args, **kwargs)
        except TypeError:
            self.assertRaises(ArgumentError, call, function, arguments)
        else:
            self.assertEqual(call(function, arguments), expected)

    def test_refused(self) -> None:
        """It is said which argument does not fit, and why."""
        missing = "missing a required argument: 'a'"
        data: dict[str, str | None] = {"argument": "a", "problem": "missing"}
        functions: list[Callable[..., Any]] = [plain, by_position, by_name]
        for function in functions:
            self.assert_refused(function, [], missing, data)
            self.assert_refused(function, {}, missing, data)
        self.assert_refused(
            plain,
            [1, 2, 3],
            "too many positional arguments",
            {"argument": None, "problem": "too_many"},
        )
        for function, name in zip(functions, "xac", strict=True):
            self.assert_refused(
                function,
                {name: 1},
                f"got an unexpected keyword argument '{name}'",
                {"argument": name, "problem": "unexpected"},
            )
        self.assert_refused(
            plain,
            {"\udcff": 1},
            "got an unexpected keyword argument '\\udcff'",
            {"argument": "\\udcff", "problem": "unexpected"},
        )

    def test_what_is_not_given(self) -> None:
        """A default is left to the function, which may have more than one way to be called."""

        @functools.wraps(by_name)
        def wrapper(**kwargs: Any) -> Any:
            return kwargs

        self.assertEqual(call(wrapper, {"a": 1}), {"a": 1})

    def test_anything_that_can_be_called(self) -> None:
        """Bound methods, instances and partial functions have the parameters that are left."""

        class Adder:
            def __init__(self, a: int) -> None:
                self.a = a

            def __call__(self, b: Count) -> int:
                return self.a + b

            def add(self, b: Count) -> int:
                return self.a + b

        def add(a: int, b: Count) -> int:
            return a + b

        for function in (Adder(1), Adder(1).add, functools.partial(add, 1)):
            self.assertEqual(call(function, [2]), 3)
            self.assertRaises(ArgumentError, call, function, ["2"])
            self.assertRaises(ArgumentError, call, function, [])


class TypeTests(ArgumentsTestCase):
    """Where there are hints, the values are what they demand."""

    def test_fitting(self) -> None:
        """Values that fit are passed on as they are."""
        options = {"size": [1, 2]}
        args, kwargs = Parameters(hinted).bind([1, options, "a", 1.5, 2], CONTEXT)
        self.assertEqual((args, kwargs), ([1, options, "a", 1.5, 2], {}))
        self.assertIs(args[1], options)
        named = {"count": 1, "label": None, "unknown": "x", "red": "#f00"}
        args, kwargs = Parameters(hinted).bind(named, CONTEXT)
        self.assertEqual((args, {"count": 1} | kwargs), ((1,), named))

    def test_place(self) -> None:
        """It is said where the value is, what was expected and what was found."""
        cases: list[tuple[list[Any] | dict[str, Any], str, str, str, str]] = [
            (["1"], "count", "$.count", "int", "str"),
            ({"count": True}, "count", "$.count", "int", "bool"),
            ({"count": 1, "options": {"size": [1, "2"]}}, "options", "$.options.size[1]",
             "int", "str"),
            ([1, {"a b": 1}], "options", '$.options["a b"]', "list[int]", "int"),
            ([1, []], "options", "$.options", "dict[str, list[int]] | None", "list"),
            ([1, None, 1], "label", "$.label", "str | None", "int"),
            ([1, None, "a", 1, None], "sizes", "$.sizes[1]", "float", "None"),
            ({"count": 1, "dark-red": 1}, "dark-red", '$["dark-red"]', "str", "int"),
        ]  # fmt: skip
        for arguments, name, path, expected, found in cases:
            self.assert_refused(
                hinted,
                arguments,
                f"argument {path}: expected {expected}, found {found}",
                {
                    "argument": name,
                    "problem": "type",
                    "path": path,
                    "expected": expected,
                    "found": found,
                },
            )


class ContextTests(ArgumentsTestCase):
    """A parameter can be given the context instead of an argument."""

    def test_given(self) -> None:
        """It gets the context wherever it stands, and the others move up."""

        def first(context, a, b=1):  # type: ignore[no-untyped-def]
            return context, a, b

        def between(a, context, b=1):  # type: ignore[no-untyped-def]
            return context, a, b

        def by_name(a, *rest, context, b=1):  # type: ignore[no-untyped-def]
            return context, a, *rest, b

        def annotated(a: int, b: int = 1, context: dict[int, int] | None = None) -> Any:
            return context, a, b

        for function in (first, between, by_name, annotated):
            self.assertEqual(call(function, [5], "context"), (CONTEXT, 5, 1))
            self.assertEqual(call(function, {"b": 6, "a": 5}, "context"), (CONTEXT, 5, 6))

    def test_not_by_the_caller(self) -> None:
        """The caller can't give it, also where any name can be given."""

        def named(context, **extra):  # type: ignore[no-untyped-def]
            return context, extra

        self.assertEqual(call(named, {"x": 1}, "context"), (CONTEXT, {"x": 1}))
        data: dict[str, str | None] = {"argument": "context", "problem": "unexpected"}
        message = "got an unexpected keyword argument 'context'"
        self.assert_refused(named, {"context": {}}, message, data, "context")
        data = {"argument": None, "problem": "too_many"}
        self.assert_refused(named, [{}], "too many positional arguments", data, "context")

    def test_no_such_parameter(self) -> None:
        """It must be a parameter that can be given by name."""
        wrong: list[tuple[Callable[..., Any], str]] = [
            (plain, "c"), (plain, "context"), (by_position, "a"), (many, "rest"), (many, "extra"),
            (many, ""),
        ]  # fmt: skip
        for function, name in wrong:
            with self.assertRaisesRegex(LookupError, f"has no parameter {name!r} that"):
                Parameters(function, name)


class SchemaTests(SynchronousTestCase):
    """The parameters as JSON Schema."""

    def test_all_kinds(self) -> None:
        """Names in their order, which must be given, and what else may be given."""
        self.assertEqual(
            Parameters(many).schema(),
            {
                "type": "object",
                "properties": {"a": {}, "b": {"default": 1}, "c": {}, "d": {"default": 2}},
                "required": ["a", "c"],
                "additionalProperties": {},
                "positional": ["a", "b"],
                "items": {},
            },
        )
        schema = Parameters(plain, "b").schema()
        self.assertEqual(list(schema["properties"]), ["a"])
        self.assertEqual(schema["positional"], ["a"])
        self.assertIs(schema["additionalProperties"], False)
        self.assertNotIn("items", schema)

    def test_hints(self) -> None:
        """Hints are in it, also those of the further arguments."""
        schema = Parameters(hinted).schema()
        self.assertEqual(schema["properties"]["count"], {"type": "integer"})
        expected = {"anyOf": [{"type": "string"}, {"type": "null"}], "default": None}
        self.assertEqual(schema["properties"]["label"], expected)
        self.assertEqual(schema["properties"]["unknown"], {"default": None})
        self.assertEqual(schema["items"], {"type": "number"})
        self.assertEqual(schema["additionalProperties"], {"type": "string"})

    def test_defaults(self) -> None:
        """A default that JSON can't carry is left out, and still need not be given."""
        deep: list[Any] = []
        for _ in range(100_000):
            deep = [deep]
        unfit = [object(), {1}, float("nan"), "\udcff", deep, inspect]
        for value in unfit:

            def function(a=value):  # type: ignore[no-untyped-def]
                """Have this default."""

            schema = Parameters(function).schema()
            self.assertEqual((schema["properties"], schema["required"]), ({"a": {}}, []))
        fit: list[tuple[Any, Any]] = [((1, 2), [1, 2]), ({"ż": None}, {"ż": None}), (1.5, 1.5)]
        for value, expected in fit:

            def other(a=value):  # type: ignore[no-untyped-def]
                """Have this default."""

            found = Parameters(other).schema()["properties"]["a"]
            self.assertEqual(found, {"default": expected})
