"""Turns the users and groups that procedures name into numbers.

So no look-up is left for a fork; `harpd.child` takes the identity on.
"""

from __future__ import annotations

import grp
import os
import pwd
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeGuard

from harpd.proc import Groups


@dataclass(frozen=True)
class Identity:
    """The user and groups that a call runs with.

    :param name: the user's, or his number where he has none.
    :param home: his home directory.
    """

    uid: int
    gid: int
    groups: tuple[int, ...]
    name: str = field(default="", compare=False)
    home: str = field(default="/", compare=False)


def find_identity(uid: str | int | None, gid: Groups | None) -> Identity | None:
    """Return what is meant by a procedure's uid and gid, None if they are the daemon's own.

    :raises LookupError: with a sentence, if there is no such user or group.
    """
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
    return Identity(user_id, groups[0], groups, *find_user(user_id))


def find_user(uid: int) -> tuple[str, str]:
    """Return the name and the home of a user, his number and / if he has none."""
    user = _user(uid)
    return (user.pw_name, user.pw_dir) if user else (str(uid), "/")


def _user(uid: str | int) -> pwd.struct_passwd | None:
    try:
        if isinstance(uid, str):
            return pwd.getpwnam(uid)
        if _is_id(uid):
            return pwd.getpwuid(uid)
    except (KeyError, ValueError):  # the latter: no name could be that
        if _is_id(uid):
            return None
    raise LookupError(f"there is no user {uid!r}")


def _group(gid: str | int) -> int:
    try:
        if isinstance(gid, str):
            return grp.getgrnam(gid).gr_gid
        if _is_id(gid):
            return gid
    except (KeyError, ValueError):
        pass
    raise LookupError(f"there is no group {gid!r}")


def _is_id(value: object) -> TypeGuard[int]:
    # The last number of 32 bits tells the kernel to change nothing (setresuid(2)).
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**32 - 1
