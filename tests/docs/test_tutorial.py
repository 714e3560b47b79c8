"""The tutorial, followed from a copy of the repository in which nothing has been made yet."""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.docs import setting
from tests.docs.pages import ROOT

PAGE = ROOT / "docs" / "tutorial" / "first-steps.md"


def copy_to(folder: Path) -> None:
    """Put into a folder what a clone has, and the packages that make would install there."""
    for name in ("Makefile", "README.md", "LICENSE", "setup.cfg", "pyproject.toml"):
        shutil.copy(ROOT / name, folder)
    for name in ("harp", "harpd", "harpcaller", "twisted"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    environment = folder / ".venv"
    environment.mkdir()
    for entry in Path(sys.prefix).iterdir():
        if entry.name not in {".runs", ".installed"}:
            (environment / entry.name).symlink_to(entry)
    (environment / ".runs").touch()  # newer than setup.cfg, so make is content


class TutorialTests(SynchronousTestCase):
    """What a person types who has never seen HarpCaller."""

    def test_first_steps(self) -> None:
        """Each command prints what the page says, and the own procedure and program work."""
        # Short, because of the socket's path.
        with tempfile.TemporaryDirectory(prefix="harp-") as name:
            folder = Path(name)
            copy_to(folder)
            done = setting.start(PAGE, folder)
        self.assertEqual(done.returncode, 0, done.stdout)
