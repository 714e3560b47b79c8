"""Tests of ``harpcaller.streams``: a stream against a store that answers when the test wants."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from typing import Any

import msgspec
from hypothesis import example, given, settings
from hypothesis import strategies as st
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from harp.errors import Origin
from harp.wire import dispatcher as wire
from harp.wire.results import EndDetail, EndKind, EndResult
from harpcaller.packets import Recorded
from harpcaller.store import StoreError
from harpcaller.streams import PAGE_BATCHES, PAGE_BYTES, Client, PacketStream
from tests.harpcaller.memory import PatientStore, ended_job, running_job
from tests.harpcaller.packets import recorded

RESULT = EndResult(EndKind.RESULT, b'"done"')
FAILURE = EndResult(EndKind.EXCEPTION, b'{"type":"ValueError","message":""}')
JOB = running_job()


def packet(number: int) -> bytes:
    """Return the JSON of a packet; each is another."""
    return b'{"line":%d}' % number


def kept(*numbers: int) -> Recorded:
    """Return packets that were recorded together, as the store has them."""
    return recorded(numbers[0], *map(packet, numbers), at=1000.5 + numbers[0])


class Reader:
    """A client that notes what it gets, and complains of what it must not get.

    :ivar got: the numbers of the packets.
    :ivar outcome: the end result, and then whether the stream was finished or failed.
    """

    def __init__(self, store: PatientStore, detail: bool = False) -> None:
        self.got: list[int] = []
        self.times: list[float | None] = []
        self.outcome: list[Any] = []
        self.paused = False
        self.pause_at_next_write = False
        self.has_left = False
        self.stream = PacketStream(
            store.real, JOB.id, Client(self._write, self._finish, self._fail), detail
        )

    def pause(self) -> None:
        self.paused = True
        self.stream.pauseProducing()

    def resume(self) -> None:
        self.paused = False
        self.stream.resumeProducing()

    def leave(self) -> None:
        self.has_left = True
        self.stream.stopProducing()

    def _write(self, lines: bytes) -> None:
        assert not self.paused, "written while paused"
        assert not self.has_left, "written after the client left"
        for reply in map(wire.decode_reply_line, lines.splitlines()):
            assert not self.outcome, "written after the end"
            assert isinstance(reply, wire.NumberedPacket)
            assert reply.data == packet(reply.packet)
            self.got.append(reply.packet)
            self.times.append(reply.time)
        if self.pause_at_next_write:  # as a transport does whose buffer is full
            self.pause_at_next_write = False
            self.pause()

    def _finish(self, last: wire.Reply) -> None:
        assert not self.paused, "written while paused"
        assert not self.has_left, "written after the client left"
        assert not self.outcome, "finished twice"
        self.outcome += [last, "finished"]

    def _fail(self, failure: Failure) -> None:
        assert not self.has_left
        self.outcome.append(failure.value)


class World:
    """A job, the store it is recorded in, and a client that follows it.

    Its actions are those that the dispatcher and the network can take in any order, each does
    nothing where it is not possible.
    """

    def __init__(self, since: int, page: int) -> None:
        self.store = PatientStore()
        self.reader = Reader(self.store)
        self.stream = self.reader.stream
        self._since = since
        self._page = page
        self._read: list[Recorded] | None = None
        self._recorded = 0
        self._announced = 0
        self._ended = False
        self._pruned = 0
        self._started = False

    def record(self) -> None:
        """Put two more packets on disk; nobody knows yet."""
        if not self._ended:
            self._recorded += 2

    def announce(self) -> None:
        """Announce one packet that is on disk."""
        self._announce(min(self._announced + 1, self._recorded))

    def announce_all(self) -> None:
        """Announce all packets that are on disk as one batch."""
        self._announce(self._recorded)

    def end(self) -> None:
        """Put the end on disk; nobody knows yet."""
        self._ended = True

    def announce_end(self) -> None:
        """Announce the packets left, then the end."""
        if self._ended:
            self._announce(self._recorded)
            self.stream.ended(ended_job(JOB, RESULT))
            self.announce_end = lambda: None  # type: ignore[method-assign]

    def start(self) -> None:
        """Start the stream with what the store says now."""
        if not self._started:
            self._started = True
            self.stream.start(self._since, self._recorded, RESULT if self._ended else None)

    def read(self) -> None:
        """Let the store read the page that is asked for; its answer is on its way."""
        if self.store.questions and self._read is None:
            (question,) = self.store.asked("packets")
            assert question["job_id"] == JOB.id
            assert question["max_batches"] == PAGE_BATCHES
            assert question["max_cost"] == PAGE_BYTES
            first = max(question["since"] // 2 * 2, self._pruned)  # two were recorded together
            firsts = range(first, self._recorded, 2)[: self._page]
            self._read = [kept(number, number + 1) for number in firsts]

    def answer(self) -> None:
        """Let the store answer with what it read."""
        self.read()
        if self._read is not None:
            page, self._read = self._read, None
            self.store.answer("packets", page)

    def fail(self, failure: StoreError) -> None:
        """Let the store fail to read the page that is asked for."""
        self._read = None
        self.store.answer("packets", failure)

    def prune(self) -> None:
        """Forget the packets recorded so far."""
        self._pruned = self._recorded

    def pause(self) -> None:
        """Let the client's buffer be full."""
        self.reader.pause()

    def pause_at_next_write(self) -> None:
        """Let the client's buffer get full by the next write."""
        self.reader.pause_at_next_write = True

    def resume(self) -> None:
        """Let the client read its buffer."""
        self.reader.resume()

    def come_to_an_end(self) -> None:
        """Let everything happen that is still to happen."""
        self.start()
        self.end()
        self.announce_end()
        for _ in range(self._recorded + 10):
            self.resume()
            self.answer()
        assert not self.store.questions, "the stream asks for ever"

    def wanted(self) -> set[int]:
        """Return the packets that the client must have got: all that there was time for."""
        return set(range(max(self._since, self._pruned), self._recorded))

    def allowed(self) -> set[int]:
        """Return the packets that the client may have got."""
        return set(range(self._since, self._recorded))

    def _announce(self, up_to: int) -> None:
        first, self._announced = self._announced, max(self._announced, up_to)
        if first < up_to:
            self.stream.packets(kept(*range(first, up_to)))


Action = Callable[[World], None]

ACTIONS: list[Action] = [
    World.record,
    World.announce,
    World.announce_all,
    World.end,
    World.announce_end,
    World.start,
    World.read,
    World.answer,
    World.pause,
    World.pause_at_next_write,
    World.resume,
]


def in_any_order(*actions: Action) -> st.SearchStrategy[list[Action]]:
    """Return lists of these actions, long enough for something to happen."""
    return st.lists(st.sampled_from(actions), min_size=10, max_size=40)


any_order = in_any_order(*ACTIONS)
# The end closes the record, and so comes too early in most of the lists that have it.
before_the_end = in_any_order(*(a for a in ACTIONS if a is not World.end))
with_pruning = in_any_order(*(a for a in ACTIONS if a is not World.end), World.prune)
positions = st.integers(0, 12)
page_sizes = st.integers(1, 4)


class InterleavingTests(SynchronousTestCase):
    """Replay, then live, whatever happens in whichever order."""

    @settings(max_examples=200, deadline=None, database=None)
    @given(st.one_of(any_order, before_the_end), positions, page_sizes)
    @example([World.record, World.start, World.record, World.announce_all, World.answer], 0, 4)
    @example([World.start, World.pause, World.record, World.announce_all, World.resume], 0, 4)
    def test_no_gap_and_no_repeat(self, actions: list[Action], since: int, page: int) -> None:
        """The client gets each packet wanted once and in order, then the end result once."""
        world = World(since, page)
        for action in actions:
            action(world)
        world.come_to_an_end()
        self.assertEqual(world.reader.got, sorted(world.wanted()))
        self.assertEqual(world.reader.outcome, [RESULT, "finished"])

    @settings(max_examples=150, deadline=None, database=None)
    @given(with_pruning, positions, page_sizes)
    @example(
        [
            *(World.start, World.pause, World.record, World.announce_all, World.resume),
            *(World.prune, World.read, World.record, World.announce_all, World.answer),
        ],
        0,
        4,
    )
    def test_pruned_packets(self, actions: list[Action], since: int, page: int) -> None:
        """What is not kept any more is left out; what is kept comes, and so does the end."""
        world = World(since, page)
        for action in actions:
            action(world)
        world.come_to_an_end()
        got = world.reader.got
        self.assertEqual(got, sorted(set(got)))
        self.assertLessEqual(world.wanted(), set(got))
        self.assertLessEqual(set(got), world.allowed())
        self.assertEqual(world.reader.outcome, [RESULT, "finished"])

    @settings(max_examples=100, deadline=None, database=None)
    @given(before_the_end, any_order, positions, page_sizes)
    def test_client_leaves(
        self, before: list[Action], after: list[Action], since: int, page: int
    ) -> None:
        """A client that has left gets nothing more, neither packets nor an end."""
        world = World(since, page)
        for action in before:
            action(world)
        world.reader.leave()
        outcome = list(world.reader.outcome)
        for action in after:
            action(world)
        world.come_to_an_end()
        self.assertEqual(world.reader.outcome, outcome)

    @settings(max_examples=100, deadline=None, database=None)
    @given(before_the_end, any_order, positions)
    def test_store_fails(self, before: list[Action], after: list[Action], since: int) -> None:
        """When the store fails the client is told once, and gets nothing more."""
        world = World(since, 2)
        for action in before:
            action(world)
        if not world.store.questions:
            return
        failure = StoreError("disk I/O error")
        world.fail(failure)
        for action in after:
            action(world)
        world.come_to_an_end()
        self.assertEqual(world.reader.outcome, [failure])


class PacketStreamTests(SynchronousTestCase):
    """What a client costs, and where its stream begins."""

    def setUp(self) -> None:
        self.store = PatientStore()
        self.reader = Reader(self.store)
        self.stream = self.reader.stream

    def announce(self, *numbers: int) -> None:
        self.stream.packets(kept(*numbers))

    def test_live(self) -> None:
        """A client that has all there is gets what is announced without a look at the store."""
        self.stream.start(2, 2, None)
        self.announce(2)
        self.announce(3, 4)
        self.stream.ended(ended_job(JOB, RESULT))
        self.assertEqual(self.reader.got, [2, 3, 4])
        self.assertEqual(self.reader.outcome, [RESULT, "finished"])
        self.assertEqual(self.store.questions, [])

    def test_nothing_is_kept_for_a_slow_client(self) -> None:
        """Packets are kept neither for a client that does not read nor while a page is read."""
        announced: list[weakref.ref[Recorded]] = []

        def announce(number: int) -> None:
            batch = kept(number)
            announced.append(weakref.ref(batch))
            self.stream.packets(batch)

        announce(0)  # before the start
        self.stream.start(0, 1, None)
        announce(1)  # while a page is read
        self.store.answer("packets", [kept(0), kept(1)])
        self.reader.pause()
        announce(2)
        gc.collect()
        self.assertEqual([each() for each in announced], [None, None, None])
        self.assertEqual(self.store.questions, [])
        self.reader.resume()
        self.assertEqual(self.store.answer("packets", [kept(2)])["since"], 2)
        self.assertEqual(self.reader.got, [0, 1, 2])

    def test_page_for_a_client_that_paused(self) -> None:
        """A page that comes for a client that no longer reads is dropped, and read again."""
        self.stream.start(0, 1, None)
        self.reader.pause()
        self.store.answer("packets", [kept(0)])
        self.reader.resume()
        self.assertEqual(self.store.answer("packets", [kept(0)])["since"], 0)
        self.assertEqual(self.reader.got, [0])

    def test_one_page_at_a_time(self) -> None:
        """The next page is asked for when the one before it was written."""
        self.stream.start(0, 4, None)
        self.reader.resume()
        self.assertEqual(len(self.store.questions), 1)
        self.reader.pause_at_next_write = True
        self.store.answer("packets", [kept(0), kept(1)])
        self.assertEqual(self.store.questions, [])
        self.reader.resume()
        self.assertEqual([each["since"] for each in self.store.asked("packets")], [2])

    def test_since_beyond_the_end(self) -> None:
        """Who asks for packets that never come gets the end result alone."""
        self.stream.start(5, 1, None)
        self.announce(1, 2)
        self.assertEqual(self.reader.got, [])
        self.stream.ended(ended_job(JOB, RESULT))
        self.assertEqual(self.reader.outcome, [RESULT, "finished"])
        self.assertEqual((self.reader.got, self.store.questions), ([], []))

    def test_since_within_a_batch(self) -> None:
        """A stream can begin in the middle of what is announced at once."""
        self.stream.start(3, 1, None)
        self.announce(1, 2, 3, 4)
        self.assertEqual(self.reader.got, [3, 4])

    def test_what_has_been_recorded_only(self) -> None:
        """A stream that is not to go on ends behind what was known at its start."""
        self.stream.start(0, 1, wire.Continue())
        self.store.answer("packets", [kept(0)])
        self.assertEqual(self.reader.outcome, [wire.Continue(), "finished"])
        self.announce(1)
        self.assertEqual(self.reader.got, [0])

    def test_store_fails_after_the_client_left(self) -> None:
        """A page that can't be read is no concern of a client that has left."""
        self.stream.start(0, 1, None)
        self.reader.leave()
        self.store.answer("packets", StoreError("disk I/O error"))
        self.assertEqual(self.reader.outcome, [])

    def test_end_is_announced_before_the_start(self) -> None:
        """An end that is announced while the stream begins is not forgotten."""
        self.announce(0)
        self.stream.ended(ended_job(JOB, RESULT))
        self.assertEqual(self.reader.outcome, [])
        self.stream.start(0, 0, None)
        self.store.answer("packets", [kept(0)])
        self.assertEqual((self.reader.got, self.reader.outcome), ([0], [RESULT, "finished"]))


class DetailTests(SynchronousTestCase):
    """What a client learns that asked for detail, and no other."""

    JOB = msgspec.structs.replace(ended_job(JOB, FAILURE), origin=Origin.PROCEDURE)

    def told(self, detail: bool) -> Reader:
        """Return a reader that got a packet from the store, one live, and the end live."""
        store = PatientStore()
        reader = Reader(store, detail)
        reader.stream.start(0, 1, None)
        store.answer("packets", [kept(0)])
        reader.stream.packets(kept(1))
        reader.stream.ended(self.JOB)
        self.assertEqual(reader.got, [0, 1])
        return reader

    def test_asked_for(self) -> None:
        """It learns when each packet was recorded, and of the end when and where it arose."""
        reader = self.told(detail=True)
        self.assertEqual(reader.times, [1000.5, 1001.5])
        detail = EndDetail("procedure", True, 1007.75)
        self.assertEqual(reader.outcome[0], msgspec.structs.replace(FAILURE, detail=detail))

    def test_not_asked_for(self) -> None:
        """It learns what version 1 tells."""
        reader = self.told(detail=False)
        self.assertEqual(reader.times, [None, None])
        self.assertEqual(reader.outcome[0], FAILURE)
