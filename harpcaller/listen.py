"""What stands under ``listen`` in the configuration, made into Twisted server endpoints and ports.

Which addresses there are is said by the configuration; who listens on them by the service.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.endpoints import quoteStringArgument, serverFromString
from twisted.internet.interfaces import (
    IListeningPort,
    IProtocolFactory,
    IStreamServerEndpoint,
    IStreamServerEndpointStringParser,
)
from twisted.plugin import getPlugins

from harp.settings import MAX_PORT


class Ports:
    """The ports that are open, by their descriptions.

    :param factory: makes the protocols of all of them.
    """

    def __init__(self, reactor: Any, factory: IProtocolFactory) -> None:
        self._reactor = reactor
        self._factory = factory
        self._open: dict[str, IListeningPort] = {}

    async def _listen(self, description: str) -> IListeningPort:
        return await endpoint(self._reactor, description).listen(self._factory)

    def open(self, descriptions: Iterable[str]) -> Deferred[None]:
        """Open the first ports.

        :raises CannotListenError: (errback) if one can't be bound.
        """
        return Deferred.fromCoroutine(self._open_all(descriptions))

    async def change(self, descriptions: Sequence[str]) -> list[str]:
        """Open what is new, then close what is not wanted any more; what stays is not touched.

        :return: why that can't be done; then nothing has changed.
        """
        new: dict[str, IListeningPort] = {}
        for description in descriptions:
            if description in self._open:
                continue
            try:
                new[description] = await self._listen(description)
            except Exception as error:  # plug-ins raise what they like
                await _close(new.values())
                return [f"listen: {description}: {error}"]
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


async def _close(ports: Iterable[IListeningPort]) -> None:
    for port in ports:
        await maybeDeferred(port.stopListening)


_SHORT = re.compile(r"(?P<host>[^\s:=/\\\[\]]+|\[(?P<v6>[0-9A-Fa-f:.]+)\]):(?P<port>[0-9]+)")
_WITH_PORT = re.compile(r"(?:tcp|tcp6|ssl):(?:port=)?(?P<port>[0-9]+)(?::|$)")

# Their parsers look at nothing but the description and the certificates it names, so they can be
# tried before there is a reactor. A plug-in's may do anything: systemd's takes up descriptors.
_BUILT_IN = frozenset({"tcp", "ssl", "unix"})
_TRIED = _BUILT_IN | {"tcp6"}

_HOW = "write HOST:PORT, *:PORT, [IPV6]:PORT or a server endpoint string of Twisted"


def endpoint(reactor: object, description: str) -> IStreamServerEndpoint:
    """Return the endpoint to listen on; nothing is opened yet but the certificates of ``ssl:``.

    ``HOST:PORT`` is TCP on one IPv4 address, ``*:PORT`` on all of them, ``[IPV6]:PORT`` on an IPv6
    address; everything else is a server endpoint string of Twisted.

    :param reactor: what the endpoint will listen with.
    :raises ValueError: if the description can't be understood.
    """
    translated = _translate(description)
    try:
        found: IStreamServerEndpoint = serverFromString(reactor, translated)
    except Exception as error:  # plug-ins raise what they like, Twisted's own parsers too
        raise ValueError(f"{description!r} can't be used ({error}): {_HOW}") from error
    return found


def check(description: str) -> None:
    """Check a description as far as that goes without touching the machine.

    :raises ValueError: if ``endpoint`` would not understand it.
    """
    kind = _translate(description).partition(":")[0]
    if kind in _TRIED:
        endpoint(None, description)
    elif kind not in _kinds():
        raise ValueError(f"{description!r} can't be understood: {_HOW}")


def _translate(description: str) -> str:
    translated = description
    short = _SHORT.fullmatch(description)
    if short and short["host"].lower() not in _kinds():
        if short["v6"]:
            interface = quoteStringArgument(short["v6"])
            translated = f"tcp6:{short['port']}:interface={interface}"
        elif short["host"] == "*":
            translated = f"tcp:{short['port']}"
        else:
            translated = f"tcp:{short['port']}:interface={short['host']}"
    with_port = _WITH_PORT.match(translated)
    if with_port and int(with_port["port"]) > MAX_PORT:
        raise ValueError(f"{description!r} has a port over {MAX_PORT}")
    return translated


def _kinds() -> frozenset[str]:
    parsers = getPlugins(IStreamServerEndpointStringParser)
    return _BUILT_IN | {parser.prefix.lower() for parser in parsers}
