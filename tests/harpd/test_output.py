"""Tests of harpd.output."""

from __future__ import annotations

import os

from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase, TestCase

from harpd.output import OutputPipe, PrintedText
from tests.harpd.waiting import eventually, reactor, turns

CHUNK = 65536


class PrintedTextTests(SynchronousTestCase):
    """Bytes become entries of the log."""

    def setUp(self) -> None:
        self.entries: list[str] = []
        self.text = PrintedText(self.entries.append)

    def test_lines(self) -> None:
        """Lines that come together are one entry, without the last one's end."""
        self.text.feed(b"one\ntwo\n\nthree\n")
        self.assertEqual(self.entries, ["one\ntwo\n\nthree"])

    def test_pieces(self) -> None:
        """A line that comes in pieces is one entry, however it is cut."""
        for byte in "żółw\nx\n".encode():
            self.text.feed(bytes([byte]))
        self.assertEqual(self.entries, ["żółw", "x"])

    def test_unfinished(self) -> None:
        """A last line without an end is an entry when nothing more comes, an empty one is not."""
        self.text.feed(b"one\ntwo")
        self.assertEqual(self.entries, ["one"])
        self.text.finish()
        self.text.finish()
        self.assertEqual(self.entries, ["one", "two"])

    def test_bounded(self) -> None:
        """A line without an end is not kept for ever: it is cut into entries."""
        for _ in range(40):
            self.text.feed(b"x" * 4096)
        self.assertEqual([len(entry) for entry in self.entries], [CHUNK, CHUNK])
        self.text.finish()
        self.assertEqual(sum(map(len, self.entries)), 40 * 4096)

    def test_long_line_behind_others(self) -> None:
        """Nothing is lost when a long line is cut."""
        self.text.feed(b"one\n" + b"x" * CHUNK)
        self.text.feed(b"y\n")
        self.assertEqual(self.entries, ["one\n" + "x" * CHUNK, "y"])

    def test_control_characters(self) -> None:
        """What could command a terminal is escaped; tabs are kept."""
        self.text.feed(b"\x1b[2J\ta\rb\x00\x7f\n")
        self.assertEqual(self.entries, ["\\x1b[2J\ta\\x0db\\x00\\x7f"])

    def test_c1_control_characters(self) -> None:
        """The eight-bit control characters are commands to a terminal too."""
        self.text.feed("a\x9b2Jb\x85\n".encode())
        self.assertEqual(self.entries, ["a\\x9b2Jb\\x85"])

    def test_not_text(self) -> None:
        """Bytes that are no UTF-8 are escaped."""
        self.text.feed(b"a\xffb\n")
        self.assertEqual(self.entries, ["a\\xffb"])


class OutputPipeTests(TestCase):
    """The pipe's reading end under the real reactor."""

    def setUp(self) -> None:
        self.entries: list[str] = []
        read, write = os.pipe()
        self.descriptor = read
        self.other_end = os.fdopen(write, "wb", buffering=0)
        self.pipe = OutputPipe(reactor, read, self.entries.append)
        self.addCleanup(turns, 2)
        self.addCleanup(self.pipe.finish)
        self.addCleanup(self.other_end.close)

    def assert_closed(self) -> None:
        """Check that nothing has the descriptor any more."""
        self.assertRaises(OSError, os.fstat, self.descriptor)

    async def test_reads(self) -> None:
        """What is printed is logged as it comes, to its end."""
        self.other_end.write(b"one\n")
        await eventually(lambda: self.entries == ["one"], "the first line")
        self.other_end.write(b"two\nthree")
        self.other_end.close()
        await eventually(lambda: self.entries == ["one", "two", "three"], "the rest")
        await turns(2)
        self.assert_closed()

    async def test_closed_a_turn_later(self) -> None:
        """finish() keeps the descriptor's number for this turn: events may be on their way to it.

        They would be taken for events of whatever gets the number next.
        """
        before = os.fstat(self.descriptor)
        self.pipe.finish()
        self.assertEqual(os.fstat(self.descriptor), before)
        self.assertNotIn(self.pipe, reactor.getReaders())
        await turns()
        self.assert_closed()

    async def test_end_closed_a_turn_later(self) -> None:
        """It is the same where the reactor finds the end of the pipe by itself."""
        seen: list[os.stat_result] = []
        self.patch(
            self.pipe, "_text", PrintedText(lambda _: seen.append(os.fstat(self.descriptor)))
        )
        self.other_end.write(b"unfinished")
        self.other_end.close()
        await eventually(lambda: seen, "the last line, which comes after the end")
        await turns(2)
        self.assert_closed()

    async def test_number_not_reused(self) -> None:
        """What is opened in the same turn gets another number and other events."""
        self.other_end.close()  # from now on the reactor has an event for the pipe
        self.pipe.finish()
        read, write = os.pipe()
        self.assertNotIn(self.descriptor, (read, write))
        other = OutputPipe(reactor, read, self.entries.append)
        await turns(2)
        self.assertIn(other, reactor.getReaders())
        os.close(write)
        other.finish()

    async def test_finish_takes_what_is_there(self) -> None:
        """What was printed before the end is logged, although another process holds the pipe."""
        self.other_end.write(b"one\n")
        self.other_end.write(b"two")
        self.pipe.finish()
        self.assertEqual(self.entries, ["one", "two"])
        await turns(2)
        with self.assertRaises(BrokenPipeError):
            self.other_end.write(b"x")

    async def test_finish_twice(self) -> None:
        """It is closed once, whoever closes it first."""
        self.pipe.finish()
        self.pipe.finish()
        await turns(2)
        other, write = os.pipe()  # gets the number
        self.pipe.finish()
        await turns(2)
        os.close(other)
        os.close(write)

    def test_endless(self) -> None:
        """finish() does not read for ever what another process prints for ever."""
        clock = MemoryReactorClock()
        pipe = OutputPipe(clock, os.open("/dev/zero", os.O_RDONLY), self.entries.append)
        pipe.finish()
        self.assertEqual(len(self.entries), 16)
        clock.advance(0)
