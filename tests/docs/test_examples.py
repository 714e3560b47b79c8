"""The examples of the README and of the documentation do what their pages say."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.acceptance.daemons import deploy
from tests.docs.pages import KINDS, ROOT, Block, blocks, pages

TIME_LIMIT = 60
"""Seconds after which a page's examples are taken to hang."""


class ExampleTests(SynchronousTestCase):
    """The daemons are real, and so is the program; only the ports are others."""

    def test_marks(self) -> None:
        """Every block of Python says how it is run, in words that are known here."""
        for page in pages():
            for block in blocks(page):
                where = f"{page.relative_to(ROOT)}:{block.line}"
                if block.language == "python":
                    self.assertIn(block.kind, KINDS, where)
                if block.kind is not None:
                    self.assertIn(block.kind, KINDS, where)

    def test_every_fence_is_seen(self) -> None:
        """No block escapes by the way in which it is written."""
        for page in pages():
            fences = [line for line in page.read_text().splitlines() if "```" in line]
            self.assertEqual(len(fences), 2 * len(blocks(page)), page)

    def test_examples(self) -> None:
        """Each page's procedures are loaded by harpd, and its program runs as the page says."""
        ran = []
        for page in pages():
            found = blocks(page)
            if any(block.kind == "client" for block in found):
                self.run_page(page, found)
                ran.append(page.name)
        self.assertIn("README.md", ran)

    def run_page(self, page: Path, found: list[Block]) -> None:
        with tempfile.NamedTemporaryFile("w", suffix=".py") as procedures:
            for block in found:
                if block.kind == "procedures":
                    procedures.write(block.text)
            procedures.flush()
            deployment = deploy(Path(procedures.name))
        # The page's client certificate is any that there is; no dispatcher gets to see it.
        for kind in ("pem", "key"):
            shutil.copy(deployment.folder / f"harpd.{kind}", deployment.folder / f"panel.{kind}")
        with deployment:
            ports = {"3502": deployment.port, "4306": deployment.harpd_port}
            program = subprocess.run(
                [sys.executable, "-m", "tests.docs.run_page", str(page), json.dumps(ports)],
                cwd=deployment.folder,  # where the page's ca.pem is
                env={**os.environ, "PYTHONPATH": str(ROOT), "HARP_TOKEN": "harp_token"},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                timeout=TIME_LIMIT,
                check=False,
            )
        self.assertEqual(program.returncode, 0, program.stdout)
