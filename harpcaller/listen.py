"""What stands under ``listen`` in the configuration, made into Twisted's server endpoints.

Which addresses there are is said by the configuration; `harpcaller.ports` opens them.
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from OpenSSL import SSL
from twisted.internet.endpoints import quoteStringArgument, serverFromString
from twisted.internet.interfaces import IStreamServerEndpoint, IStreamServerEndpointStringParser
from twisted.internet.protocol import Factory
from twisted.internet.ssl import CertificateOptions
from twisted.plugin import getPlugins

from harp.settings import MAX_PORT

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
        raise ValueError(f"{description!r} can't be used ({error}): {_HOW}") from error
    return found


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
    asked = _Asked()
    endpoint(asked, description).listen(Factory())
    try:
        asked.address.certificate.getContext()
    except SSL.Error as error:
        why = "; ".join(text for *_, text in error.args[0])
        raise ValueError(f"{description!r} can't be used ({why})") from error
    return asked.address


class _Asked:
    """Has of a reactor what an ``ssl:`` endpoint calls, and keeps what it is called with."""

    address: TlsAddress

    def listenSSL(
        self, port: int, factory: object, contextFactory: Any, backlog: int, interface: str
    ) -> None:
        self.address = TlsAddress(port, contextFactory, backlog, interface)


def check(description: str) -> None:
    """Check a description as far as that goes without touching the machine.

    :raises ValueError: if ``endpoint`` would not understand it.
    """
    kind = _kind(description)
    if kind in _TRIED:
        if tls_address(description) is None:
            endpoint(None, description)
    elif kind not in _kinds():
        raise ValueError(f"{description!r} can't be understood: {_HOW}")


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
