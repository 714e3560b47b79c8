"""All connections of the daemon: how many there may be, and how they end together.

What goes over each is the business of `harpd.protocol`.
"""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress, IDelayedCall, IOpenSSLServerConnectionCreator
from twisted.internet.protocol import Factory
from twisted.logger import Logger
from twisted.protocols.tls import TLSMemoryBIOFactory, TLSMemoryBIOProtocol

from harp.addresses import origin
from harpd.limits import Limits
from harpd.parts import Parts
from harpd.places import Places
from harpd.protocol import HarpdProtocol

LOG_EVERY = 1.0
"""Seconds between two lines of the log that tell of connections beyond the limits."""


class HarpdFactory(Factory):
    """Makes the protocols and knows which connections are open."""

    noisy = False
    _log = Logger("harpd.connections")

    def __init__(self, parts: Parts) -> None:
        self.is_stopping = self.is_over = False
        self._parts = parts
        self._places: Places[HarpdProtocol] = Places(parts.reactor.seconds, lambda: self.limits)
        self._long: set[HarpdProtocol] = set()
        self._refused = 0
        self._logged = -LOG_EVERY
        self._open: set[HarpdProtocol] = set()
        self._grace: IDelayedCall | None = None
        self._empty: Deferred[None] | None = None

    def buildProtocol(self, addr: IAddress | None) -> HarpdProtocol:
        """Return the protocol for a new connection."""
        address = _address_of(addr)
        protocol = HarpdProtocol(self._parts, address, self)
        self._open.add(protocol)
        self._places.enter(protocol, origin(address))
        return protocol

    @property
    def count(self) -> int:
        """How many connections there are."""
        return len(self._open)

    @property
    def limits(self) -> Limits:
        """Those that are in force."""
        return self._parts.policy.limits

    def has_place(self, addr: IAddress | None) -> bool:
        """Tell whether there may be one more connection; another one may have to go for it."""
        address = _address_of(addr)
        is_free, goes = self._places.find(origin(address))
        if goes is not None:
            self._places.leave(goes)
            goes.cut()
        if goes is not None or not is_free:
            self._refused += 1
            now = self._parts.reactor.seconds()
            if now - self._logged >= LOG_EVERY:
                text = "too many connections: {count} closed, the last time for one from {address}"
                self._log.warn(text, count=self._refused, address=address)
                self._refused, self._logged = 0, now
        return is_free

    def has_long_place(self, protocol: HarpdProtocol) -> bool:
        """Tell whether one more connection may have a long request without a login."""
        if len(self._long) < self.limits.long_requests_before_login:
            self._long.add(protocol)
        return protocol in self._long

    def logged_in(self, protocol: HarpdProtocol) -> None:
        """Count a connection with those that have a login."""
        self._places.logged_in(protocol)
        self._long.discard(protocol)

    def shut_down(self, grace: float) -> Deferred[None]:
        """Refuse new calls with ``shutdown``; end the running ones with it after the grace.

        :param grace: seconds for the procedures that run.
        :return: fires when the last connection is closed.
        """
        self.is_stopping = True
        empty = self._empty = Deferred()
        self._grace = self._parts.reactor.callLater(grace, self._end_all)
        for protocol in list(self._open):
            if not protocol.has_process:
                protocol.refuse_for_shutdown()
        self.conversation_ended()
        return empty

    def conversation_ended(self) -> None:
        """Look whether the end need not wait any more."""
        pending = self._grace is not None and self._grace.active()
        if pending and not any(protocol.has_process for protocol in self._open):
            assert self._grace is not None
            self._grace.reset(0)

    def gone(self, protocol: HarpdProtocol) -> None:
        """Forget a connection that is closed."""
        self._open.discard(protocol)
        self._places.leave(protocol)
        self._long.discard(protocol)
        self.conversation_ended()
        self._check_empty()

    def _end_all(self) -> None:
        self._grace = None
        self.is_over = True
        for protocol in list(self._open):
            protocol.shut_down()
        self._check_empty()

    def _check_empty(self) -> None:
        if self._empty is not None and self._grace is None and not self._open:
            empty, self._empty = self._empty, None
            empty.callback(None)


class TlsFactory(TLSMemoryBIOFactory):
    """Speaks TLS below the protocols, with as many connections as there are places for."""

    noisy = False

    def __init__(self, tls: IOpenSSLServerConnectionCreator, factory: HarpdFactory) -> None:
        super().__init__(tls, False, factory)
        self._factory = factory

    def buildProtocol(  # type: ignore[override]
        self, addr: IAddress | None
    ) -> TLSMemoryBIOProtocol | None:
        """Return None for a connection that is to be closed at once, before TLS costs anything."""
        return super().buildProtocol(addr) if self._factory.has_place(addr) else None


def _address_of(addr: IAddress | None) -> str:
    return str(getattr(addr, "host", addr))
