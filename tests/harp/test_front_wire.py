"""Tests of ``harp.wire.front``: who asks, found before the rest of a line has come."""

from __future__ import annotations

import json

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from harp.wire import dispatcher, harpd
from harp.wire.front import auth_reader

read_token = auth_reader("harpcaller", dispatcher.Auth)
read_login = auth_reader("harp", harpd.Auth)

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=100)
AUTH = st.builds(
    dispatcher.Auth,
    token=st.none() | TEXT,
    on_behalf_of=st.none() | TEXT.filter(bool),
)
TOKEN = dispatcher.Auth(token="harp_x")
PARTS = (b'"', b'"a', b'"a":', b'"\\', b'"\\"', b"{", b" ", b'"a" ', b"\\", b'""', b'"a":"b",')


class FrontTests(SynchronousTestCase):
    """What is read of a line that may never end."""

    @settings(deadline=None)
    @given(AUTH, TEXT, st.integers(min_value=0))
    def test_dispatchers_clients(self, auth: dispatcher.Auth, argument: str, cut: int) -> None:
        """Whatever a client's auth says is found as soon as it has come, and not before."""
        arguments = msgspec.Raw(json.dumps([argument]).encode())
        call = dispatcher.Call(1, auth=auth, host="h", procedure="p", arguments=arguments)
        line = dispatcher.encode_request(call)
        end = line.index(b',"host":')
        self.assertEqual(read_token(line), auth)
        self.assertEqual(read_token(line[: end + cut % (len(line) - end)]), auth)
        self.assertIsNone(read_token(line[: cut % end]))
        self.assertIsNone(read_login(line))

    @settings(deadline=None)
    @given(TEXT, TEXT, st.integers(min_value=0))
    def test_harpds_callers(self, user: str, password: str, cut: int) -> None:
        """So it is with a login at harpd."""
        auth = harpd.Auth(user, password)
        arguments = msgspec.Raw(b"[]")
        call = harpd.CallRequest(harp=1, auth=auth, procedure="p", arguments=arguments)
        line = harpd.encode_request(call)
        end = line.index(b',"procedure":')
        self.assertEqual(read_login(line), auth)
        self.assertEqual(read_login(line[: end + cut % (len(line) - end)]), auth)
        self.assertIsNone(read_login(line[: cut % end]))
        self.assertIsNone(read_token(line))

    @settings(deadline=None)
    @given(AUTH, st.booleans(), st.booleans(), st.integers(0, 4))
    def test_other_writers(
        self, auth: dispatcher.Auth, escapes: bool, auth_first: bool, indent: int
    ) -> None:
        """So it is where another program writes JSON in its own way, the version behind it or not.

        As long as nothing else stands before it.
        """
        parts = json.loads(msgspec.json.encode(auth))
        keys = ("auth", "harpcaller") if auth_first else ("harpcaller", "auth")
        values = {"harpcaller": 1, "auth": parts}
        fields = {key: values[key] for key in keys} | {"host": "h"}
        text = json.dumps(fields, ensure_ascii=escapes)
        self.assertEqual(read_token(b" " * indent + text.encode()), auth)

    @settings(deadline=None)
    @given(st.binary(max_size=300))
    def test_anything(self, rest: bytes) -> None:
        """Whatever else comes is nothing, never an exception."""
        for start in (b"", b'{"auth":{', b'{"harpcaller":1,"auth":{', b'{"harp":1,"auth":{'):
            self.assertIn(type(read_token(start + rest)), (type(None), dispatcher.Auth))
            self.assertIn(type(read_login(start + rest)), (type(None), harpd.Auth))

    def test_no_token(self) -> None:
        """What would be refused as a request, or stands elsewhere, is not taken."""
        good = '{"harpcaller":1,"auth":{"token":"harp_x"}'
        self.assertEqual(read_token(good.encode()), TOKEN)
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
            self.assertIsNone(read_token(line.encode()), line)

    def test_no_login(self) -> None:
        """So it is with logins."""
        login = b'{"user":"a","password":"b"}'
        self.assertEqual(read_login(b'{"auth":' + login), harpd.Auth("a", "b"))
        for line in (
            b'{"procedure":"p","auth":' + login,
            b'{"harp":2,"auth":' + login,
            b'["auth",' + login,
            b'{"arguments":{"auth":' + login,
            b'{"auth":{"user":"a"}',
            b'{"auth":{"user":"a","password":"b","x":1}',
            b'{"auth":{"user":"a","password":5}',
            b'{"auth":{"user":"a","password":"\xff"}',
            b'{"auth":[]',
        ):
            self.assertIsNone(read_login(line), line)

    def test_no_time_for_attackers(self) -> None:
        """The longest beginning is looked through once, whatever it is made of."""
        for start in (b'{"harpcaller":1,"auth":{', b'{"harpcaller"', b'{"auth":{', b""):
            for part in PARTS:
                self.assertIsNone(read_token(start + part * (65536 // len(part))))
