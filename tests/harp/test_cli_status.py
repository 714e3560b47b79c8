"""Tests of ``harp.cli.status`` and ``harp.cli.main``: how the command ends."""

from __future__ import annotations

import subprocess
import sys

from twisted.trial.unittest import SynchronousTestCase

import harp
from harp.cli import main
from harp.cli.status import Status, failure
from harp.errors import ERROR_TYPES, LocalProtocolError, RemoteProtocolError

OTHER = {
    "timeout": 4,
    "not_allowed": 7,
    "not_authenticated": 7,
    "not_permitted": 7,
    "auth_error": 7,
}


class StatusTests(SynchronousTestCase):
    """The contract with scripts."""

    def test_numbers(self) -> None:
        """They are those that the issue and the manual promise."""
        self.assertEqual(
            {each.name: each.value for each in Status},
            {
                "RESULT": 0,
                "RAISED": 1,
                "USAGE": 2,
                "CANCELLED": 3,
                "TIME_LIMIT": 4,
                "NOT_CARRIED_OUT": 5,
                "UNREACHABLE": 6,
                "NOT_ALLOWED": 7,
            },
        )

    def test_every_error(self) -> None:
        """Each row of the table of errors has its status and tells its remedy."""
        for row in ERROR_TYPES.values():
            found = failure(harp.RemoteError(row.name, "why"), "id")
            self.assertEqual(found.exit_code, OTHER.get(row.name, 5), row.name)
            self.assertEqual(found.message, f"{row.name}: why")
            assert found.remedy is not None
            self.assertTrue(found.remedy.startswith(row.remedy))
            told = found.told["error"]
            self.assertEqual((found.told["job"], told["type"]), ("id", row.name))
            self.assertEqual(told["may_have_run"], row.may_have_run)

    def test_whether_it_may_have_run(self) -> None:
        """It is told where the type leaves that open."""
        for known, told in ((True, "The call may have run."), (False, "The call did not run.")):
            found = failure(harp.RemoteError("shutdown", "why", may_have_run=known))
            self.assertIn(told, str(found.remedy))

    def test_other_failures(self) -> None:
        """Whatever else the client raises has a status."""
        closed = ERROR_TYPES["closed"]
        for error, status, kind in (
            (harp.RemoteException("LookupError", "why"), 1, "exception"),
            (harp.CancelledException(), 3, "cancelled"),
            (harp.CommunicationError("why"), 6, "error"),
            (RemoteProtocolError(closed, "why"), 6, "error"),
            (harp.UnsupportedError("why"), 5, "error"),
            (LocalProtocolError("why"), 5, "error"),
            (harp.RemoteError("of a newer dispatcher", "why"), 5, "error"),
        ):
            found = failure(error)
            self.assertEqual(found.exit_code, status, error)
            self.assertEqual(list(found.told), [kind])


class CommandsTests(SynchronousTestCase):
    """The table of commands."""

    def test_help_of_each(self) -> None:
        """Each is there with its help and that of every option; the list has a line for it."""
        context = main.harp.make_context("harp", ["token"])
        for name in main.harp.list_commands(context):
            command = main.harp.get_command(context, name)
            assert command is not None
            self.assertEqual(command.name, name)
            self.assertRegex(main._COMMANDS[name].help, r"\A[A-Z].{0,63}\.\Z")
            for each in (command, *getattr(command, "commands", {}).values()):
                self.assertTrue(each.help, each.name)
                for option in each.params:
                    if option.param_type_name == "option":
                        told = option.to_info_dict()["help"]
                        self.assertTrue(told, f"{name} {each.name} {option.opts}")

    def test_help_loads_no_command(self) -> None:
        """The list of commands is there at once."""
        code = (
            "import sys\nfrom harp.cli import main\ntry:\n    main.run(['--help'])\n"
            "finally:\n    print(*sys.modules, file=sys.stderr)"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
        heavy = {"rich", "yaml", "cryptography", "twisted", "harp.cli.call", "harp.cli.trust"}
        self.assertEqual(heavy.intersection(done.stderr.decode().split()), set())
        self.assertIn(b"Calls and jobs:", done.stdout)
