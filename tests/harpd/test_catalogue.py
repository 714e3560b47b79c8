"""Tests of harpd.catalogue."""

from __future__ import annotations

import os
import pwd
import sys
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from harpd.catalogue import MODULE_NAME, CatalogueError, Entry, load
from harpd.identity import Identity
from harpd.options import Defaults

IMPORTS = "from harpd.proc import Procedure, StreamingProcedure, procedure, streaming_procedure\n"


class CatalogueTestCase(SynchronousTestCase):
    """Loads files written for the test."""

    def setUp(self) -> None:
        self.file = os.path.abspath(self.mktemp())
        self.addCleanup(sys.modules.pop, MODULE_NAME, None)

    def load(self, text: str | bytes, **defaults: Any) -> Mapping[str, Entry]:
        """Load a file; one of text has the imports in its first line."""
        content = text if isinstance(text, bytes) else (IMPORTS + textwrap.dedent(text)).encode()
        Path(self.file).write_bytes(content)
        return load(self.file, Defaults(**defaults))

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


class InstanceTests(CatalogueTestCase):
    """What is not a function may be offered too."""

    def test_subclass(self) -> None:
        """An instance of a subclass that can be called is offered, but not the class."""
        entries = self.load("""
            class Restart(Procedure):
                def __init__(self, service):
                    super().__init__(timeout=5)
                    self.service = service

                def __call__(self, force: bool = False): return self.service

            class Follow(StreamingProcedure):
                def __init__(self): pass
                def __call__(self): yield 1

            restart_nginx, restart_ssh = Restart("nginx"), Restart("ssh")
            follow = Follow()
        """)
        self.assertEqual(list(entries), ["restart_nginx", "restart_ssh", "follow"])
        nginx = entries["restart_nginx"]
        self.assertEqual(nginx.timeout, 5)
        self.assertEqual(list(nginx.parameters.schema()["properties"]), ["force"])
        self.assertTrue(entries["follow"].procedure.streaming)

    def test_wrapping_subclass(self) -> None:
        """A subclass that is given a function has the function's parameters."""
        entries = self.load("""
            class Logged(Procedure):
                def __call__(self, *args, **kwargs): return super().__call__(*args, **kwargs)

            @Logged
            def f(a, b=1): return [a, b]
        """)
        self.assertEqual(entries["f"].parameters.schema()["positional"], ["a", "b"])

    def test_bound_method(self) -> None:
        """A method of an instance can be marked."""
        entries = self.load("""
            class Service:
                def restart(self, force): return force
                def __call__(self, wait): pass

            restart = procedure(Service().restart)
            service = procedure(timeout=5)(Service())
        """)
        found = [entry.parameters.schema()["positional"] for entry in entries.values()]
        self.assertEqual(found, [["force"], ["wait"]])

    def test_mistakes(self) -> None:
        """The mistakes of instances are found at their methods."""
        found = self.mistakes("""
            class Empty(Procedure):
                pass

            class Yields(Procedure):
                def __call__(self): yield

            class Waits(Procedure):
                async def __call__(self): pass

            class Wraps(Procedure):
                def __call__(self, *args): yield

            e = Wraps(lambda: 5)
            a, b, c, d = Empty(), Yields(timeout=0), Waits(), Procedure()
        """)
        self.assertEqual(
            [mistake.partition("procedure ")[2] for mistake in found],
            [
                "e: yields, so it must be a streaming_procedure",
                "a: has neither a function nor a __call__ of its own",
                "b: timeout must be a number of seconds above 0, not 0",
                "b: yields, so it must be a StreamingProcedure",
                "c: is a coroutine function, which nothing here would await",
                "d: has neither a function nor a __call__ of its own",
            ],
        )
        self.assertTrue(found[2].startswith(", line 7: "), found)


class OptionTests(CatalogueTestCase):
    """Options that do not make sense are found when the file is loaded."""

    def test_limits(self) -> None:
        """What is wrong with a procedure's limits is said with its line."""
        found = self.mistakes("""
            @procedure(cpu=0.5)
            def f(): pass

            @procedure(processes=5)
            def g(): pass
        """)
        self.assertEqual(
            found,
            [
                ", line 3: procedure f: cpu must be a whole number from 1, not 0.5",
                ", line 6: procedure g: processes is of no use without a uid that is not root's",
            ],
        )

    def test_output_limits(self) -> None:
        """A procedure's own limits of its output come before those that are configured."""
        entries = self.load(
            """
            @procedure(max_output=10)
            def f(): pass

            @procedure(max_packet=float("inf"))
            def g(): pass
            """,
            max_packet=5,
        )
        limits = {name: (entry.max_packet, entry.max_output) for name, entry in entries.items()}
        self.assertEqual(limits, {"f": (5, 10), "g": (None, None)})

    def test_no_timeout(self) -> None:
        """Infinity is no time limit."""
        entry = self.load("import math\n@procedure(timeout=math.inf)\ndef f(): pass")["f"]
        self.assertIsNone(entry.timeout)

    def test_context(self) -> None:
        """The parameter for the context must be there."""
        for option, parameters in [("True", "context"), ("'about'", "a, *, about")]:
            self.load(f"@procedure(context={option})\ndef f({parameters}): pass")
        for option in ("True", "'other'", "''"):
            (mistake,) = self.mistakes(f"@procedure(context={option})\ndef f(a): pass")
            name = "'context'" if option == "True" else option
            self.assertIn(f"line 2: procedure f: has no parameter {name} that", mistake)
        (mistake,) = self.mistakes("@procedure(context=5)\ndef f(a): pass")
        self.assertIn("context must be True or the name of a parameter, not 5", mistake)

    def test_lock(self) -> None:
        """A lock has a name, and the time to wait for it is a number."""
        for options in ["lock='l'", f"lock={'l' * 200!r}, lock_wait=0", "lock='l', lock_wait=1.5"]:
            self.load(f"@procedure({options})\ndef f(): pass")
        for lock in ["''", "'\\udcff'", "'a\\n'", "5", "['l']", repr("l" * 201)]:
            (mistake,) = self.mistakes(f"@procedure(lock={lock})\ndef f(): pass")
            self.assertIn("procedure f: lock must be a name of 1 to 200 printable", mistake)
        for wait in ["-1", "'1'", "True", "float('nan')", "float('inf')"]:
            (mistake,) = self.mistakes(f"@procedure(lock='l', lock_wait={wait})\ndef f(): pass")
            self.assertIn("lock_wait must be a number of seconds, 0 or more, not", mistake)
        (mistake,) = self.mistakes("@procedure(lock_wait=5)\ndef f(): pass")
        self.assertIn("procedure f: lock_wait is of no use without lock", mistake)


class DefaultTests(CatalogueTestCase):
    """What the configuration says holds where a procedure says nothing."""

    def test_timeout(self) -> None:
        """A procedure may have another time limit, or none."""
        entries = self.load(
            """
            import math

            @procedure
            def silent(): pass

            @procedure(timeout=5)
            def other(): pass

            @procedure(timeout=math.inf)
            def unlimited(): pass
            """,
            timeout=60,
        )
        found = [entry.timeout for entry in entries.values()]
        self.assertEqual(found, [60, 5, None])

    def test_identity(self) -> None:
        """A user that a procedure names comes with his own groups, a group changes no user."""
        nobody, daemon = pwd.getpwnam("nobody"), pwd.getpwnam("daemon")
        entries = self.load(
            """
            @procedure
            def silent(): pass

            @procedure(gid=9)
            def group(): pass

            @procedure(uid="daemon")
            def user(): pass

            @procedure(uid="daemon", gid=9)
            def both(): pass
            """,
            uid="nobody",
            gid=[7, 8],
        )
        found = [entry.identity for entry in entries.values()]
        groups = os.getgrouplist("daemon", daemon.pw_gid)
        self.assertEqual(found[0], Identity(nobody.pw_uid, 7, (7, 8)))
        self.assertEqual(found[1], Identity(nobody.pw_uid, 9, (9,)))
        assert found[2] is not None
        self.assertEqual((found[2].uid, found[2].gid), (daemon.pw_uid, daemon.pw_gid))
        self.assertCountEqual(found[2].groups, groups)
        self.assertEqual(found[3], Identity(daemon.pw_uid, 9, (9,)))

    def test_own_user(self) -> None:
        """The daemon's own user can be named against the default."""
        entry = self.load("import os\n@procedure(uid=os.getuid())\ndef f(): pass", uid="nobody")[
            "f"
        ]
        assert entry.identity is not None
        self.assertEqual(entry.identity.uid, os.getuid())

    def test_mistakes(self) -> None:
        """A default that can't be is said once, whether a procedure needs it or not."""
        wrong: list[tuple[dict[str, Any], str]] = [
            ({"uid": "no such"}, "there is no user 'no such'"),
            ({"gid": ["no such"]}, "there is no group 'no such'"),
            ({"timeout": 0}, "timeout must be a number of seconds above 0, not 0"),
        ]
        for defaults, mistake in wrong:
            with self.assertRaises(CatalogueError) as caught:
                self.load("@procedure\ndef f(): pass\n@procedure\ndef g(): pass", **defaults)
            expected = [f"defaults of the procedures: {mistake}"]
            self.assertEqual(caught.exception.mistakes, expected)


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
                ", line 6: procedure b: yields, so it must be a streaming_procedure",
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

    def test_nothing_marked(self) -> None:
        """A file without a procedure is most likely one whose marks were forgotten."""
        for text in ["", "def f(): pass", "@procedure\ndef _private(): pass", "f = Procedure"]:
            self.assertEqual(self.mistakes(text), [": no procedure is marked in it"])

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

    def test_numbers(self) -> None:
        """What a procedure names is looked up now, and without a name there is nothing to do."""
        nobody = pwd.getpwnam("nobody").pw_uid
        entry = self.load("@procedure(uid='nobody', gid=(7, 8))\ndef f(): pass")["f"]
        self.assertEqual(entry.identity, Identity(nobody, 7, (7, 8)))
        self.assertIsNone(self.load("@procedure\ndef f(): pass")["f"].identity)

    def test_no_such(self) -> None:
        """Users and groups that do not exist are mistakes of their procedure."""
        for option in ["uid='no such'", "uid=-1", "gid='no such'", "gid=[]", "uid=54321"]:
            (mistake,) = self.mistakes(f"@procedure({option})\ndef f(): pass")
            self.assertTrue(mistake.startswith(", line 2: procedure f: "), mistake)
