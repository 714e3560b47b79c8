"""Tests of ``harp.wire`` with lines that are nearly right, and with any bytes."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.fuzz import wire
from tests.fuzz.strategies import are_json, edited, examples, mutated_json
from tests.fuzz.targets import samples

_REQUEST = b'"auth":{"user":"panel","password":"s3cret-pa55word"},"procedure":"p","arguments":[1]}'
_CALL = b'"auth":{"token":"harp_s3cret"},"host":"h","procedure":"p","arguments":{"a":"b"}}'


def lines(target: str, *more: bytes) -> st.SearchStrategy[bytes]:
    """Return lines near those that are kept for a target, and these."""
    kept = [*more, *samples(target)]
    return mutated_json(are_json(kept)) | edited(kept) | st.binary()


class WireTests(SynchronousTestCase):
    """The properties of `tests.fuzz.wire`."""

    @examples(600)
    @given(edited([b'{"harpcaller":1,' + _CALL, *samples("wire_dispatcher_request")]) | st.binary())
    def test_dispatcher_requests(self, line: bytes) -> None:
        """A request is understood by all who read it in the same way, or refused by name."""
        wire.dispatcher_request(line)

    @examples(600)
    @given(lines("wire_harpd_request", b'{"harp":1,' + _REQUEST))
    def test_harpd_requests(self, line: bytes) -> None:
        """So it is at harpd."""
        wire.harpd_request(line)

    @examples(400)
    @given(lines("wire_dispatcher_reply"))
    def test_dispatcher_replies(self, line: bytes) -> None:
        """A reply is understood or a protocol_error."""
        wire.dispatcher_reply(line)

    @examples(400)
    @given(lines("wire_harpd_reply"))
    def test_harpd_replies(self, data: bytes) -> None:
        """So it is with those of harpd, however they come."""
        wire.harpd_reply(data)

    @examples(300)
    @given(edited(samples("lines")) | st.binary())
    def test_lines(self, data: bytes) -> None:
        """Lines are what the limit and their ends make them, however they come."""
        wire.lines(data)
