"""Tests of ``harpcaller.early_auth``: a token found before the rest of its line has come."""

from __future__ import annotations

import json

import msgspec
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from harp.wire import dispatcher as wire
from harpcaller.early_auth import early_auth

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=100)
AUTH = st.builds(
    wire.Auth,
    token=st.none() | TEXT,
    on_behalf_of=st.none() | TEXT.filter(bool),
)
TOKEN = wire.Auth(token="harp_x")


class EarlyAuthTests(SynchronousTestCase):
    """What is read of a line that may never end."""

    @given(AUTH, TEXT, st.integers(min_value=0))
    def test_our_clients(self, auth: wire.Auth, argument: str, cut: int) -> None:
        """Whatever a client's auth says is found as soon as it has come, and not before."""
        arguments = msgspec.Raw(json.dumps([argument]).encode())
        call = wire.Call(1, auth=auth, host="h", procedure="p", arguments=arguments)
        line = wire.encode_request(call)
        end = line.index(b',"host":')
        self.assertEqual(early_auth(line), auth)
        self.assertEqual(early_auth(line[: end + cut % (len(line) - end)]), auth)
        self.assertIsNone(early_auth(line[: cut % end]))

    @given(AUTH, st.booleans(), st.integers(0, 4))
    def test_other_writers(self, auth: wire.Auth, escapes: bool, indent: int) -> None:
        """So it is where another program writes JSON in its own way, in the same order."""
        parts = json.loads(msgspec.json.encode(auth))
        text = json.dumps({"harpcaller": 1, "auth": parts, "host": "h"}, ensure_ascii=escapes)
        self.assertEqual(early_auth(b" " * indent + text.encode()), auth)

    @given(st.binary(max_size=300))
    def test_anything(self, rest: bytes) -> None:
        """Whatever else comes is nothing, never an exception."""
        self.assertIsNone(early_auth(rest))
        start = b'{"harpcaller":1,"auth":{'
        self.assertIn(type(early_auth(start + rest)), (type(None), wire.Auth))

    def test_nothing_else(self) -> None:
        """What would be refused as a request, or stands elsewhere, is not taken."""
        good = '{"harpcaller":1,"auth":{"token":"harp_x"}'
        self.assertEqual(early_auth(good.encode()), TOKEN)
        for line in (
            '{"harpcaller":2,"auth":{"token":"harp_x"}',
            '{"harpcaller":10,"auth":{"token":"harp_x"}',
            '{"host":"h","harpcaller":1,"auth":{"token":"harp_x"}',
            '{"harpcaller":1,"host":{"auth":{"token":"harp_x"}}',
            '{"harpcaller":1,"auth":{"token":"harp_x","weight":1}',
            '{"harpcaller":1,"auth":{"token":5}',
            '{"harpcaller":1,"auth":["harp_x"]',
            '{"harpcaller":1,"auth":"harp_x"',
            "x" + good,
            "",
        ):
            self.assertIsNone(early_auth(line.encode()), line)

    def test_no_time_for_attackers(self) -> None:
        """The longest beginning is looked through once, whatever it is made of."""
        start = b'{"harpcaller":1,"auth":{'
        for part in (b'"', b'"a":', b'"\\', b"{", b" ", b'"a" ', b"\\", b'""'):
            self.assertIsNone(early_auth(start + part * (65536 // len(part))))
