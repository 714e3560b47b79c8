"""The connections with harpds: opened, kept, reused one request at a time, dropped when outdated.

What a connection does is in ``harpcaller.harpd_connection``; which of them carries a request, in
``harpcaller.attempt``.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import (
    HostnameEndpoint,
    TCP4ClientEndpoint,
    TCP6ClientEndpoint,
    wrapClientTLS,
)
from twisted.internet.interfaces import IDelayedCall, IStreamClientEndpoint
from twisted.internet.protocol import Factory

from harpcaller.harpd_connection import HarpdConnection
from harpcaller.hosts import Host
from harpcaller.sessions import Sessions
from harpcaller.trust import Resumption, ServerTrust

CONNECT_TIMEOUT = 30.0
"""Seconds until a TCP connection must have come about."""

IDLE_LIMIT = 60.0
"""Seconds for which a free connection is kept; harpd keeps it for twice as long."""

MAX_FREE = 1000
"""Free connections that are kept, of all hosts; each is about 50 KB."""

OLD_FOR = 3600.0
"""Seconds for which a harpd that refused the extensions is asked without them."""

Endpoint = Callable[[Host], IStreamClientEndpoint]
"""Says where a host is reached, by a peer that is trusted."""


def endpoint_by(reactor: Any, server_trust: ServerTrust) -> Endpoint:
    """Return what reaches hosts by TLS, resuming sessions with those that are equal.

    :param server_trust: the rules for their certificates.
    """
    sessions = Sessions(reactor.seconds)

    def endpoint(host: Host) -> IStreamClientEndpoint:
        resumption = Resumption(sessions, host)
        creator = server_trust.for_host(
            host.name, host.address, host.server_name, host.fingerprints, resumption
        )
        found: IStreamClientEndpoint = wrapClientTLS(creator, _tcp_endpoint(reactor, host))
        return found

    return endpoint


def _tcp_endpoint(reactor: Any, host: Host) -> IStreamClientEndpoint:
    # HostnameEndpoint, which tries all addresses of a name, waits 0.3 s before it tells that an
    # address refused.
    if isIPAddress(host.address):
        return TCP4ClientEndpoint(reactor, host.address, host.port, CONNECT_TIMEOUT)
    if isIPv6Address(host.address):
        return TCP6ClientEndpoint(reactor, host.address, host.port, CONNECT_TIMEOUT)
    return HostnameEndpoint(reactor, host.address, host.port, timeout=CONNECT_TIMEOUT)


class Connections:
    """All connections with harpds.

    One serves only a host that is equal to the one that it was made for, credentials included.
    When too many are free, the one goes that has been so for longest.

    :param lookup: returns the host that a name stands for now, None if there is none.
    """

    def __init__(
        self, reactor: Any, endpoint: Endpoint, lookup: Callable[[str], Host | None]
    ) -> None:
        self.reactor = reactor
        self._endpoint = endpoint
        self._lookup = lookup
        self._free: OrderedDict[HarpdConnection, float] = OrderedDict()  # since when, in that order
        self._free_of: dict[Host, dict[HarpdConnection, None]] = {}
        self._timer: IDelayedCall | None = None
        self._generation = 0
        self._old: dict[Host, float] = {}

    def is_known_as_old(self, host: Host) -> bool:
        """Say whether a harpd has refused the extensions not long ago."""
        return bool(self._old) and bool(self._old.get(host, 0.0) > self.reactor.seconds())

    def use(self, endpoint: Endpoint) -> None:
        """Reach hosts in another way from now on, and keep no connection made in the old one."""
        self._endpoint = endpoint
        self.close()

    def close(self) -> None:
        """Keep no connection: neither those that are free nor those in use when they become so."""
        self._generation += 1
        for connection in list(self._free):
            connection.close()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def hosts_changed(self) -> None:
        """Close what is free and was made for a host that is another now, or is none any more."""
        for connection in list(self._free):
            if self._lookup(connection.host.name) != connection.host:
                connection.close()

    # What an attempt needs.

    def take(self, host: Host) -> HarpdConnection | None:
        """Return a free connection, which is not free any more."""
        while same := self._free_of.get(host):
            connection = next(reversed(same))  # the one whose peer was seen last
            self.gone(connection)
            if connection.is_quiet():
                return connection
            connection.close()
        return None

    def open(self, host: Host) -> Deferred[HarpdConnection]:
        """Return a new connection; TLS has yet to come about."""
        connection = HarpdConnection(self.reactor, self, host, self._generation)
        factory = Factory.forProtocol(lambda: connection)
        factory.noisy = False
        # What connects answers with what wraps the connection or with it: it is ours either way.
        return self._endpoint(host).connect(factory).addCallback(lambda _: connection)

    def note_as_old(self, host: Host) -> None:
        """Learn that a harpd does not know the extensions."""
        now = self.reactor.seconds()
        self._old = {host: until for host, until in self._old.items() if until > now}
        self._old[host] = now + OLD_FOR

    # What a connection tells; see `harpcaller.harpd_connection.Keeper`.

    def free(self, connection: HarpdConnection) -> None:
        """Keep a connection, if it would be made in the same way now."""
        host = connection.host
        if connection.generation != self._generation or self._lookup(host.name) != host:
            connection.close()
            return
        if len(self._free) >= MAX_FREE:
            next(iter(self._free)).close()
        self._free[connection] = self.reactor.seconds()
        self._free_of.setdefault(host, {})[connection] = None
        if self._timer is None:
            self._timer = self.reactor.callLater(IDLE_LIMIT, self._close_idle)

    def gone(self, connection: HarpdConnection) -> None:
        """Forget a connection, if it is free."""
        if self._free.pop(connection, None) is not None:
            same = self._free_of[connection.host]
            del same[connection]
            if not same:
                del self._free_of[connection.host]

    def _close_idle(self) -> None:
        """Close what has been free for too long; one timer does for all, since most are reused."""
        self._timer = None
        now = self.reactor.seconds()
        for connection, since in list(self._free.items()):
            if since + IDLE_LIMIT > now:
                self._timer = self.reactor.callLater(since + IDLE_LIMIT - now, self._close_idle)
                return
            connection.close()
