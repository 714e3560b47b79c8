"""Gives up root for good, before anything is read from the network."""

from __future__ import annotations

import ctypes
import os
import re
import resource

from harpd.identity import Identity

_PR_SET_DUMPABLE = 4
_PR_SET_NO_NEW_PRIVS = 38

_prctl = ctypes.CDLL(None, use_errno=True).prctl


class PrivilegeError(Exception):
    """The process can't become the user, or could become root again."""


def become(user: Identity) -> None:
    """Go on as this user, with nothing of what this process could do before.

    It gets no rights by programs that it starts any more (PR_SET_NO_NEW_PRIVS), and no other
    process of the same user may read its memory, by ptrace or from a core dump: the key of the
    certificate is in there (PR_SET_DUMPABLE, prctl(2)). The first of these holds for the calling
    thread and those that it starts, so there must be no other yet.

    :raises PrivilegeError: if that can't be done, whyever; the process must not go on then.
    """
    try:
        if os.geteuid() == 0:
            os.setgroups(user.groups)
            os.setresgid(user.gid, user.gid, user.gid)
            os.setresuid(user.uid, user.uid, user.uid)
        _set(_PR_SET_NO_NEW_PRIVS, 1)
        _set(_PR_SET_DUMPABLE, 0)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    except OSError as error:
        raise PrivilegeError(f"can't become user {user.uid}: {error.strerror}") from error
    _check(user)


def _check(user: Identity) -> None:
    if os.getresuid() != (user.uid,) * 3:
        uid = os.geteuid()
        raise PrivilegeError(f"user {uid} can't become user {user.uid}: only root can")
    try:
        os.setresuid(0, 0, 0)
    except PermissionError:
        pass
    else:
        raise PrivilegeError("root can be had back")
    with open("/proc/self/status") as status:
        held = re.findall(r"^Cap(?:Prm|Eff|Amb):\s*(\w+)$", status.read(), re.MULTILINE)
    if any(int(capabilities, 16) for capabilities in held):
        raise PrivilegeError("capabilities are left")
    if len(os.listdir("/proc/self/task")) > 1:
        raise PrivilegeError("there are threads already, which may be left with more")


def _set(option: int, value: int) -> None:
    if _prctl(option, value, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
