"""A network between dispatcher and harpd that cuts connections which have carried calls before.

What passes is encrypted, so where a connection stands is told by who spoke last: the dispatcher
speaks to begin TLS, to end the handshake with its first request, and then once for each request.
"""

from __future__ import annotations

import random
import selectors
import socket
import struct
import threading
from collections import Counter
from contextlib import suppress
from types import TracebackType

MOMENTS = ("part of a request", "whole request", "answered", "between")
"""Behind what a connection is cut: bytes of a request, all of them, the first bytes of what harpd
says to it, or those and a while in which nothing was said."""

CHANCE = 0.1
"""How likely one of them is for each request, unless something else is said."""

_WHILE = 0.02  # seconds in which nothing is said
_FIRST_REUSE = 3  # the turn of the dispatcher that begins a second request


class CuttingNetwork:
    """Carries connections to a port of this machine, in a thread, as long as the ``with`` block.

    :param target: the port.
    :param seed: chooses the moments.
    :param chance: how likely one of them is for each request.
    :ivar cuts: how often a connection was cut at which moment.
    """

    def __init__(self, target: int, seed: int, chance: float = CHANCE) -> None:
        self.cuts: Counter[str] = Counter()
        self._target = target
        self._chance = chance
        self._choice = random.Random(seed)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._selector = selectors.DefaultSelector()
        self._open: set[_Link] = set()
        self._stopped = False
        self._thread = threading.Thread(target=self._work)

    def __enter__(self) -> CuttingNetwork:
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stopped = True
        self._thread.join()

    def _work(self) -> None:
        while not self._stopped:
            ready = self._selector.select(_WHILE)
            for key, _ in ready:
                if key.data is None:
                    self._accept()
                elif key.data in self._open:
                    self._carry(key.data, key.fileobj is key.data.near)
            if not ready:
                for link in [each for each in self._open if each.moment == "between"]:
                    if not link.is_asking:
                        self._cut(link)
        for link in list(self._open):
            self._end(link)
        self._listener.close()
        self._selector.close()

    def _accept(self) -> None:
        near, _ = self._listener.accept()
        try:
            far = socket.create_connection(("127.0.0.1", self._target))
        except OSError:  # harpd is down
            near.close()
            return
        link = _Link(near, far)
        self._open.add(link)
        for end in (near, far):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._selector.register(end, selectors.EVENT_READ, link)

    def _carry(self, link: _Link, forth: bool) -> None:
        source, target = (link.near, link.far) if forth else (link.far, link.near)
        try:
            data = source.recv(65536)
            if not data:
                self._end(link)
                return
            if forth and not link.is_asking:
                link.turn += 1
                if link.turn >= _FIRST_REUSE and self._choice.random() < self._chance:
                    link.moment = self._choice.choice(MOMENTS)
            link.is_asking = forth
            if forth and link.moment == "part of a request":
                data = data[: len(data) // 2]
            target.sendall(data)
        except OSError:
            self._end(link)
            return
        if link.moment in MOMENTS[:2] if forth else link.moment == "answered":
            self._cut(link)

    def _cut(self, link: _Link) -> None:
        self.cuts[link.moment] += 1
        if self._choice.random() < 0.5:  # a reset instead of an end
            for end in (link.near, link.far):
                with suppress(OSError):
                    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._end(link)

    def _end(self, link: _Link) -> None:
        self._open.discard(link)
        for end in (link.near, link.far):
            self._selector.unregister(end)
            end.close()


class _Link:
    """One connection.

    :ivar turn: how often the dispatcher has begun to speak.
    :ivar is_asking: whether it was the last that spoke.
    :ivar moment: when the connection is cut, nothing if it is not.
    """

    def __init__(self, near: socket.socket, far: socket.socket) -> None:
        self.near = near
        self.far = far
        self.turn = 0
        self.is_asking = False
        self.moment = ""
