"""The pages about security and promises: what they name as proof is there."""

from __future__ import annotations

import re
from importlib import import_module

from twisted.trial.unittest import SynchronousTestCase

from tests.docs.pages import ROOT

PAGE = ROOT / "docs" / "explanation" / "security.md"


def is_there(name: str) -> bool:
    """Return whether that is a module, a class or a method of the tests."""
    parts = name.split(".")
    for size in range(len(parts), 0, -1):
        try:
            found: object = import_module(".".join(parts[:size]))
        except ModuleNotFoundError:
            continue
        for part in parts[size:]:
            found = getattr(found, part, None)
        return found is not None
    return False


class SecurityTests(SynchronousTestCase):
    """Each promise stands beside tests that hold to it."""

    def test_named(self) -> None:
        """Every test that the page names exists."""
        names = re.findall(r"`(tests\.[\w.]+)`", PAGE.read_text("utf-8"))
        self.assertGreater(len(names), 50)
        self.assertEqual([name for name in names if not is_there(name)], [])

    def test_promises(self) -> None:
        """So does every test that the page of promises names."""
        page = PAGE.with_name("promises.md")
        names = re.findall(r"`(tests\.[\w.]+)`", page.read_text("utf-8"))
        self.assertGreater(len(names), 10)
        self.assertEqual([name for name in names if not is_there(name)], [])

    def test_every_promise(self) -> None:
        """No row of the promises is without one."""
        promises = PAGE.read_text("utf-8").partition("## What is promised")[2]
        rows = re.findall(r"^\| ([A-Z`h].*?) \| (.*) \|$", promises, re.MULTILINE)
        self.assertGreater(len(rows), 20)
        self.assertEqual([promise for promise, tests in rows if "`tests." not in tests], [])
