"""How much callers may ask of harpd, before and after their login. It is others who hold to it."""

from __future__ import annotations

import resource
from dataclasses import dataclass, replace

from harp.settings import Section
from harp.wire.lines import MAX_REQUEST
from harpd.orders import MAX_CALLS

SHORT_REQUEST = 64 * 1024
"""The longest request line in bytes as long as nobody has logged in."""

_MANY = 1_000_000


@dataclass(frozen=True)
class Limits:
    """What the section ``limits`` says.

    :param max_connections: in all, and of one address.
    :param connections_before_login: in all, and of one address, of those without a login.
    :param long_requests_before_login: how many lines at once may exceed `SHORT_REQUEST` without
        a login at their beginning, as old dispatchers write them.
    :param max_request: the longest request line in bytes.
    :param max_calls: how many calls there may be at once; by default as many as may come at once
        from one dispatcher, on new connections; at most half of `harpd.orders.MAX_CALLS`, which
        leaves room for those that were told to end.
    :param idle_time: seconds that a kept connection may have no request.
    """

    max_connections: int = 4000
    max_connections_per_address: int = 2000
    connections_before_login: int = 2000
    connections_before_login_per_address: int = 1000
    long_requests_before_login: int = 4
    max_request: int = MAX_REQUEST
    max_calls: int = 1000
    idle_time: float = 120.0

    def within(self, descriptors: int) -> Limits:
        """Return limits that leave descriptors for calls, of which each takes two more.

        :param descriptors: how many there may be.
        """
        return replace(
            self,
            max_connections=min(self.max_connections, descriptors // 2),
            connections_before_login=min(self.connections_before_login, descriptors // 4),
        )


def raise_descriptors() -> int:
    """Have as many descriptors as the system allows, and return how many that is.

    Most systems begin with 1024, for old programs that use select(2).
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def load(root: Section) -> Limits:
    """Read the section; what is not there is as it is by default."""
    if "limits" not in root:
        return Limits()
    section = root.section("limits")
    usual = Limits()

    def count(key: str, minimum: int = 1, maximum: int = _MANY) -> int:
        return section.integer(key, getattr(usual, key), minimum, maximum)

    return Limits(
        max_connections=count("max_connections"),
        max_connections_per_address=count("max_connections_per_address"),
        connections_before_login=count("connections_before_login"),
        connections_before_login_per_address=count("connections_before_login_per_address"),
        long_requests_before_login=count("long_requests_before_login", 0),
        max_request=section.integer(
            "max_request", usual.max_request, SHORT_REQUEST, 16 * MAX_REQUEST
        ),
        max_calls=count("max_calls", maximum=MAX_CALLS // 2),
        idle_time=section.seconds("idle_time", usual.idle_time),
    )
