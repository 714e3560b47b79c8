"""The ports that clients connect to: opened, exchanged on reload, closed.

What the descriptions of addresses mean is the business of `harpcaller.listen`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from OpenSSL import SSL
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import (
    IListeningPort,
    IOpenSSLServerConnectionCreator,
    IProtocolFactory,
)
from twisted.internet.ssl import CertificateOptions
from zope.interface import implementer

from harpcaller import listen


class Ports:
    """The ports that are open, by their descriptions.

    :param factory: makes the protocols of all of them.
    """

    def __init__(self, reactor: Any, factory: IProtocolFactory) -> None:
        self._reactor = reactor
        self._factory = factory
        self._open: dict[str, _Port] = {}

    def open(self, descriptions: Iterable[str]) -> Deferred[None]:
        """Open the first ports.

        :raises CannotListenError: (errback) if one can't be bound.
        """
        return Deferred.fromCoroutine(self._open_all(descriptions))

    async def change(self, descriptions: Sequence[str]) -> list[str]:
        """Open what is new, then close what is not wanted any more.

        What stays is not touched, but the connections to come get the certificates that are in
        their files now. What is not wanted any more is closed first where it has the number of a
        new port: an address in place of all, TLS in place of TCP.

        :return: why that can't be done; then nothing has changed.
        """
        leaving = [port for each, port in self._open.items() if each not in descriptions]
        closed: list[_Port] = []
        new: dict[str, _Port] = {}
        certificates: list[tuple[_Certificate, CertificateOptions]] = []
        for description in descriptions:
            try:
                if description not in self._open:
                    new[description] = await self._take_over(description, leaving, closed)
                elif (address := listen.tls_address(description)) is not None:
                    holder = self._open[description].certificate
                    assert holder is not None
                    certificates.append((holder, address.certificate))
            except Exception as error:  # plug-ins raise what they like
                await _close(new.values())
                return [f"listen: {description}: {error}", *_reopen(closed)]
        for holder, certificate in certificates:
            holder.options = certificate
        old = [self._open.pop(each) for each in list(self._open) if each not in descriptions]
        self._open |= new
        await _close(old)
        return []

    async def close(self) -> None:
        """Close all."""
        ports, self._open = self._open, {}
        await _close(ports.values())

    async def _open_all(self, descriptions: Iterable[str]) -> None:
        for description in descriptions:
            self._open[description] = await self._listen(description)

    async def _take_over(
        self, description: str, leaving: Sequence[_Port], closed: list[_Port]
    ) -> _Port:
        """Open a port, and close those before that leave and have its number."""
        try:
            return await self._listen(description)
        except CannotListenError as error:
            in_the_way = [each for each in leaving if each.number == error.port]
            if not in_the_way or error.port in [each.number for each in closed]:
                raise
        closed += in_the_way
        await _close(in_the_way)
        return await self._listen(description)

    async def _listen(self, description: str) -> _Port:
        address = listen.tls_address(description)
        if address is None:
            port = await listen.endpoint(self._reactor, description).listen(self._factory)
            return _Port(port, getattr(port.getHost(), "port", None))
        holder = _Certificate(address.certificate)
        port = self._reactor.listenSSL(
            address.port, self._factory, holder, address.backlog, address.interface
        )
        return _Port(port, address.port, holder)


@implementer(IOpenSSLServerConnectionCreator)
class _Certificate:
    """What the connections to come are secured with; may be replaced."""

    def __init__(self, options: CertificateOptions) -> None:
        self.options = options

    def serverConnectionForTLS(self, protocol: object) -> SSL.Connection:
        return SSL.Connection(self.options.getContext(), None)


@dataclass(frozen=True)
class _Port:
    port: IListeningPort
    number: int | None
    certificate: _Certificate | None = None


async def _close(ports: Iterable[_Port]) -> None:
    for each in ports:
        await maybeDeferred(each.port.stopListening)


def _reopen(closed: Iterable[_Port]) -> list[str]:
    mistakes = []
    for each in closed:
        try:
            each.port.startListening()
        except CannotListenError as error:  # somebody else was quick
            mistakes.append(f"listen: what was open before is closed now: {error}")
    return mistakes
