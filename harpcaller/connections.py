"""The connections with harpds: opened, kept, reused one request at a time, dropped when outdated.

What a connection does is in ``harpcaller.harpd_connection``; which of them carries a request, in
``harpcaller.attempt``.
"""

from __future__ import annotations

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
from harpcaller.trust import ServerTrust

CONNECT_TIMEOUT = 30.0
"""Seconds until a TCP connection must have come about."""

IDLE_LIMIT = 60.0
"""Seconds for which a free connection is kept; harpd keeps it for twice as long."""

MAX_FREE, MAX_FREE_PER_HOST = 500, 16
"""Free connections that are kept; each is about 50 KB."""

OLD_FOR = 3600.0
"""Seconds for which a harpd that refused the extensions is asked without them."""

Endpoint = Callable[[Host], IStreamClientEndpoint]
"""Says where a host is reached, by a peer that is trusted."""


def endpoint_by(reactor: Any, server_trust: ServerTrust) -> Endpoint:
    """Return what reaches hosts by TLS.

    :param server_trust: the rules for their certificates.
    """

    def endpoint(host: Host) -> IStreamClientEndpoint:
        creator = server_trust.for_host(host.name, host.address, host.server_name)
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
    """

    def __init__(self, reactor: Any, endpoint: Endpoint) -> None:
        self.reactor = reactor
        self._endpoint = endpoint
        self._free: dict[Host, list[tuple[HarpdConnection, IDelayedCall]]] = {}
        self._free_count = 0
        self._generation = 0
        self._old: dict[Host, float] = {}

    def is_known_as_old(self, host: Host) -> bool:
        """Say whether a harpd has refused the extensions not long ago."""
        return bool(self._old.get(host, 0.0) > self.reactor.seconds())

    def use(self, endpoint: Endpoint) -> None:
        """Reach hosts in another way from now on, and keep no connection made in the old one."""
        self._endpoint = endpoint
        self.close()

    def close(self) -> None:
        """Keep no connection: neither those that are free nor those in use when they become so."""
        self._generation += 1
        for host, kept in list(self._free.items()):
            for connection, _ in list(kept):
                self._forget(host, connection)
                connection.close()

    # What an attempt needs.

    def take(self, host: Host) -> HarpdConnection | None:
        """Return a free connection, which is not free any more."""
        if host not in self._free:
            return None
        connection, _ = self._free[host][-1]  # the one whose peer was seen last
        self._forget(host, connection)
        return connection

    def open(self, host: Host) -> Deferred[HarpdConnection]:
        """Return a new connection; TLS has yet to come about."""
        generation = self._generation

        def free(connection: HarpdConnection) -> None:
            if generation == self._generation:
                self._keep(host, connection)
            else:
                connection.close()

        connection = HarpdConnection(
            self.reactor, free, lambda connection: self._forget(host, connection)
        )
        factory = Factory.forProtocol(lambda: connection)
        factory.noisy = False
        # What connects answers with what wraps the connection or with it: it is ours either way.
        return self._endpoint(host).connect(factory).addCallback(lambda _: connection)

    def note_as_old(self, host: Host) -> None:
        """Learn that a harpd does not know the extensions."""
        now = self.reactor.seconds()
        self._old = {host: until for host, until in self._old.items() if until > now}
        self._old[host] = now + OLD_FOR

    def _keep(self, host: Host, connection: HarpdConnection) -> None:
        kept = self._free.get(host, [])
        if self._free_count >= MAX_FREE or len(kept) >= MAX_FREE_PER_HOST:
            connection.close()
            return
        timer = self.reactor.callLater(IDLE_LIMIT, self._outdated, host, connection)
        self._free.setdefault(host, []).append((connection, timer))
        self._free_count += 1

    def _outdated(self, host: Host, connection: HarpdConnection) -> None:
        self._forget(host, connection)
        connection.close()

    def _forget(self, host: Host, connection: HarpdConnection) -> None:
        kept = self._free.get(host, [])
        for entry in kept:
            if entry[0] is connection:
                kept.remove(entry)
                self._free_count -= 1
                if entry[1].active():
                    entry[1].cancel()
                break
        if not kept:
            self._free.pop(host, None)
