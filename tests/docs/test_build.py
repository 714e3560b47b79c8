"""The documentation can be made into a web site and manual pages."""

from __future__ import annotations

import atexit
import re
import shutil
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.docs.pages import ROOT, pages

PARTS = ("tutorial", "how-to", "reference", "explanation")
MANUAL = {"harp.1", "harp.3", "harpd.8", "harpcaller.8", "harpd.conf.5", "harpcaller.yaml.5"}


@cache
def _folder() -> Path:
    """Return a folder for both builders, so that the second need not read the pages again."""
    folder = Path(tempfile.mkdtemp(prefix="harp-docs-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


class BuildTests(SynchronousTestCase):
    """What `make docs` makes."""

    def build(self, builder: str) -> Path:
        folder = _folder()
        options = ["-W", "--keep-going", "-n", "-q", "-b", builder, "-d", f"{folder}/read"]
        done = subprocess.run(
            [sys.executable, "-m", "sphinx", *options, "docs", f"{folder}/{builder}"],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=300,
            check=False,
        )
        self.assertEqual(done.returncode, 0, done.stdout)
        return folder / builder

    def test_web_site(self) -> None:
        """It is made without a warning, and a reader's browser fetches nothing from elsewhere."""
        site = self.build("html")
        found = list(site.rglob("*.html"))
        self.assertGreater(len(found), len(pages()))
        for page in found:
            text = page.read_text("utf-8")
            self.assertEqual(
                re.findall(r"<(?:script|link|img)[^>]*(?:src|href)=\"https?:[^>]*>", text), [], page
            )

    def test_manual_pages(self) -> None:
        """They are made without a warning, and say what they are about."""
        manual = self.build("man")
        self.assertEqual({page.name for page in manual.iterdir()}, MANUAL)
        commands = (manual / "harp.1").read_text("utf-8")
        for word in ("harp call", "HARP_DISPATCHER", "\\-\\-max\\-exec\\-time"):
            self.assertIn(word, commands)
        self.assertIn("max_running_per_host", (manual / "harpcaller.yaml.5").read_text("utf-8"))
        self.assertIn("RemoteCall", (manual / "harp.3").read_text("utf-8"))


class IndexTests(SynchronousTestCase):
    """The parts, as readers of a forge find them."""

    def test_every_page(self) -> None:
        """The index of each part has a link to each of its pages, and a few words about it."""
        for part in PARTS:
            folder = ROOT / "docs" / part
            index = (folder / "index.md").read_text("utf-8")
            for page in folder.glob("*.md"):
                if page.name != "index.md":
                    self.assertIn(f"({page.name})", index, page)

    def test_links(self) -> None:
        """Every link to a file of the repository leads somewhere, in the README too."""
        for page in pages():
            for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text("utf-8")):
                if "://" not in target:
                    self.assertTrue((page.parent / target).exists(), f"{page}: {target}")
