"""Tests of harpd.front."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw
from twisted.trial.unittest import SynchronousTestCase

from harp.wire.harpd import Auth, CallRequest, encode_request
from harp.wire.text import encode
from harpd.front import login_in_front, looks_like_request


class FrontTests(SynchronousTestCase):
    """What the beginning of a line tells."""

    @given(st.text(), st.text(), st.integers(0, 100))
    def test_own_requests(self, user: str, password: str, cut: int) -> None:
        """What our own clients write is found, whatever is in it and wherever it is cut."""
        auth = Auth(user, password)
        line = encode_request(CallRequest(harp=1, auth=auth, procedure="p", arguments=Raw(b"[]")))
        whole = len(b'{"harp":1,"auth":' + encode(auth))
        self.assertEqual(login_in_front(line[: whole + cut]), auth)
        self.assertIsNone(login_in_front(line[: max(0, whole - 1 - cut)]))
        self.assertTrue(looks_like_request(line))

    @given(st.binary())
    def test_anything(self, data: bytes) -> None:
        """Nothing makes it fail."""
        for beginning in (data, b'{"auth":{' + data, b'{"harp":1,"auth":{"user":"' + data):
            login_in_front(beginning)
            looks_like_request(beginning)

    def test_not_in_front(self) -> None:
        """A login elsewhere, or what is none, is not one."""
        login = b'{"user":"a","password":"b"}'
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
            self.assertIsNone(login_in_front(line), line)

    def test_linear(self) -> None:
        """What never ends is read once: no beginning is tried again and again."""
        for part in (b'"a', b"\\", b'"a":"b",', b'"\\"', b" "):
            self.assertIsNone(login_in_front(b'{"harp":1,"auth":{' + part * 20_000))
            self.assertIsNone(login_in_front(b'{"harp"' + part * 20_000))
