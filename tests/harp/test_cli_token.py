"""Tests of ``harp.cli.main`` and ``harp.cli.token`` by the real script."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml
from twisted.trial.unittest import SynchronousTestCase

from tests.harp.commands import harp


class CommandTests(SynchronousTestCase):
    """The command itself."""

    def test_help(self) -> None:
        """It names its commands."""
        done = harp("--help")
        self.assertEqual(done.status, 0)
        self.assertRegex(done.out, r"(?m)^ +token +Make a token")
        self.assertRegex(done.out, r"(?m)^ +trust +Show a daemon")

    def test_wrong_usage(self) -> None:
        """What it does not know is refused with the status for that."""
        for arguments in (["tokn"], ["token", "--nonsense"], ["trust"]):
            done = harp(*arguments)
            self.assertEqual((done.status, done.out), (2, ""), arguments)
            self.assertIn("Usage", done.err)

    def test_loads_little(self) -> None:
        """A command does not wait for what others need."""
        code = "import harp.cli.main, harp.cli.token, sys; print(*sys.modules)"
        found = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
        heavy = {"twisted", "cryptography", "yaml", "OpenSSL", "harp.cli.trust"}
        self.assertEqual(heavy.intersection(found.stdout.decode().split()), set())


class TokenTests(SynchronousTestCase):
    """Tokens and their hashes."""

    def test_made(self) -> None:
        """The token comes alone on standard output, its hash beside it; no two are the same."""
        first, second = harp("token"), harp("token")
        self.assertEqual((first.status, second.status), (0, 0))
        self.assertRegex(first.out, r"\Aharp_[\w-]{43}\n\Z")
        self.assertNotEqual(first.out, second.out)
        token = first.out.strip()
        self.assertNotIn(token, first.err)
        self.assertEqual(first.err.splitlines()[-1].strip(), f'tokens: ["{hashed(token)}"]')

    def test_for_a_user(self) -> None:
        """With a name the lines are those of the configuration, whatever the name is."""
        for name in ("panel", "ada@example.net", "no", "1", "a: b # c", "ż", 'q"\\'):
            done = harp("token", "--user", name)
            _, _, lines = done.err.partition("\n")
            found: Any = yaml.safe_load(lines)
            wanted = {"users": {name: {"tokens": [hashed(done.out.strip())]}}}
            self.assertEqual(found, wanted)

    def test_as_json(self) -> None:
        """With --json token and hash are one object."""
        done = harp("--json", "token")
        self.assertEqual((done.status, done.err), (0, ""))
        found = json.loads(done.out)
        self.assertEqual(found, {"token": found["token"], "hash": hashed(found["token"])})

    def test_hash_of(self) -> None:
        """The hash of a token is printed, and nothing else; an end of line is no part of it."""
        path = Path(self.mktemp())
        path.write_text("harp_x\n")
        for done in (
            harp("token", "--hash-of", "-", given="harp_x"),
            harp("token", "--hash-of", "-", given="harp_x\r\n"),
            harp("token", "--hash-of", str(path)),
        ):
            self.assertEqual((done.status, done.out, done.err), (0, f"{hashed('harp_x')}\n", ""))

    def test_hash_of_no_token(self) -> None:
        """What can't be a token is refused, and not told."""
        for given in ("", "\n", "harp_x y", "harp_x\nharp_y", "harp_ż", "harp_" + 1000 * "x"):
            done = harp("token", "--hash-of", "-", given=given)
            self.assertEqual((done.status, done.out), (2, ""), given)
            self.assertNotIn("harp_", done.err)


def hashed(token: str) -> str:
    """Return what the configuration has for a token."""
    return "sha256:" + hashlib.sha256(token.encode()).hexdigest()
