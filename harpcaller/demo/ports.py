"""Ports for daemons that are started, ended and started again."""

from __future__ import annotations

import random
import socket

_NUMBERS = range(20_000, 32_000)
"""Below those that outgoing connections get, from 32768 on (ip(7), ``ip_local_port_range``): one
of them may have a port at the moment at which a daemon wants it again."""


def free_port() -> int:
    """Return the number of a port that nobody has at the moment.

    :raises OSError: if none is found.
    """
    for number in random.SystemRandom().sample(_NUMBERS, 100):
        with socket.socket() as wanted:
            try:
                wanted.bind(("", number))
            except OSError:
                continue
            return number
    raise OSError("no free port")
