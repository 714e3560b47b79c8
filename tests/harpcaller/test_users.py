"""Tests of ``harpcaller.users`` and ``harpcaller.identities``: users read, and recognized."""

from __future__ import annotations

import hashlib
import os
import pwd
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from harp import settings
from harpcaller.identities import Certificate, Proof, User, Users
from harpcaller.users import read_users

TOKEN = "harp_" + 43 * "a"
HASH = hashlib.sha256(TOKEN.encode()).hexdigest()
PRINT = "sha256:" + "ab" * 32
COLONS = ":".join(["AB"] * 32)


class UsersTestCase(SynchronousTestCase):
    """A test that reads users."""

    def read(self, text: str, verifies_names: bool = True) -> Users:
        """Return the users of a file that has nothing else."""
        file = Path(self.mktemp())
        file.write_text(text)
        with settings.read(file) as keys:
            return read_users(keys.section("users"), verifies_names)

    def mistakes(self, text: str, verifies_names: bool = True) -> list[str]:
        """Return what is wrong with them."""
        error = self.assertRaises(settings.ConfigError, self.read, text, verifies_names)
        return [each.partition(": ")[2] for each in error.mistakes]

    def mistake(self, text: str, verifies_names: bool = True) -> str:
        """Return the one thing that is wrong with them."""
        (found,) = self.mistakes(text, verifies_names)
        return found


class ReadTests(UsersTestCase):
    """From the file to values, or to mistakes."""

    def test_everything(self) -> None:
        """Every key reaches its value, in each of its spellings."""
        me = pwd.getpwuid(os.geteuid()).pw_name
        users = self.read(
            "users:\n"
            "  panel:\n"
            "    groups: [applications, web]\n"
            "    tags: blue\n"
            f"    tokens: ['sha256:{HASH}', 'sha256:{'C' * 64}']\n"
            f"    certificates: [Panel.example.net, 'sha256:{COLONS}']\n"
            f"    uids: [{me}, 4711]\n"
            "    trusted: true\n"
            "  ann: {}\n"
        )
        panel = User("panel", frozenset({"applications", "web"}), frozenset({"blue"}), True)
        expected = Users(
            known=(panel, User("ann")),
            tokens={HASH: panel, "c" * 64: panel},
            fingerprints={PRINT: panel},
            names={"panel.example.net": panel},
            uids={os.geteuid(): panel, 4711: panel},
        )
        self.assertEqual(users, expected)

    def test_token_itself(self) -> None:
        """A token in the place of its hash is a mistake that does not repeat it."""
        for text in (TOKEN, f"sha256:{TOKEN}", f"sha256:{HASH}0", "md5:" + HASH, HASH):
            found = self.mistake(f"users:\n  panel:\n    tokens: ['{text}']")
            self.assertTrue(found.startswith("users.panel.tokens, line 3: must be "), found)
            self.assertNotIn(text, found)
        found = self.mistake(f"users: {{panel: {{certificates: [{TOKEN}]}}}}", False)
        self.assertNotIn(TOKEN, found)

    def test_two_users(self) -> None:
        """What stands for two users is a mistake that names the first; for one twice it is none."""
        me = pwd.getpwuid(os.geteuid()).pw_name
        for key, one, other in (
            ("tokens", f"sha256:{HASH}", f"sha256:{HASH.upper()}"),
            ("certificates", "a.example.net", "A.example.net"),
            ("certificates", PRINT, f"sha256:{COLONS}"),
            ("uids", str(os.geteuid()), me),
        ):
            found = self.mistake(
                f"users:\n  a: {{{key}: ['{one}']}}\n  b: {{{key}: ['{other}']}}".replace(
                    f"'{os.geteuid()}'", str(os.geteuid())
                )
            )
            self.assertTrue(found.startswith(f"users.b.{key}, line 3: "), found)
            self.assertIn("stands for the user a already", found)
            self.assertNotIn(HASH, found)
        self.read(f"users: {{a: {{tokens: ['sha256:{HASH}', 'sha256:{HASH}']}}}}")

    def test_unusable(self) -> None:
        """Everything else that can't be meant is named by key and line."""
        for text, key in (
            ("a: {token: x}", "users.a.token"),
            ("a: {trusted: 1}", "users.a.trusted"),
            ("a: {groups: 5}", "users.a.groups"),
            ("a: {uids: [nobody-of-that-name]}", "users.a.uids"),
            ("a: {uids: [-1]}", "users.a.uids"),
            ("a: {uids: [4294967295]}", "users.a.uids"),
            ("a: {uids: [1.5]}", "users.a.uids"),
            ("a: {certificates: ['sha256:abc']}", "users.a.certificates"),
            ("a: 5", "users.a"),
            ("a:", "users.a"),
            ("anonymous: {}", "users.anonymous"),
            ("all: {}", "users.all"),
            ("own: {}", "users.own"),
            ("'*': {}", "users.*"),
            ("'group:x': {}", "users.group:x"),
            ("'': {}", "users."),
        ):
            found = self.mistake(f"users:\n  {text}\n")
            self.assertTrue(found.startswith(f"{key}, line 2: "), found)
        self.assertIn("users, line 1: must be a section", self.mistake("users: [a]"))

    def test_names_that_nobody_verifies(self) -> None:
        """A name in a certificate is worth nothing without authorities; a fingerprint is."""
        found = self.mistake("users: {a: {certificates: [a.example.net]}}", False)
        self.assertIn("client_ca_file", found)
        self.read(f"users: {{a: {{certificates: ['{PRINT}']}}}}", False)


class RecognitionTests(UsersTestCase):
    """Who somebody is."""

    def setUp(self) -> None:
        """Know three users."""
        self.users = self.read(
            "users:\n"
            f"  token: {{tokens: ['sha256:{HASH}']}}\n"
            f"  cert: {{certificates: [c.example.net, d.example.net, '{PRINT}']}}\n"
            "  other: {certificates: [o.example.net]}\n"
            "  local: {uids: [4711]}\n"
        )

    def name(
        self, *names: str, by: str | None = "ca", fingerprint: str = "00", uid: int | None = None
    ) -> str | None:
        """Return who somebody with a certificate is, where the authorities are called ``ca``."""
        proof = Proof(Certificate(fingerprint, frozenset(names), by), uid)
        user = self.users.by_proof(proof, "ca")
        return None if user is None else user.name

    def test_token(self) -> None:
        """A token is known by its hash only, as a whole."""
        found = self.users.by_token(TOKEN)
        assert found is not None
        self.assertEqual(found.name, "token")
        for text in ("", TOKEN[:-1], TOKEN + "a", HASH, f"sha256:{HASH}", "harp_ä"):
            self.assertIsNone(self.users.by_token(text))

    def test_names(self) -> None:
        """One of a certificate's names is enough, unless the names are of two users."""
        self.assertEqual(self.name("x", "c.example.net", "d.example.net"), "cert")
        self.assertIsNone(self.name("x"))
        self.assertIsNone(self.name("c.example.net", "o.example.net"))

    def test_authorities(self) -> None:
        """Names count only where the authorities that are trusted now have verified them."""
        self.assertIsNone(self.name("c.example.net", by="old"))
        self.assertIsNone(self.name("c.example.net", by=None))
        proof = Proof(Certificate("00", frozenset({"c.example.net"}), None))
        self.assertIsNone(self.users.by_proof(proof, None))

    def test_fingerprint(self) -> None:
        """A fingerprint needs no authority, and goes before names."""
        self.assertEqual(self.name(by=None, fingerprint=PRINT), "cert")
        self.assertEqual(self.name("o.example.net", fingerprint=PRINT), "cert")

    def test_uid(self) -> None:
        """The uid of a process counts where no certificate does."""
        self.assertEqual(self.name("x", uid=4711), "local")
        self.assertIsNone(self.name("x", uid=4712))
        self.assertIsNone(self.users.by_proof(Proof(), None))
