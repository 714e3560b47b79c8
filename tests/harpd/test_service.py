"""Tests of harpd.service: the command line."""

from __future__ import annotations

import os
import sys
import time
from io import StringIO
from pathlib import Path
from typing import Any

from twisted.application.service import IService
from twisted.python.usage import UsageError
from twisted.trial.unittest import SynchronousTestCase

from harpd import service
from harpd.service import Options, makeService
from tests.harpd.certificates import write_configuration
from tests.harpd.waiting import processes
from tests.harpd.zygotes import write_procedures

GOOD = "@procedure\ndef plain(*args): return list(args)\n"


class OptionsTests(SynchronousTestCase):
    """Both files are read before the daemon starts."""

    def setUp(self) -> None:
        self.others = processes()
        self.folder = Path(self.mktemp()).absolute()
        self.config = write_configuration(self.folder)
        self.procedures = write_procedures(self.folder / "procedures.py", GOOD)

    def options(self, *more: str) -> Options:
        """Return the options of a command line."""
        options = Options()
        options.parseOptions([f"--config={self.config}", f"--procedures={self.procedures}", *more])
        return options

    def check(self) -> tuple[int, str]:
        """Return the exit status of --test and what it prints."""
        printed = StringIO()
        self.patch(sys, "stdout", printed)
        ended = self.assertRaises(SystemExit, self.options, "--test")
        assert isinstance(ended.code, int)
        return ended.code, printed.getvalue()

    def test_good(self) -> None:
        """Files without mistakes are kept as what they say."""
        options = self.options()
        self.assertEqual(options.config.port, 4306)
        self.assertEqual(options.procedures, self.procedures)

    def test_relative(self) -> None:
        """The procedures file is found from wherever the daemon goes."""
        self.procedures = os.path.relpath(self.procedures)
        self.assertTrue(os.path.isabs(self.options().procedures))

    def test_mistakes(self) -> None:
        """With mistakes the daemon does not start; those of both files are told at once."""
        self.config = write_configuration(self.folder, network="  port: x\n")
        write_procedures(self.procedures, "@procedure(timeout=0)\ndef f(): pass")
        found = str(self.assertRaises(UsageError, self.options))
        self.assertEqual(len(found.splitlines()), 2)
        self.assertIn("network.port, line 4: ", found)
        self.assertIn("procedures.py, line 3: procedure f: ", found)

    def test_user_of_an_ordinary_one(self) -> None:
        """Who is not root can't become another user, and learns it before anything starts."""
        write_configuration(self.folder, network="user: nobody\n")
        user = self.options().config.user if os.geteuid() == 0 else None
        self.patch(os, "geteuid", lambda: 1000)
        found = str(self.assertRaises(UsageError, self.options))
        self.assertEqual(found, f"{self.config}: user: only root can become another user")
        self.assertEqual(self.check(), (0, "OK\n"))
        if user is not None:
            self.patch(os, "geteuid", lambda: user.uid)
            self.options()

    def test_what_the_file_prints(self) -> None:
        """It is shown by --test; at a start it would be no line of the log, and comes later."""
        asked: list[bool] = []

        def check(*_: object, shows: bool) -> list[str]:
            asked.append(shows)
            return []

        self.patch(service, "check_procedures", check)
        self.options()
        self.check()
        self.assertEqual(asked, [False, True])

    def test_check_good(self) -> None:
        """--test says OK and ends with status 0."""
        self.assertEqual(self.check(), (0, "OK\n"))

    def test_check_mistakes(self) -> None:
        """--test says every mistake and ends with status 1, whichever file has them."""
        write_procedures(self.procedures, "nonsense")
        status, printed = self.check()
        self.assertEqual(status, 1)
        self.assertEqual(
            printed, f"{self.procedures}, line 3: NameError: name 'nonsense' is not defined\n"
        )
        write_procedures(self.procedures, GOOD)
        self.config.unlink()
        status, printed = self.check()
        expected = f"{self.config}: can't be read: No such file or directory\n"
        self.assertEqual((status, printed), (1, expected))

    def test_modules_of_procedures(self) -> None:
        """The procedures are checked with the configured folders."""
        (self.folder / "service_test_module.py").write_text("x = 1")
        write_procedures(self.procedures, "import service_test_module\n" + GOOD)
        self.assertEqual(self.check()[0], 1)
        write_configuration(self.folder, network=f"python: {{path: {self.folder}}}\n")
        self.assertEqual(self.check(), (0, "OK\n"))

    def test_service(self) -> None:
        """The plugin makes the service from the options; nothing runs yet.

        Its times are not those of the wall clock, which somebody may set.
        """
        from twisted.internet import reactor

        from twisted.plugins import harpd_plugin

        clock: Any = reactor
        self.patch(clock, "seconds", clock.seconds)

        self.assertIs(harpd_plugin.harpd.options, Options)
        self.assertIs(harpd_plugin.harpd.makeService, makeService)
        made = makeService(self.options())
        self.assertTrue(IService.providedBy(made))
        self.assertIs(clock.seconds, time.monotonic)
        self.assertEqual(processes() - self.others, set())
