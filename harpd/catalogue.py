"""Loads the procedures file and finds what may be called in it, with every mistake by its line.

Runs in the zygote only: the file is the operator's code, the network-facing process never loads it.
"""

from __future__ import annotations

import grp
import inspect
import os
import pwd
import sys
import traceback
import types
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeGuard

from harpd.proc import Groups, Procedure

MODULE_NAME = "harpd_procedures"


class CatalogueError(Exception):
    """The procedures file can't be used.

    :param mistakes: one sentence each, with the file and the line.
    """

    def __init__(self, mistakes: list[str]) -> None:
        super().__init__("\n".join(mistakes))
        self.mistakes = mistakes


@dataclass(frozen=True)
class Identity:
    """The user and groups that a call runs with, as numbers: no look-up is left for the fork."""

    uid: int
    gid: int
    groups: tuple[int, ...]


@dataclass(frozen=True)
class Entry:
    """One procedure that may be called.

    :param identity: None if it runs as what the daemon runs as.
    """

    name: str
    procedure: Procedure
    signature: inspect.Signature
    identity: Identity | None


def load(file: str) -> Mapping[str, Entry]:
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
    mistakes: list[str] = []
    entries = {
        name: entry
        for name, value in vars(module).items()
        if isinstance(value, Procedure) and not name.startswith("_")
        if (entry := _entry(file, name, value, mistakes)) is not None
    }
    if mistakes:
        raise CatalogueError(mistakes)
    return entries


def _at_import(file: str, error: BaseException) -> str:
    lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == file]
    where = f", line {lines[-1]}" if lines else ""
    return f"{file}{where}: {type(error).__name__}: {error}"


def _entry(file: str, name: str, procedure: Procedure, mistakes: list[str]) -> Entry | None:
    code = getattr(inspect.unwrap(procedure.function), "__code__", None)
    where = f"{code.co_filename}, line {code.co_firstlineno}" if code else file
    found = len(mistakes)

    def mistake(what: str) -> None:
        mistakes.append(f"{where}: procedure {name}: {what}")

    timeout = procedure.timeout
    if timeout is not None and (
        isinstance(timeout, bool) or not isinstance(timeout, int | float) or not timeout > 0
    ):
        mistake(f"timeout must be a number of seconds above 0, not {timeout!r}")
    function = procedure.function
    if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
        mistake("is a coroutine function, which nothing here would await")
    if inspect.isgeneratorfunction(function) and not procedure.streaming:
        mistake("yields, so it must be marked with streaming_procedure")
    signature = identity = None
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        mistake("is not a function with a signature")
    try:
        identity = _identity(procedure.uid, procedure.gid)
    except LookupError as error:
        mistake(str(error.args[0]))
    if len(mistakes) > found or signature is None:
        return None
    return Entry(name, procedure, signature, identity)


def _identity(uid: str | int | None, gid: Groups | None) -> Identity | None:
    if uid is None and gid is None:
        return None
    groups: tuple[int, ...] | None = None
    if gid is not None:
        names = list(gid) if isinstance(gid, Sequence) and not isinstance(gid, str) else [gid]
        if not names:
            raise LookupError("gid is an empty list")
        groups = tuple(_group(name) for name in names)
    if uid is None:
        user_id = os.geteuid()
    else:
        user = _user(uid)
        user_id = user.pw_uid if user else int(uid)
        if groups is None:
            if user is None:
                raise LookupError(f"uid {uid} has no entry in the user database, so give gid too")
            groups = (
                user.pw_gid,
                *(g for g in os.getgrouplist(user.pw_name, user.pw_gid) if g != user.pw_gid),
            )
    assert groups is not None
    return Identity(user_id, groups[0], groups)


def _user(uid: str | int) -> pwd.struct_passwd | None:
    try:
        if isinstance(uid, str):
            return pwd.getpwnam(uid)
        if _is_id(uid):
            return pwd.getpwuid(uid)
    except KeyError:
        if _is_id(uid):
            return None
    raise LookupError(f"there is no user {uid!r}")


def _group(gid: str | int) -> int:
    try:
        if isinstance(gid, str):
            return grp.getgrnam(gid).gr_gid
        if _is_id(gid):
            return gid
    except KeyError:
        pass
    raise LookupError(f"there is no group {gid!r}")


def _is_id(value: object) -> TypeGuard[int]:
    # The last number of 32 bits tells the kernel to change nothing (setresuid(2)).
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**32 - 1
