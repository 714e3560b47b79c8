"""What the process of a call finds: its limits, environment, working directory and umask.

It is made ready when the procedures are loaded: what all calls have in common is set in the zygote,
and only what a procedure has beyond that is left for a fork. `harpd.child` has it set there.
"""

from __future__ import annotations

import ctypes
import errno
import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from os import chdir, environ, umask
from typing import Any

from harpd.identity import Identity, find_user
from harpd.options import Defaults
from harpd.proc import Procedure

BASE = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "LANG": "C.UTF-8",
    "SHELL": "/bin/sh",
}
"""The environment of all calls, beside HOME, USER and LOGNAME of the user that one runs as."""

UMASK = 0o022
DIRECTORY = "/"

CPU_GRACE = 5
"""Seconds of processor time beyond its limit in which a procedure can put things in order."""

SPARE_MEMORY = 16 << 20
"""Bytes beyond its address space in which a call that has used that up can say so."""

_BEYOND = {"cpu": CPU_GRACE, "address_space": SPARE_MEMORY}

# As the kernel has them on all machines but alpha, mips and sparc (setrlimit(2)). The module
# resource is a library, which would be mapped into every fork.
CORE = 4
RLIMITS: Mapping[str, int] = {"cpu": 0, "processes": 6, "open_files": 7, "address_space": 9}

_PR_SET_NO_NEW_PRIVS = 38

_libc = ctypes.CDLL(None)
_setrlimit, _getrlimit, _prctl = _libc.setrlimit, _libc.getrlimit, _libc.prctl


class Environment:
    """An environment that is ready to be put in the place of another.

    To set three variables one by one would cost a fork 25 pages.
    """

    def __init__(self, variables: Mapping[bytes, bytes]) -> None:
        self._variables = dict(variables)
        texts = [b"%b=%b" % variable for variable in variables.items()]
        self._texts = (ctypes.c_char_p * (len(texts) + 1))(*texts, None)  # environ(7)
        self._address = ctypes.addressof(self._texts)

    def enter(self) -> None:
        """Let it be the one of this process, and of ``os.environ``."""
        _environ.value = self._address
        environ._data = self._variables  # type: ignore[attr-defined]


_environ = ctypes.c_void_p.in_dll(ctypes.CDLL(None), "environ")


@dataclass(frozen=True)
class Surroundings:
    """What is left for a fork to set.

    :param limits: for setrlimit(2), the number of a limit and the pair of its values.
    :param environment: None if it is that of all calls.
    :param cpu: the limit of processor time in seconds, None for none.
    :param gains_nothing: whether the set-uid bits of programs are to be without effect.
    """

    limits: tuple[tuple[int, Any], ...] = ()
    environment: Environment | None = None
    directory: str | None = None
    umask: int | None = None
    cpu: int | None = None
    gains_nothing: bool = False

    def enter(self) -> None:
        """Set all of it, in a process that has taken on its user.

        :raises OSError: if the kernel refuses.
        """
        if self.gains_nothing and _prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
            raise OSError(errno.EINVAL, "no_new_privs is not known to the kernel")
        for number, pair in self.limits:
            if _setrlimit(number, pair):
                raise OSError(errno.EPERM, f"limit {number} can't be set")
        if self.environment is not None:
            self.environment.enter()
        if self.umask is not None:
            umask(self.umask)
        if self.directory is not None:
            chdir(self.directory)


def find_surroundings(
    procedure: Procedure, defaults: Defaults, identity: Identity | None
) -> Surroundings | None:
    """Return what a procedure's calls have beyond what all have, None if that is nothing."""

    def said(name: str) -> Any:
        value = getattr(procedure, name)
        return getattr(defaults, name) if value is None else value

    is_user = identity is not None and identity.uid != 0
    limits = {name: said(name) for name in RLIMITS}
    if not is_user:
        limits["processes"] = None  # which holds for root never, and for us would be harpd's
    cpu = None if limits["cpu"] == math.inf else limits["cpu"]
    directory, mask = said("directory"), said("umask")
    found = Surroundings(
        tuple(_limits(limits)),
        _own_environment(procedure, defaults, identity),
        None if directory == DIRECTORY else directory,
        None if mask == UMASK else mask,
        cpu,
        is_user,
    )
    return None if found == Surroundings() else found


def clean_environment(defaults: Mapping[str, Any]) -> None:
    """Leave nothing of the daemon's environment: what all calls have takes its place.

    :param defaults: as the configuration says them, see `harpd.options.Defaults`.
    """
    environ.clear()
    environ.update(_common_environment(defaults.get("environment") or {}))


def settle() -> None:
    """Set in the zygote what else all calls have in common; they leave no core dumps."""
    chdir(DIRECTORY)
    umask(UMASK)
    _setrlimit(CORE, (ctypes.c_ulong * 2)(0, 0))


def use_spare_memory() -> None:
    """Let a call that has no memory left have what is kept for its report."""
    _reserve.clear()
    number = RLIMITS["address_space"]
    _getrlimit(number, _spare)
    _spare[0] = _spare[1]
    _setrlimit(number, _spare)


_spare = (ctypes.c_ulong * 2)()
_reserve = [bytes(500) for _ in range(100)]  # what setting the limit takes itself


def _limits(wanted: Mapping[str, int | float | None]) -> Iterator[tuple[int, Any]]:
    for name, value in wanted.items():
        if value is None or value == math.inf:
            continue
        now = (ctypes.c_ulong * 2)()
        _getrlimit(RLIMITS[name], now)
        highest = now[1]  # which only root could raise
        hard = min(int(value) + _BEYOND.get(name, 0), highest)
        yield RLIMITS[name], (ctypes.c_ulong * 2)(min(int(value), hard), hard)


def _own_environment(
    procedure: Procedure, defaults: Defaults, identity: Identity | None
) -> Environment | None:
    configured = defaults.environment or {}
    own: dict[str, str] = {}
    if identity is not None:
        own.update(_user_environment(identity.name, identity.home))
    own.update(configured)
    own.update(procedure.environment or {})
    common = _common_environment(configured)
    changes = {
        os.fsencode(name): os.fsencode(value)
        for name, value in own.items()
        if common.get(name) != value
    }
    # With what the procedures file has set.
    return Environment({**os.environb, **changes}) if changes else None


def _common_environment(configured: Mapping[str, str]) -> dict[str, str]:
    return {**BASE, **_user_environment(*find_user(os.geteuid())), **configured}


def _user_environment(name: str, home: str) -> dict[str, str]:
    return {"HOME": home, "USER": name, "LOGNAME": name}
