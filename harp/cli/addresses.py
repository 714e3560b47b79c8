"""How an address of a daemon is written for the ``harp`` command."""

from __future__ import annotations

import ipaddress

from harp.network import Address

UNIX = "unix:"


def read_address(
    text: str, default_port: int, connect_timeout: float, reply_timeout: float
) -> Address:
    """Read ``HOST`` or ``HOST:PORT``; one of IPv6 has brackets where a port follows.

    :raises ValueError: if it is none.
    """
    host, port = text, ""
    if text.startswith("["):
        host, _bracket, port = text[1:].partition("]")
        if port and not port.startswith(":"):
            raise ValueError(f"{text!r} is no HOST[:PORT]")
        port = port.removeprefix(":")
    elif text.count(":") == 1:
        host, _colon, port = text.partition(":")
    if ":" in host:
        ipaddress.IPv6Address(host)
    if not host or host == UNIX[:-1] or (port and not (port.isascii() and port.isdecimal())):
        raise ValueError(f"{text!r} is no HOST[:PORT]")
    return Address(host, int(port or default_port), connect_timeout, reply_timeout)
