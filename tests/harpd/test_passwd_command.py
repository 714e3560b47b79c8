"""Tests of harpd.auth.command through the script that is installed."""

from __future__ import annotations

import os
import pty
import re
import select
import subprocess
import sys
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from harp import files
from harpd.auth import schemes
from tests.harpd.test_passwords import SHA256_ROUNDS, SHA512_ROUNDS
from tests.harpd.waiting import PATIENCE

_PROMPT = re.compile(b"(Password|confirmation): ")
SCRIPT = Path(sys.executable).parent / "harpd-passwd"


class PasswdCommandTests(SynchronousTestCase):
    """Entries of a password file are made, changed and deleted, and nothing else of it."""

    def setUp(self) -> None:
        self.folder = Path(self.mktemp()).absolute()
        self.folder.mkdir()
        self.file = self.folder / "passwd"

    def run_script(self, *arguments: str, password: bytes = b"") -> tuple[int, str, str]:
        """Run it; return its exit status, what it printed, and what it complained of."""
        done = subprocess.run(
            [SCRIPT, "--file", self.file, *arguments],
            input=password,
            capture_output=True,
            timeout=PATIENCE,
            check=False,
        )
        return done.returncode, done.stdout.decode(), done.stderr.decode()

    def set(self, user: str, password: str, *more: str) -> None:
        """Set a password, which has to succeed in silence."""
        found = self.run_script("--stdin", *more, user, password=password.encode() + b"\n")
        self.assertEqual(found, (0, "", ""))

    def hash_of(self, user: str) -> schemes.StoredHash:
        """Return the hash that the file has of a user."""
        lines = self.file.read_text().splitlines()
        (found,) = [line.split(":")[1] for line in lines if line.startswith(f"{user}:")]
        return schemes.read(found)

    def test_new(self) -> None:
        """A new file is its owner's alone; the default is the scheme that costs thieves most."""
        old = os.umask(0)
        self.addCleanup(os.umask, old)
        self.set("panel", "zażółć gęślą")
        self.assertEqual(self.file.stat().st_mode & 0o7777, 0o600)
        self.assertEqual(self.hash_of("panel").scheme.name, "argon2id")
        self.assertTrue(self.hash_of("panel").verify("zażółć gęślą".encode()))
        self.assertNotIn("zażółć", self.file.read_text())

    def test_schemes(self) -> None:
        """Each scheme can be chosen."""
        for scheme in schemes.SCHEMES:
            if scheme.is_there():
                self.set("panel", "secret", "--scheme", scheme.name)
                self.assertIs(self.hash_of("panel").scheme, scheme)
                self.assertTrue(self.hash_of("panel").verify(b"secret"))
        self.assertEqual(len(self.file.read_text().splitlines()), 1)

    def test_rest_stays(self) -> None:
        """All else stays byte by byte: comments, other users, further fields, owner and mode."""
        rest = f"# panel: x\n\n  other:{SHA256_ROUNDS}\r\npanel2:{SHA512_ROUNDS}\n\xff\n"
        more = f"panel:{SHA256_ROUNDS}:19000:0"
        self.file.write_bytes((rest + more).encode("latin-1"))
        self.file.chmod(0o640)
        if os.geteuid() == 0:
            os.chown(self.file, 1234, 5678)
        before = self.file.stat()
        self.set("panel", "other")
        after = self.file.stat()
        self.assertEqual(
            (after.st_mode, after.st_uid, after.st_gid),
            (before.st_mode, before.st_uid, before.st_gid),
        )
        text = self.file.read_bytes().decode("latin-1")
        self.assertTrue(text.startswith(rest))
        self.assertTrue(text.endswith(":19000:0\n"))
        self.assertNotIn(more, text)
        self.assertEqual(self.run_script("--delete", "panel"), (0, "", ""))
        self.assertEqual(self.file.read_bytes().decode("latin-1"), rest)
        self.assertEqual(os.listdir(self.folder), ["passwd"])

    def test_link(self) -> None:
        """Where the file is a link, what it leads to is changed."""
        link, self.file = self.file, self.folder / "real"
        link.symlink_to(self.file)
        self.set("panel", "secret", "--file", str(link))
        self.assertTrue(link.is_symlink())
        self.assertTrue(self.hash_of("panel").verify(b"secret"))

    def test_delete_unknown(self) -> None:
        """Who is not there can't be deleted."""
        self.set("panel", "secret")
        before = self.file.read_bytes()
        status, out, complaint = self.run_script("--delete", "pan")
        self.assertEqual((status, out), (1, ""))
        self.assertIn("there is no user pan", complaint)
        self.assertEqual(self.file.read_bytes(), before)

    def test_print(self) -> None:
        """An entry is printed only if that is asked for, and no file made then."""
        status, out, _ = self.run_script("--print", "--stdin", "panel", password=b"secret")
        user, _, hashed = out.strip().partition(":")
        self.assertEqual((status, user), (0, "panel"))
        self.assertTrue(schemes.read(hashed).verify(b"secret"))
        self.assertFalse(self.file.exists())

    def test_refused(self) -> None:
        """What would make no entry that works is refused, and nothing is changed."""
        for arguments, password, text in [
            (["--stdin", "panel"], b"", "is empty"),
            (["--stdin", "panel"], b"\n", "is empty"),
            (["--stdin", "panel"], b"x" * 513, "more than 512 bytes"),
            (["--stdin", "panel"], b"a\0b\n", "NUL"),
            (["--stdin", "panel"], b"\xff\n", "not UTF-8"),
            (["--stdin", "--scheme", "bcrypt", "panel"], b"x" * 73, "no more than 72 bytes"),
            (["--stdin", "--scheme", "md5", "panel"], b"x", "'md5' is not one of"),
            (["--stdin", "a:b"], b"x", "USER"),
            (["--stdin", "#a"], b"x", "USER"),
            (["--stdin", ""], b"x", "USER"),
            (["--stdin", "a\nb"], b"x", "USER"),
            (["--delete", "--stdin", "panel"], b"x", "--delete"),
            (["panel", "password"], b"x", "unexpected extra argument"),
        ]:
            status, out, complaint = self.run_script(*arguments, password=password)
            self.assertNotEqual(status, 0, arguments)
            self.assertEqual(out, "")
            self.assertIn(text, complaint)
        self.assertEqual(os.listdir(self.folder), [])

    def test_no_folder(self) -> None:
        """Where it can't write it says so."""
        self.file = self.folder / "nothing" / "passwd"
        status, _, complaint = self.run_script("--stdin", "panel", password=b"x")
        self.assertEqual(status, 1)
        self.assertIn("nothing: No such file or directory", complaint)

    def test_failed_write(self) -> None:
        """Until the new file is whole the old one stays, and nothing is left beside it."""
        self.set("panel", "secret")
        before = self.file.read_bytes()

        def fail(descriptor: int) -> None:
            raise OSError(28, "No space left on device")

        self.patch(os, "fsync", fail)
        self.assertRaises(OSError, files.replace, self.file, b"x", 0o600)
        self.assertEqual(self.file.read_bytes(), before)
        self.assertEqual(os.listdir(self.folder), ["passwd"])

    def converse(self, *answers: bytes) -> tuple[int, bytes]:
        """Run it at a terminal and answer; return its status and all that the terminal shows."""
        ours, theirs = pty.openpty()
        with subprocess.Popen(
            [SCRIPT, "--file", self.file, "panel"],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
        ) as process:
            os.close(theirs)
            shown = b""
            for answer in answers:
                asked = len(_PROMPT.findall(shown))
                while len(_PROMPT.findall(shown)) == asked:
                    self.assertTrue(select.select([ours], [], [], PATIENCE)[0], shown)
                    shown += os.read(ours, 1000)
                os.write(ours, answer)
            while select.select([ours], [], [], PATIENCE)[0]:
                try:
                    more = os.read(ours, 1000)
                except OSError:  # the end of a terminal
                    break
                shown += more
                if not more:
                    break
            os.close(ours)
            return process.wait(PATIENCE), shown

    def test_terminal(self) -> None:
        """The password is asked for twice, and not shown."""
        status, shown = self.converse(b"secret\n", b"secret\n")
        self.assertEqual(status, 0, shown)
        self.assertNotIn(b"secret", shown)
        self.assertTrue(self.hash_of("panel").verify(b"secret"))

    def test_mistyped(self) -> None:
        """Where the two are not the same it asks again."""
        status, shown = self.converse(b"secret\n", b"secrte\n", b"right\n", b"right\n")
        self.assertEqual(status, 0, shown)
        self.assertTrue(self.hash_of("panel").verify(b"right"))
