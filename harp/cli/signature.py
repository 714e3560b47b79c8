"""A procedure as its daemon's catalogue describes it, in the words of its author: Python's.

What the JSON Schema of its parameters has beside that is in ``harpd.arguments``.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from harp.cli.output import Output, as_json
from harp.cli.status import Failure, failure
from harp.errors import RemoteError

Schema = dict[str, Any]

_TYPES = {
    "string": "str",
    "integer": "int",
    "number": "float",
    "boolean": "bool",
    "null": "None",
    "array": "list",
    "object": "dict",
}

_DEEPEST = 10


@dataclass(frozen=True)
class Signature:
    """What a procedure can be called with.

    :param schemas: of each parameter, by name.
    :param positional: those that can be given by position, in their order.
    :param rest: the schema of further positional arguments, None if there can be none.
    :param extra: the schema of further keyword arguments, None if there can be none.
    """

    name: str
    schemas: dict[str, Schema]
    positional: tuple[str, ...]
    required: frozenset[str]
    rest: Schema | None
    extra: Schema | None

    def __str__(self) -> str:
        return f"{self.name}({', '.join(self._parts())})"

    def _parts(self) -> Iterator[str]:
        for name in self.positional:
            yield self._part(name)
        others = [name for name in self.schemas if name not in self.positional]
        if self.rest is not None:
            yield "*" + _typed("args", self.rest)
        elif others:
            yield "*"
        for name in others:
            yield self._part(name)
        if self.extra is not None:
            yield "**" + _typed("kwargs", self.extra)

    def _part(self, name: str) -> str:
        schema = self.schemas[name]
        part = _typed(name, schema)
        if name in self.required:
            return part
        default = as_json(schema["default"]) if "default" in schema else "..."
        return f"{part} = {default}" if ": " in part else f"{part}={default}"


def _typed(name: str, schema: Schema) -> str:
    kind = type_name(schema)
    return f"{name}: {kind}" if kind != "Any" else name


def read_signature(procedure: dict[str, Any]) -> Signature:
    """Read what `harp.HarpCaller.procedures` returns of a procedure.

    What is not understood demands nothing: the daemon may be newer, or of another make.
    """
    schema = _schema(procedure.get("parameters"))
    properties = schema.get("properties")
    schemas = {}
    if isinstance(properties, dict):
        schemas = {name: _schema(each) for name, each in properties.items()}
    return Signature(
        name=str(procedure.get("name")),
        schemas=schemas,
        positional=tuple(name for name in _names(schema.get("positional")) if name in schemas),
        required=frozenset(_names(schema.get("required"))),
        rest=_schema(schema["items"]) if "items" in schema else None,
        extra=_allowed(schema.get("additionalProperties", True)),
    )


def named(procedures: list[dict[str, Any]], name: str, host: str) -> dict[str, Any]:
    """Return the procedure of that name.

    :param host: whose procedures these are.
    :raises Failure: if there is none; it names those whose names are like it.
    """
    names = [str(each.get("name")) for each in procedures]
    if name in names:
        return procedures[names.index(name)]
    alike = ", ".join(difflib.get_close_matches(name, names))
    remedy = f"Did you mean {alike}?" if alike else f"harp procedures {host} lists them."
    error = RemoteError("no_such_procedure", f"{host} has no procedure {name}")
    raise Failure(str(error), remedy=remedy, told=failure(error).told)


def is_secret(schema: Schema) -> bool:
    """Return whether an argument is not to be shown."""
    return schema.get("writeOnly") is True


def type_name(schema: Schema, depth: int = 0) -> str:
    """Return what a schema demands, as a type hint says it.

    :param depth: how deep in another it stands; what is too deep is not read.
    """
    if depth > _DEEPEST:
        return "..."
    if is_secret(schema):
        bare = {key: value for key, value in schema.items() if key not in ("writeOnly", "format")}
        inner = type_name(bare, depth)
        return "Secret" if inner == "str" else f"Secret[{inner}]"
    match schema:
        case {"enum": list(values)}:
            return " | ".join(map(as_json, values))
        case {"anyOf": list(options)}:
            return " | ".join(type_name(_schema(each), depth + 1) for each in options)
        case {"type": "array", "prefixItems": list(items)}:
            return f"tuple[{', '.join(type_name(_schema(each), depth + 1) for each in items)}]"
        case {"type": "array", "items": dict(item)}:
            return f"list[{type_name(item, depth + 1)}]"
        case {"type": "object", "properties": dict(properties)}:
            types = {key: type_name(_schema(of), depth + 1) for key, of in properties.items()}
            return f"{{{', '.join(f'{key}: {kind}' for key, kind in types.items())}}}"
        case {"type": "object", "additionalProperties": dict(value)}:
            return f"dict[str, {type_name(value, depth + 1)}]"
        case {"type": str(name)}:
            return _TYPES.get(name, name)
    return "Any"


def show(output: Output, procedure: dict[str, Any]) -> None:
    """Print what is known of a procedure, with ``--json`` as the daemon tells it."""
    if output.as_json:
        output.item(procedure)
        return
    for line in description(procedure):
        output.text(line)


def description(procedure: dict[str, Any]) -> list[str]:
    """Return all that is known of a procedure as lines for people; foreign text is in them."""
    lines = [str(read_signature(procedure))]
    doc = procedure.get("doc")
    if isinstance(doc, str) and doc:
        lines += ["", *(f"  {line}".rstrip() for line in doc.split("\n"))]
    facts = list(_facts(procedure))
    return [*lines, "", *(f"  {fact}" for fact in facts)] if facts else lines


def _facts(procedure: dict[str, Any]) -> Iterator[str]:
    if procedure.get("streaming"):
        yield "It streams packets while it runs."
    if isinstance(timeout := procedure.get("timeout"), int | float):
        yield f"It may be silent for {timeout:g} s."
    if isinstance(lock := procedure.get("lock"), str):
        wait = procedure.get("lock_wait")
        limit = f", for at most {wait:g} s" if isinstance(wait, int | float) else ""
        yield f"It waits for the lock {lock}{limit}."


def _schema(value: object) -> Schema:
    return value if isinstance(value, dict) else {}


def _allowed(value: object) -> Schema | None:
    return None if value is False else _schema(value)


def _names(value: object) -> list[str]:
    return [each for each in value if isinstance(each, str)] if isinstance(value, list) else []
