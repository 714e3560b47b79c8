"""Which user may call which procedure: the one place that decides it, for every kind of request.

Who the user is has been found out before, by `harpd.auth`.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable, Mapping

from harp.settings import Section
from harp.wire import harpd

ANYBODY = "*"
"""In place of a user: all who have logged in."""


class Granted:
    """What one user may call.

    :param patterns: shell patterns of procedures; upper and lower case are not the same.
    """

    def __init__(self, patterns: Iterable[str]) -> None:
        texts = [fnmatch.translate(pattern) for pattern in patterns]
        self._pattern = re.compile("|".join(texts)) if texts else None

    def allows(self, procedure: str) -> bool:
        """Tell whether the user may call a procedure, and be told of it."""
        return self._pattern is not None and self._pattern.match(procedure) is not None

    def covers(self, request: harpd.Request) -> bool:
        """Tell whether a request may be carried out; a question only as far as `allows` goes."""
        match request:
            case harpd.CallRequest():
                return self.allows(request.procedure)
            case harpd.DescribeRequest():
                return self._pattern is not None
        return False


class Permissions:
    """Which user may call what.

    :param rules: patterns by user; None if everybody may call everything.
    """

    def __init__(self, rules: Mapping[str, list[str]] | None = None) -> None:
        if rules is None:
            rules = {ANYBODY: ["*"]}
        common = rules.get(ANYBODY, [])
        self._rest = Granted(common)
        self._users = {
            user: Granted([*patterns, *common])
            for user, patterns in rules.items()
            if user != ANYBODY
        }

    def of(self, user: str) -> Granted:
        """Return what a user may call who has logged in."""
        return self._users.get(user, self._rest)


def load(root: Section) -> Permissions:
    """Read ``permissions``: once the key is there, what it does not name is refused."""
    if "permissions" not in root:
        return Permissions()
    section = root.section("permissions")
    return Permissions({user: section.texts(user, default=[]) for user in section.keys()})  # noqa: SIM118 - a section is not a mapping
