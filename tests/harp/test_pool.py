"""Tests of ``harp.pool``: connections in memory, at a time that a test sets."""

from __future__ import annotations

import gc
import socket
import warnings
from collections.abc import Callable
from typing import Any

from msgspec import Raw
from twisted.trial.unittest import SynchronousTestCase

from harp import HarpStreamIterator, StreamIterator, pool
from harp.direct_call import DirectCall
from harp.network import Address, NetworkFailure
from harp.pool import Pool
from harp.questions import Question
from harp.sockets import PlainEndpoint, SocketChannel, run
from harp.wire.dispatcher import FollowStream
from harp.wire.harpd import Auth, CallRequest
from tests.harp.test_dispatcher_wire import ID


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


class MemoryEndpoint(PlainEndpoint):
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

    def test_given_at_the_end(self) -> None:
        """Where the program ends, a thread of it may still give back what it had."""
        channels = [MemoryChannel() for _ in range(3)]

        class Last(MemoryChannel):
            def abandon(last) -> None:
                self.pool.give(channels[2])

        for channel in (*channels[:2], Last()):
            self.pool.give(channel)
        pool._abandon(self.pool._idle)
        self.assertEqual([each.is_closed for each in channels], [True] * 3)


class GarbageTests(SynchronousTestCase):
    """Connections of objects that nobody holds any more are closed, also those of circles."""

    def channel(self) -> SocketChannel:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            connected = socket.create_connection(listener.getsockname())
        return SocketChannel(connected, 1)

    def assert_closed(self, hold: Callable[[SocketChannel], object]) -> None:
        """Let a circle hold a connection that is older than what would close it."""
        channel = self.channel()
        circle: list[object] = [hold(channel)]
        circle.append(circle)
        del channel, circle
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            gc.collect()
        self.assertEqual([str(warning.message) for warning in told], [])

    def test_kept(self) -> None:
        """A connection that waits for the next request."""

        def hold(channel: SocketChannel) -> object:
            pool = Pool(MemoryEndpoint())
            pool.give(channel)
            return pool

        self.assert_closed(hold)

    def test_iterators(self) -> None:
        """A connection whose packets nobody reads to the end."""

        async def opened(conversation: Any) -> Any:
            return conversation

        def follow(channel: SocketChannel) -> object:
            question = Question(
                Pool(MemoryEndpoint()), FollowStream(harpcaller=1, follow_stream=ID)
            )
            question._channel = channel
            packets = StreamIterator(False)
            run(packets._open(opened(question)))
            return packets

        def call(channel: SocketChannel) -> object:
            request = CallRequest(
                harp=1, procedure="run", arguments=Raw(b"[]"), auth=Auth("me", "secret")
            )
            direct = DirectCall(Pool(MemoryEndpoint()), request)
            direct._channel = channel
            return HarpStreamIterator(direct)

        self.assert_closed(follow)
        self.assert_closed(call)
