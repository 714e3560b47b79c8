"""The ports that clients connect to: opened, exchanged on reload, closed.

What the descriptions of addresses mean is the business of `harpcaller.listen`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from OpenSSL import SSL
from twisted.internet.defer import Deferred, maybeDeferred
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
        their files now.

        :return: why that can't be done; then nothing has changed.
        """
        new: dict[str, _Port] = {}
        certificates: list[tuple[_Certificate, CertificateOptions]] = []
        for description in descriptions:
            try:
                if description not in self._open:
                    new[description] = await self._listen(description)
                elif (address := listen.tls_address(description)) is not None:
                    holder = self._open[description].certificate
                    assert holder is not None
                    certificates.append((holder, address.certificate))
            except Exception as error:  # plug-ins raise what they like
                await _close(new.values())
                return [f"listen: {description}: {error}"]
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

    async def _listen(self, description: str) -> _Port:
        address = listen.tls_address(description)
        if address is None:
            return _Port(await listen.endpoint(self._reactor, description).listen(self._factory))
        holder = _Certificate(address.certificate)
        port = self._reactor.listenSSL(
            address.port, self._factory, holder, address.backlog, address.interface
        )
        return _Port(port, holder)


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
    certificate: _Certificate | None = None


async def _close(ports: Iterable[_Port]) -> None:
    for each in ports:
        await maybeDeferred(each.port.stopListening)
