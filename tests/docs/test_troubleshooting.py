"""The page for those who see something fail: it knows everything that can."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

import harp
from harp.errors import ERROR_TYPES
from tests.docs.pages import ROOT

PAGE = ROOT / "docs" / "how-to" / "troubleshoot.md"


class PageTests(SynchronousTestCase):
    """No failure that a user can meet is left out."""

    def test_every_error_type(self) -> None:
        """Each type of the table has a row in the tables of symptoms."""
        rows = [line for line in PAGE.read_text("utf-8").splitlines() if line.startswith("| ")]
        told = " ".join(row.split("|")[1] for row in rows)
        self.assertEqual([name for name in ERROR_TYPES if f"`{name}`" not in told], [])

    def test_every_exception(self) -> None:
        """What else the client raises is named too."""
        text = PAGE.read_text("utf-8")
        for error in (harp.CommunicationError, harp.UnsupportedError, harp.RemoteException):
            self.assertIn(f"harp.{error.__name__}", text)

    def test_every_reason_to_wait(self) -> None:
        """So is each thing that a job can wait for."""
        text = PAGE.read_text("utf-8")
        for what in ("queue", "host", "dispatcher"):
            self.assertIn(f"- `{what}`: ", text)
        self.assertIn("`waits_for_lock`", text)
