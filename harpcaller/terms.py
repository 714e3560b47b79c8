"""On which terms clients get in, as the configuration says: users, their certificates, limits.

They are applied in ``harpcaller.gate``; where clients connect is ``harpcaller.listen``'s.
"""

from __future__ import annotations

import resource
from dataclasses import dataclass, field

from harp.addresses import Bounds
from harp.settings import Section
from harp.wire.lines import MAX_REQUEST
from harpcaller.client_tls import Authorities
from harpcaller.identities import Users
from harpcaller.trust import read_certificates
from harpcaller.users import read_users

REQUEST_TIMEOUT = 30.0
IDLE_TIMEOUT = 60.0
CONNECTIONS_PER_ADDRESS = 1000

MIN_REQUEST = 64 * 1024
"""The least that ``max_request`` may be in bytes: as much as anybody may send who is not known."""

MAX_COUNT = 1_000_000
"""The most connections that a limit may allow."""


@dataclass(frozen=True)
class ClientLimits:
    """The limits of clients that got in.

    :param connections: how many there may be at once; None for three quarters of the descriptors
        that the dispatcher may have, which leaves some for the hosts and the database.
    :param connections_per_address: how many of them from one address, but for loopback.
    :param request: the longest request line in bytes.
    :param request_timeout: seconds from the connection to the end of its first request.
    :param idle_timeout: seconds from a reply to the end of the next request, where the client asked
        for that.
    """

    connections: int | None = None
    connections_per_address: int = CONNECTIONS_PER_ADDRESS
    request: int = MAX_REQUEST
    request_timeout: float = REQUEST_TIMEOUT
    idle_timeout: float = IDLE_TIMEOUT

    @property
    def bounds(self) -> Bounds:
        """How many connections there may be."""
        total = self.connections
        if total is None:
            total = resource.getrlimit(resource.RLIMIT_NOFILE)[0] * 3 // 4
        return Bounds(total, self.connections_per_address)


@dataclass(frozen=True)
class Terms:
    """On which terms clients get in.

    :param insecure: whether everybody gets in everywhere.
    :param authorities: who signs the certificates of clients.
    """

    users: Users = field(default_factory=Users)
    authorities: Authorities | None = None
    insecure: bool = False
    limits: ClientLimits = ClientLimits()

    @property
    def trusted(self) -> str | None:
        """Which authorities are trusted now, None if there are none."""
        return None if self.authorities is None else self.authorities.id


def read_terms(keys: Section) -> Terms:
    """Read the keys of the configuration that say who gets in."""
    limits = ClientLimits(
        connections=keys.optional_integer("max_connections", 1, MAX_COUNT),
        connections_per_address=keys.integer(
            "max_connections_per_address", CONNECTIONS_PER_ADDRESS, 1, MAX_COUNT
        ),
        request=keys.integer("max_request", MAX_REQUEST, MIN_REQUEST, MAX_REQUEST),
        request_timeout=keys.seconds("request_timeout", REQUEST_TIMEOUT),
        idle_timeout=keys.seconds("idle_timeout", IDLE_TIMEOUT),
    )
    authorities = _authorities(keys)
    users = Users()
    if "users" in keys:
        users = read_users(keys.section("users"), "client_ca_file" in keys)
    return Terms(users, authorities, keys.flag("insecure"), limits)


def _authorities(keys: Section) -> Authorities | None:
    text = keys.optional_text("client_ca_file")
    if not text:
        return None
    try:
        return Authorities(read_certificates(keys.folder / text))
    except ValueError as error:
        keys.mistake("client_ca_file", str(error))
        return None
