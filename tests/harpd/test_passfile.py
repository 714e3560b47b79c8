"""Tests of harpd.auth.passfile."""

from __future__ import annotations

import os
from pathlib import Path

from harpd.auth import passfile
from harpd.auth.passwords import PasswordTable
from tests.harpd.sections import AuthenticationTestCase
from tests.harpd.test_passwords import SHA256_ROUNDS, SHA512_ROUNDS


class LoadTests(AuthenticationTestCase):
    """From a password file to a table of passwords."""

    load = staticmethod(passfile.load)

    def setUp(self) -> None:
        self.file = Path(self.mktemp()).absolute()

    def users(self, text: str) -> PasswordTable:
        """Return the users of a file without mistakes."""
        self.file.write_text(text, "utf-8")
        return self.table(f"file: {self.file}")

    def file_mistakes(self, text: str | bytes) -> list[str]:
        """Return what is said about a file, each time with its name taken away."""
        self.file.write_bytes(text.encode() if isinstance(text, str) else text)
        found = self.mistakes(f"file: {self.file}")
        start = f"file, line 1: {self.file}"
        self.assertTrue(all(mistake.startswith(start) for mistake in found), found)
        return [mistake.removeprefix(start).removeprefix(", ") for mistake in found]

    def test_users(self) -> None:
        """Lines of user and hash; comments, empty lines and further fields are skipped."""
        table = self.users(
            f"# users\n\na:{SHA256_ROUNDS}\r\n  \nb:{SHA512_ROUNDS}:19000:0:99999:7:::\n"
            f"żółw:{SHA256_ROUNDS}  \n"
        )
        for user in ["a", "b", "żółw"]:
            self.assertTrue(table.verify(user, "secret"), user)
            self.assertFalse(table.verify(user, "other"), user)
        self.assertFalse(table.verify("# users", "secret"))

    def test_mistakes(self) -> None:
        """Every line that can't be used is named with its number, and without its hash."""
        found = self.file_mistakes(
            f"a:{SHA256_ROUNDS}\nb\n:{SHA256_ROUNDS}\na:{SHA512_ROUNDS}\n"
            "c:$1$salt$secretword\nd:*\ne:\n"
        )
        self.assertEqual(
            [mistake.partition(": ")[0] for mistake in found],
            ["line 2", "line 3", "line 4", "line 5", "line 6", "line 7"],
        )
        self.assertIn("is not USER:HASH", found[0])
        self.assertIn("is not USER:HASH", found[1])
        self.assertIn("user a stands twice", found[2])
        for mistake in found[3:]:
            self.assertIn("no hash that can be verified; known are $argon2id$", mistake)
        self.assertNotIn("secretword", "".join(found))

    def test_unreadable(self) -> None:
        """A file that can't be read or decoded is a mistake with its reason."""
        found = self.mistakes(f"file: {self.file}")
        self.assertEqual(
            found, [f"file, line 1: {self.file} can't be read: No such file or directory"]
        )
        (mistake,) = self.file_mistakes(b"a:\xff\n")
        self.assertIn("can't be read: 'utf-8' codec can't decode", mistake)
        self.assertIn("Is a directory", self.mistakes(f"file: {os.getcwd()}")[0])

    def test_no_file(self) -> None:
        """The file must be named."""
        self.assertEqual(self.mistakes("x: y")[0], "file, line 1: is missing")
        self.assertEqual(len(self.mistakes("file: ''")), 1)
