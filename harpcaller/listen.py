"""What stands under ``listen`` in the configuration, made into Twisted's server endpoints.

Which addresses there are is said by the configuration; `harpcaller.ports` opens them.
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from OpenSSL import SSL
from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.address import UNIXAddress
from twisted.internet.endpoints import quoteStringArgument, serverFromString
from twisted.internet.interfaces import (
    IAddress,
    IStreamServerEndpoint,
    IStreamServerEndpointStringParser,
)
from twisted.internet.protocol import Factory
from twisted.internet.ssl import CertificateOptions
from twisted.plugin import getPlugins

from harp.addresses import is_loopback
from harp.settings import MAX_PORT
from harpcaller.terms import Terms

_SHORT = re.compile(r"(?P<host>[^\s:=/\\\[\]]+|\[(?P<v6>[0-9A-Fa-f:.]+)\]):(?P<port>[0-9]+)")
_WITH_PORT = re.compile(r"(?:tcp|tcp6|ssl):(?:port=)?(?P<port>[0-9]+)(?::|$)")

# Their parsers look at nothing but the description and the certificates it names, so they can be
# tried before there is a reactor. A plug-in's may do anything: systemd's takes up descriptors.
_BUILT_IN = frozenset({"tcp", "ssl", "unix"})
_TRIED = _BUILT_IN | {"tcp6"}

BACKLOG = 1024
"""Connections that may wait to be accepted, unless the description says otherwise; Twisted has 50,
beyond which a burst of clients waits for a second and longer (tcp(7), retransmission of SYN). The
kernel has a limit of its own (listen(2), somaxconn)."""

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
        if is_inherited(description) and isinstance(error, IndexError | KeyError):
            text = f"{description!r} can't be used: systemd has handed over no such socket"
            raise ValueError(text) from error
        raise ValueError(f"{description!r} can't be used ({error}): {_HOW}") from error
    return found


def is_inherited(description: str) -> bool:
    """Return whether that is a socket with which systemd has started this process."""
    return _kind(description) == "systemd"


class TlsAddress(NamedTuple):
    """What an ``ssl:`` string says, with the certificate that is in its files now."""

    port: int
    certificate: CertificateOptions
    backlog: int
    interface: str


def tls_address(description: str) -> TlsAddress | None:
    """Return what an ``ssl:`` string says, None if the description is not one.

    :raises ValueError: if it can't be understood, or its certificate can't be used.
    """
    if _kind(description) != "ssl":
        return None
    asked = _asked(description)
    if asked.address.certificate.method != SSL.TLS_METHOD:
        raise ValueError(f"{description!r} can't be used: TLS 1.2 and up are spoken, no sslmethod")
    try:
        asked.address.certificate.getContext()
    except SSL.Error as error:
        why = "; ".join(text for *_, text in error.args[0])
        raise ValueError(f"{description!r} can't be used ({why})") from error
    return asked.address


def is_local(address: IAddress) -> bool:
    """Return whether a socket with that address can be reached from this machine only."""
    return isinstance(address, UNIXAddress) or is_loopback(getattr(address, "host", ""))


def missing(description: str, terms: Terms) -> str | None:
    """Return what is missing to listen there, where others than this machine's programs come.

    :return: None if nothing is.
    """
    if terms.insecure:
        return None
    if _kind(description) != "ssl":
        return (
            "can be reached from other machines, in clear text and without a login: write "
            "ssl:PORT:privateKey=FILE:certKey=FILE and give users, or listen on 127.0.0.1 or a "
            "unix socket, or write insecure: true to let everybody in"
        )
    if not terms.users.reach_over_network:
        return (
            "can be reached from other machines, and nobody could log in: give users with tokens "
            "or certificates, or write insecure: true to let everybody in"
        )
    return None


class _Asked:
    """Has of a reactor what endpoints call, and keeps what it is called with."""

    address: TlsAddress
    interface: str | None = None

    def listenSSL(
        self, port: int, factory: object, contextFactory: Any, backlog: int, interface: str
    ) -> None:
        self.address = TlsAddress(port, contextFactory, backlog, interface)
        self.interface = interface

    def listenTCP(self, port: int, factory: object, backlog: int, interface: str) -> None:
        self.interface = interface

    def listenUNIX(self, *args: object, **kwargs: object) -> None:
        pass


def _asked(description: str) -> _Asked:
    asked = _Asked()
    endpoint(asked, description).listen(Factory())
    return asked


def check(description: str, terms: Terms) -> None:
    """Check a description as far as that goes without touching the machine.

    What a name or a plug-in's endpoint means is seen when it is bound.

    :raises ValueError: if ``endpoint`` would not understand it, or others could come there to whom
        the terms say nothing.
    """
    kind = _kind(description)
    if kind in _TRIED:
        tls_address(description)
        interface = _asked(description).interface
        if interface is None or not _is_for_others(interface):
            return
        what = missing(description, terms)
        if what is not None:
            raise ValueError(f"{description!r} {what}")
    elif is_inherited(description):
        # Twisted sets the mode 0666 of such a socket, whatever systemd was told, and removes it.
        if "domain=UNIX" in description:
            text = "unix:PATH:mode=660 opens one; systemd's are of the domains INET and INET6"
            raise ValueError(f"{description!r} can't be used: {text}")
    elif kind not in _kinds():
        raise ValueError(f"{description!r} can't be understood: {_HOW}")


def _is_for_others(interface: str) -> bool:
    """Return whether an interface is known not to be this machine's own; a name may be."""
    return not interface or (
        (isIPAddress(interface) or isIPv6Address(interface)) and not (is_loopback(interface))
    )


def _kind(description: str) -> str:
    return _kind_of(_translate(description))


def _kind_of(translated: str) -> str:
    return translated.partition(":")[0]


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
    says_all = "backlog=" in translated or translated.endswith("\\")  # which is a mistake
    if _kind_of(translated) in _TRIED and not says_all:
        translated += f":backlog={BACKLOG}"
    with_port = _WITH_PORT.match(translated)
    if with_port and int(with_port["port"]) > MAX_PORT:
        raise ValueError(f"{description!r} has a port over {MAX_PORT}")
    return translated


def _kinds() -> frozenset[str]:
    parsers = getPlugins(IStreamServerEndpointStringParser)
    return _BUILT_IN | {parser.prefix.lower() for parser in parsers}
