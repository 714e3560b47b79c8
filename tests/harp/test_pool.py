"""Tests of ``harp.pool``: connections in memory, at a time that a test sets."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from harp import pool
from harp.network import Address, NetworkFailure
from harp.pool import Pool
from harp.sockets import TcpEndpoint


class MemoryChannel:
    """A channel that is open until it is closed."""

    is_closed = False

    async def send(self, data: bytes) -> None:
        """Send it nowhere."""

    async def receive(self, timeout: float | None) -> bytes:
        """Return the end."""
        return b""

    def is_quiet(self) -> bool:
        """Tell whether it is open."""
        return not self.is_closed

    def close(self) -> None:
        """Close it."""
        self.is_closed = True

    abandon = close


class MemoryEndpoint(TcpEndpoint):
    """Leads nowhere, at a time that a test sets."""

    def __init__(self) -> None:
        super().__init__(Address("h", 1, 30, 60))
        self.time = 0.0
        self.meanwhile: Callable[[], None] = lambda: None
        self.attempts = 0

    def now(self) -> float:
        """Return that time, while something else happens."""
        self.meanwhile()
        return self.time

    async def pause(self, seconds: float) -> None:
        """Return at once."""

    async def connect(self) -> Any:
        """Fail."""
        self.attempts += 1
        raise NetworkFailure("nobody there")


class PoolTests(SynchronousTestCase):
    """What is kept, and for how long."""

    def setUp(self) -> None:
        """Make a pool that learned something."""
        self.endpoint = MemoryEndpoint()
        self.pool = Pool(self.endpoint)
        self.pool.remember(frozenset({"keepalive"}))

    def test_time(self) -> None:
        """A connection and what is known have their time, counted from the last use."""
        channel = MemoryChannel()
        self.endpoint.time = pool.IDLE_LIMIT - 1
        self.pool.give(channel)
        self.endpoint.time += pool.IDLE_LIMIT - 1
        self.assertEqual(self.pool.offered, {"keepalive"})
        self.assertIs(self.pool.take(), channel)
        self.pool.give(channel)
        self.endpoint.time += pool.IDLE_LIMIT
        self.assertIsNone(self.pool.offered)
        self.assertIsNone(self.pool.take())
        self.assertTrue(channel.is_closed)

    def test_number(self) -> None:
        """The connection that was used last comes first; what is too many is closed."""
        channels = [MemoryChannel() for _ in range(pool.MAX_IDLE + 2)]
        for channel in channels:
            self.pool.give(channel)
        self.assertEqual([each.is_closed for each in channels[:3]], [True, True, False])
        self.assertIs(self.pool.take(), channels[-1])
        self.pool.forget()
        self.assertEqual([each.is_closed for each in channels], [True] * 17 + [False])
        self.assertIsNone(self.pool.offered)

    def test_forgotten_meanwhile(self) -> None:
        """Another thread may forget everything between any two steps of this one."""
        self.endpoint.meanwhile = self.pool.forget
        self.assertEqual(self.pool.offered, {"keepalive"})
        self.assertIsNone(self.pool.offered)
