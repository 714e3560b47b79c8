"""Tests of harpd.catalogue."""

from __future__ import annotations

import grp
import os
import pwd
import sys
import textwrap
from collections.abc import Mapping
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from harpd.catalogue import MODULE_NAME, CatalogueError, Entry, load
from harpd.identity import Identity

IMPORTS = "from harpd.proc import procedure, streaming_procedure\n"


class CatalogueTestCase(SynchronousTestCase):
    """Loads files written for the test."""

    def setUp(self) -> None:
        self.file = os.path.abspath(self.mktemp())
        self.addCleanup(sys.modules.pop, MODULE_NAME, None)

    def load(self, text: str | bytes) -> Mapping[str, Entry]:
        """Load a file; one of text has the imports in its first line."""
        content = text if isinstance(text, bytes) else (IMPORTS + textwrap.dedent(text)).encode()
        Path(self.file).write_bytes(content)
        return load(self.file)

    def mistakes(self, text: str | bytes) -> list[str]:
        """Return what is wrong with a file, each with the file's name before it taken away."""
        with self.assertRaises(CatalogueError) as caught:
            self.load(text)
        found = caught.exception.mistakes
        self.assertEqual(str(caught.exception), "\n".join(found))
        for mistake in found:
            self.assertTrue(mistake.startswith(self.file), mistake)
        return [mistake.removeprefix(self.file) for mistake in found]


class LoadTests(CatalogueTestCase):
    """What is offered."""

    def test_entries(self) -> None:
        """What is marked is offered under its name, with its signature."""
        entries = self.load("""
            @procedure
            def first(a, *, b=1): pass

            @streaming_procedure(timeout=5)
            def second(): yield

            def unmarked(): pass
        """)
        self.assertEqual(list(entries), ["first", "second"])
        self.assertEqual(list(entries["first"].parameters.schema()["properties"]), ["a", "b"])
        self.assertIsNone(entries["first"].identity)
        self.assertEqual(entries["second"].procedure.timeout, 5)

    def test_private(self) -> None:
        """A name that begins with an underscore is not offered."""
        entries = self.load("""
            @procedure
            def _private(): pass

            public = _private
        """)
        self.assertEqual(list(entries), ["public"])

    def test_imported(self) -> None:
        """A procedure that the file imports is offered like its own."""
        folder = Path(self.mktemp()).absolute()
        folder.mkdir()
        (folder / "elsewhere_procedures.py").write_text(IMPORTS + "@procedure\ndef f(): pass\n")
        self.patch(sys, "path", [str(folder), *sys.path])
        self.addCleanup(sys.modules.pop, "elsewhere_procedures", None)
        self.assertEqual(list(self.load("from elsewhere_procedures import f as g, f")), ["g", "f"])

    def test_module(self) -> None:
        """The file runs as a module of its own, not as the main program."""
        entries = self.load("""
            if __name__ == "__main__":
                raise SystemExit
            @procedure
            def f(): return __name__, __file__
        """)
        self.assertEqual(entries["f"].procedure(), (MODULE_NAME, self.file))
        self.assertIs(sys.modules[MODULE_NAME].__dict__["f"], entries["f"].procedure)

    def test_decorated(self) -> None:
        """A function that keeps its signature through other decorators is offered with it."""
        entries = self.load("""
            import functools

            def other(function):
                @functools.wraps(function)
                def wrapper(*args): pass
                return wrapper

            @procedure
            @other
            def f(a, b): pass
        """)
        self.assertEqual(list(entries["f"].parameters.schema()["properties"]), ["a", "b"])


class MistakeTests(CatalogueTestCase):
    """Every mistake is named with its line, all of them at once."""

    def test_all_at_once(self) -> None:
        """One reading finds the mistakes of all procedures."""
        found = self.mistakes("""
            @procedure(timeout=0, uid="no such user")
            def a(): pass

            @procedure
            def b(): yield

            @procedure
            def fine(): pass

            @procedure
            async def c(): pass
        """)
        self.assertEqual(
            found,
            [
                ", line 3: procedure a: timeout must be a number of seconds above 0, not 0",
                ", line 3: procedure a: there is no user 'no such user'",
                ", line 6: procedure b: yields, so it must be marked with streaming_procedure",
                ", line 12: procedure c: is a coroutine function, which nothing here would await",
            ],
        )

    def test_timeout(self) -> None:
        """A time limit is a number above 0."""
        for timeout in ["-1", "0", "True", "'5'", "float('nan')", "[]"]:
            (mistake,) = self.mistakes(f"@procedure(timeout={timeout})\ndef f(): pass")
            self.assertIn(", line 2: procedure f: timeout must be", mistake)
        self.assertEqual(list(self.load("@procedure(timeout=0.5)\ndef f(): pass")), ["f"])

    def test_coroutines(self) -> None:
        """Functions that need an event loop can't be procedures of either kind."""
        for mark in ("procedure", "streaming_procedure"):
            for body in ("pass", "yield"):
                (mistake,) = self.mistakes(f"@{mark}\nasync def f(): {body}")
                self.assertIn("which nothing here would await", mistake)

    def test_no_function(self) -> None:
        """What has no signature can't be a procedure."""
        for value in ["5", "None or [1]", "type"]:
            (mistake,) = self.mistakes(f"f = procedure()({value})")
            self.assertEqual(mistake, ": procedure f: is not a function with a signature")

    def test_syntax(self) -> None:
        """A syntax error is named with its line."""
        (mistake,) = self.mistakes("\ndef f(:\n    pass")
        self.assertEqual(mistake, ", line 3: invalid syntax")

    def test_encoding(self) -> None:
        """A file that is not text is refused."""
        for content in [b"\xff\xfe\n", b"x = '\x00'\n"]:
            (mistake,) = self.mistakes(content)
            self.assertNotIn("None", mistake)

    def test_unreadable(self) -> None:
        """A file that can't be read is refused with the reason."""
        with self.assertRaises(CatalogueError) as caught:
            load(self.file)
        expected = [f"{self.file}: can't be read: No such file or directory"]
        self.assertEqual(caught.exception.mistakes, expected)

    def test_exception(self) -> None:
        """What the file raises is named with the last line within the file."""
        (mistake,) = self.mistakes("""
            import json

            def configured(text):
                return json.loads(text)

            settings = configured("{")
        """)
        self.assertTrue(mistake.startswith(", line 6: JSONDecodeError: "), mistake)
        for statement in ["raise SystemExit(1)", "raise KeyboardInterrupt"]:
            (mistake,) = self.mistakes(statement)
            self.assertIn(", line 2: ", mistake)

    def test_file_error(self) -> None:
        """A file that the procedures file can't open is not mistaken for the procedures file."""
        (mistake,) = self.mistakes("\nopen('/nonexistent')")
        self.assertEqual(
            mistake,
            ", line 3: FileNotFoundError: [Errno 2] No such file or directory: '/nonexistent'",
        )

    def test_syntax_elsewhere(self) -> None:
        """A syntax error of an imported module is not said to be in the procedures file."""
        folder = Path(self.mktemp()).absolute()
        folder.mkdir()
        (folder / "broken_procedures.py").write_text("\n\n\n\n(")
        self.patch(sys, "path", [str(folder), *sys.path])
        (mistake,) = self.mistakes("import broken_procedures")
        self.assertTrue(mistake.startswith(", line 2: SyntaxError: "), mistake)
        self.assertIn("broken_procedures.py, line 5", mistake)


class IdentityTests(CatalogueTestCase):
    """Users and groups become numbers when the file is loaded."""

    def identity(self, options: str) -> Identity | None:
        """Return the identity of a procedure with these options."""
        return self.load(f"@procedure({options})\ndef f(): pass")["f"].identity

    def test_user(self) -> None:
        """A user comes with the groups of the user database, the primary first."""
        for user in pwd.getpwall()[:5]:
            groups = os.getgrouplist(user.pw_name, user.pw_gid)
            for uid in (repr(user.pw_name), user.pw_uid):
                found = self.identity(f"uid={uid}")
                assert found is not None
                self.assertEqual((found.uid, found.gid), (user.pw_uid, user.pw_gid))
                self.assertEqual(found.groups[0], user.pw_gid)
                self.assertCountEqual(found.groups, groups)

    def test_supplementary_groups(self) -> None:
        """The user's further groups come behind the primary one, which is not repeated."""
        self.patch(os, "getgrouplist", lambda name, gid: [7, gid, 8])
        nobody = pwd.getpwnam("nobody")
        expected = Identity(nobody.pw_uid, nobody.pw_gid, (nobody.pw_gid, 7, 8))
        self.assertEqual(self.identity("uid='nobody'"), expected)

    def test_groups(self) -> None:
        """Given groups are all that there are, by name or number."""
        nobody = pwd.getpwnam("nobody").pw_uid
        daemon = grp.getgrnam("daemon").gr_gid
        self.assertEqual(
            self.identity("uid='nobody', gid='daemon'"), Identity(nobody, daemon, (daemon,))
        )
        self.assertEqual(
            self.identity("uid='nobody', gid=(7, 'daemon')"), Identity(nobody, 7, (7, daemon))
        )
        self.assertEqual(self.identity("gid=7"), Identity(os.geteuid(), 7, (7,)))

    def test_number_without_entry(self) -> None:
        """A number that no user has is good together with a group."""
        self.assertEqual(self.identity("uid=54321, gid=7"), Identity(54321, 7, (7,)))
        (mistake,) = self.mistakes("@procedure(uid=54321)\ndef f(): pass")
        self.assertIn("uid 54321 has no entry in the user database, so give gid too", mistake)

    def test_no_such(self) -> None:
        """Users and groups that do not or can't exist are mistakes."""
        # The kernel takes the last number that fits for "as it was": that would be root.
        for value in ["'no such'", "-1", "2**32 - 1", "2**32", "True", "1.5", "['nobody']"]:
            (mistake,) = self.mistakes(f"@procedure(uid={value}, gid=7)\ndef f(): pass")
            self.assertIn("line 2: procedure f: there is no user ", mistake)
        for value in ["'no such'", "-1", "2**32 - 1", "[7, 2**32]", "True", "[1.5]"]:
            (mistake,) = self.mistakes(f"@procedure(gid={value})\ndef f(): pass")
            self.assertIn("line 2: procedure f: there is no group ", mistake)
        (mistake,) = self.mistakes("@procedure(gid=[])\ndef f(): pass")
        self.assertIn("gid is an empty list", mistake)
        (mistake,) = self.mistakes("@procedure(gid=1.5)\ndef f(): pass")
        self.assertIn("line 2: procedure f: there is no group 1.5", mistake)
