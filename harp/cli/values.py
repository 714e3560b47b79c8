"""What the words of a command line mean as arguments of a call."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any, NoReturn

import click

_KEY = re.compile(r"([^\W\d]\w*)=(.*)", re.DOTALL)


def read_json(_: click.Context, parameter: click.Parameter, text: str | None) -> Any:
    """Read the JSON of an option."""
    if text is None:
        return None
    try:
        return decoded(text)
    except ValueError as error:
        raise click.BadParameter(f"is not JSON: {error}", param=parameter) from error


def read_object(context: click.Context, parameter: click.Parameter, text: str | None) -> Any:
    """Read the JSON object of an option."""
    value = read_json(context, parameter, text)
    if value is not None and not isinstance(value, dict):
        raise click.BadParameter("must be a JSON object", param=parameter)
    return value


def decoded(text: str) -> Any:
    """Return the value of a JSON text, which has no NaN.

    :raises ValueError: if it is none.
    """
    return json.loads(text, parse_constant=_refuse)


def _refuse(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


def split(words: Sequence[str]) -> tuple[list[Any], dict[str, Any]]:
    """Return positional and keyword arguments."""
    args: list[Any] = []
    kwargs: dict[str, Any] = {}
    for word in words:
        found = _KEY.fullmatch(word)
        if found is None:
            args.append(guessed(word))
        else:
            kwargs[found[1]] = guessed(found[2])
    return args, kwargs


def guessed(text: str) -> Any:
    """Return what a text means where no type is known: JSON if it is that, else the text."""
    try:
        return decoded(text)
    except (ValueError, RecursionError):
        return text
