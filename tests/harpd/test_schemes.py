"""Tests of harpd.auth.schemes and harpd.auth.libcrypt."""

from __future__ import annotations

import threading
from functools import cache
from typing import Any

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from harpd.auth import libcrypt, schemes
from harpd.auth.libcrypt import crypt
from harpd.auth.schemes import SCHEMES
from tests.harpd.test_passwords import OTHERS, SHA, SHA256, SHA512, SHA512_UTF8, YESCRYPT


def need_yescrypt() -> None:
    """Skip a test where libcrypt lacks it."""
    if crypt(b"x", YESCRYPT.encode()) is None:
        raise SkipTest("this machine's libcrypt has no yescrypt")


class VerifyTests(SynchronousTestCase):
    """Passwords are verified against what existing files have."""

    def assert_verified(self, stored: str) -> None:
        """Check that a hash has the password "secret", and no other."""
        read = schemes.read(stored)
        self.assertTrue(read.verify(b"secret"), stored)
        for wrong in ["Secret", "secret ", "secre", "", stored]:
            self.assertFalse(read.verify(wrong.encode()), stored)

    def test_known(self) -> None:
        """Hashes of all schemes verify."""
        for stored in [*SHA, *OTHERS]:
            self.assert_verified(stored)
        self.assertTrue(schemes.read(SHA512_UTF8).verify("zażółć".encode()))

    def test_yescrypt(self) -> None:
        """Those of yescrypt do where libcrypt has it."""
        need_yescrypt()
        self.assert_verified(YESCRYPT)

    def test_long_for_bcrypt(self) -> None:
        """As everywhere, bcrypt looks at 72 bytes of a password, and does not fail at more."""
        made = next(scheme for scheme in SCHEMES if scheme.name == "bcrypt").make(b"x" * 72)
        self.assertTrue(schemes.read(made).verify(b"x" * 100))
        self.assertFalse(schemes.read(made).verify(b"x" * 71))

    def test_made(self) -> None:
        """What is made verifies, has a salt of its own, and costs what is usual today."""
        for scheme in SCHEMES:
            if not scheme.is_there():
                continue
            made = [scheme.make("zażółć".encode()) for _ in range(2)]
            self.assertNotEqual(*made)
            self.assertIs(schemes.read(made[0]).scheme, scheme)
            self.assertTrue(schemes.read(made[0]).verify("zażółć".encode()))
            self.assertFalse(schemes.read(made[0]).verify(b"other"))


class WithoutLibcryptTests(VerifyTests):
    """Where there is no libcrypt, all but yescrypt verify all the same."""

    def setUp(self) -> None:
        self.patch(libcrypt, "_library", lambda: None)
        self.patch(schemes, "_has", cache(schemes._has.__wrapped__))

    def test_yescrypt(self) -> None:
        """A hash that can't be verified here is a mistake that says so."""
        error = self.assertRaises(ValueError, schemes.read, YESCRYPT)
        self.assertEqual(str(error), "this machine can't verify yescrypt: its libcrypt lacks it")


class ReadTests(SynchronousTestCase):
    """What can't be verified is found when it is read, not when somebody logs in."""

    def test_unknown(self) -> None:
        """Other schemes, locked accounts and parts of hashes are not."""
        others = ["", "*", "!", "x", "secret", "$1$salt$qJH7.N4xYta3aEG/dfqo/0", "rlZdJAlGXZMrI"]
        cut = ["$5$", "$5$saltsalt", "$5$saltsalt$", SHA256[:-1], SHA512[:-5], SHA512 + "x"]
        cut += [stored[:-1] for stored in OTHERS[:3]] + [YESCRYPT[:-1], "$argon2id$v=19$m=8,t=1"]
        broken = [SHA256.replace("I", "!"), "$6$rounds=x$salt$", f"!{SHA512}", f" {SHA512}"]
        for stored in [*others, *cut, *broken, SHA512 + "\n"]:
            error = self.assertRaises(ValueError, schemes.read, stored)
            self.assertIn("known are $argon2id$", str(error))
            self.assertNotIn("qJH7", str(error))

    def test_costs(self) -> None:
        """Hashes are told apart by what they cost, which the salt does not change."""
        costs = [schemes.read(stored).cost for stored in SHA]
        self.assertEqual(len(set(costs)), 4)
        named = SHA512.replace("$6$", "$6$rounds=5000$")
        self.assertEqual(schemes.read(named).cost, schemes.read(SHA512).cost)
        self.assertEqual(len({schemes.read(stored).cost for stored in OTHERS}), 2)


class LibcryptTests(SynchronousTestCase):
    """crypt(3) as it is there."""

    def setUp(self) -> None:
        if libcrypt._library() is None:
            raise SkipTest("this machine has no libcrypt")

    def test_failures(self) -> None:
        """What can't be hashed is None, and never the token of a failure that libcrypt returns."""
        for password, setting in [(b"x", b"$zz$a$"), (b"x", b"*0"), (b"x\0y", b"$6$a$")]:
            self.assertIsNone(crypt(password, setting))
        self.assertIsNone(crypt(b"x" * 513, b"$6$a$"))

    def test_threads(self) -> None:
        """Each thread has a buffer of its own: what they hash at once is right."""
        wrong: list[Any] = []

        def work(number: int) -> None:
            setting = b"$6$rounds=1000$salt%d$" % number
            first = crypt(b"secret", setting)
            wrong.extend(1 for _ in range(50) if crypt(b"secret", setting) != first)
            if first is None or not first.startswith(setting):
                wrong.append(first)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(wrong, [])
