"""Tests of ``harp.wire.text``."""

from __future__ import annotations

import json
from typing import Literal

import msgspec
from twisted.trial.unittest import SynchronousTestCase

from harp import errors
from harp.errors import ErrorType, RemoteProtocolError
from harp.wire import text

DEEP = b"[" * 100_000 + b"]" * 100_000

# What is wrong with a line: the line, the name of the fault and what its message must tell.
LONG = b"k" * 100_000

REQUEST_FAULTS: list[tuple[bytes, ErrorType, str]] = [
    (b"", errors.PARSE_ERROR, "truncated"),
    (b" ", errors.PARSE_ERROR, "truncated"),
    (b"hello", errors.PARSE_ERROR, "byte 0"),
    (b'{"harp":1', errors.PARSE_ERROR, "truncated"),
    (b'{"harp":1,}', errors.PARSE_ERROR, "byte 10"),
    (b'{"harp":1}{}', errors.PARSE_ERROR, "byte"),
    (b"{'harp':1}", errors.PARSE_ERROR, "byte 1"),
    (b'{"harp":1,"x":"\xff"}', errors.PARSE_ERROR, "UTF-8 at byte 15"),
    (b'{"harp":1,"\xc3":0}', errors.PARSE_ERROR, "UTF-8 at byte 11"),
    (b'{"harp":1,"x":"\xed\xa0\x80"}', errors.PARSE_ERROR, "UTF-8 at byte 15"),
    (b'\xef\xbb\xbf{"harp":1}', errors.PARSE_ERROR, "byte 0"),
    (b'{"harp":1,"x":[NaN]}', errors.PARSE_ERROR, "byte 15"),
    (b'{"harp":1,"x":Infinity}', errors.PARSE_ERROR, "byte 14"),
    (b'{"harp":1,"x":-Infinity}', errors.PARSE_ERROR, "byte"),
    (b'{"harp":1,"x":"\n"}', errors.PARSE_ERROR, "byte 15"),
    (b'{"harp":1,"x":01}', errors.PARSE_ERROR, "byte"),
    (b'{"harp":1,"x":"\\ud800"}', errors.PARSE_ERROR, ""),
    (DEEP, errors.PARSE_ERROR, "too deep"),
    (b'{"harp":1,"x":' + DEEP + b"}", errors.PARSE_ERROR, "too deep"),
    (b'{"harp":1,"x":' + b'{"a":' * 100_000, errors.PARSE_ERROR, "too deep"),
    (b'{"harp":1,"x":0,"x":0}', errors.INVALID_REQUEST, "`x` stands twice"),
    (b'{"harp":1,"harp":1}', errors.INVALID_REQUEST, "`harp` stands twice"),
    (b'{"harp":1,"x":[{"y":{},"z":0,"y":1}]}', errors.INVALID_REQUEST, "`y` stands twice"),
    (b'{"harp":1,"x":0,"\\u0078":0}', errors.INVALID_REQUEST, "`x` stands twice"),
    (
        b'{"harp":1,"' + b"k" * 100_000 + b'":1,"' + b"k" * 100_000 + b'":1}',
        errors.INVALID_REQUEST,
        "",
    ),
    (b"[NaN]", errors.PARSE_ERROR, "byte 1"),
    (b'"open', errors.PARSE_ERROR, "truncated"),
    (b"1 2", errors.PARSE_ERROR, "trailing"),
    (b"[]", errors.INVALID_PROTOCOL, '"harp": 1'),
    (b"1", errors.INVALID_PROTOCOL, '"harp": 1'),
    (b"null", errors.INVALID_PROTOCOL, '"harp": 1'),
    (b"{}", errors.INVALID_PROTOCOL, '"harp": 1'),
    (b'{"harpcaller":1}', errors.INVALID_PROTOCOL, '"harp": 1'),
    (b'{"harp":2}', errors.INVALID_PROTOCOL, '"harp": 1'),
    (b'{"harp":"1"}', errors.INVALID_PROTOCOL, '"harp": 1'),
    (b'{"harp":true}', errors.INVALID_PROTOCOL, '"harp": 1'),
    (b'{"harp":null}', errors.INVALID_PROTOCOL, '"harp": 1'),
]


class OpenRequestTests(SynchronousTestCase):
    """Every fault of a request line has its name and its place."""

    def test_faults(self) -> None:
        """A line that is no request is refused by the name that the fault has."""
        for line, type, told in REQUEST_FAULTS:
            with self.assertRaises(RemoteProtocolError, msg=line[:60]) as caught:
                text.open_request(line, "harp")
                text.refuse_repeated_keys(line)
            self.assertEqual(caught.exception.type, type, line[:60])
            self.assertIn(told, caught.exception.message, line[:60])
            self.assertLess(len(caught.exception.message), 200, line[:60])

    def test_printable(self) -> None:
        """What a fault quotes can do nothing to a terminal."""
        line = b'{"number":1,"\\u001b[2J\xc2\x9b\xe2\x80\xae":1}'
        with self.assertRaises(RemoteProtocolError) as caught:
            text.decode_request(line, msgspec.json.Decoder(Sample))
        self.assertIn(r"`\x1b[2J\x9b\u202e`", caught.exception.message)

    def test_keys_with_unopened_values(self) -> None:
        """The values come back as the bytes that arrived."""
        line = b' {"harp" : 1 , "x":[1, 2.50,{"y":"\\u00e9"}], "z":12345678901234567890123 } '
        found = {key: bytes(value) for key, value in text.open_request(line, "harp").items()}
        expected = {
            "harp": b"1",
            "x": b'[1, 2.50,{"y":"\\u00e9"}]',
            "z": b"12345678901234567890123",
        }
        self.assertEqual(found, expected)

    def test_same_key_at_two_places(self) -> None:
        """The same key in two objects is no repetition."""
        text.refuse_repeated_keys(b'{"harp":1,"x":{"harp":2,"x":[{"x":1},{"x":1}]}}')

    def test_long_numbers(self) -> None:
        """A number of any length is passed on, for nobody looks at it here."""
        text.refuse_repeated_keys(b'{"harp":1,"x":' + b"9" * 500_000 + b"}")

    def test_version_key_of_the_other_protocol(self) -> None:
        """Each protocol asks for its own version key."""
        self.assertIn("harpcaller", text.open_request(b'{"harpcaller":1}', "harpcaller"))


class Sample(msgspec.Struct, forbid_unknown_fields=True):
    """A message with a number and a payload."""

    number: int
    payload: msgspec.Raw = msgspec.Raw(b"null")


class DecodeRequestTests(SynchronousTestCase):
    """Requests are strict."""

    def test_names_the_key(self) -> None:
        """An unknown key, a missing one and a wrong type are named."""
        decoder = msgspec.json.Decoder(Sample)
        for line, told in [
            (b'{"number":1,"nubmer":1}', "nubmer"),
            (b"{}", "number"),
            (b'{"number":"1"}', "$.number"),
        ]:
            with self.assertRaises(RemoteProtocolError) as caught:
                text.decode_request(line, decoder)
            self.assertEqual(caught.exception.type, errors.INVALID_REQUEST)
            self.assertIn(told, caught.exception.message)

    def test_require_container(self) -> None:
        """Arguments are a list or an object."""
        for good in (b"[]", b"{}", b"[1]", b'{"x":1}'):
            text.require_container(msgspec.Raw(good), "arguments")
        for bad in (b"1", b'"[]"', b"null", b"true"):
            with self.assertRaises(RemoteProtocolError) as caught:
                text.require_container(msgspec.Raw(bad), "arguments")
            self.assertEqual(caught.exception.type, errors.INVALID_REQUEST)
            self.assertIn("$.arguments", caught.exception.message)


class DecodeReplyTests(SynchronousTestCase):
    """A reply that can't be understood is the peer's ``protocol_error``, whatever is wrong."""

    def test_faults(self) -> None:
        """Bad UTF-8, NaN, depth, garbage and wrong types are refused with a reason."""
        decoder = msgspec.json.Decoder(Sample)
        for line in [
            b"",
            b"hello",
            b"[]",
            b'{"number":1',
            b'{"number":1,"payload":"\xff"}',
            b'{"number":1,"payload":NaN}',
            b'{"number":1,"payload":' + DEEP + b"}",
            b'{"number":[]}',
        ]:
            with self.assertRaisesRegex(RemoteProtocolError, "can't be understood") as caught:
                text.decode_reply(line, decoder)
            self.assertEqual(caught.exception.type, errors.PROTOCOL_ERROR)

    def test_quoted(self) -> None:
        """A value that is quoted is cut, and can do nothing to a terminal."""
        decoder = msgspec.json.Decoder(Literal["waiting", "running"])
        with self.assertRaises(RemoteProtocolError) as caught:
            text.decode_reply(b'"\\u001b[2J' + b"x" * 100_000 + b'"', decoder)
        self.assertIn(r"\x1b[2Jxxx", caught.exception.message)
        self.assertLess(len(caught.exception.message), 220)

    def test_payload_stays_as_it_came(self) -> None:
        """The payload is the bytes that arrived."""
        found = text.decode_reply(
            b'{"number":1,"payload":[1.0, 1e2]}', msgspec.json.Decoder(Sample)
        )
        self.assertEqual(bytes(found.payload), b"[1.0, 1e2]")


class FaultTests(SynchronousTestCase):
    """The value of ``error`` and ``exception``."""

    def test_without_data(self) -> None:
        """Data is left out where there is none."""
        found = json.loads(text.fault(errors.TIMEOUT, "too slow"))
        self.assertEqual(found, {"type": "timeout", "message": "too slow"})

    def test_with_data(self) -> None:
        """Data of None is data."""
        values: list[object] = [None, 0, [], {"signal": "KILL"}]
        for data in values:
            found = json.loads(text.fault(errors.KILLED, "gone", data))
            self.assertEqual(found, {"type": "killed", "message": "gone", "data": data})
