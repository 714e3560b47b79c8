"""Tests of harpd.hints and harpd.shapes: what type hints demand of JSON values."""

from __future__ import annotations

import json
import typing
from collections.abc import Callable, Iterable, Mapping, MutableMapping, MutableSequence, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import (
    Annotated,
    Any,
    Literal,
    NewType,
    NotRequired,
    Optional,
    Required,
    TypedDict,
    TypeVar,
    Union,
)

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from harpd.hints import read_hints
from harpd.shapes import ANY, Mismatch, Schema, Shape


class Size(TypedDict):
    """All keys must be given, but for one."""

    width: Annotated[int, "in cm"]
    depth: NotRequired[float]


class Options(TypedDict, total=False):
    """No key must be given, but for one."""

    name: Required[str]
    size: Size
    parents: list[Options]


@dataclass
class Point:
    """Is not what JSON gives."""

    x: int


class Colour(Enum):
    """Is not what JSON gives."""

    RED = "red"


UserId = NewType("UserId", int)
T = TypeVar("T")
SCALARS = [None, True, 0, 1.5, "a"]
VALUES = [*SCALARS, [], [1], ["a"], [1, "a"], {}, {"a": 1}]


def read(hint: Any) -> Shape:
    """Return what a hint demands."""
    return read_hints({"a": hint}, globals())["a"]


def accepts(shape: Shape, value: Any) -> bool:
    """Say whether a value passes."""
    try:
        shape.check(value)
    except Mismatch:
        return False
    return True


def json_of(hint: Any) -> st.SearchStrategy[Any]:
    """Return what JSON makes of values that have this type."""
    return st.from_type(hint).map(lambda value: json.loads(json.dumps(value)))


simple_hints: st.SearchStrategy[Any] = st.sampled_from([type(None), bool, int, float, str])
hints = st.recursive(
    simple_hints,
    lambda inner: st.one_of(
        inner.map(lambda item: list[item]),  # type: ignore[valid-type]
        inner.map(lambda item: dict[str, item]),  # type: ignore[valid-type]
        inner.map(lambda item: tuple[item, ...]),  # type: ignore[valid-type]
        st.lists(inner, max_size=3).map(lambda items: tuple[tuple(items)]),  # type: ignore[misc]
    ),
    max_leaves=5,
)
finite_floats = st.floats(allow_nan=False, allow_infinity=False).filter(lambda x: x % 1)
json_values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-9, 9), finite_floats, st.text(max_size=2)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=2), inner, max_size=2)
    ),
    max_leaves=5,
)


class CheckTests(SynchronousTestCase):
    """Which values pass."""

    def assert_accepts(self, hint: Any, *expected: Any) -> None:
        """Check which of the values pass."""
        shape = read(hint)
        found = [value for value in VALUES if accepts(shape, value)]
        self.assertEqual(list(map(repr, found)), list(map(repr, expected)), hint)

    def test_scalars(self) -> None:
        """Each type takes its own values; a bool is no number, and a float takes an int."""
        self.assert_accepts(None, None)
        self.assert_accepts(bool, True)
        self.assert_accepts(int, 0)
        self.assert_accepts(float, 0, 1.5)
        self.assert_accepts(str, "a")

    def test_whole_float(self) -> None:
        """A number with a point is no int, even if nothing is behind the point."""
        self.assertFalse(accepts(read(int), json.loads("1.0")))

    def test_arrays(self) -> None:
        """Lists and sequences are JSON's arrays; a text is none, though Python iterates it."""
        for kind in (list, Sequence, MutableSequence, typing.List):  # noqa: UP006
            self.assert_accepts(kind, [], [1], ["a"], [1, "a"])
            self.assert_accepts(kind[int], [], [1])

    def test_tuples(self) -> None:
        """A tuple of fixed size demands each of its items."""
        self.assert_accepts(tuple, [], [1], ["a"], [1, "a"])
        self.assert_accepts(typing.Tuple, [], [1], ["a"], [1, "a"])  # noqa: UP006
        self.assert_accepts(tuple[int, ...], [], [1])
        self.assert_accepts(tuple[int, str], [1, "a"])
        self.assert_accepts(tuple[()], [])
        self.assert_accepts(tuple[int, *tuple[str, ...]], [], [1], ["a"], [1, "a"])

    def test_objects(self) -> None:
        """Dicts and mappings are JSON's objects, whose keys are texts."""
        for kind in (dict, Mapping, MutableMapping, typing.Dict):  # noqa: UP006
            self.assert_accepts(kind, {}, {"a": 1})
            self.assert_accepts(kind[str, int], {}, {"a": 1})
            self.assert_accepts(kind[str, str], {})
        self.assert_accepts(dict[Literal["a"], int], {}, {"a": 1})
        self.assert_accepts(dict[Literal["b"], int], {})

    def test_unions(self) -> None:
        """One of the options must fit."""
        for hint in (Optional[int], Union[int, None], int | None):  # noqa: UP007,UP045
            self.assert_accepts(hint, None, 0)
        self.assert_accepts(list[int] | dict[str, int] | None, None, [], [1], {}, {"a": 1})

    def test_literals(self) -> None:
        """A literal is equal in type too."""
        self.assert_accepts(Literal["a", 0, None], None, 0, "a")
        self.assert_accepts(Literal[1])
        self.assert_accepts(Literal[False])

    def test_names_of_types(self) -> None:
        """Names for types, and notes on them, do not matter."""
        self.assert_accepts(UserId, 0)
        self.assert_accepts(Annotated[int, "for the reader"], 0)
        self.assert_accepts(list[Annotated[UserId, 1]], [], [1])

    def test_unchecked(self) -> None:
        """Hints that JSON has no values for, or that are no types, demand nothing."""
        unknown: list[Any] = [
            Any, object, T, Point, Colour, bytes, set[int], Iterable[int], type[int],
            Callable[[int], int], Literal[Colour.RED], int | Point, Annotated[Any, 1],
            5, [1], {}, "no such name", "NoSuchName", "list[NoSuchName]", ..., typing.Generic,
        ]  # fmt: skip
        for hint in unknown:
            self.assert_accepts(hint, *VALUES)
            self.assertEqual(read(hint).schema(), {}, hint)
        self.assert_accepts(list[Point], [], [1], ["a"], [1, "a"])
        self.assert_accepts("Sequence[Any]", [], [1], ["a"], [1, "a"])

    def test_texts(self) -> None:
        """A hint may be a text, and so may its parts."""
        self.assert_accepts("int | None", None, 0)
        self.assert_accepts(list["int"], [], [1])
        self.assert_accepts(Optional["Size"], None)

    def test_typed_dict(self) -> None:
        """A TypedDict demands its keys and no others, whatever its hints look like."""
        shape = read(Options)
        good: list[Any] = [
            {"name": "a"},
            {"name": "a", "size": {"width": 1}},
            {"name": "a", "size": {"width": 1, "depth": 1.5}, "parents": []},
            {"name": "a", "parents": [{"anything": 1}]},
        ]
        bad: list[Any] = [
            None, [], {}, {"name": 1}, {"name": "a", "other": 1}, {"name": "a", "size": None},
            {"name": "a", "size": {}}, {"name": "a", "size": {"width": 1, "depth": None}},
            {"name": "a", "parents": 1},
        ]  # fmt: skip
        self.assertEqual([value for value in good + bad if accepts(shape, value)], good)

    @given(st.data())
    @settings(max_examples=300, deadline=None)
    def test_like_msgspec(self, data: st.DataObject) -> None:
        """It is as strict as msgspec, which was made by others."""
        hint = data.draw(hints | st.tuples(hints, simple_hints).map(lambda p: p[0] | p[1]))
        value = data.draw(json_values | json_of(hint))
        try:
            msgspec.convert(value, hint, strict=True)
            expected = True
        except msgspec.ValidationError:
            expected = False
        self.assertEqual(accepts(read(hint), value), expected, (hint, value))


class MismatchTests(SynchronousTestCase):
    """What is said of a value that does not pass."""

    def assert_mismatch(
        self, hint: Any, value: Any, path: list[str | int], expected: str, found: str
    ) -> None:
        """Check where it is, what was expected and what is there."""
        with self.assertRaises(Mismatch) as caught:
            read(hint).check(value)
        mismatch = caught.exception
        told = (list(mismatch.path), mismatch.expected, mismatch.found)
        self.assertEqual(told, (path, expected, found))

    def test_type(self) -> None:
        """The hint is named as Python writes it, the value by its type."""
        self.assert_mismatch(int, "1", [], "int", "str")
        self.assert_mismatch(int, True, [], "int", "bool")
        self.assert_mismatch(str, None, [], "str", "None")
        self.assert_mismatch(int | None, [], [], "int | None", "list")
        self.assert_mismatch(Literal["a", 1], "b", [], "'a' | 1", "str")
        self.assert_mismatch(list[dict[str, int]], 1, [], "list[dict[str, int]]", "int")
        self.assert_mismatch(Mapping[str, Any], 1, [], "Mapping[str, Any]", "int")
        self.assert_mismatch(tuple[int, str], "ab", [], "tuple[int, str]", "str")
        self.assert_mismatch(tuple[int, ...], 1, [], "tuple[int, ...]", "int")
        self.assert_mismatch(tuple, 1, [], "tuple", "int")
        self.assert_mismatch(tuple[()], 1, [], "tuple[()]", "int")

    def test_nested(self) -> None:
        """The innermost value that does not fit is named."""
        self.assert_mismatch(list[dict[str, int]], [{}, {"a": 1, "b": "c"}], [1, "b"], "int", "str")
        self.assert_mismatch(tuple[int, str], [1, 2], [1], "str", "int")
        self.assert_mismatch(Options, {"name": "a", "size": 1}, ["size"], "Size", "int")

    def test_union(self) -> None:
        """The option that fits best is named, or else the union."""
        self.assert_mismatch(list[int] | None, [1, "a"], [1], "int", "str")
        self.assert_mismatch(str | list[list[int]], [[1], [2, None]], [1, 1], "int", "None")
        self.assert_mismatch(list[int | None], ["a"], [0], "int | None", "str")

    def test_missing(self) -> None:
        """What is missing, and what is too much, is named by its place."""
        self.assert_mismatch(Size, {}, ["width"], "int", "nothing")
        self.assert_mismatch(Size, {"width": 1, "wdith": 2}, ["wdith"], "nothing", "int")
        self.assert_mismatch(tuple[int, str], [1], [1], "str", "nothing")
        self.assert_mismatch(tuple[int], [1, 2, 3], [1], "nothing", "int")


class SchemaTests(SynchronousTestCase):
    """The same as JSON Schema."""

    @given(hints)
    @settings(max_examples=200, deadline=None)
    def test_like_msgspec(self, hint: Any) -> None:
        """It is the schema that msgspec makes, which was made by others."""
        self.assertEqual(read(hint).schema(), msgspec.json.schema(hint))

    def test_choices(self) -> None:
        """Unions and literals."""
        number: Schema = {"type": "integer"}
        self.assertEqual(read(int | None).schema(), {"anyOf": [number, {"type": "null"}]})
        self.assertEqual(read(Literal["a", 1]).schema(), {"enum": ["a", 1]})
        keys: Schema = {"propertyNames": {"enum": ["a"]}}
        expected = {"type": "object", "additionalProperties": number} | keys
        self.assertEqual(read(dict[Literal["a"], int]).schema(), expected)
        self.assertIs(read(int | Any), ANY)

    def test_typed_dict(self) -> None:
        """A TypedDict within itself is described once."""
        size = {
            "title": "Size",
            "type": "object",
            "properties": {"width": {"type": "integer"}, "depth": {"type": "number"}},
            "required": ["width"],
            "additionalProperties": False,
        }
        self.assertEqual(
            read(Options).schema(),
            {
                "title": "Options",
                "type": "object",
                "properties": {
                    "name": {"type": "string"},
                    "size": size,
                    "parents": {"type": "array", "items": {}},
                },
                "required": ["name"],
                "additionalProperties": False,
            },
        )
