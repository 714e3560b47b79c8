"""Followers that join at any moment, leave, pause or never read, while packets come fast."""

from __future__ import annotations

import json
import random
import re
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from twisted.trial.unittest import SynchronousTestCase

import harp
from harpcaller.demo.deployment import Deployment
from tests.acceptance.daemons import HOST, PATIENCE, deploy, resident_kib

SEED = 3
FOLLOWERS = 32
HALF = 30_000
"""How many packets there are while followers join, and again when all have joined."""

APART = 20_000
"""Between two joins are as many bytes, more or less: the last comes before half of the packets."""

LEFT = 50_000
"""How many bytes a follower takes that closes early, at least."""

PAUSE = 10_000
"""How many packets a follower misses that pauses, at most."""

DEAF = 10
LARGE = 100_000
LARGE_PACKETS = 200
"""A stream of 20 MB, which would be there 10 times if it was kept for who does not read it."""

MEMORY_KIB = 96 * 1024
"""What the dispatcher may grow by: a page and a socket's buffers for each, and its own work."""


def whole_lines(received: bytes) -> bytes:
    """Return what was received, without the piece of a line at the end."""
    return received[: received.rfind(b"\n") + 1]


class Follower:
    """A bare socket that follows: it costs the test little, and reads only when it is told to."""

    def __init__(self, deployment: Deployment, job: harp.RemoteCall, **options: int) -> None:
        self.received = bytearray()
        self._socket = socket.socket()
        self._socket.settimeout(PATIENCE)
        self._socket.connect(("127.0.0.1", deployment.port))
        request = {"harpcaller": 1, "follow_stream": job.id(), **options}
        self._socket.sendall(json.dumps(request).encode() + b"\n")

    def read(self, enough: Callable[[bytearray], bool] = lambda received: False) -> None:
        """Read until there is enough, or to the end."""
        while not enough(self.received) and (data := self._socket.recv(1 << 16)):
            self.received += data

    def first(self) -> int | None:
        """Return the number of the first packet as soon as it is there, None if none comes."""
        self.read(lambda received: b"\n" in received)
        match = re.match(rb'\{"packet":(\d+),', self.received)
        return int(match[1]) if match else None

    def close(self) -> None:
        """Leave."""
        self._socket.close()


@contextmanager
def following(deployment: Deployment, job: harp.RemoteCall, **options: int) -> Iterator[Follower]:
    """Follow a job for as long as the ``with`` block lasts."""
    follower = Follower(deployment, job, **options)
    try:
        yield follower
    finally:
        follower.close()


def recorded(job: harp.RemoteCall) -> int:
    """Return how many packets the dispatcher has recorded."""
    packets = job.stream(recent=1, numbered=True).all()
    return packets[-1][0] + 1 if packets else 0


class FollowerTests(SynchronousTestCase):
    """What follows real daemons."""

    def setUp(self) -> None:
        self.deployment = deploy()
        self.addCleanup(self.deployment.stop)
        self.deployment.__enter__()
        self.host = harp.HarpCaller("127.0.0.1", self.deployment.port).host(HOST)

    def test_join_at_random_moments(self) -> None:
        """Whenever and with whatever start one joins, every packet from there comes once."""
        choice = random.Random(SEED)
        go_on = self.deployment.folder / "go-on"
        job = self.host.count_twice(HALF, str(go_on))
        joined = []
        with following(self.deployment, job, since=0) as guide:
            moment = 0
            for _ in range(FOLLOWERS):
                moment += choice.randrange(2 * APART)
                guide.read(lambda received, moment=moment: len(received) > moment)  # type: ignore[misc]
                packets = guide.received.count(b"\n")
                joined.append(Joined(self.deployment, job, packets, choice.random()))
        self.assertIs(job.result(), harp.CALL_NOT_FINISHED)
        go_on.touch()
        for follower in joined:
            follower.join()
        whole = [b'{"packet":%d,"data":%d}\n' % (number, number) for number in range(2 * HALF)]
        whole.append(b'{"result":%d}\n' % (2 * HALF))
        for follower in joined:
            self.assertEqual(follower.fault(whole), None, follower.name)

    def test_deaf(self) -> None:
        """Who does not read costs a bounded memory and delays neither the job nor who reads."""
        assert self.deployment.harpcaller.process is not None
        dispatcher = self.deployment.harpcaller.process.pid
        self.host.count(10).get()
        before = resident_kib(dispatcher)
        release = self.deployment.folder / "release"
        job = self.host.stream_large(str(release), LARGE_PACKETS, LARGE)
        deaf = [Follower(self.deployment, job, since=0) for _ in range(DEAF)]
        for follower in deaf:
            self.addCleanup(follower.close)
        release.touch()
        packets = [len(packet) for packet in job.follow(since=0)]
        self.assertEqual(packets, [LARGE] * LARGE_PACKETS)
        self.assertEqual(job.get(), LARGE_PACKETS)
        self.assertLess(resident_kib(dispatcher) - before, MEMORY_KIB)
        # All that came before any of them had read a byte; now they miss nothing.
        for follower in deaf:
            follower.read()
            lines = bytes(follower.received).splitlines()
            follower.received.clear()
            numbers = [int(line[10 : line.index(b",")]) for line in lines[:-1]]
            self.assertEqual(numbers, list(range(LARGE_PACKETS)))
            self.assertEqual(lines[-1], b'{"result":%d}' % LARGE_PACKETS)


class Joined(threading.Thread):
    """One that has joined at a moment, with a start and a manner that a seed chooses."""

    def __init__(
        self, deployment: Deployment, job: harp.RemoteCall, moment: int, seed: float
    ) -> None:
        choice = random.Random(seed)
        self.kind = choice.choice(["since", "since", "recent", "recent", "neither"])
        self.number = choice.choice([0, moment, *(choice.randrange(2 * moment + 1) for _ in "12")])
        self.manner = choice.choice(["stay", "stay", "leave", "pause"])
        super().__init__(name=f"{self.kind} {self.number} at {moment}, {self.manner}")
        self._deployment = deployment
        self._job = job
        self._pause = choice.randrange(PAUSE)
        self._received = b""
        self._first: int | None = None
        self._known = range(0)
        self._error: BaseException | None = None
        self.start()

    def run(self) -> None:
        """Follow."""
        try:
            options = {} if self.kind == "neither" else {self.kind: self.number}
            before = recorded(self._job)
            with following(self._deployment, self._job, **options) as follower:
                self._first = follower.first()
                after = recorded(self._job)
                self._known = range(before, after + 1)
                if self.manner == "leave":
                    follower.read(lambda received: len(received) > LEFT)
                elif self.manner == "pause":
                    self._wait_for(after + self._pause)
                    follower.read()
                else:
                    follower.read()
            self._received = whole_lines(bytes(follower.received))
        except BaseException as error:
            self._error = error

    def fault(self, whole: list[bytes]) -> str | None:
        """Return what is wrong with what came.

        :param whole: all the lines that there were.
        """
        if self._error is not None:
            return repr(self._error)
        packets = len(whole) - 1
        first = packets if self._first is None else self._first
        if self.kind == "since":
            right = first == min(self.number, packets)
        else:
            recent = self.number if self.kind == "recent" else 0
            right = any(first == max(0, known - recent) for known in self._known)
        if not right:
            return f"began at {first}, when {self._known} were recorded"
        expected = whole[first:]
        if self.manner == "leave":
            expected = expected[: self._received.count(b"\n")]
        return None if self._received == b"".join(expected) else "not what was streamed"

    def _wait_for(self, packets: int) -> None:
        with following(self._deployment, self._job, since=packets) as other:
            other.first()  # or the end
