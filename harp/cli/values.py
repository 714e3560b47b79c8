"""What the words of a command line mean as arguments of a call.

With a procedure's signature they become what that demands, as far as the outermost type goes; the
daemon checks the rest. Without one they are JSON, or else texts.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import click

from harp import Secret
from harp.cli.signature import Schema, Signature, is_secret, type_name

Arguments = tuple[list[Any], dict[str, Any]]
"""Positional and keyword arguments, one kind of them."""

_KEY = re.compile(r"([^\W\d]\w*)=(.*)", re.DOTALL)
_WORDS = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}


def decoded(text: str) -> Any:
    """Return the value of a JSON text, which has no NaN.

    :raises ValueError: if it is none.
    """
    try:
        return json.loads(text, parse_constant=_refuse)
    except RecursionError as error:
        raise ValueError("it is nested too deep") from error


def _refuse(name: str) -> NoReturn:
    raise ValueError(f"{name} is not in JSON")


class Json(click.ParamType):  # type: ignore[type-arg]
    """A JSON value.

    :param only: the type that it must have, if not any.
    :param what: how that is called.
    """

    name = "json"

    def __init__(self, only: type | tuple[type, ...] = object, what: str = "value") -> None:
        self._only = only
        self._what = what

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the value."""
        try:
            found = decoded(value)
        except ValueError as error:
            self.fail(f"it is not JSON: {error}", param, ctx)
        if not isinstance(found, self._only):
            self.fail(f"it must be a JSON {self._what}", param, ctx)
        return found


def whole(value: list[Any] | dict[str, Any]) -> Arguments:
    """Return the arguments that are given as one JSON value."""
    return (value, {}) if isinstance(value, list) else ([], value)


def guess(words: Sequence[str]) -> Arguments:
    """Return what words mean where no signature is known.

    :raises click.UsageError: if there are both kinds of arguments.
    """
    found = [_KEY.fullmatch(word) for word in words]
    keys = [each[1] for each in found if each]
    if keys and len(keys) < len(words):
        raise click.UsageError(
            f"{keys[0]}= is a keyword argument and others are positional; where the procedure's"
            " signature is not known they can't be mixed: name all of them, or give --json-args"
        )
    _refuse_repeated(keys)
    args = [_guessed(word) for word in words] if not keys else []
    return args, {each[1]: _guessed(each[2]) for each in found if each}


def bind(words: Sequence[str], signature: Signature, ask: Callable[[str], str | None]) -> Arguments:
    """Return what words mean as arguments of a procedure.

    :param ask: asks for the value of a secret parameter; None if nobody can be asked.
    :raises click.UsageError: if they are no arguments of it; the text has its signature.
    """
    try:
        return _bind(words, signature, ask)
    except ValueError as error:
        raise click.UsageError(f"{error}\n  {signature}") from None


def _bind(
    words: Sequence[str], signature: Signature, ask: Callable[[str], str | None]
) -> Arguments:
    by_place: list[str] = []
    by_name: dict[str, str] = {}
    for word in words:
        found = _KEY.fullmatch(word)
        if found is None:
            by_place.append(word)
            continue
        name = found[1]
        if name not in signature.schemas and signature.extra is None:
            names = ", ".join(signature.schemas) or "none"
            raise ValueError(
                f"there is no parameter {name}; the parameters are: {names}. A positional argument"
                " that has = in it is given by its parameter's name, as NAME=A=B"
            )
        _refuse_repeated([*by_name, name])
        by_name[name] = found[2]
    places, rest = signature.positional, by_place[len(signature.positional) :]
    if rest and signature.rest is None:
        raise ValueError(f"there are {len(by_place)} positional arguments, {len(places)} at most")
    given = dict(zip(places, by_place, strict=False))
    if twice := given.keys() & by_name.keys():
        raise ValueError(f"{min(twice)} is given twice: by position and by name")
    values = {name: _converted(name, signature.schemas[name], text) for name, text in given.items()}
    for name, text in by_name.items():
        values[name] = _converted(name, signature.schemas.get(name, signature.extra or {}), text)
    missing = [name for name in signature.schemas if name in signature.required - values.keys()]
    for name in [name for name in missing if is_secret(signature.schemas[name])]:
        typed = ask(name)
        if typed is not None:
            values[name] = _converted(name, signature.schemas[name], typed)
            missing.remove(name)
    if missing:
        raise ValueError(f"missing: {', '.join(missing)}")
    if not values.keys() - given.keys():  # none by name: as they were given
        more = [_converted("args", signature.rest or {}, text) for text in rest]
        return [*values.values(), *more], {}
    if rest:
        raise ValueError("further positional arguments can't be mixed with named ones")
    return [], values


def _refuse_repeated(names: Sequence[str]) -> None:
    for index, name in enumerate(names):
        if name in names[:index]:
            raise click.UsageError(f"{name}= is given twice")


def _converted(name: str, schema: Schema, text: str) -> Any:
    try:
        value = _value(schema, text)
    except RecursionError:  # of a daemon that means to be a nuisance
        value = _guessed(text)
    if value is _MISFIT:
        shown = "what is given" if is_secret(schema) else repr(text)
        raise ValueError(f"{name} must be {type_name(schema)}, not {shown}")
    return Secret(value) if is_secret(schema) else value


_MISFIT = object()
_JSON_TYPES: dict[str, tuple[type, ...]] = {
    "integer": (int,),
    "number": (int, float),
    "null": (type(None),),
    "array": (list,),
    "object": (dict,),
}


def _value(schema: Schema, text: str) -> Any:
    """Return what a text means for a schema, `_MISFIT` if nothing."""
    match schema:
        case {"enum": list(values)}:
            # "1" is the text where both are allowed, as it stands there.
            by_text = {each if isinstance(each, str) else json.dumps(each): each for each in values}
            return by_text.get(text, _MISFIT)
        case {"anyOf": list(options)}:
            schemas = [each for each in options if isinstance(each, dict)]
            schemas.sort(key=lambda each: each.get("type") == "string")  # which takes all
            found = (_value(each, text) for each in schemas)
            return next((each for each in found if each is not _MISFIT), _MISFIT)
        case {"type": "string"}:
            return text
        case {"type": "boolean"}:
            return _WORDS.get(text.lower(), _MISFIT)
        case {"type": str(kind)} if kind in _JSON_TYPES:
            value = _guessed(text)
            return value if type(value) in _JSON_TYPES[kind] else _MISFIT
    return _guessed(text)


def _guessed(text: str) -> Any:
    """Return what a text means where no type is known: JSON if it is that, else the text."""
    try:
        return decoded(text)
    except ValueError:
        return text
