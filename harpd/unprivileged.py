"""A zygote whose calls stay the user that it runs as, whomever the procedures name.

`harpd.testing` runs it where it is not root. All else is that of `harpd.zygote`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace

from harpd import catalogue, zygote
from harpd.catalogue import Entry
from harpd.identity import Identity, find_user
from harpd.options import Defaults
from harpd.proc import Groups
from harpd.surroundings import RLIMITS


def load(file: str, defaults: Defaults) -> Mapping[str, Entry]:
    """Load the procedures as the daemon does, for calls that stay who they are.

    A limit of processes is left out: it would count all that the user runs.

    :raises CatalogueError: with every mistake, but for users and groups that are not there.
    """
    entries = catalogue.load(file, defaults, _myself)
    return {name: _without_processes(entry) for name, entry in entries.items()}


def _myself(uid: str | int | None, gid: Groups | None) -> Identity | None:
    if uid is None and gid is None:
        return None
    user, group = os.geteuid(), os.getegid()
    name, home = find_user(user)
    return Identity(user, group, tuple(os.getgroups()), name, home)


def _without_processes(entry: Entry) -> Entry:
    surroundings = entry.surroundings
    if surroundings is None:
        return entry
    limits = tuple(limit for limit in surroundings.limits if limit[0] != RLIMITS["processes"])
    return replace(entry, surroundings=replace(surroundings, limits=limits))


if __name__ == "__main__":
    zygote.main(load)
