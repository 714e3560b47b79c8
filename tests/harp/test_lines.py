"""Tests of ``harp.wire.lines``."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterable

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from harp.wire.lines import LineReader, LineTooLongError

LIMIT = 10


def single_bytes(data: bytes) -> list[bytes]:
    """Cut into pieces of one byte."""
    return [data[i : i + 1] for i in range(len(data))]


def read(pieces: Iterable[bytes], limit: int = LIMIT) -> list[bytes | str]:
    """Feed the pieces and return all lines; ``"too long"`` stands for the exception."""
    reader = LineReader(limit)
    found: list[bytes | str] = []
    for piece in pieces:
        reader.feed(piece)
        try:
            while (line := reader.next_line()) is not None:
                found.append(line)
        except LineTooLongError:
            return [*found, "too long"]
    return found


CASES: dict[bytes, list[bytes | str]] = {
    b"": [],
    b"{}\n": [b"{}"],
    b"{}\r\n": [b"{}"],
    b"{}\r\r\n": [b"{}\r"],
    b"a\rb\n": [b"a\rb"],
    b"\n": [b""],
    b"\r\n": [b""],
    b"one\ntwo\r\n\nfour\n": [b"one", b"two", b"", b"four"],
    b"0123456789\n": [b"0123456789"],
    b"0123456789\r\n": [b"0123456789"],
    b"0123456789x\n": ["too long"],
    b"0123456789x\r\n": ["too long"],
    b"0123456789\rx": ["too long"],
    b"ok\n0123456789xyz\nlost\n": [b"ok", "too long"],
    b"\xff\x00\n": [b"\xff\x00"],
}


class LineReaderTests(SynchronousTestCase):
    """What arrives is cut into lines, however it arrives."""

    def test_whole(self) -> None:
        """Input that comes at once gives its lines."""
        for data, lines in CASES.items():
            self.assertEqual(read([data]), lines, data)

    def test_byte_by_byte(self) -> None:
        """Input that comes in single bytes gives the same lines."""
        for data, lines in CASES.items():
            self.assertEqual(read(single_bytes(data)), lines, data)

    def test_trailing_data(self) -> None:
        """The beginning of one more line changes nothing before it and is noticed."""
        for data, lines in CASES.items():
            if data.endswith(b"\n"):
                self.assertEqual(read([data + b"more"]), lines, data)
        reader = LineReader(LIMIT)
        reader.feed(b"one\nm")
        self.assertEqual(reader.next_line(), b"one")
        self.assertTrue(reader.has_more)

    def test_nothing_behind_the_line(self) -> None:
        """A line and nothing else leaves nothing behind."""
        reader = LineReader(LIMIT)
        reader.feed(b"one\r\n")
        self.assertTrue(reader.has_more)
        reader.next_line()
        self.assertFalse(reader.has_more)

    def test_stays_too_long(self) -> None:
        """Nothing is read behind a line over the limit, for nobody knows where it ends."""
        reader = LineReader(LIMIT)
        reader.feed(b"x" * (LIMIT + 2))
        reader.feed(b"\nnext\n")
        for _ in range(2):
            with self.assertRaisesRegex(LineTooLongError, f"longer than {LIMIT} bytes"):
                reader.next_line()
        self.assertTrue(reader.has_more)

    def test_too_long_is_not_kept(self) -> None:
        """A line over the limit is never buffered whole, however much of it comes."""
        limit = 100_000
        piece = b"x" * 10_000
        reader = LineReader(limit)
        tracemalloc.start()
        self.addCleanup(tracemalloc.stop)
        for _ in range(500):
            reader.feed(piece)
        self.assertLess(tracemalloc.get_traced_memory()[1], 3 * limit)

    def test_beginning(self) -> None:
        """What has come and was not taken can be looked at, from its first byte on."""
        reader = LineReader(LIMIT)
        for piece, size, beginning in ((b"a\nbc", 4, b"a\nb"), (b"d", 5, b"a\nb")):
            reader.feed(piece)
            self.assertEqual((reader.size, reader.beginning(3)), (size, beginning))
        self.assertEqual(reader.next_line(), b"a")
        self.assertEqual((reader.size, reader.beginning(9)), (3, b"bcd"))

    def test_small_pieces_cost_no_more(self) -> None:
        """A line that comes in pieces of two bytes takes no more memory than its length."""
        limit = 100_000
        reader = LineReader(limit)
        tracemalloc.start()
        self.addCleanup(tracemalloc.stop)
        for number in range(limit // 2):
            reader.feed(b"%02d" % (number % 100))
        self.assertLess(tracemalloc.get_traced_memory()[1], 2 * limit)

    @settings(deadline=None)
    @given(st.lists(st.binary(max_size=8).map(lambda b: b.replace(b"x", b"\r\n"))))
    def test_any_cut(self, pieces: list[bytes]) -> None:
        """How the bytes are cut on their way makes no difference."""
        self.assertEqual(read(pieces), read(single_bytes(b"".join(pieces))))
        self.assertEqual(read(pieces), read([b"".join(pieces)]))

    @settings(deadline=None)
    @given(
        st.lists(st.sampled_from([b"a", b"\n", b"\r", b"b\nc\r\nd", b"01234567"])),
        st.integers(0, 3),
    )
    def test_together(self, pieces: list[bytes], by_line: int) -> None:
        """Lines can be taken one by one or together."""
        reader = LineReader(LIMIT)
        found: list[bytes | str] = []
        try:
            for piece in pieces:
                reader.feed(piece)
                for _ in range(by_line):
                    if (line := reader.next_line()) is not None:
                        found.append(line)
                lines = reader.lines
                reader.take(len(lines))
                found.extend(line.removesuffix(b"\r") for line in lines.split(b"\n")[:-1])
                if reader.next_line() is not None:
                    raise AssertionError("all lines were taken")
        except LineTooLongError:
            found.append("too long")
        self.assertEqual(found, read(pieces))
