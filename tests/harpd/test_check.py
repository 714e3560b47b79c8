"""Tests of harpd.check."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from harpd import check
from harpd.check import check_procedures
from harpd.zygote_command import zygote_settings
from tests.harpd.waiting import descriptors, processes, wait_gone
from tests.harpd.zygotes import PRELUDE, write_procedures


class CheckProceduresTests(SynchronousTestCase):
    """The mistakes of a file are found in another process, whatever the file does."""

    def setUp(self) -> None:
        self.before = descriptors()
        self.others = processes()

    def tearDown(self) -> None:
        self.assertEqual(descriptors(), self.before)

    def check(self, text: str, path: list[str] | None = None) -> list[str]:
        """Return the mistakes of a file without its name."""
        file = write_procedures(self.mktemp(), text)
        found = check_procedures(file, path or [])
        self.assertTrue(all(mistake.startswith(file) for mistake in found), found)
        return [mistake.removeprefix(file) for mistake in found]

    def test_no_mistake(self) -> None:
        """A file without mistakes has none."""
        self.assertEqual(self.check("@procedure\ndef f(): pass"), [])

    def test_mistakes(self) -> None:
        """All mistakes are told."""
        found = self.check("@procedure(timeout=0)\ndef f(): pass\n@procedure\ndef g(): yield")
        self.assertEqual(
            [mistake.partition(": ")[0] for mistake in found], [", line 3", ", line 5"]
        )

    def test_prints(self) -> None:
        """What the file prints is shown, but not where it would be in the way and all is well."""
        good, bad = "@procedure\ndef f(): pass", "nonsense"
        for text, shows, expected in [
            (good, True, True),
            (good, False, False),
            (bad, True, True),
            (bad, False, True),
        ]:
            file = write_procedures(self.mktemp(), f"print('loa' + 'ded', flush=True)\n{text}")
            name = self.mktemp()
            with open(name, "wb") as printed:
                before = os.dup(2)
                os.dup2(printed.fileno(), 2)
                try:
                    found = check_procedures(file, [], shows=shows)
                finally:
                    os.dup2(before, 2)
                    os.close(before)
            self.assertEqual(len(found), int(text is bad))
            self.assertEqual(b"loaded" in Path(name).read_bytes(), expected)

    def test_path(self) -> None:
        """Modules are found in the given folders."""
        folder = Path(self.mktemp()).absolute()
        folder.mkdir()
        (folder / "check_test_module.py").write_text(PRELUDE + "@procedure\ndef f(): pass")
        self.assertEqual(self.check("from check_test_module import f", [str(folder)]), [])
        (mistake,) = self.check("from check_test_module import f")
        self.assertIn("No module named 'check_test_module'", mistake)

    def test_unreadable(self) -> None:
        """A file that is not there is a mistake."""
        found = check_procedures("/nonexistent", [])
        self.assertEqual(found, ["/nonexistent: can't be read: No such file or directory"])

    def test_exits(self) -> None:
        """A file that ends its process is a mistake, however it does it."""
        for end in ["os._exit(0)", "os.kill(os.getpid(), signal.SIGKILL)"]:
            self.assertEqual(self.check(end), [": the process that loads it ended without a word"])
        self.assertEqual(self.check("sys.exit(0)"), [", line 3: SystemExit: 0"])

    def test_hangs(self) -> None:
        """A file that is never loaded is a mistake, and its process is ended."""
        self.patch(check, "TIME_LIMIT", 1)
        file = Path(self.mktemp()).absolute()
        self.patch(check, "zygote_settings", partial(zygote_settings, kill_grace=0.1))
        name = f"open({str(file)!r}, 'w').write(str(os.getpid()))"
        found = self.check(f"{name}\nwhile True: signal.pause()")
        self.assertEqual(found, [": was not loaded within 1 s"])
        self.assertEqual(processes() - self.others, set())
        wait_gone(int(file.read_text()))
