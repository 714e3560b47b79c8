"""Where harpd listens: at an address that it opens, or with a socket that it was started with.

The latter is what systemd calls socket activation (sd_listen_fds(3)).
"""

from __future__ import annotations

import os
import socket
from typing import Any

from twisted.internet.endpoints import serverFromString
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort, IProtocolFactory

BACKLOG = 1024
"""Connections that may wait to be accepted: a dispatcher can come with hundreds at once, and those
beyond wait for a second and longer (tcp(7), retransmission of SYN)."""

_FAMILIES = {socket.AF_INET: "INET", socket.AF_INET6: "INET6"}
_ALL = {"0.0.0.0", "::"}  # noqa: S104 - what a socket says that listens on all addresses


def listen(reactor: Any, address: str, port: int, factory: IProtocolFactory) -> IListeningPort:
    """Open a port.

    :param address: empty for all of this machine.
    :raises CannotListenError: if that can't be done.
    """
    opened: IListeningPort = reactor.listenTCP(port, factory, BACKLOG, address)
    return opened


def start_listening(
    reactor: Any, address: str, port: int, factory: IProtocolFactory
) -> IListeningPort:
    """Take over the socket that this process was started with, or open a port if there is none.

    :raises CannotListenError: if that can't be done, or the socket is not the one that the
        configuration means.
    """
    descriptor = _inherited(reactor)
    if descriptor is None:
        return listen(reactor, address, port, factory)
    with socket.socket(fileno=os.dup(descriptor)) as found:
        family, name = found.family, found.getsockname()
    if family not in _FAMILIES or name[1] != port or not _means(address, name[0]):
        text = f"the socket that systemd has opened is at {name}, which is not this address"
        raise CannotListenError(address or "*", port, text)
    os.set_blocking(descriptor, False)
    adopted: IListeningPort = reactor.adoptStreamPort(descriptor, family, factory)
    os.close(descriptor)  # the port has one of its own
    return adopted


def _means(address: str, opened: str) -> bool:
    return opened in _ALL if not address else opened == address


def _inherited(reactor: Any) -> int | None:
    # Twisted has taken what there is out of the environment when it was imported.
    try:
        endpoint: Any = serverFromString(reactor, "systemd:domain=INET:index=0")
    except IndexError:
        return None
    return int(endpoint.fileno)
