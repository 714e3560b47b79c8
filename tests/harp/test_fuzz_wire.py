"""Tests of ``harp.wire`` with lines that are nearly right, and with any bytes."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.fuzz import wire
from tests.fuzz.strategies import edited, examples
from tests.fuzz.targets import samples

_REQUEST = b'"auth":{"user":"panel","password":"s3cret-pa55word"},"procedure":"p","arguments":[1]}'
_CALL = b'"auth":{"token":"harp_s3cret"},"host":"h","procedure":"p","arguments":{"a":"b"}}'


class WireTests(SynchronousTestCase):
    """The properties of `tests.fuzz.wire`."""

    @examples(600)
    @given(edited([b'{"harpcaller":1,' + _CALL, *samples("wire_dispatcher_request")]) | st.binary())
    def test_dispatcher_requests(self, line: bytes) -> None:
        """A request is understood by all who read it in the same way, or refused by name."""
        wire.dispatcher_request(line)

    @examples(600)
    @given(edited([b'{"harp":1,' + _REQUEST, *samples("wire_harpd_request")]) | st.binary())
    def test_harpd_requests(self, line: bytes) -> None:
        """So it is at harpd."""
        wire.harpd_request(line)

    @examples(400)
    @given(edited(samples("wire_dispatcher_reply")) | st.binary())
    def test_dispatcher_replies(self, line: bytes) -> None:
        """A reply is understood or a protocol_error."""
        wire.dispatcher_reply(line)

    @examples(400)
    @given(edited(samples("wire_harpd_reply")) | st.binary())
    def test_harpd_replies(self, data: bytes) -> None:
        """So it is with those of harpd, however they come."""
        wire.harpd_reply(data)

    @examples(300)
    @given(edited(samples("lines")) | st.binary())
    def test_lines(self, data: bytes) -> None:
        """Lines are what the limit and their ends make them, however they come."""
        wire.lines(data)
