"""Reads type hints: what they demand of JSON values becomes a shape (`harpd.shapes`).

A hint that JSON has no values for, or that is not known here, demands nothing.
"""

from __future__ import annotations

import re
import types
import typing
from collections.abc import Callable, Mapping, MutableMapping, MutableSequence, Sequence
from contextlib import suppress
from typing import Any

from harpd.proc import SECRET, T
from harpd.shapes import (
    ANY,
    BOOL,
    FLOAT,
    INT,
    NULL,
    STR,
    Array,
    Hidden,
    Literal,
    Object,
    OneOf,
    Shape,
    Structure,
    Tuple,
)

_PLAIN: Mapping[object, Shape] = {
    None: NULL,
    type(None): NULL,
    bool: BOOL,
    int: INT,
    float: FLOAT,
    str: STR,
    T: STR,  # of Secret alone
}
_ARRAYS = (list, Sequence, MutableSequence)
_OBJECTS = (dict, Mapping, MutableMapping)
_NAMED_SECRET = re.compile(r"\b(Secret|SECRET)\b")
_ALIAS: Any = getattr(typing, "TypeAliasType", ())  # since Python 3.12


def read_hints(hints: Mapping[str, Any], names: dict[str, Any]) -> dict[str, Shape]:
    """Return what each hint demands; a `Hidden` of one that is secret.

    :param hints: any objects; a text is an expression.
    :param names: what the names in the texts stand for.
    :raises LookupError: with a sentence, if it is not clear what is secret.
    """
    found = {}
    for key, hint in hints.items():
        try:
            found[key] = _resolved(hint, names)
        except LookupError as error:
            raise LookupError(f"parameter {key}: {error.args[0]}") from None
    return found


class NestedSecretError(LookupError):
    """Only a part of an argument is said to be secret."""

    def __init__(self) -> None:
        super().__init__("Secret must stand around the whole hint, as in Secret[list[str]]")


def _resolved(hint: Any, names: dict[str, Any]) -> Shape:
    def holder() -> None: ...

    holder.__annotations__ = {"hint": hint}
    try:
        found = typing.get_type_hints(holder, names, include_extras=True)["hint"]
        bare, is_secret = _reveal(found)
        shape = _read(bare, ())
    except NestedSecretError:
        raise
    except Exception as error:  # a name that is known to type checkers only; or it is no type
        if _NAMED_SECRET.search(repr(hint)):
            # To take it for a hint that demands nothing would be to show it.
            raise LookupError(f"the hint {hint!r} can't be read") from error
        return ANY
    return Hidden(shape) if is_secret else shape


def _reveal(hint: Any) -> tuple[Any, bool]:
    """Return a hint without what says that all of it is secret, and whether anything does."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Annotated:
        bare, is_secret = _reveal(args[0])
        return bare, is_secret or SECRET in args[1:]
    if origin in (typing.Union, types.UnionType):
        found = [_reveal(arg) for arg in args]
        if any(is_secret for _, is_secret in found):
            return typing.Union[tuple(bare for bare, _ in found)], True  # noqa: UP007
    if isinstance(hint, _ALIAS):
        return _reveal(hint.__value__)
    if isinstance(hint, typing.NewType):
        return _reveal(hint.__supertype__)
    return hint, False


def _read(hint: Any, inside: tuple[Any, ...]) -> Shape:
    """Return what a hint demands that has no text in it.

    :param inside: the named hints that are being read; what comes back to one demands nothing.
    """
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    kind = origin or hint

    def read(*parts: Any) -> list[Shape]:
        return [_read(part, inside) for part in parts]

    if kind in _PLAIN:
        return _PLAIN[kind]
    if kind in _ARRAYS:
        (item,) = read(args[0] if args else Any)
        return Array(f"{kind.__name__}[{item.name}]", item)
    if kind in _OBJECTS:
        key, value = read(*(args or (str, Any)))
        return Object(f"{kind.__name__}[{key.name}, {value.name}]", key, value)
    if kind is tuple:
        return _tuple(hint, args, read)
    if kind in (typing.Union, types.UnionType):
        options = read(*args)
        return ANY if ANY in options else OneOf(options)
    if kind is typing.Literal:
        return Literal(args) if all(type(each) in _PLAIN for each in args) else ANY
    if kind in (typing.Annotated, typing.Required, typing.NotRequired):
        if SECRET in args[1:]:
            raise NestedSecretError
        return _read(args[0], inside)
    if kind in inside:
        return ANY
    if typing.is_typeddict(kind):
        return _structure(kind, (*inside, kind))
    if isinstance(kind, typing.NewType):
        return _read(kind.__supertype__, inside)
    if isinstance(kind, _ALIAS):
        return _read(kind.__value__, (*inside, kind))
    _refuse_secrets_within(kind, args, inside)
    return ANY


def _refuse_secrets_within(kind: Any, args: tuple[Any, ...], inside: tuple[Any, ...]) -> None:
    """Find a secret in what is not checked: the arguments of a generic, the fields of a class."""
    hints: list[Any] = [arg for arg in args if not isinstance(arg, list)]
    with suppress(Exception):
        hints += typing.get_type_hints(kind, include_extras=True).values()
    for hint in hints:
        try:
            _read(hint, (*inside, kind))
        except NestedSecretError:
            raise
        except Exception:  # noqa: S112 - as any hint that is not understood
            continue


def _tuple(hint: Any, args: tuple[Any, ...], read: Callable[..., list[Shape]]) -> Shape:
    if args[1:] == (...,):
        (item,) = read(args[0])
        return Array(f"tuple[{item.name}, ...]", item)
    unpacked = any(
        typing.get_origin(arg) is typing.Unpack or getattr(arg, "__unpacked__", False)
        for arg in args
    )
    # Without arguments tuple[()] is the empty one, the others are tuples of any length.
    if unpacked or hint is tuple or hint is typing.Tuple:  # noqa: UP006
        return Array("tuple", ANY)
    items = read(*args)
    return Tuple(f"tuple[{', '.join(item.name for item in items) or '()'}]", items)


def _structure(kind: Any, inside: tuple[Any, ...]) -> Shape:
    hints = typing.get_type_hints(kind, include_extras=True)
    required = set(kind.__required_keys__)
    for key, hint in hints.items():
        # They are not seen in __required_keys__ where the hints are texts.
        if typing.get_origin(hint) is typing.Required:
            required.add(key)
        elif typing.get_origin(hint) is typing.NotRequired:
            required.discard(key)
    values = {key: _read(hint, inside) for key, hint in hints.items()}
    return Structure(kind.__name__, values, required)
