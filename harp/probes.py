"""Has the kernel look whether a peer's machine is still there, so that no wait for it is endless.

For the client library and for both daemons; imports no Twisted.
"""

from __future__ import annotations

import socket
import sys
from typing import Any

PROBES_AFTER, PROBE_EVERY, PROBES = 60, 15, 8
"""The kernel asks after so many seconds of silence, then every so many, as often; then it gives the
connection up (tcp(7)). A network that is cut for a minute, at whatever moment, loses no connection;
with half as many it could. The kernel's own values are two hours, 75 seconds and 9 times."""


def probe(connected: socket.socket) -> None:
    """Have the peer of a TCP socket looked for."""
    connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    if sys.platform == "linux":
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, PROBES_AFTER)
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, PROBE_EVERY)
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, PROBES)


def probe_below(transport: Any) -> None:
    """Have the peer of one of Twisted's transports looked for, TLS or not."""
    transport.setTcpKeepAlive(True)
    found = getattr(transport, "socket", None)  # a plug-in's may have none
    # A unix socket passes for one of TCP in Twisted; its peer is on this machine.
    if isinstance(found, socket.socket) and found.family in {socket.AF_INET, socket.AF_INET6}:
        probe(found)
