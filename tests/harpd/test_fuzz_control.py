"""Tests of a real zygote and a real keeper with whatever can be sent to them."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Sequence
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from harpd import keeper, orders
from tests.fuzz import wire
from tests.fuzz.strategies import edited, examples
from tests.fuzz.targets import samples
from tests.harpd.test_keeper import ONE, BareKeeper
from tests.harpd.test_orders import JSON
from tests.harpd.waiting import PATIENCE, alive, wait_until
from tests.harpd.zygotes import ZygoteTestCase, zygote_below

PROCEDURES = """
    @procedure
    def f(): return os.getpid()

    @procedure
    def stay():
        print(os.getpid(), flush=True)
        signal.pause()
"""

_OURS = 10**6
"""The first number of a call that is ours; what is made up has smaller ones."""

KEYS = ["start", "procedure", "signal", "kill", "wake", "zygote", "files", "x"]
NUMBERS = st.integers(-2, 5) | st.sampled_from([2**63, 10**30, -(2**63)])
VALUES = NUMBERS | st.sampled_from(["f", "stay", "", True, False, None]) | JSON
WAYS = st.sampled_from(["socket", "pipe", "reading", "packets", "folder"])
DESCRIPTORS = st.just(["socket", "pipe"]) | st.lists(WAYS, max_size=4)
MESSAGES = (
    edited(samples("orders"))
    | st.binary(max_size=50)
    | st.dictionaries(st.sampled_from(KEYS), VALUES, max_size=3).map(json.dumps).map(str.encode)
    | st.builds(lambda n: b'{"start":%d,"procedure":"f"}' % n, st.integers(0, 5))
    | st.builds(lambda n: b'{"signal":%d,"kill":true}' % n, st.integers(0, 5))
)
STREAMS = st.lists(st.tuples(MESSAGES, DESCRIPTORS), max_size=6)


def send(control: socket.socket, message: bytes, ways: Sequence[str]) -> None:
    """Send a message with descriptors of these kinds, whose other ends are closed."""
    opened: list[int] = []
    sent: list[int] = []
    for way in ways:
        if way in ("socket", "packets"):
            kind = socket.SOCK_STREAM if way == "socket" else socket.SOCK_SEQPACKET
            pair = [end.detach() for end in socket.socketpair(socket.AF_UNIX, kind)]
        elif way == "folder":
            pair = [os.open(".", os.O_RDONLY)]
        else:
            pair = sorted(os.pipe(), reverse=way == "pipe")
        opened += pair
        sent.append(pair[0])
    try:
        socket.send_fds(control, [message[:50_000]], sent)
    finally:
        for descriptor in opened:
            os.close(descriptor)


def open_in(pid: int) -> int:
    """Return how many descriptors a process has."""
    return len(os.listdir(f"/proc/{pid}/fd"))


class DecodeTests(SynchronousTestCase):
    """What is an order."""

    @examples(300)
    @given(MESSAGES)
    def test_orders(self, message: bytes) -> None:
        """Each message is an order in all its parts, or refused."""
        wire.order(message)


class ZygoteTests(ZygoteTestCase):
    """A zygote serves after whatever was sent to it, and while it is."""

    def setUp(self) -> None:
        self.number = _OURS
        self.bare = self.zygote(PROCEDURES)

    def call(self, procedure: str) -> tuple[socket.socket, int]:
        """Start a call of a number of its own; return our ends of its socket and its output."""
        self.number += 1
        connection, theirs = socket.socketpair()
        connection.settimeout(PATIENCE)
        output, written = os.pipe()
        message = json.dumps({"start": self.number, "procedure": procedure}).encode()
        with theirs:
            socket.send_fds(self.bare.control, [message], [theirs.fileno(), written])
        os.close(written)
        connection.sendall(b"[]\n{}\n")
        return connection, output

    def check_serves(self) -> None:
        """Check that a call of it has its result; take what it tells of others meanwhile."""
        connection, output = self.call("f")
        with connection:
            self.assertIn(b'{"result":', connection.recv(1000))
        os.close(output)
        told = None
        while told != self.number:
            told = self.bare.receive().get("exited")

    def test_streams(self) -> None:
        """It lives, keeps no descriptor, and neither ends other calls nor stops taking them."""
        pid = zygote_below(self.bare.process.pid)
        connection, output = self.call("stay")
        victim = int(os.read(output, 100))
        self.check_serves()
        before = open_in(pid)

        @examples(60)
        @given(STREAMS)
        def try_out(stream: list[tuple[bytes, list[str]]]) -> None:
            for message, ways in stream:
                send(self.bare.control, message, ways)
            self.check_serves()
            self.assertTrue(alive(victim))

        with connection:
            try_out()
            wait_until(lambda: open_in(pid) == before, "the end of what came with messages")
            self.assertTrue(alive(victim))
        os.close(output)


class KeeperTests(SynchronousTestCase):
    """A keeper does after whatever was sent to it what it should, and nothing else."""

    def test_streams(self) -> None:
        """It lives, keeps no descriptor, and the zygotes go on."""
        bare = BareKeeper(Path(self.mktemp()).absolute(), ONE)
        self.addCleanup(bare.close)
        guard, control = bare.zygote(_OURS)
        self.addCleanup(control.close)
        before = open_in(bare.process.pid)

        @examples(60)
        @given(STREAMS)
        def try_out(stream: list[tuple[bytes, list[str]]]) -> None:
            for message, ways in stream:
                if ways or not starts_something(message):
                    send(bare.control, message, ways)
            self.assertIsNone(bare.process.poll())

        try_out()
        bare.tell({"files": 7})
        message, _ = bare.answer()
        self.assertEqual(message, {"files": 7})
        wait_until(lambda: open_in(bare.process.pid) == before, "the end of what came")
        self.assertTrue(alive(guard))
        self.assertTrue(alive(zygote_below(guard)))


def starts_something(message: bytes) -> bool:
    """Tell whether a keeper would start a process for it, which takes a second each."""
    try:
        return keeper.decode(message).what != "kill"
    except orders.RefusedError:
        return False
