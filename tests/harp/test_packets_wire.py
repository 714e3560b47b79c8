"""Tests of ``harp.wire.packets`` and ``harp.wire.replies``: many at once are as one by one."""

from __future__ import annotations

import json

from hypothesis import example, given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from harp.errors import RemoteProtocolError
from harp.wire import harpd, replies
from harp.wire.lines import ENVELOPE_ROOM, MAX_REPLY
from harp.wire.packets import (
    PACKET_COST,
    Packets,
    decode_packets,
    encode_numbered,
    encode_packets,
    join,
    pack,
    portions,
)
from harp.wire.replies import ReplyReader
from harp.wire.results import EndResult
from tests.harp.test_lines import single_bytes

# What lines are made of here: pieces of JSON that make whole packets, or seem to.
PIECES = [
    *(b"1", b"2", b",", b"[", b"]", b"{", b"}", b'"', b'"a":', b" ", b"\r", b"\n", b"\\", b"\xff"),
    *(b'{"stream":', b"}\n", b'}\n{"stream":', b'"result":', b'{"result":1}\n', b"\xc3\xa9"),
    *(b',"stream":', b"\r\n", b'{"stream":1}\r\n', b' {"stream":1}\n', b'{"stream":"}\\n"}\n'),
    *(
        b"1e400",
        b"NaN",
        b"-",
        b"01",
        b'"\\ud800"',
        b"\xed\xa0\x80",
        b"\xc3",
        b"\x00",
        b"\xef\xbb\xbf",
    ),
    *(b"[" * 2000, b"[" * 50 + b"]" * 50, b'{"harp":1,"stream_result":true}\n'),
]

# Packets whose lines are as long as the limit below, or a byte longer or shorter.
LONG_PIECES = [
    *(b'{"stream":%b}' % (b"9" * (ENVELOPE_ROOM - 11 + more)) for more in (-1, 0, 1)),
    *(b"\r", b"\n", b"\r\n", b'{"stream":1}\n', b"9"),
]


def outcome(pieces: list[bytes], limit: int = MAX_REPLY) -> list[object]:
    """Return what a reader makes of what arrives, packets one by one."""
    reader = ReplyReader(limit)
    found: list[object] = []
    try:
        for piece in pieces:
            reader.feed(piece)
            while (reply := reader.next()) is not None:
                found.extend(reply.texts if isinstance(reply, Packets) else [reply])
    except RemoteProtocolError as error:
        found.append(type(error))
    return found


def line_by_line(data: bytes) -> list[object]:
    """Return what the lines are, each looked at by itself."""
    found: list[object] = []
    try:
        for line in data.split(b"\n")[:-1]:
            reply = harpd.decode_reply_line(line.removesuffix(b"\r"))
            found.extend(reply.texts if isinstance(reply, Packets) else [reply])
    except RemoteProtocolError as error:
        found.append(type(error))
    return found


class DecodingTests(SynchronousTestCase):
    """Lines of packets, looked at as a whole."""

    def test_packets(self) -> None:
        """Packets that are written without spaces are taken in one pass, as the bytes they are."""
        texts = [b"1", b'{"a" : [1, 2.0]}', b"[ ]", b'"}\\n{"', '"é"'.encode(), b"null"]
        lines = encode_packets(pack(texts))
        self.assertEqual(lines, b"".join(b'{"stream":%b}\n' % text for text in texts))
        self.assertEqual(decode_packets(lines), pack(texts))
        self.assertEqual(outcome([lines]), texts)

    def test_looked_at_one_by_one(self) -> None:
        """Whatever is not surely packets alone is left to be looked at line by line."""
        for lines in (
            b'{"stream":1,2}\n',
            b'{"stream":[1}\n{"stream":2]}\n',
            b'{"stream":"a}\n{"stream":b"}\n',
            b'{"stream":{"a":\n1}}\n',
            b'{"stream":1,\n2}\n',
            b'{"stream":1\n2}\n',
            b'{"stream":1,"result":2}\n',
            b'{"stream":1}\r\n{"stream":2}\n',
            b'{"stream": 1}\n',
            b'{"stream":1 }\n',
            b'{"stream":}\n',
            b'{"stream":NaN}\n',
            b'{"stream":"\xff"}\n',
            b'{"stream":%b}\n' % (b"[" * 10_000 + b"]" * 10_000),
            b'{"stream":1}\n{"result":2}\n',
            b'{ "stream":1}\n',
            b"",
        ):
            self.assertIsNone(decode_packets(lines), lines[:40])

    @settings(deadline=None, max_examples=500)
    @given(st.lists(st.lists(st.sampled_from(PIECES), max_size=4).map(b"".join), max_size=6))
    @example([b"1", b"2", b"1,2"])
    @example([b"[1", b"2]"])
    @example([b"1,", b"2"])
    def test_as_one_by_one(self, values: list[bytes]) -> None:
        """Together or one by one, the same is taken for packets and the same is refused."""
        data = b"".join(b'{"stream":%b}\n' % value for value in values)
        self.assertEqual(outcome([data]), line_by_line(data))
        self.assertEqual(outcome(single_bytes(data)), line_by_line(data))

    @settings(deadline=None, max_examples=200)
    @given(st.lists(st.sampled_from(LONG_PIECES), max_size=8))
    def test_too_long_anywhere(self, pieces: list[bytes]) -> None:
        """A line over the limit ends everything at the same place, wherever it is cut."""
        data = b"".join(pieces)
        self.assertEqual(outcome([data], 0), outcome(pieces, 0))
        self.assertEqual(outcome([data], 0), outcome(single_bytes(data), 0))

    @settings(deadline=None, max_examples=300)
    @given(st.lists(st.sampled_from(PIECES), max_size=12))
    def test_any_lines(self, pieces: list[bytes]) -> None:
        """The same holds for anything, wherever it is cut."""
        data = b"".join(pieces)
        self.assertEqual(outcome([data]), line_by_line(data))
        self.assertEqual(outcome(pieces), line_by_line(data))

    def test_between_other_replies(self) -> None:
        """Packets behind an acknowledgement and before an end are one reply."""
        reader = ReplyReader()
        reader.feed(b'{"harp":1,"stream_result":true}\n{"stream":1}\n{"stream":2}\n{"result":3}\n{')
        self.assertEqual(reader.next(), harpd.Ack(True))
        self.assertEqual(reader.next(), Packets(2, b"1\n2"))
        self.assertIsInstance(reader.next(), EndResult)
        self.assertIsNone(reader.next())
        self.assertTrue(reader.has_more)

    def test_together_or_not(self) -> None:
        """What does not go at once is not tried again for each of its lines."""
        tried: list[bytes] = []
        self.patch(replies, "decode_packets", tried.append)  # which returns None
        texts = [b"1"] * 100
        self.assertEqual(outcome([encode_packets(pack(texts))]), texts)
        self.assertEqual(len(tried), 1)

    def test_too_long(self) -> None:
        """The packets before a line over the limit are taken."""
        limit = 5000
        reader = ReplyReader(limit)
        reader.feed(b'{"stream":1}\n{"stream":2}\n' + b"x" * 10_000 + b'\n{"stream":3}\n')
        self.assertEqual(reader.next(), Packets(2, b"1\n2"))
        with self.assertRaisesRegex(RemoteProtocolError, "longer than"):
            reader.next()


class PacketsTests(SynchronousTestCase):
    """Packets that are kept together."""

    def test_texts(self) -> None:
        """They can be told apart again."""
        texts = [b"1", b'{"a": 2}', b'"x"']
        self.assertEqual(pack(texts).texts, texts)
        self.assertEqual(pack([]).texts, [])
        self.assertEqual(join([pack(texts[:1]), pack(texts[1:])]), pack(texts))

    def test_portions(self) -> None:
        """No portion costs more than it may, but one packet always fits; nothing is lost."""
        texts = [b"x" * size for size in (1, 50, 500, 1, 1, 50, 50, 50)]
        for most in (1, 66, 200, 300, 10_000):
            found = list(portions(pack(texts), most))
            self.assertEqual([text for portion in found for text in portion.texts], texts)
            for portion in found:
                self.assertTrue(portion.cost <= most or portion.count == 1, (most, portion))
        self.assertEqual(len(list(portions(pack(texts[:2]), 52 + 2 * PACKET_COST))), 1)

    def test_numbered(self) -> None:
        """Each packet gets its number on its way to a client, and the time if that is asked for."""
        lines = encode_numbered(9, [b"1", b'"a"']).splitlines()
        self.assertEqual(lines, [b'{"packet":9,"data":1}', b'{"packet":10,"data":"a"}'])
        (line,) = encode_numbered(0, [b"[]"], b"1.5").splitlines()
        self.assertEqual(json.loads(line), {"packet": 0, "data": [], "time": 1.5})
