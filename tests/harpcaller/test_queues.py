"""Tests of ``harpcaller.queues``: which names are one queue."""

import json
from decimal import Decimal
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from harpcaller.queues import MAX_NAME, canonical_queue_name

_VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.text(max_size=5) | st.integers() | st.floats(-1e300, 1e300),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=10,
)


def _reversed(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _reversed(item) for key, item in reversed(value.items())}
    if isinstance(value, list):
        return [_reversed(item) for item in value]
    return value


class CanonicalNameTests(SynchronousTestCase):
    """Two names are the same queue when they are equal as JSON values."""

    def same(self, *names: str) -> None:
        """Assert that all the names are one queue's."""
        self.assertEqual(len({canonical_queue_name(name.encode()) for name in names}), 1, names)

    def different(self, *names: str) -> None:
        """Assert that no two of the names are one queue's."""
        found = {canonical_queue_name(name.encode()) for name in names}
        self.assertEqual(len(found), len(names), names)

    def refused(self, raw: bytes) -> None:
        """Assert that this can't be a queue's name."""
        with self.assertRaises(ValueError):
            canonical_queue_name(raw)

    def test_order_of_keys(self) -> None:
        """The order of keys tells no queues apart, at any depth; that of a list does."""
        self.same('{"a": {"c": [{"e": 1, "d": 2}], "b": 1}}', '{"a":{"b":1,"c":[{"d":2,"e":1}]}}')
        self.different('{"a": [1, 2]}', '{"a": [2, 1]}')

    def test_spelling_of_numbers(self) -> None:
        """A number is the same however it is written."""
        self.same('{"a": 1}', '{"a": 1.0}', '{"a": 1e0}', '{"a": 10E-1}', '{"a": 0.1e+1}')
        self.same('{"a": 0}', '{"a": -0}', '{"a": -0.0}', '{"a": 0e5}', '{"a": 0e-999999999}')
        self.same('{"a": 1e23}', '{"a": 100000000000000000000000}')
        self.same('{"a": 0.10}', '{"a": 1e-1}')

    def test_numbers_are_exact(self) -> None:
        """Numbers that a double can't tell apart are still two."""
        self.different('{"a": 9007199254740992}', '{"a": 9007199254740993}')
        self.different('{"a": 1}', '{"a": -1}', '{"a": 10}', '{"a": 0.1}')

    def test_kinds_of_values(self) -> None:
        """A number, a text, true and null are never one value."""
        self.different('{"a": 1}', '{"a": "1"}', '{"a": true}', '{"a": [1]}', '{"a": {}}', "{}")
        self.different('{"a": 0}', '{"a": false}', '{"a": null}', '{"a": ""}')

    def test_spelling_of_texts(self) -> None:
        """An escaped character is the character."""
        self.same(r'{"a": "\u0041\u00e9\/"}', '{"a": "Aé/"}')
        self.same(r'{"\ud83d\ude00": 1}', '{"\U0001f600": 1}')

    def test_numbers_out_of_range(self) -> None:
        """A number that no double can hold is refused, in a time that its length allows."""
        for number in (b"1e999", b"-1e999", b"1e-999", b"1e999999999999", b"1e-999999999999"):
            self.refused(b'{"a": %b}' % number)
        self.refused(b'{"a": %b}' % (b"1" * 60_000))

    def test_no_longer_than_what_was_sent(self) -> None:
        """A name does not grow by the zeros of its numbers."""
        for number in (b"9e307", b"-1e-300", b"12.5e200", b"1e21", b"1e-8"):
            raw = b'{"a":[%b]}' % b",".join([number] * 100)
            self.assertLessEqual(len(canonical_queue_name(raw)), len(raw) + 200)
        self.same('{"a": 1e21}', '{"a": 10e20}', '{"a": 1000000000000000000000}')
        self.same('{"a": 125e-10}', '{"a": 0.0000000125}', '{"a": 1.250e-8}')
        self.different('{"a": 1e21}', '{"a": 1e22}', '{"a": 1000000000000000000001}')

    def test_too_long(self) -> None:
        """A name that would take too long to be understood is refused."""
        longest = b'{"a":"%b"}' % (b"x" * (MAX_NAME - 8))
        self.assertEqual(canonical_queue_name(longest), longest)
        self.refused(longest + b" ")

    def test_not_an_object(self) -> None:
        """Whatever is not a JSON object is refused."""
        for raw in (b"[]", b"1", b"null", b"", b"{", b"{} {}", b'{"a": NaN}', b'{"a": Infinity}'):
            self.refused(raw)
        self.refused(b'{"a": "\xff"}')
        self.refused(rb'{"a": "\ud800"}')
        self.refused(b'{"a": %b%b}' % (b"[" * 30_000, b"]" * 30_000))

    def test_errors_name_what_is_wrong(self) -> None:
        """The error tells what is wrong; where, knows who has the request."""
        for raw, how in (
            (b"[]", "is not a JSON object"),
            (b'{"a": 1e999}', "has a number that is out of range"),
            (b'{"a": NaN}', "has NaN, which is not JSON"),
            (b'{"a": %b%b}' % (b"[" * 30_000, b"]" * 30_000), "is nested too deep"),
            (b" " * (MAX_NAME + 1), "is longer than 65536 bytes"),
        ):
            with self.assertRaisesRegex(ValueError, f"^it {how}$"):
                canonical_queue_name(raw)

    @given(st.dictionaries(st.text(max_size=3), _VALUES))
    def test_value_is_kept(self, name: dict[str, Any]) -> None:
        """A canonical name has the value of what it came from and is its own canonical name."""
        canonical = canonical_queue_name(json.dumps(name).encode())
        self.assertEqual(
            json.loads(canonical, parse_int=Decimal, parse_float=Decimal),
            json.loads(json.dumps(name), parse_int=Decimal, parse_float=Decimal),
        )
        self.assertEqual(canonical_queue_name(canonical), canonical)
        self.assertEqual(canonical_queue_name(json.dumps(_reversed(name)).encode()), canonical)
