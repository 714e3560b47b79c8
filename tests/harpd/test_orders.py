"""Tests of harpd.orders: whatever comes is an order or refused, and no descriptor is left."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from harpd.orders import (
    MAX_MESSAGE,
    Orders,
    RefusedError,
    Signal,
    Start,
    Wake,
    ZygoteOrder,
    check_ends,
    decode,
)
from tests.harpd.waiting import descriptors

GOOD: list[tuple[dict[str, Any], ZygoteOrder]] = [
    ({"start": 1, "procedure": "f"}, Start(1, "f")),
    ({"signal": 2**63 - 1, "kill": True}, Signal(2**63 - 1, True)),
    ({"signal": 0, "kill": False}, Signal(0, False)),
    ({"wake": 3}, Wake(3)),
]

BAD: list[Any] = [
    {},
    [],
    None,
    {"start": 1},
    {"start": "1", "procedure": "f"},
    {"start": 1, "procedure": ["f"]},
    {"start": 1, "procedure": "f", "uid": 0},
    {"start": True, "procedure": "f"},
    {"start": 1.0, "procedure": "f"},
    {"start": -1, "procedure": "f"},
    {"start": 2**63, "procedure": "f"},
    {"start": None, "procedure": "f"},
    {"signal": 1, "kill": 1},
    {"signal": 1, "kill": None},
    {"signal": {}, "kill": True},
    {"signal": 1},
    {"wake": "x"},
    {"wake": 1, "signal": 1, "kill": True},
]

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)
SLOW = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # to begin with
KEYS = st.sampled_from(["start", "procedure", "signal", "kill", "wake"])


class DecodeTests(SynchronousTestCase):
    """A message is an order in all of its parts, or none."""

    def check(self, data: bytes) -> None:
        """Check that a message is refused, or an order whose parts have their types."""
        try:
            order = decode(data)
        except RefusedError:
            return
        self.assertIs(type(order[0]), int)
        self.assertTrue(0 <= order[0] < 2**63)
        if isinstance(order, Start):
            self.assertIs(type(order.procedure), str)
        elif isinstance(order, Signal):
            self.assertIs(type(order.kill), bool)

    def test_orders(self) -> None:
        """Each order is known by its keys."""
        for message, order in GOOD:
            self.assertEqual(decode(json.dumps(message).encode()), order)
            self.assertIs(type(decode(json.dumps(message).encode())), type(order))

    def test_refused(self) -> None:
        """What is no order is refused, however close to one."""
        for message in BAD:
            self.assertRaises(RefusedError, decode, json.dumps(message).encode())
        whole = b'{"wake":1}'
        for data in (b"", whole[:-1], whole + b" 1", b" " + whole, b"\xff", b"[" * MAX_MESSAGE):
            self.assertRaises(RefusedError, decode, data)
        self.assertRaises(RefusedError, decode, b'{"wake":%b}' % (b"9" * 60_000))

    @SLOW
    @given(st.binary())
    @example(b'{"a":' * 10_000)
    def test_any_bytes(self, data: bytes) -> None:
        """Bytes of any kind do no more than be refused."""
        self.check(data)

    @SLOW
    @given(st.dictionaries(KEYS, JSON | st.integers(-1, 5) | st.text(max_size=3)))
    def test_any_values(self, message: dict[str, Any]) -> None:
        """Nor do values of any kind under the keys that there are."""
        self.check(json.dumps(message).encode())


class OrdersTests(SynchronousTestCase):
    """What is taken off the socket, with its descriptors."""

    def setUp(self) -> None:
        self.before = descriptors()
        self.ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.theirs = theirs
        self.orders: Orders[ZygoteOrder] = Orders(theirs, decode, descriptors=2)
        self.addCleanup(self.check_closed)

    def check_closed(self) -> None:
        """Close both ends; nothing may be left open."""
        self.ours.close()
        self.theirs.close()
        self.assertEqual(descriptors(), self.before)

    def refusal(self) -> str:
        """Return why the next message is refused."""
        return str(self.assertRaises(RefusedError, self.orders.next))

    def test_order(self) -> None:
        """An order comes with its descriptors, which no program inherits."""
        with open(os.devnull) as file:
            socket.send_fds(self.ours, [b'{"wake":1}'], [file.fileno()])
        message = self.orders.next()
        assert message is not None
        order, (descriptor,) = message
        self.assertEqual(order, Wake(1))
        self.assertFalse(os.get_inheritable(descriptor))
        os.close(descriptor)

    def test_refused_with_descriptors(self) -> None:
        """What comes with no order is closed, though there be hundreds."""
        with open(os.devnull) as file:
            for count in (1, 2, 3, 250):
                socket.send_fds(self.ours, [b"nonsense"], [file.fileno()] * count)
                self.assertIn("it is not JSON: ", self.refusal())

    def test_too_long(self) -> None:
        """A message that is cut is none, though what is left of it be one."""
        self.ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 * MAX_MESSAGE)
        self.ours.send(b'{"wake":1}'.rjust(MAX_MESSAGE) + b"x")
        self.assertIn("longer than 65536 bytes", self.refusal())

    def test_empty(self) -> None:
        """An empty message is not the end."""
        self.ours.send(b"")
        self.assertIn("it is empty", self.refusal())
        self.ours.send(b'{"wake":1}')
        self.assertEqual(self.orders.next(), (Wake(1), ()))

    def test_end(self) -> None:
        """The end is one, also if only one direction has ended."""
        self.ours.shutdown(socket.SHUT_WR)
        self.assertIsNone(self.orders.next())
        self.ours.close()
        self.assertIsNone(self.orders.next())

    def test_cut_for_the_log(self) -> None:
        """What is refused is shown in printable characters, and not all of it."""
        self.ours.send(b"\x1b[2J\n" + b"x" * 60_000)
        self.assertIn("b'\\x1b[2J\\nxxx", refusal := self.refusal())
        self.assertLess(len(refusal), 400)


class EndsTests(SynchronousTestCase):
    """The descriptors of a call are a local stream socket and a pipe that can be written."""

    def setUp(self) -> None:
        self.opened: list[int] = []
        ours, theirs = socket.socketpair()
        self.stream = self.keep(ours.detach())
        self.keep(theirs.detach())
        self.read, self.write = map(self.keep, os.pipe())

    def keep(self, descriptor: int) -> int:
        """Close a descriptor when the test ends."""
        self.addCleanup(os.close, descriptor)
        return descriptor

    def test_right(self) -> None:
        """They are returned in their order."""
        ends = (self.stream, self.write)
        self.assertEqual(check_ends(ends), ends)

    def test_wrong(self) -> None:
        """Any other kind, number or order of them is refused."""
        packets, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        datagrams, further = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        network = socket.socket()
        for end in (packets, other, datagrams, further, network):
            self.addCleanup(end.close)
        file = Path(self.mktemp())
        file.touch()
        plain = self.keep(os.open(file, os.O_RDWR))
        folder = self.keep(os.open(".", os.O_RDONLY))
        memory = self.keep(os.memfd_create("x"))
        for connection in (packets.fileno(), datagrams.fileno(), network.fileno(), plain, folder):
            self.assertRaises(RefusedError, check_ends, (connection, self.write))
        for output in (self.read, self.stream, plain, folder, memory):
            self.assertRaises(RefusedError, check_ends, (self.stream, output))
        for ends in ((), (self.stream,), (self.write, self.stream), (self.stream, self.write) * 2):
            self.assertRaises(RefusedError, check_ends, ends)
