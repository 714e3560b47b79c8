"""Tests of ``harp.cli.tables`` and ``harp.cli.times``: what fits where, and what people write."""

from __future__ import annotations

import io
import time
from collections.abc import Iterator
from datetime import UTC, datetime

import click
from twisted.trial.unittest import SynchronousTestCase

from harp.cli.output import Output
from harp.cli.tables import LEAST, PORTION, Column, lines, show
from harp.cli.times import brief, read_length, read_moment

CONTEXT = click.Context(click.Command("x"))
PARAMETER = click.Option(["--x"])
COLUMNS = (
    Column("ID", is_whole=True),
    Column("NAME"),
    Column("NUMBER", is_number=True),
    Column("MORE", is_extra=True),
)
ROW = ("0123456789", "a name that is long", "7", "and more of it")


def table(width: int | None, *rows: tuple[str, ...]) -> list[str]:
    """Return the lines of a table."""
    return [line.plain for line in lines(COLUMNS, rows, width)]


class TableTests(SynchronousTestCase):
    """Columns."""

    def test_wide(self) -> None:
        """Where there is room, all stands there, and nothing behind the last column."""
        wanted = [
            "ID          NAME                 NUMBER  MORE",
            "0123456789  a name that is long       7  and more of it",
        ]
        self.assertEqual(table(None, ROW), wanted)
        self.assertEqual(table(55, ROW), wanted)

    def test_narrow(self) -> None:
        """Extra columns go, others are cut to no less than is useful, and whole ones never."""
        self.assertEqual(table(50, ROW)[1], "0123456789  a name that i…       7  and more of it")
        without = "0123456789  a name that is long       7"
        self.assertEqual(table(len(without), ROW)[1], without)
        least = table(10, ROW)[1]
        self.assertEqual(least, f"0123456789  {'a name that is long'[: LEAST - 1]}…       7")

    def test_cells(self) -> None:
        """Widths are what a terminal shows, and an empty cell is seen to be empty."""
        found = table(None, ("日本", "", "1", "x"), ("abcd", "y", "2", "z"))
        self.assertEqual(found[1:], ["日本  -          1  x", "abcd  y          2  z"])

    def test_foreign(self) -> None:
        """What a terminal would obey is escaped before it is measured."""
        self.assertIn(r"a\nb\x1b[2J", table(None, ("a\nb\x1b[2J", "", "", ""))[1])

    def test_many(self) -> None:
        """Rows are printed a portion at a time, as they come, with one title."""
        printed: list[int] = []
        out = io.StringIO()

        def rows() -> Iterator[tuple[str, ...]]:
            for number in range(2 * PORTION + 1):
                if number % PORTION == 0:
                    printed.append(len(out.getvalue().splitlines()))
                yield (str(number), "", "", "")

        show(Output(out=out), COLUMNS, rows(), "nothing")
        self.assertEqual(printed, [0, PORTION + 1, 2 * PORTION + 1])
        self.assertEqual(out.getvalue().count("NAME"), 1)
        self.assertEqual(len(out.getvalue().splitlines()), 2 * PORTION + 2)


class TimeTests(SynchronousTestCase):
    """Moments and lengths."""

    def test_lengths(self) -> None:
        """A number of seconds, or of what a letter means."""
        for text, seconds in (
            ("90", 90),
            ("1.5m", 90),
            ("2h", 7200),
            ("1d", 86400),
            ("1w", 604800),
        ):
            self.assertEqual(read_length(CONTEXT, PARAMETER, text), seconds)
        for text in ("", "m", "1y", "-1", "1e3", "1 h", "٣", "9" * 400):
            with self.assertRaises(click.BadParameter, msg=text):
                read_length(CONTEXT, PARAMETER, text)

    def test_moments(self) -> None:
        """So long ago, or a date, with or without a time and a zone."""
        found = read_moment(CONTEXT, PARAMETER, "2h")
        assert found is not None
        self.assertTrue(0 <= time.time() - 7200 - found < 60)
        for text, moment in (
            ("2026-11-23", datetime(2026, 11, 23)),
            ("2026-11-23T14:30", datetime(2026, 11, 23, 14, 30)),
            ("2026-11-23 14:30:05", datetime(2026, 11, 23, 14, 30, 5)),
            ("2026-11-23T14:30Z", datetime(2026, 11, 23, 14, 30, tzinfo=UTC)),
        ):
            self.assertEqual(read_moment(CONTEXT, PARAMETER, text), moment.timestamp())
        self.assertIsNone(read_moment(CONTEXT, PARAMETER, None))
        for text in ("", "now", "2026-02-30", "12", "-2h"):
            with self.assertRaises(click.BadParameter, msg=text):
                read_moment(CONTEXT, PARAMETER, text)

    def test_brief(self) -> None:
        """Three characters tell about how long."""
        for seconds, text in (
            (-1, "0s"),
            (99.9, "99s"),
            (100, "1m"),
            (99 * 60 + 59, "99m"),
            (6000, "1h"),
            (99 * 3600, "99h"),
            (100 * 3600, "4d"),
        ):
            self.assertEqual(brief(seconds), text)
