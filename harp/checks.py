"""Checks of what a caller passes: a wrong type is a TypeError, a wrong value a ValueError.

Both name the option.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import NoReturn

from harp.secret import Secret


def text(name: str, value: object) -> str:
    """Return a str after a check."""
    if not isinstance(value, str):
        raise TypeError(f"{name} must be a str, not {type(value).__name__}")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"{name}: {error}") from error
    return value


def seconds(name: str, value: object) -> float:
    """Return a length of time, more than none, after a check."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name} must be a number of seconds, not {type(value).__name__}")
    if not 0 < value < math.inf:
        raise ValueError(f"{name} must be a number of seconds above 0, not {value}")
    return value


def whole_number(name: str, value: object) -> int:
    """Return an int after a check."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be a whole number, not {type(value).__name__}")
    return int(value)


def count(name: str, value: object, minimum: int) -> int:
    """Return an int that is not below the minimum after a check."""
    number = whole_number(name, value)
    if number < minimum:
        raise ValueError(f"{name} must be {minimum} or more, not {number}")
    return number


def refuse(value: object) -> NoReturn:
    """Raise for a value that JSON has no form for.

    :raises TypeError: always.
    """
    if isinstance(value, Secret):
        raise TypeError("a harp.Secret can stand in the arguments of a call and nowhere else")
    raise TypeError(f"Object of type {type(value).__name__} is not JSON serializable")


def as_json(name: str, value: object, default: Callable[[object], object] = refuse) -> bytes:
    """Return the JSON of a value.

    The stdlib writes it, because msgspec writes what JSON can't carry as something else: NaN as
    null, bytes as base64, a set as a list.

    :param default: returns what is written in the place of a value that JSON has no form for.
    """
    encode = _encode if default is refuse else _encoder(default).encode
    try:
        return encode(value).encode()
    except TypeError as error:
        raise TypeError(f"{name}: {error}") from error
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{name}: {error}") from error


def _encoder(default: Callable[[object], object]) -> json.JSONEncoder:
    return json.JSONEncoder(
        allow_nan=False, ensure_ascii=False, separators=(",", ":"), default=default
    )


_encode = _encoder(refuse).encode


def json_object(name: str, value: object) -> bytes:
    """Return the JSON of a dict."""
    if not isinstance(value, dict):
        raise TypeError(f"{name} must be a dict, not {type(value).__name__}")
    return as_json(name, value)


def public(owner: object, name: str) -> None:
    """Refuse an attribute that can be no host and no procedure.

    :raises AttributeError: for names with an underscore: copy, pickle and consoles look for special
        methods on every object.
    """
    if name.startswith("_"):
        raise AttributeError(f"{type(owner).__name__!r} object has no attribute {name!r}")
