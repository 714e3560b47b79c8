"""Tests of ``harp.logs``."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from harp.logs import shown


class ShownTests(SynchronousTestCase):
    """Text from the network can neither forge a line of the log nor fill it."""

    def test_one_plain_line(self) -> None:
        """Control characters, and what ends a line, are escaped."""
        self.assertEqual(shown("a\x1b[2J\r\nb\t\x9bé"), "a\\x1b[2J\\x0d\\nb\\t\\x9bé")

    def test_what_does_not_print(self) -> None:
        """So is what turns a line around or ends it somewhere else, and what is not UTF-8."""
        self.assertEqual(shown("a\u202eb\u2028c\ud800"), "a\\u202eb\\u2028c\\ud800")

    def test_length(self) -> None:
        """A long text is cut, and its length is told."""
        self.assertEqual(shown("x" * 200), "x" * 200)
        self.assertEqual(shown("x" * 201), "x" * 200 + "… (201 characters)")
