"""Tests of harpd.call_socket: a real socket under the real reactor."""

from __future__ import annotations

import os
import socket

from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase

from harpd.call_socket import CallSocket
from tests.harpd.waiting import descriptors, eventually, reactor, turns


class Recorder(Protocol):
    """Keeps what comes."""

    def __init__(self) -> None:
        self.data = b""
        self.losses = 0

    def dataReceived(self, data: bytes) -> None:
        self.data += data

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.losses += 1


class CallSocketTests(TestCase):
    """The transport and the bare other end of its socket."""

    async def setUp(self) -> None:  # type: ignore[override]
        await turns()  # the reactor has descriptors of its own only while it runs
        self.before = descriptors()
        ours, self.theirs = socket.socketpair()
        self.theirs.setblocking(False)
        self.protocol = Recorder()
        self.socket = CallSocket(reactor, ours, self.protocol)
        self.addCleanup(self.check_closed)

    async def check_closed(self) -> None:
        """Close both ends; nothing may be left open, and the loss is told once."""
        self.socket.loseConnection()
        self.theirs.close()
        await turns(2)
        self.assertEqual(descriptors() - self.before, set())
        self.assertEqual(self.protocol.losses, 1)

    def test_sent_at_once(self) -> None:
        """A short request is there without a turn of the reactor."""
        self.socket.write(b"request\n")
        self.assertEqual(self.theirs.recv(100), b"request\n")
        self.assertNotIn(self.socket, reactor.getWriters())

    async def test_long_request(self) -> None:
        """Of a long request the rest goes as it is taken."""
        request = os.urandom(3_000_000)
        self.socket.write(request)
        received = bytearray()

        def receive() -> bool:
            try:
                while data := self.theirs.recv(1 << 16):
                    received.extend(data)
            except BlockingIOError:
                pass
            return len(received) >= len(request)

        await eventually(receive, "all of it")
        self.assertEqual(received, request)

    async def test_request_not_taken(self) -> None:
        """What was said by a process that takes no request is heard to its end."""
        self.theirs.sendall(b"no\n")
        self.theirs.close()
        self.socket.write(b"request\n")
        await eventually(lambda: self.protocol.losses, "the end")
        self.assertEqual(self.protocol.data, b"no\n")

    async def test_paused(self) -> None:
        """While it is paused nothing is read, and its end is not seen; then both are."""
        self.socket.pauseProducing()
        self.theirs.sendall(b"something")
        self.theirs.close()
        await turns(3)
        self.assertEqual((self.protocol.data, self.protocol.losses), (b"", 0))
        self.socket.resumeProducing()
        await eventually(lambda: self.protocol.losses, "the end")
        self.assertEqual(self.protocol.data, b"something")

    async def test_closed_a_turn_later(self) -> None:
        """The number of the closed socket is not free within the same turn of the reactor."""
        number = self.socket.fileno()
        self.socket.loseConnection()
        os.fstat(number)
        await turns()
        self.assertRaises(OSError, os.fstat, number)
        self.assertNotIn(self.protocol, vars(self.socket).values())  # a circle would outlive both
        self.socket.resumeProducing()  # which may come late, and does nothing
        self.assertNotIn(self.socket, reactor.getReaders())
