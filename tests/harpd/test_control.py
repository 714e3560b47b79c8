"""Tests of harpd.control: real sockets under the real reactor."""

from __future__ import annotations

import json
import os
import socket
from typing import Any

from twisted.trial.unittest import TestCase

from harpd.control import ControlChannel
from tests.harpd.waiting import descriptors, eventually, reactor, turns


class ControlChannelTests(TestCase):
    """Messages between the channel and the bare other end of its socket."""

    async def setUp(self) -> None:  # type: ignore[override]
        await turns()  # the reactor has descriptors of its own only while it runs
        self.before = descriptors()
        ours, self.theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.theirs.setblocking(False)
        self.messages: list[Any] = []
        self.losses: list[bool] = []
        self.channel = ControlChannel(
            reactor, ours, self.messages.append, lambda: self.losses.append(True)
        )
        self.addCleanup(self.check_closed)

    async def check_closed(self) -> None:
        """Close both ends; nothing may be left open."""
        self.channel.close()
        self.theirs.close()
        await turns(2)
        self.assertEqual(descriptors() - self.before, set())

    async def test_receive(self) -> None:
        """Each message comes whole, in order, also when there are more than one turn takes."""
        for number in range(200):
            self.theirs.send(json.dumps({"number": number}).encode())
        await eventually(lambda: len(self.messages) == 200, "200 messages")
        self.assertEqual(self.messages, [{"number": number} for number in range(200)])

    async def test_send_descriptors(self) -> None:
        """Descriptors go with their message and are closed here."""
        read, write = os.pipe()
        self.channel.send({"a": 1}, [read, write])
        self.assertRaises(OSError, os.fstat, read)
        data, (other_read, other_write), _, _ = socket.recv_fds(self.theirs, 100, 2)
        self.assertEqual(json.loads(data), {"a": 1})
        os.write(other_write, b"x")
        self.assertEqual(os.read(other_read, 10), b"x")
        os.close(other_read)
        os.close(other_write)

    async def test_slow_zygote(self) -> None:
        """Sending never blocks; what is waiting goes in order as soon as it can, whole."""
        text = "x" * 10_000
        count = 500
        for number in range(count):
            read, write = os.pipe()
            os.close(write)
            self.channel.send({"number": number, "text": text}, [read])
        self.assertIn(self.channel, reactor.getWriters())
        received: list[int] = []

        def receive() -> bool:
            try:
                while True:
                    data, (descriptor,), _, _ = socket.recv_fds(self.theirs, 20_000, 1)
                    received.append(json.loads(data)["number"])
                    os.close(descriptor)
            except BlockingIOError:
                return len(received) == count

        await eventually(receive, "all messages")
        self.assertEqual(received, list(range(count)))
        self.assertNotIn(self.channel, reactor.getWriters())

    async def test_lost(self) -> None:
        """The end of the zygote is told once, after its last messages."""
        self.theirs.send(b'{"last": 1}')
        self.theirs.close()
        await eventually(lambda: self.losses, "the end")
        self.assertEqual(self.messages, [{"last": 1}])
        self.channel.close()
        self.assertEqual(self.losses, [True])

    async def test_close(self) -> None:
        """Closing is seen at the other end, and told here."""
        self.channel.close()
        await turns(2)
        self.assertEqual(self.theirs.recv(10), b"")
        self.assertEqual(self.losses, [True])

    async def test_closed_a_turn_later(self) -> None:
        """The number of the closed socket is not free within the same turn of the reactor."""
        number = self.channel.fileno()
        self.channel.close()
        os.fstat(number)
        await turns()
        self.assertRaises(OSError, os.fstat, number)

    async def test_waiting_when_closed(self) -> None:
        """Descriptors of messages that could not be sent any more are closed."""
        for _ in range(200):
            read, write = os.pipe()
            self.channel.send({"text": "x" * 10_000}, [read, write])
        self.channel.close()
        self.channel.send({}, os.pipe())

    async def test_zygote_gone(self) -> None:
        """Sending to a zygote that is gone does nothing; its end is still told."""
        self.theirs.close()
        self.channel.send({"a": 1}, os.pipe())
        await eventually(lambda: self.losses, "the end")

    async def test_closed_while_receiving(self) -> None:
        """Whoever closes the channel in the middle of messages gets no more of them."""
        self.patch(self.channel, "_received", self.close_at)
        for number in range(5):
            self.theirs.send(json.dumps(number).encode())
        await eventually(lambda: self.losses, "the end")
        await turns(2)
        self.assertEqual(self.messages, [0])

    def close_at(self, message: Any) -> None:
        """Take a message and close."""
        self.messages.append(message)
        self.channel.close()
