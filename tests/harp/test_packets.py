"""Tests of ``harp.packets``: packets as they arrive."""

from __future__ import annotations

import threading
import tracemalloc
from collections.abc import Callable
from typing import Any

import harp
from harp import HarpCaller, RemoteCall, StreamIterator, outcomes
from tests.harp.peer import ClientTestCase, Script, slowly, until
from tests.harp.test_dispatcher_wire import ID
from tests.harp.test_harpd_wire import FAULT

PACKETS = b'{"packet":3,"data":{"a":[1.5]}}\n{"packet":4,"data":null}\n'
VALUES = [{"a": [1.5]}, None]
DONE = b'{"result":7}\n'
UNKNOWN = b'{"error":{"type":"invalid_jobid","message":"no such job"}}\n'

# How a followed stream may end. Only a stream that is read may end with the job still running.
ENDS = [
    DONE,
    b'{"exception":%b}\n' % FAULT,
    b'{"error":%b}\n' % FAULT,
    b'{"error":{"type":"invalid_request","message":"M"}}\n',
    b'{"cancelled":true}\n',
]

Read = Callable[..., StreamIterator]
READS: list[Callable[[RemoteCall], Read]] = [lambda job: job.stream, lambda job: job.follow]


class StreamTests(ClientTestCase):
    """Packets are read from the record or as they come."""

    def job(self, *scripts: Script) -> RemoteCall:
        """Return the job whose dispatcher follows these scripts."""
        return self.caller(*scripts).job(ID)

    def test_packets(self) -> None:
        """All packets come in their order, however the replies are cut on their way."""
        for read in READS:
            for script in ([PACKETS + DONE], slowly(PACKETS + DONE), [PACKETS, DONE, b"more\n"]):
                self.assertEqual(list(read(self.job(script))()), VALUES)
                self.assertEqual(read(self.job(script))().all(), VALUES)

    def test_numbered(self) -> None:
        """With their numbers, if that is asked for."""
        for read in READS:
            found = read(self.job([PACKETS + DONE]))(numbered=True).all()
            self.assertEqual(found, [(3, VALUES[0]), (4, VALUES[1])])

    def test_job_that_failed(self) -> None:
        """How the job ended is not raised by reading its packets."""
        for read in READS:
            for end in ENDS:
                self.assertEqual(read(self.job([PACKETS + end]))().all(), VALUES)
                self.assertEqual(read(self.job([end]))().all(), [])

    def test_job_that_runs(self) -> None:
        """The packets so far of a job that has not ended."""
        self.assertEqual(self.job([PACKETS + b'{"continue":true}\n']).stream().all(), VALUES)

    def test_unknown_job(self) -> None:
        """A job that there is not is raised by reading."""
        for read in READS:
            packets = read(self.job([UNKNOWN]))()
            with self.assertRaises(harp.RemoteError) as caught:
                next(packets)
            self.assertEqual(caught.exception.type, "invalid_jobid")
            self.assertEqual(packets.all(), [])

    def test_interrupted(self) -> None:
        """What interrupts a reader ends the stream, for he would go on with a gap in it."""

        def interrupt(_: bytes) -> None:
            raise MemoryError

        for read in READS:
            packets = read(self.job([PACKETS + DONE]))()
            patch = self.patch(outcomes, "decode_payload", interrupt)
            self.assertRaises(MemoryError, next, packets)
            patch.restore()
            self.assertEqual(packets.all(), [])

    def test_request_lines(self) -> None:
        """What is sent is the request of the protocol page, when the method is called."""
        id = ID.encode()
        asks: list[tuple[Callable[[RemoteCall], StreamIterator], bytes]] = [
            (lambda job: job.stream(), b'{"harpcaller":1,"read_stream":"%b"}\n'),
            (lambda job: job.stream(since=0), b'{"harpcaller":1,"since":0,"read_stream":"%b"}\n'),
            (lambda job: job.stream(recent=2), b'{"harpcaller":1,"recent":2,"read_stream":"%b"}\n'),
            (lambda job: job.follow(), b'{"harpcaller":1,"follow_stream":"%b"}\n'),
            (lambda job: job.follow(7), b'{"harpcaller":1,"since":7,"follow_stream":"%b"}\n'),
            (
                lambda job: job.follow(recent=0),
                b'{"harpcaller":1,"recent":0,"follow_stream":"%b"}\n',
            ),
        ]
        for ask, line in asks:
            asked = threading.Event()
            peer = self.peer([lambda _, asked=asked: asked.set(), DONE])  # type: ignore[misc]
            with ask(HarpCaller("127.0.0.1", peer.port).job(ID)):
                self.assertTrue(asked.wait(10))
            self.assertEqual(peer.requests, [line % id])

    def test_mistakes(self) -> None:
        """Where to begin is said in one way, by a whole number; nothing is sent otherwise."""
        job: Any = HarpCaller("127.0.0.1", 1).job(ID)
        for read in (job.stream, job.follow):
            with self.assertRaisesRegex(ValueError, "since and recent"):
                read(since=0, recent=0)
            with self.assertRaisesRegex(ValueError, "since"):
                read(since=-1)
            with self.assertRaisesRegex(TypeError, "recent"):
                read(recent="1")

    def test_each_packet_at_once(self) -> None:
        """A packet is yielded when it has arrived; it does not wait for the next one."""
        first, second = threading.Event(), threading.Event()
        script: Script = [
            b'{"packet":0,"data":0}\n{"packet":1,"data":1}\n{"pack',
            until(first),
            b'et":2,"data":2}\n',
            until(second),
            DONE,
        ]
        packets = self.job(script).follow()
        self.assertEqual([next(packets), next(packets)], [0, 1])
        first.set()
        self.assertEqual(next(packets), 2)
        second.set()
        self.assertEqual(packets.all(), [])

    def test_packets_before_a_failure(self) -> None:
        """What arrived whole is yielded, then the failure is raised, then it is over."""
        for end in (b"", b'{"pack', b"garbage\n", b'{"packet":5,"data":1e999}\n'):
            packets = self.job([PACKETS + end]).follow()
            self.assertEqual([next(packets), next(packets)], VALUES)
            with self.assertRaisesRegex(harp.CommunicationError, r"^127.0.0.1:\d+: "):
                next(packets)
            self.assertEqual(packets.all(), [])

    def test_memory(self) -> None:
        """A long stream is never kept whole: the reader holds what one read brought."""
        batch = b'{"packet":1,"data":"%b"}\n' % (b"x" * 10_000) * 100
        packets = self.job([batch] * 20 + [DONE]).follow()
        tracemalloc.start()
        self.addCleanup(tracemalloc.stop)
        self.assertEqual(sum(1 for _ in packets), 2000)
        self.assertLess(tracemalloc.get_traced_memory()[1], 1_000_000)

    def test_leaving_early(self) -> None:
        """A reader that leaves closes the connection, and there are no more packets then."""
        for leave in (StreamIterator.close, lambda packets: packets.__exit__()):
            closed = threading.Event()

            def wait_for_end(connection: Any, closed: threading.Event = closed) -> None:
                while connection.recv(1):
                    pass
                closed.set()

            packets = self.job([PACKETS, wait_for_end]).follow()
            self.assertEqual(next(packets), VALUES[0])
            leave(packets)
            self.assertTrue(closed.wait(10))
            self.assertEqual(list(packets), [])
            packets.close()

    def test_with_statement(self) -> None:
        """The iterator is its own context manager and its own iterator."""
        with self.job([PACKETS + DONE]).follow() as packets:
            self.assertIsInstance(packets, harp.RemoteCall.StreamIterator)
            self.assertIs(iter(packets), packets)
            self.assertEqual(packets.all(), VALUES)
