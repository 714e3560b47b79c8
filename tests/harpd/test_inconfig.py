"""Tests of harpd.auth.inconfig."""

from __future__ import annotations

from harpd.auth import inconfig
from tests.harpd.sections import AuthenticationTestCase
from tests.harpd.test_passwords import SHA256_ROUNDS, SHA512_ROUNDS


class LoadTests(AuthenticationTestCase):
    """From the users of the configuration to a table of passwords."""

    load = staticmethod(inconfig.load)

    def test_users(self) -> None:
        """Each user has a hash or a plain password, which may hold colons."""
        table = self.table(
            f'users: {{a: "crypt:{SHA256_ROUNDS}", b: "plain:x:y", c: "crypt:{SHA512_ROUNDS}"}}'
        )
        for user, password in [("a", "secret"), ("b", "x:y"), ("c", "secret")]:
            self.assertTrue(table.verify(user, password), user)
        for user, password in [("a", SHA256_ROUNDS), ("b", "x"), ("b", "plain:x:y"), ("b", "")]:
            self.assertFalse(table.verify(user, password), user)

    def test_mistakes(self) -> None:
        """Every user that could not log in is named with the line, and without the password."""
        found = self.mistakes(
            "users:\n  a: secretword\n  b: 'crypt:secretword'\n  c: []\n"
            "  d: 'crypt:$1$abc$secretword'\n  e: 'Plain:secretword'\n"
            "  f: 'plain:'\n  g: 'plain:x'\n"
        )
        starts = [f"users.{user}, line {line}" for line, user in enumerate("abcdef", 2)]
        self.assertCountEqual([mistake.partition(": ")[0] for mistake in found], starts)
        self.assertNotIn("secretword", "".join(found))

    def test_no_users(self) -> None:
        """The users must be there."""
        self.assertEqual(self.mistakes("other: x")[0], "users, line 1: is missing")
        self.assertIn("users, line 1: must be a section", self.mistakes("users: [a]")[0])
