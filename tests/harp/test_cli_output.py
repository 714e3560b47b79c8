"""Tests of ``harp.cli.output`` and of the line that moves."""

from __future__ import annotations

import io
import json
from typing import Any

import click
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from harp.cli.output import Output, as_json, escaped
from harp.cli.status import Failure
from harp.cli.status_line import Progress, read_progress

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


class TextTests(SynchronousTestCase):
    """No foreign text is obeyed by a terminal."""

    @given(JSON)
    def test_json(self, value: Any) -> None:
        """JSON has printable characters alone, and is the same value."""
        for indent in (None, 2):
            text = as_json(value, indent)
            self.assertTrue(text.replace("\n", "").isprintable())
            self.assertEqual(json.loads(text), value)
        self.assertNotIn("\n", as_json(value))

    @given(st.text())
    def test_text(self, text: str) -> None:
        """Text is on one line; what prints stays as it is."""
        self.assertTrue(escaped(text).isprintable())
        if text.isprintable():
            self.assertEqual(escaped(text), text)


class OutputTests(SynchronousTestCase):
    """What goes where."""

    def output(self, as_json: bool) -> tuple[Output, io.StringIO, io.StringIO]:
        """Return one that prints into texts."""
        out, err = io.StringIO(), io.StringIO()
        return Output(as_json, out, err), out, err

    def test_data_alone_on_standard_output(self) -> None:
        """Data goes to standard output, everything else to standard error."""
        output, out, err = self.output(as_json=False)
        output.value({"a": [1]})
        output.item("b", "label")
        output.text("c\x1b")
        data = '{"a":[1]}\nlabel "b"\nc\\x1b\n'
        self.assertEqual((out.getvalue(), err.getvalue()), (data, ""))
        output.note("one\ntwo\x1b")
        output.warn("three")
        output.told({"k": 1}, "four")
        output.failure(Failure("five\nsix\x1b", remedy="seven"), "it")
        self.assertEqual(out.getvalue(), data)
        told = "one\ntwo\\x1b\nWarning: three\nfour\nError: it: five\n  six\\x1b\n  seven\n"
        self.assertEqual(err.getvalue(), told)

    def test_json(self) -> None:
        """With --json what is told to programs is JSON, too."""
        output, _, err = self.output(as_json=True)
        output.told({"k": 1}, "four")
        output.failure(Failure("five"))
        first, second = err.getvalue().splitlines()
        self.assertEqual(json.loads(first), {"k": 1})
        told = {"error": {"type": "not_carried_out", "message": "five"}, "status": 5}
        self.assertEqual(json.loads(second), told)

    def test_nobody_to_ask(self) -> None:
        """Where there is no terminal nobody is asked, and nothing is taken for a yes."""
        output, _, _ = self.output(as_json=False)
        error = self.assertRaises(click.UsageError, output.confirm, "Sure?", "--force")
        self.assertIn("this is no terminal: give --force", error.message)
        self.assertIsNone(output.ask_secret("password"))


class ProgressTests(SynchronousTestCase):
    """Which packets move a bar."""

    def test_read(self) -> None:
        """``total`` and ``unit`` may be missing; what is no progress is an ordinary packet."""
        for told, found in (
            ({"done": 1, "total": 4, "unit": "files"}, Progress(1, 4, "files")),
            ({"done": 0.5}, Progress(0.5, None, "")),
            ({"done": 5, "total": 0, "unit": None}, Progress(5, None, "")),
            ({"total": 4}, None),
            ({"done": True}, None),
            ({"done": -1}, None),
            ({"done": 1, "total": "4"}, None),
            ([1, 4], None),
        ):
            self.assertEqual(read_progress({"progress": told}), found, told)
        others: list[Any] = [None, 1, "progress", [], {"done": 1}]
        for packet in others:
            self.assertIsNone(read_progress(packet))

    def test_words(self) -> None:
        """Numbers are short, more than all is all, and foreign units are escaped."""
        for progress, text in (
            (Progress(1, 3, "files"), "1/3 files 33%"),
            (Progress(1048576, 2097152, "B"), "1048576/2097152 B 50%"),
            (Progress(4, 3, "\x1b"), "4/3 \\x1b 100%"),
            (Progress(2.5, None, "GB"), "2.5 GB"),
        ):
            self.assertEqual(progress.text(), text)
