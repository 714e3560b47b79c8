"""Binds the arguments of a call to a procedure's parameters, and checks them against their hints.

It is made when the procedures are loaded, so that nothing is left for a fork but the call's own
arguments. `harpd.hints` knows what a type hint demands.
"""

from __future__ import annotations

import functools
import inspect
import json
import sys
from collections.abc import Callable, Container, Sequence
from typing import Any

from harpd.hints import read_hints
from harpd.shapes import NULL, Hidden, Mismatch, OneOf, Path, Schema, Shape

_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
_KEYWORD = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


class ArgumentError(Exception):
    """The arguments do not fit.

    :param data: what and why, for programs: "argument" is the name of the parameter, or of what
        is none, or null; "problem" is one of "missing", "unexpected", "too_many" and "type". The
        last comes with "path" (where the value is in the object form of the arguments, which is
        ``$``), "expected" and "found", as Python's type hints say it.
    """

    def __init__(self, message: str, argument: str | None, problem: str, **why: str) -> None:
        super().__init__(message)
        name = None if argument is None else argument.encode(errors="backslashreplace").decode()
        self.data: dict[str, str | None] = {"argument": name, "problem": problem, **why}


class Parameters:
    """The parameters of something that can be called.

    :param context: the name of the parameter that gets the context of the call.
    :raises TypeError, ValueError: if it can't be called, or it is not known with what.
    :raises LookupError: with a sentence, if there is no such parameter for the context, or a hint
        says of a part only that it is secret.
    """

    def __init__(self, function: Callable[..., Any], context: str | None = None) -> None:
        self._signature = _signature(function)
        self._context = context
        parameters = dict(self._signature.parameters)
        if context is not None and (
            context not in parameters or parameters.pop(context).kind not in _KEYWORD
        ):
            raise LookupError(f"has no parameter {context!r} that the context can be given to")
        hints = {name: parameter.annotation for name, parameter in parameters.items()}
        self._shapes = read_hints(hints, _globals(function))
        for name, parameter in parameters.items():
            if parameter.default is None:
                self._shapes[name] = _or_null(self._shapes[name])
        self._rest = self._extra = None
        for name, parameter in [*parameters.items()]:
            if parameter.kind is parameter.VAR_POSITIONAL:
                self._rest = parameters.pop(name).name
            elif parameter.kind is parameter.VAR_KEYWORD:
                self._extra = parameters.pop(name).name
        self._named = parameters
        self._required = [n for n, each in parameters.items() if each.default is each.empty]
        self._positional = [n for n, each in parameters.items() if each.kind in _POSITIONAL]
        self._context_index = None if context is None else _index(self._signature, context)

    def bind(
        self, arguments: list[Any] | dict[str, Any], context: dict[str, Any]
    ) -> tuple[Sequence[Any], dict[str, Any]]:
        """Return what to call the function with, positional and keyword arguments.

        :raises ArgumentError: if the arguments do not fit.
        """
        if isinstance(arguments, list):
            return self._by_position(arguments, context)
        values = self._by_name(arguments)
        self._check_given(values)
        for name, value in values.items():
            self._check(name, value)
        if self._context is not None:
            values[self._context] = context
        bound = inspect.BoundArguments(self._signature, values)
        return bound.args, bound.kwargs

    def schema(self) -> Schema:
        """Return the JSON Schema of the arguments as an object.

        Beside it "positional" are the names that can be given by position, in their order, and
        "items" is the schema of what can be given after them. Positional-only parameters are among
        the properties, though arguments as an object can't have them. A default that JSON can't
        carry is left out.
        """
        schema: Schema = {
            "type": "object",
            "properties": {
                name: self._shapes[name].schema()
                | ({} if self._is_secret(name) else _default(parameter))
                for name, parameter in self._named.items()
            },
            "required": self._required,
            "additionalProperties": self._extra is not None and self._shapes[self._extra].schema(),
            "positional": self._positional,
        }
        if self._rest is not None:
            schema["items"] = self._shapes[self._rest].schema()
        return schema

    def shown(self) -> dict[str, Any] | None:
        """Return the arguments of `harpd.secrets.Shown`, None if no parameter is secret."""
        if not any(map(self._is_secret, self._shapes)):
            return None
        by_name = [n for n, each in self._named.items() if each.kind in _KEYWORD]
        hidden = [n for n in self._named if self._is_secret(n)]
        if self._context is not None:
            hidden.append(self._context)
        is_extra_shown = self._extra is not None and not self._is_secret(self._extra)
        return {
            "count": len(self._positional),
            "places": [i for i, n in enumerate(self._positional) if not self._is_secret(n)],
            "names": [n for n in by_name if not self._is_secret(n)],
            "rest": self._rest is not None and not self._is_secret(self._rest),
            "extra": hidden if is_extra_shown else None,
        }

    def _is_secret(self, name: str) -> bool:
        return isinstance(self._shapes[name], Hidden)

    def _by_position(
        self, arguments: list[Any], context: dict[str, Any]
    ) -> tuple[list[Any], dict[str, Any]]:
        positional = self._positional
        rest = arguments[len(positional) :]
        if rest and self._rest is None:
            raise ArgumentError("too many positional arguments", None, "too_many")
        self._check_given(positional[: len(arguments)])
        for name, value in zip(positional, arguments, strict=False):
            self._check(name, value)
        if self._rest is not None:
            self._check(self._rest, rest)
        if self._context is None:
            return arguments, {}
        index = self._context_index
        if index is None or index > len(arguments):
            return arguments, {self._context: context}
        return [*arguments[:index], context, *arguments[index:]], {}

    def _by_name(self, arguments: dict[str, Any]) -> dict[str, Any]:
        values: dict[str, Any] = {}
        extra: dict[str, Any] = {}
        for name, value in arguments.items():
            if name in self._named and self._named[name].kind in _KEYWORD:
                values[name] = value
            elif self._extra is not None and name != self._context:
                extra[name] = value
            else:
                message = f"got an unexpected keyword argument {name!r}"
                raise ArgumentError(message, name, "unexpected")
        if self._extra is not None:
            values[self._extra] = extra
        return values

    def _check_given(self, names: Container[str]) -> None:
        for name in self._required:
            if name not in names:
                raise ArgumentError(f"missing a required argument: {name!r}", name, "missing")

    def _check(self, name: str, value: Any) -> None:
        shape = self._shapes[name]
        try:
            if name == self._rest:
                for index, each in enumerate(value):
                    shape.check(each, (name, index))
            elif name == self._extra:
                for key, each in value.items():
                    shape.check(each, (key,))
            else:
                shape.check(value, (name,))
        except Mismatch as mismatch:
            path = _path_text(mismatch.path)
            why = f"expected {mismatch.expected}, found {mismatch.found}"
            raise ArgumentError(
                f"argument {path}: {why}",
                str(mismatch.path[0]),
                "type",
                path=path,
                expected=mismatch.expected,
                found=mismatch.found,
            ) from None


def _signature(function: Callable[..., Any]) -> inspect.Signature:
    if sys.version_info >= (3, 14):  # where a hint's name that is not known would raise now
        return inspect.signature(function, annotation_format=inspect.Format.FORWARDREF)
    return inspect.signature(function)


def _index(signature: inspect.Signature, name: str) -> int | None:
    """Return at which place a parameter can be given by position."""
    if signature.parameters[name].kind not in _POSITIONAL:
        return None
    return list(signature.parameters).index(name)


def _globals(function: Callable[..., Any]) -> dict[str, Any]:
    """Return what the names in a function's hints stand for."""
    inner: Any = inspect.unwrap(function)
    while isinstance(inner, functools.partial):
        inner = inspect.unwrap(inner.func)
    if not hasattr(inner, "__globals__"):  # an instance that can be called
        inner = type(inner).__call__
    names: dict[str, Any] = getattr(inner, "__globals__", {})
    return names


def _or_null(shape: Shape) -> Shape:
    if isinstance(shape, Hidden):
        return Hidden(_or_null(shape.shape))
    try:
        shape.check(None)
    except Mismatch:
        return OneOf([shape, NULL])
    return shape


def _default(parameter: inspect.Parameter) -> Schema:
    if parameter.default is parameter.empty:
        return {}
    try:
        text = json.dumps(parameter.default, allow_nan=False, ensure_ascii=False)
        text.encode()  # which a lone surrogate is refused by
    except (TypeError, ValueError, RecursionError):
        return {}
    return {"default": json.loads(text)}


def _path_text(path: Path) -> str:
    def step(key: str | int) -> str:
        if isinstance(key, str) and key.isidentifier():
            return f".{key}"
        return f"[{json.dumps(key)}]"

    return "$" + "".join(map(step, path))
