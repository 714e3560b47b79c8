"""The ports that clients connect to: opened, exchanged on reload, closed.

What the descriptions of addresses mean is the business of `harpcaller.listen`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import (
    IAddress,
    IListeningPort,
    ILoggingContext,
    IProtocol,
    IProtocolFactory,
)
from twisted.protocols.tls import TLSMemoryBIOFactory
from zope.interface import implementer

from harpcaller import listen
from harpcaller.client_tls import ClientTls
from harpcaller.gate import Gate
from harpcaller.logs import logger
from harpcaller.terms import Terms


class Ports:
    """The ports that are open, by their descriptions.

    :param gate: says whether there may be one more connection.
    :param factory: returns what makes the protocols of a port, when it is told whether the port can
        be reached from this machine only.
    """

    _log = logger("harpcaller.ports")

    def __init__(
        self, reactor: Any, gate: Gate, factory: Callable[[bool], IProtocolFactory]
    ) -> None:
        self._reactor = reactor
        self._gate = gate
        self._factory = factory
        self._open: dict[str, _Port] = {}

    def open(self, descriptions: Iterable[str], terms: Terms) -> Deferred[None]:
        """Open the first ports.

        :raises CannotListenError: (errback) if one can't be bound.
        :raises ValueError: (errback) if others could come there to whom the terms say nothing.
        """
        return Deferred.fromCoroutine(self._open_all(descriptions, terms))

    async def change(self, descriptions: Sequence[str], terms: Terms) -> list[str]:
        """Open what is new, then close what is not wanted any more.

        What stays is not touched, but the connections to come get the certificates that are in
        their files now. What is not wanted any more is closed first where it has the number of a
        new port: an address in place of all, TLS in place of TCP.

        :return: why that can't be done; then nothing has changed.
        """
        leaving = [port for each, port in self._open.items() if each not in descriptions]
        closed: list[_Port] = []
        new: dict[str, _Port] = {}
        renewed: list[tuple[ClientTls, ClientTls]] = []
        for description in descriptions:
            try:
                port = self._open.get(description)
                if port is None:
                    taken = await self._take_over(description, terms, leaving, closed)
                    new[description] = taken
                elif not port.is_local and (what := listen.missing(description, terms)):
                    raise ValueError(what)
                elif (address := listen.tls_address(description)) is not None:
                    assert port.tls is not None
                    renewed.append((port.tls, ClientTls(address.certificate, terms.authorities)))
            except Exception as error:  # plug-ins raise what they like
                await _close(new.values())
                return [f"listen: {description}: {error}", *_reopen(closed)]
        for tls, other in renewed:
            tls.become(other)
        old = [self._open.pop(each) for each in list(self._open) if each not in descriptions]
        self._open |= new
        await _close(old)
        self._warn(terms)
        return []

    async def close(self) -> None:
        """Close all."""
        ports, self._open = self._open, {}
        await _close(ports.values())

    async def _open_all(self, descriptions: Iterable[str], terms: Terms) -> None:
        for description in descriptions:
            try:
                self._open[description] = await self._listen(description, terms)
            except ValueError as error:
                raise ValueError(f"listen: {description}: {error}") from error
        self._warn(terms)

    async def _take_over(
        self, description: str, terms: Terms, leaving: Sequence[_Port], closed: list[_Port]
    ) -> _Port:
        """Open a port, and close those before that leave and have its number."""
        if listen.is_inherited(description):  # its descriptor may be something else by now
            raise ValueError("what systemd has opened is taken at the start only: restart")
        try:
            return await self._listen(description, terms)
        except CannotListenError as error:
            in_the_way = [each for each in leaving if each.number == error.port and each.is_ours]
            if not in_the_way or error.port in [each.number for each in closed]:
                raise
        closed += in_the_way
        await _close(in_the_way)
        return await self._listen(description, terms)

    async def _listen(self, description: str, terms: Terms) -> _Port:
        """Open a port; nobody comes in before it is seen who can reach it."""
        door = _Door(self._gate)
        address = listen.tls_address(description)
        tls = None if address is None else ClientTls(address.certificate, terms.authorities)
        if address is None:
            port = await listen.endpoint(self._reactor, description).listen(door)
        else:
            port = self._reactor.listenTCP(address.port, door, address.backlog, address.interface)
        is_local = listen.is_local(port.getHost())
        what = None if is_local else listen.missing(description, terms)
        if what is not None:
            maybeDeferred(port.stopListening)  # not waited for: who starts is told at once
            raise ValueError(what)
        factory = self._factory(is_local)
        door.leads_to = factory if tls is None else TLSMemoryBIOFactory(tls, False, factory)
        number = getattr(port.getHost(), "port", None)
        return _Port(port, number, is_local, tls, not listen.is_inherited(description))

    def _warn(self, terms: Terms) -> None:
        if terms.insecure:
            for description, port in self._open.items():
                if not port.is_local:
                    text = "{port} lets in everybody who can reach it, for insecure is true"
                    self._log.warn(text, port=description)


@implementer(IProtocolFactory, ILoggingContext)
class _Door:
    """Where connections to a port come in, before there is any TLS.

    :ivar leads_to: what makes their protocols; while it is None they are closed at once.
    """

    def __init__(self, gate: Gate) -> None:
        self._gate = gate
        self.leads_to: IProtocolFactory | None = None

    def logPrefix(self) -> str:
        return "harpcaller"

    def doStart(self) -> None:
        pass

    def doStop(self) -> None:
        pass

    def buildProtocol(self, addr: IAddress) -> IProtocol | None:
        if self.leads_to is None or not self._gate.admits(addr):
            return None
        return self.leads_to.buildProtocol(addr)


@dataclass(frozen=True)
class _Port:
    port: IListeningPort
    number: int | None
    is_local: bool
    tls: ClientTls | None
    is_ours: bool  # else closing it leaves it open elsewhere


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
