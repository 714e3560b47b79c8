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
from typing import Any

from harpd.arguments import Parameters
from harpd.descriptors import open_descriptors, take_away
from harpd.identity import Identity, find_identity
from harpd.options import NO_DEFAULTS, Defaults, common_mistakes, option_mistakes
from harpd.proc import Groups, Procedure
from harpd.surroundings import Surroundings, find_surroundings

MODULE_NAME = "harpd_procedures"


class CatalogueError(Exception):
    """The procedures file can't be used.

    :param mistakes: one sentence each, with the file and the line.
    """

    def __init__(self, mistakes: list[str]) -> None:
        super().__init__("\n".join(mistakes))
        self.mistakes = mistakes


@dataclass(frozen=True)
class Entry:
    """One procedure that may be called.

    :param identity: None if it runs as what the daemon runs as.
    :param timeout: the longest run in seconds, None for no limit.
    :param max_packet: the longest packet in bytes, None for no limit of its own.
    :param max_output: the bytes of all packets and the end result, None for no limit.
    :param surroundings: None if they are those of all calls.
    """

    name: str
    procedure: Procedure
    parameters: Parameters
    identity: Identity | None
    timeout: float | None
    max_packet: int | None = None
    max_output: int | None = None
    surroundings: Surroundings | None = None


FindIdentity = Callable[[str | int | None, Groups | None], Identity | None]


def load(
    file: str, defaults: Defaults = NO_DEFAULTS, find_identity: FindIdentity = find_identity
) -> Mapping[str, Entry]:
    """Run the procedures file and return what is marked in it, by name.

    :param find_identity: finds who is meant by a uid and a gid, as `harpd.identity.find_identity`.
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
    before = open_descriptors()
    try:
        exec(code, module.__dict__)  # noqa: S102 - the operator's own file
    except BaseException as error:
        raise CatalogueError([_at_import(file, error)]) from error
    for number, what in _opened_since(before).items():
        print(f"{file}: leaves descriptor {number} open ({what}), which no call can use")
    marked = {
        name: value
        for name, value in vars(module).items()
        if isinstance(value, Procedure) and not name.startswith("_")
    }
    mistakes = _default_mistakes(defaults, find_identity)
    if mistakes:
        defaults = NO_DEFAULTS  # that they are wrong is said once
    if not marked:
        mistakes.append(f"{file}: no procedure is marked in it")
    entries: dict[str, Entry] = {}
    for name, value in marked.items():
        try:
            entries[name] = _entry(name, value, defaults, find_identity)
        except CatalogueError as error:
            where = _where(value) or file
            mistakes += [f"{where}: procedure {name}: {mistake}" for mistake in error.mistakes]
    if mistakes:
        raise CatalogueError(mistakes)
    take_away(_opened_since(before))  # with those of looking up users
    return entries


def _opened_since(before: Mapping[int, str]) -> dict[int, str]:
    return {n: what for n, what in open_descriptors().items() if before.get(n) != what}


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


def _default_mistakes(defaults: Defaults, find_identity: FindIdentity) -> list[str]:
    mistakes = list(common_mistakes(defaults))
    try:
        find_identity(defaults.uid, defaults.gid)
    except LookupError as error:
        mistakes.append(str(error.args[0]))
    return [f"defaults of the procedures: {mistake}" for mistake in mistakes]


def _entry(
    name: str, procedure: Procedure, defaults: Defaults, find_identity: FindIdentity
) -> Entry:
    mistakes = [*option_mistakes(procedure), *_kind_mistakes(procedure)]
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
    if procedure.processes is not None and (identity is None or not identity.uid):
        mistakes.append("processes is of no use without a uid that is not root's")
    if mistakes or parameters is None:
        raise CatalogueError(mistakes)

    def limit(name: str) -> Any:
        own = getattr(procedure, name)
        value = getattr(defaults, name) if own is None else own
        return None if value == math.inf else value

    return Entry(
        name,
        procedure,
        parameters,
        identity,
        limit("timeout"),
        limit("max_packet"),
        limit("max_output"),
        find_surroundings(procedure, defaults, identity),
    )


def _context_parameter(procedure: Procedure) -> str | None:
    if procedure.context is True:
        return "context"
    return procedure.context if isinstance(procedure.context, str) else None


def _kind_mistakes(procedure: Procedure) -> Iterator[str]:
    if _is_empty(procedure):
        yield "has neither a function nor a __call__ of its own"
    functions = (_target(procedure), procedure.__call__)
    if any(inspect.iscoroutinefunction(f) or inspect.isasyncgenfunction(f) for f in functions):
        yield "is a coroutine function, which nothing here would await"
    if not procedure.streaming and any(map(inspect.isgeneratorfunction, functions)):
        how = "a StreamingProcedure" if procedure.function is None else "a streaming_procedure"
        yield f"yields, so it must be {how}"
