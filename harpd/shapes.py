"""What is demanded of JSON values: each kind of demand with its check and its JSON Schema.

Checks only, the values stay as they are. `harpd.hints` makes shapes of type hints.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Schema = dict[str, Any]
Path = tuple[str | int, ...]

NOTHING = "nothing"
"""Is expected where there must be no value, and found where one is missing."""


class Mismatch(Exception):
    """A value is not what is demanded.

    :param path: keys and indices from the value that was checked to the one that does not fit.
    :param expected: what is demanded, as a type hint says it.
    :param found: the type of the value, as Python calls it.
    """

    def __init__(self, path: Path, expected: str, found: str) -> None:
        super().__init__(path, expected, found)
        self.path = path
        self.expected = expected
        self.found = found


class Shape:
    """A demand; this one is for a type alone, or for nothing.

    :param name: what is demanded, as a type hint says it.
    :param schema_type: the type in JSON Schema, None for any.
    :param types: the types that Python's decoder makes of it.
    """

    def __init__(self, name: str, schema_type: str | None = None, *types: type) -> None:
        self.name = name
        self._schema_type = schema_type
        self._types = types

    def check(self, value: Any, path: Path = ()) -> None:
        """Check a value.

        :param path: where it is, for the mismatch.
        :raises Mismatch: if it is not what is demanded.
        """
        if not self.takes_type(value):
            raise Mismatch(path, self.name, type_name(value))
        self._check_inside(value, path)

    def takes_type(self, value: Any) -> bool:
        """Say whether the value has a type that is demanded, whatever is inside."""
        return not self._types or type(value) in self._types  # for isinstance, True is an int

    def schema(self) -> Schema:
        """Return what is demanded as JSON Schema (2020-12)."""
        own = {} if self._schema_type is None else {"type": self._schema_type}
        return own | self._inner_schema()

    def _check_inside(self, value: Any, path: Path) -> None:
        """Check further what is of the right type."""

    def _inner_schema(self) -> Schema:
        return {}


class Literal(Shape):
    """One of these values, which are texts, numbers, booleans or None."""

    def __init__(self, values: Sequence[Any]) -> None:
        super().__init__(" | ".join(map(repr, values)))
        self._values = values

    def _check_inside(self, value: Any, path: Path) -> None:
        if not any(type(value) is type(each) and value == each for each in self._values):
            raise Mismatch(path, self.name, type_name(value))

    def _inner_schema(self) -> Schema:
        return {"enum": list(self._values)}


class Array(Shape):
    """A list of any length."""

    def __init__(self, name: str, item: Shape) -> None:
        super().__init__(name, "array", list)
        self._item = item

    def _check_inside(self, value: list[Any], path: Path) -> None:
        for index, item in enumerate(value):
            self._item.check(item, (*path, index))

    def _inner_schema(self) -> Schema:
        return {"items": self._item.schema()}


class Tuple(Shape):
    """A list with a fixed number of items."""

    def __init__(self, name: str, items: Sequence[Shape]) -> None:
        super().__init__(name, "array", list)
        self._items = items

    def _check_inside(self, value: list[Any], path: Path) -> None:
        for index, (shape, item) in enumerate(zip(self._items, value, strict=False)):
            shape.check(item, (*path, index))
        size, demanded = len(value), len(self._items)
        if size < demanded:
            raise Mismatch((*path, size), self._items[size].name, NOTHING)
        if size > demanded:
            raise Mismatch((*path, demanded), NOTHING, type_name(value[demanded]))

    def _inner_schema(self) -> Schema:
        size = len(self._items)
        bounds: Schema = {"minItems": size, "maxItems": size}
        if not size:
            return bounds
        return bounds | {"prefixItems": [i.schema() for i in self._items], "items": False}


class Object(Shape):
    """An object with any keys."""

    def __init__(self, name: str, key: Shape, value: Shape) -> None:
        super().__init__(name, "object", dict)
        self._key = key
        self._value = value

    def _check_inside(self, value: dict[str, Any], path: Path) -> None:
        for key, each in value.items():
            self._key.check(key, (*path, key))
            self._value.check(each, (*path, key))

    def _inner_schema(self) -> Schema:
        keys = {} if self._key in (STR, ANY) else {"propertyNames": self._key.schema()}
        return keys | {"additionalProperties": self._value.schema()}


class Structure(Shape):
    """An object with these keys. Another is refused: most likely it is misspelt."""

    def __init__(self, name: str, values: Mapping[str, Shape], required: set[str]) -> None:
        super().__init__(name, "object", dict)
        self._values = values
        self._required = [key for key in values if key in required]

    def _check_inside(self, value: dict[str, Any], path: Path) -> None:
        for key, each in value.items():
            if key not in self._values:
                raise Mismatch((*path, key), NOTHING, type_name(each))
            self._values[key].check(each, (*path, key))
        for key in self._required:
            if key not in value:
                raise Mismatch((*path, key), self._values[key].name, NOTHING)

    def _inner_schema(self) -> Schema:
        return {
            "title": self.name,
            "properties": {key: shape.schema() for key, shape in self._values.items()},
            "required": self._required,
            "additionalProperties": False,
        }


class OneOf(Shape):
    """What at least one of these demands."""

    def __init__(self, options: Sequence[Shape]) -> None:
        super().__init__(" | ".join(option.name for option in options))
        self._options = options

    def _check_inside(self, value: Any, path: Path) -> None:
        deepest: Mismatch | None = None
        for option in filter(lambda option: option.takes_type(value), self._options):
            try:
                option.check(value, path)
            except Mismatch as mismatch:
                # The option that went deepest into the value is most likely the one that was meant.
                if len(mismatch.path) > len(deepest.path if deepest else path):
                    deepest = mismatch
            else:
                return
        raise deepest or Mismatch(path, self.name, type_name(value))

    def _inner_schema(self) -> Schema:
        return {"anyOf": [option.schema() for option in self._options]}


class Hidden(Shape):
    """A demand on a value that is secret: of what is inside it nothing is told, not even a key.

    :param shape: what is demanded.
    """

    def __init__(self, shape: Shape) -> None:
        super().__init__(shape.name)
        self.shape = shape

    def _check_inside(self, value: Any, path: Path) -> None:
        try:
            self.shape.check(value)
        except Mismatch:
            raise Mismatch(path, self.name, type_name(value)) from None

    def _inner_schema(self) -> Schema:
        return self.shape.schema() | {"writeOnly": True, "format": "password"}


ANY = Shape("Any")
NULL = Shape("None", "null", type(None))
BOOL = Shape("bool", "boolean", bool)
INT = Shape("int", "integer", int)
FLOAT = Shape("float", "number", float, int)
STR = Shape("str", "string", str)


def type_name(value: Any) -> str:
    """Return what Python calls the type of a JSON value."""
    return "None" if value is None else type(value).__name__
