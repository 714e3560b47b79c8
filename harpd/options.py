"""The options of procedures: their defaults, and what is wrong with those that are given.

Who the users and groups are that they name is found by `harpd.identity`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeGuard

from harpd.proc import Groups, Procedure

MAX_LOCK_NAME = 200
"""The longest name of a lock in characters."""

LEAST = {
    "address_space": 64 << 20,
    "cpu": 1,
    "open_files": 16,
    "processes": 1,
    "max_packet": 1,
    "max_output": 1,
}
"""The limits and the smallest value of each, with which a call of Python's can still begin."""

MOST = 2**62
"""More than any of them can mean."""

MAX_UMASK = 0o777


@dataclass(frozen=True)
class Defaults:
    """What the configuration says for procedures that do not say it, see `harpd.proc.Procedure`."""

    timeout: float | None = None
    uid: str | int | None = None
    gid: Groups | None = None
    address_space: int | None = None
    cpu: int | None = None
    open_files: int | None = None
    processes: int | None = None
    max_packet: int | None = None
    max_output: int | None = None
    umask: int | None = None
    directory: str | None = None
    environment: Mapping[str, str] | None = None


NO_DEFAULTS = Defaults()


def option_mistakes(procedure: Procedure) -> Iterator[str]:
    """Find what is wrong with the options of a procedure, but for those of the user and group."""
    yield from common_mistakes(procedure)
    context, lock, wait = procedure.context, procedure.lock, procedure.lock_wait
    if not isinstance(context, bool | str):
        yield f"context must be True or the name of a parameter, not {context!r}"
    if lock is not None and not _is_lock(lock):
        yield f"lock must be a name of 1 to {MAX_LOCK_NAME} printable characters, not {lock!r}"
    if wait is not None and lock is None:
        yield "lock_wait is of no use without lock"
    elif wait is not None and not (_is_number(wait) and 0 <= wait < math.inf):
        yield f"lock_wait must be a number of seconds, 0 or more, not {wait!r}"


def common_mistakes(options: Procedure | Defaults) -> Iterator[str]:
    """Find what is wrong with the options that a procedure and the configuration can say."""
    timeout, umask, directory = options.timeout, options.umask, options.directory
    if timeout is not None and not (_is_number(timeout) and timeout > 0):
        yield f"timeout must be a number of seconds above 0, not {timeout!r}"
    for name, least in LEAST.items():
        value: Any = getattr(options, name)
        if value is not None and value != math.inf and not _is_whole(value, least, MOST):
            yield f"{name} must be a whole number from {least}, not {value!r}"
    if umask is not None and not _is_whole(umask, 0, MAX_UMASK):
        yield f"umask must be a number from 0 to 0o777, not {umask!r}"
    if directory is not None and not is_directory(directory):
        yield f"directory must be an absolute path, not {directory!r}"
    if options.environment is not None:
        yield from environment_mistakes(options.environment)


def is_directory(value: object) -> bool:
    """Say whether this can be a working directory; whether there is one, the call finds."""
    return isinstance(value, str) and value.startswith("/") and "\0" not in value


def environment_mistakes(value: object) -> Iterator[str]:
    """Find what can't be in an environment; values are not shown, they may be secret."""
    if not isinstance(value, Mapping):
        yield "environment must be a mapping of names to texts"
        return
    for name, text in value.items():
        if not isinstance(name, str) or not name or "=" in name or "\0" in name:
            yield f"environment can't have a variable with the name {name!r}"
        elif not isinstance(text, str) or "\0" in text:
            yield f"environment: {name} must be a text"


def _is_lock(value: object) -> bool:
    return isinstance(value, str) and 0 < len(value) <= MAX_LOCK_NAME and value.isprintable()


def _is_number(value: object) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_whole(value: object, least: int, most: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most
