"""What looks at the documentation's blocks finds what is wrong in them."""

from __future__ import annotations

import contextlib
import textwrap
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.docs import setting
from tests.docs.checks import check
from tests.docs.pages import ROOT, Block, blocks
from tests.docs.shell import Shell, matches

WRONG = {
    "file etc/hosts.yaml": "web77.example.net:",
    "file etc/sysusers.conf": "nothing of the kind",
    "commands": "$ harp call --no-such-option web01 restart",
    "commands ": "$ harp no-such-command",
    "commands  ": "$ harp admin no-such-command",
    "commands   ": "$ twistd harpd --no-such-option",
    "commands    ": "$ no-such-program",
    "commands     ": "$ make no-such-target",
    "commands      ": "$ cat 'no end",
    "usage": "harp [--no-such-option] COMMAND",
    "config harpd": "limits:\n  max_cals: 10\n",
    "config harpcaller": "max_running: many\n",
    "config hosts": "web01: {addres: 192.0.2.1}\n",
    "config harp": "profiles:\n  here: {dispatcher: localhost, tokn: x}\n",
    "config nobody": "a: 1\n",
    "protocol harpd": '{"harp": 1, "procedur": NAME, "arguments": []}',
    "protocol dispatcher": '{"cancelled": maybe}',
    "protocol dispatcher ": '{"harpcaller": 1, "cancel": UUID, "wait": true}',
    "log harpd": '{"time": "x", "level": "info"}',
    "log harpcaller": '{"time":"x","level":"info","logger":"harpd.audit","message":"x"}',
    "log harpcaller ": '{"time":"x","level":"info","logger":"harpcaller.none","message":"x"}',
    "unit harpd.service": "[Servic]\nNice=1\n",
    "drawing": "rm -rf /",
    "figures": "no-such-benchmark 5 ms",
}
"""Blocks by kind, each with something wrong in it; spaces behind a kind make another key."""


class WrongBlockTests(SynchronousTestCase):
    """Blocks that are not run."""

    def test_wrong(self) -> None:
        """No kind takes a block that says what is not so, and each names the page's line."""
        deployment = setting.deployment()
        page = ROOT / "README.md"
        for key, text in WRONG.items():
            kind, _, of = key.strip().partition(" ")
            block = Block(page, 7, kind, of, "", text)
            try:
                check(block, deployment)
            except AssertionError as error:
                self.assertIn("README.md:7", str(error), key)
            else:
                self.fail(f"taken: {key}: {text}")


class PageTests(SynchronousTestCase):
    """How the blocks of a page are found."""

    def test_every_form(self) -> None:
        """Fenced or indented, in a list or in a definition: none escapes."""
        page = Path(self.mktemp())
        page.write_text(
            textwrap.dedent("""\
            <!-- example: client -->
            ```python
            fenced
            ```

            1. In a list:

               ~~~sh
               tildes
               ~~~

            Text

                indented

            term
            : Definition:

              ```text
              deep
              ```
            """)
        )
        found = [(block.kind, block.language, block.text.strip()) for block in blocks(page)]
        expected = [
            ("client", "python", "fenced"),
            (None, "sh", "tildes"),
            (None, "", "indented"),
            (None, "text", "deep"),
        ]
        self.assertEqual(found, expected)
        self.assertEqual(blocks(page)[0].line, 3)


class ShellTests(SynchronousTestCase):
    """The person at the terminal."""

    def typed(self, text: str) -> None:
        folder = Path(self.mktemp())
        folder.mkdir()
        with contextlib.closing(Shell(folder, {"PATH": "/usr/bin:/bin"})) as shell:
            shell.type("page:1", text)

    def test_session(self) -> None:
        """What a command sets is there for the next one, and it is a terminal that it prints to."""
        self.typed("$ name=world\n$ echo hello $name\nhello ...\n$ test -t 1 && echo yes\nyes\n")

    def test_other_output(self) -> None:
        """A command that prints something else is told."""
        error = self.assertRaises(AssertionError, self.typed, "$ echo one\ntwo\n")
        self.assertIn("page:1: echo one", str(error))

    def test_silent_failure(self) -> None:
        """So is one that fails, unless the page asks for its status."""
        self.assertRaises(AssertionError, self.typed, "$ false\n$ echo on\non\n")
        self.assertRaises(AssertionError, self.typed, "$ false\n")
        self.typed("$ false\n$ echo $?\n1\n")

    def test_end(self) -> None:
        """And one that ends the shell."""
        self.assertRaises(AssertionError, self.typed, "$ exit\n")

    def test_matches(self) -> None:
        """Three dots are anything, everything else is itself."""
        self.assertTrue(matches("a ... c\n", "a b c\n"))
        self.assertTrue(matches("a\n", "a  \n"))
        self.assertFalse(matches("a ... c\n", "a b d\n"))
        self.assertFalse(matches("a\n", "a\nb\n"))
