"""Followers that join at any moment, leave, pause or never read, while packets come fast."""

from __future__ import annotations

import json
import random
import re
import socket
import threading
from collections.abc import Callable
from contextlib import closing
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

import harp
from demo.deployment import Deployment
from tests.acceptance.daemons import (
    HOST,
    PATIENCE,
    deploy,
    resident_kib,
    shared,
)

PACKETS = 100_000

FOLLOWERS = 36

SEED = 3

LEFT = 5
"""How many packets a follower takes that closes early, at least."""

DEAF = 20
LARGE_PACKETS, LARGE = 400, 100_000
"""A stream of 40 MB, which the deaf followers would hold 20 times if it was kept for them."""

MEMORY_KIB = 64 * 1024
"""What the dispatcher may grow by with them: pages, a socket's buffers, what it records."""


def line(number: int) -> bytes:
    """Return the line of a packet of ``count``."""
    return b'{"packet":%d,"data":%d}\n' % (number, number)


class Follower:
    """A bare socket that follows, so that 36 of them cost the machine of the test little."""

    def __init__(self, deployment: Deployment, job_id: str, options: dict[str, int]) -> None:
        self.socket = socket.socket()
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16 * 1024)
        self.socket.settimeout(PATIENCE)
        self.socket.connect(("127.0.0.1", deployment.port))
        request = {"harpcaller": 1, "follow_stream": job_id, **options}
        self.socket.sendall(json.dumps(request).encode() + b"\n")
        self.received = bytearray()

    def read(self, enough: Callable[[bytearray], bool] = lambda received: False) -> None:
        """Read until there is enough, or to the end."""
        while not enough(self.received) and (data := self.socket.recv(1 << 16)):
            self.received += data

    def first(self) -> int:
        """Return the number of the first packet."""
        match = re.match(rb'\{"packet":(\d+),', self.received)
        assert match is not None, bytes(self.received[:200])
        return int(match[1])


def last_recorded(job: harp.RemoteCall) -> int:
    """Return the number of the last packet that the dispatcher has recorded, -1 if none."""
    packets = job.stream(recent=1, numbered=True).all()
    return int(packets[0][0]) if packets else -1


class JoiningTests(SynchronousTestCase):
    """From the history to what is live, without gap or repeat."""

    def test_join_at_random_moments(self) -> None:
        """Whenever and with whatever start one joins, every packet from there comes once."""
        choice = random.Random(SEED)
        deployment = shared()
        rpc = harp.HarpCaller("127.0.0.1", deployment.port)
        job = rpc.host(HOST).count(PACKETS)
        end = b'{"result":%d}\n' % PACKETS
        whole = b"".join(map(line, range(PACKETS))) + end
        offsets = [0]
        for number in range(PACKETS):
            offsets.append(offsets[-1] + len(line(number)))
        faults: list[str] = []

        def follow(kind: str, number: int, way: str, seed: int) -> None:
            mine = random.Random(seed)
            before = last_recorded(job)
            options = {kind: number} if kind else {}
            follower = Follower(deployment, job.id(), options)
            with closing(follower.socket):
                follower.read(lambda received: b"\n" in received)
                after = last_recorded(job)
                received = follower.received
                first = (
                    follower.first() if received[:1] == b"{" and received[2:3] == b"p" else PACKETS
                )
                if kind == "since":
                    right = first == number
                else:
                    right = max(0, before + 1 - number) <= first <= max(0, after + 1 - number)
                if not right:
                    faults.append(f"{kind} {number}: began at {first}, {before} to {after}")
                if way == "leave":
                    follower.read(lambda received: received.count(b"\n") > LEFT)
                elif way == "pause":
                    # Until a good part of the stream more is recorded.
                    goal = min(PACKETS - 1, after + mine.randrange(PACKETS // 4))
                    while last_recorded(job) < goal:
                        pass
                    follower.read()
                else:
                    follower.read()
            expected = whole[offsets[first] :]
            if way == "leave":
                expected = expected[: len(received)]
            if bytes(received) != expected:
                faults.append(f"{kind} {number}, {way}: not what was streamed from {first} on")

        guide = Follower(deployment, job.id(), {"since": 0})
        moments = sorted(choice.randrange(PACKETS * 9 // 10) for _ in range(FOLLOWERS))
        joined: list[threading.Thread] = []
        with closing(guide.socket):
            for moment in moments:
                guide.read(lambda received, goal=offsets[moment]: len(received) >= goal)  # type: ignore[misc]
                kind = choice.choice(["since", "since", "recent", "recent", ""])
                number = choice.choice([0, 1, moment, choice.randrange(PACKETS)]) if kind else 0
                way = choice.choice(["stay", "stay", "stay", "leave", "pause"])
                thread = threading.Thread(target=follow, args=(kind, number, way, choice.random()))
                thread.start()
                joined.append(thread)
            live = job.result() is harp.CALL_NOT_FINISHED
            guide.read()
        for thread in joined:
            thread.join()
        self.assertEqual(faults, [])
        self.assertTrue(live, "the job ended before the last joined: nothing was live")
        self.assertEqual(bytes(guide.received), whole)
