"""Loads the procedures file and finds what may be called in it, with every mistake by its line.

Runs in the zygote only: the file is the operator's code, the network-facing process never loads it.
"""

from __future__ import annotations

import inspect
import math
import sys
import traceback
import types
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeGuard

from harpd.arguments import Parameters
from harpd.identity import Identity, find_identity
from harpd.proc import Groups, Procedure

MODULE_NAME = "harpd_procedures"

MAX_LOCK_NAME = 200
"""The longest name of a lock in characters."""


class CatalogueError(Exception):
    """The procedures file can't be used.

    :param mistakes: one sentence each, with the file and the line.
    """

    def __init__(self, mistakes: list[str]) -> None:
        super().__init__("\n".join(mistakes))
        self.mistakes = mistakes


@dataclass(frozen=True)
class Defaults:
    """What the configuration says for procedures that do not say it, see `harpd.proc.Procedure`."""

    timeout: float | None = None
    uid: str | int | None = None
    gid: Groups | None = None


@dataclass(frozen=True)
class Entry:
    """One procedure that may be called.

    :param identity: None if it runs as what the daemon runs as.
    :param timeout: the longest run in seconds, None for no limit.
    """

    name: str
    procedure: Procedure
    parameters: Parameters
    identity: Identity | None
    timeout: float | None


def load(file: str, defaults: Defaults = Defaults()) -> Mapping[str, Entry]:
    """Run the procedures file and return what is marked in it, by name.

    :raises CatalogueError: with every mistake that could be found.
    """
    module = types.ModuleType(MODULE_NAME)
    module.__file__ = file
    sys.modules[MODULE_NAME] = module
    try:
        with open(file, "rb") as source:
            code = compile(source.read(), file, "exec", dont_inherit=True)
    except OSError as error:
        raise CatalogueError([f"{file}: can't be read: {error.strerror}"]) from error
    except (SyntaxError, ValueError) as error:  # the latter for NUL bytes, up to Python 3.11.3
        line = getattr(error, "lineno", None)
        where = f", line {line}" if line else ""
        raise CatalogueError([f"{file}{where}: {getattr(error, 'msg', error)}"]) from error
    try:
        exec(code, module.__dict__)  # noqa: S102 - the operator's own file
    except BaseException as error:
        raise CatalogueError([_at_import(file, error)]) from error
    marked = {
        name: value
        for name, value in vars(module).items()
        if isinstance(value, Procedure) and not name.startswith("_")
    }
    mistakes = _default_mistakes(defaults)
    if mistakes:
        defaults = Defaults()  # that they are wrong is said once
    if not marked:
        mistakes.append(f"{file}: no procedure is marked in it")
    entries: dict[str, Entry] = {}
    for name, value in marked.items():
        try:
            entries[name] = _entry(name, value, defaults)
        except CatalogueError as error:
            where = _where(value) or file
            mistakes += [f"{where}: procedure {name}: {mistake}" for mistake in error.mistakes]
    if mistakes:
        raise CatalogueError(mistakes)
    return entries


def _at_import(file: str, error: BaseException) -> str:
    lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == file]
    where = f", line {lines[-1]}" if lines else ""
    return f"{file}{where}: {type(error).__name__}: {error}"


def _where(procedure: Procedure) -> str | None:
    if _is_empty(procedure):
        return None
    code = getattr(inspect.unwrap(_target(procedure)), "__code__", None)
    return f"{code.co_filename}, line {code.co_firstlineno}" if code else None


def _is_empty(procedure: Procedure) -> bool:
    return procedure.function is None and type(procedure).__call__ is Procedure.__call__


def _target(procedure: Procedure) -> Callable[..., Any]:
    """Return what has the signature of the procedure."""
    return procedure.__call__ if procedure.function is None else procedure.function


def _default_mistakes(defaults: Defaults) -> list[str]:
    mistakes = list(_time_mistakes("timeout", defaults.timeout))
    try:
        find_identity(defaults.uid, defaults.gid)
    except LookupError as error:
        mistakes.append(str(error.args[0]))
    return [f"defaults of the procedures: {mistake}" for mistake in mistakes]


def _entry(name: str, procedure: Procedure, defaults: Defaults) -> Entry:
    mistakes = [*_option_mistakes(procedure), *_kind_mistakes(procedure)]
    parameters = identity = None
    try:
        parameters = Parameters(_target(procedure), _context_parameter(procedure))
    except LookupError as error:
        mistakes.append(str(error.args[0]))
    except (TypeError, ValueError):
        mistakes.append("is not a function with a signature")
    uid, gid = procedure.uid, procedure.gid
    if uid is None:
        uid = defaults.uid
        # Somebody else's groups would be no help to a user whom the procedure names.
        gid = defaults.gid if gid is None else gid
    try:
        identity = find_identity(uid, gid)
    except LookupError as error:
        mistakes.append(str(error.args[0]))
    if mistakes or parameters is None:
        raise CatalogueError(mistakes)
    timeout = defaults.timeout if procedure.timeout is None else procedure.timeout
    return Entry(name, procedure, parameters, identity, None if timeout == math.inf else timeout)


def _context_parameter(procedure: Procedure) -> str | None:
    if procedure.context is True:
        return "context"
    return procedure.context if isinstance(procedure.context, str) else None


def _option_mistakes(procedure: Procedure) -> Iterator[str]:
    yield from _time_mistakes("timeout", procedure.timeout)
    context, lock, wait = procedure.context, procedure.lock, procedure.lock_wait
    if not isinstance(context, bool | str):
        yield f"context must be True or the name of a parameter, not {context!r}"
    if lock is not None and not _is_name(lock):
        yield f"lock must be a name of 1 to {MAX_LOCK_NAME} printable characters, not {lock!r}"
    if wait is not None and lock is None:
        yield "lock_wait is of no use without lock"
    elif wait is not None and not (_is_number(wait) and 0 <= wait < math.inf):
        yield f"lock_wait must be a number of seconds, 0 or more, not {wait!r}"


def _time_mistakes(name: str, seconds: object) -> Iterator[str]:
    if seconds is not None and not (_is_number(seconds) and seconds > 0):
        yield f"{name} must be a number of seconds above 0, not {seconds!r}"


def _kind_mistakes(procedure: Procedure) -> Iterator[str]:
    if _is_empty(procedure):
        yield "has neither a function nor a __call__ of its own"
    functions = (_target(procedure), procedure.__call__)
    if any(inspect.iscoroutinefunction(f) or inspect.isasyncgenfunction(f) for f in functions):
        yield "is a coroutine function, which nothing here would await"
    if not procedure.streaming and any(map(inspect.isgeneratorfunction, functions)):
        how = "a StreamingProcedure" if procedure.function is None else "a streaming_procedure"
        yield f"yields, so it must be {how}"


def _is_name(value: object) -> bool:
    return isinstance(value, str) and 0 < len(value) <= MAX_LOCK_NAME and value.isprintable()


def _is_number(value: object) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool)
