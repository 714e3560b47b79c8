"""The examples of the README and of the documentation do what their pages say."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from harpcaller.demo.deployment import Deployment
from tests.docs import setting
from tests.docs.checks import check
from tests.docs.pages import CHECKED, KINDS, ROOT, RUN, blocks, pages

ELSEWHERE = {"first-steps.md": "tests.docs.test_tutorial"}
"""Pages whose examples need more than a deployment, and who runs them."""


class MarkTests(SynchronousTestCase):
    """Every block of code says what a test does with it."""

    def test_marks(self) -> None:
        """It does so in words that are known here, and is in a language that fits."""
        seen = set()
        for page in pages():
            for block in blocks(page):
                self.assertIn(block.kind, KINDS, f"{block.place} has no mark that is known")
                assert block.kind is not None
                seen.add(block.kind)
                languages = KINDS[block.kind]
                if languages is not None:
                    self.assertIn(block.language, languages, block.place)
        self.assertTrue({"client", "procedures", "output"} <= seen)


class CheckTests(SynchronousTestCase):
    """Blocks that are not run."""

    def test_checks(self) -> None:
        """Each shows what is so."""
        deployment = setting.deployment()
        wrong = []
        for page in pages():
            for block in blocks(page):
                if block.kind in CHECKED:
                    try:
                        check(block, deployment)
                    except AssertionError as error:
                        wrong.append(str(error))
        self.assertEqual(wrong, [], "\n".join(wrong))


class ExampleTests(SynchronousTestCase):
    """The daemons are real, and so is the program; only the ports are others."""

    def run_page(self, page: Path) -> None:
        running = _running()
        setting.load(running, list(blocks(page)))
        done = setting.run(running, page)
        self.assertEqual(done.returncode, 0, done.stdout)


@cache
def _running() -> Deployment:
    return setting.deployment().__enter__()


def _add_tests() -> None:
    """Make a test of each page, so that what fails has the page's name."""
    for page in pages():
        if page.name in ELSEWHERE or not any(block.kind in RUN for block in blocks(page)):
            continue

        def test(self: ExampleTests, page: Path = page) -> None:
            self.run_page(page)

        test.__doc__ = f"The program of {page.name} does what the page says."
        name = re.sub(r"\W", "_", str(page.relative_to(ROOT).with_suffix("")).lower())
        setattr(ExampleTests, f"test_{name}", test)


_add_tests()
