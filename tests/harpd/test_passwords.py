"""Tests of harpd.auth.passwords."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from harpd.auth import passwords
from harpd.auth.passwords import PasswordTable, is_known_hash

# All made with crypt(3) of glibc from the password "secret" (the last: "zażółć").
SHA256 = "$5$saltsalt$0IyaXrmV7.sGNS6tirgqHLqX/G.FBvgkYA.lpPdS5sA"
SHA256_ROUNDS = "$5$rounds=1000$saltsalt$eKLZU9t9OoPWrqOQsoTIKG0aYkZ5rGOoOQhiIvoSWX2"
SHA512 = (
    "$6$saltsalt$TVLlQcbpFVof5W3Yz4DTP6gRstiNuHwwTt6GLc1E5n0U0aDehy0S5knV8wiOQSpT0Y77vwPZN"
    ".Pq.H91p5hVO1"
)
SHA512_ROUNDS = (
    "$6$rounds=1000$saltsalt$LAV5VE5Y7w1d73x1mFNspYWUpazfmwv2SoepNXNKJ/otop/Zok96Hr8Q13LEv0DR"
    "Y/x8v0/crpIjl8NJSAqXV/"
)
SHA512_UTF8 = (
    "$6$rounds=1000$saltsalt$odK7AjTE.gt9ffGltDkstY2T8F6VK0WIAnQh/Yj/s70Bf9LDW1dgdtuwFM51TnrhO"
    "bHW8z6YGddcsMbOUd1nE0"
)
ALL = [SHA256, SHA256_ROUNDS, SHA512, SHA512_ROUNDS]


class PasswordTableTests(SynchronousTestCase):
    """Passwords are verified against what existing files have."""

    def test_hashes(self) -> None:
        """Hashes of crypt(3) verify, with and without a number of rounds."""
        for stored in ALL:
            table = PasswordTable({"user": stored})
            self.assertTrue(table.verify("user", "secret"), stored)
            for wrong in ["Secret", "secret ", "", stored]:
                self.assertFalse(table.verify("user", wrong), stored)

    def test_utf8(self) -> None:
        """A password is hashed as UTF-8."""
        table = PasswordTable({"user": SHA512_UTF8})
        self.assertTrue(table.verify("user", "zażółć"))
        self.assertFalse(table.verify("user", "zazolc"))

    def test_plain(self) -> None:
        """A plain password verifies too, beside hashed ones."""
        table = PasswordTable({"hashed": SHA256_ROUNDS}, {"plain": "zażółć", "empty": ""})
        self.assertTrue(table.verify("plain", "zażółć"))
        self.assertFalse(table.verify("plain", "secret"))
        self.assertTrue(table.verify("hashed", "secret"))
        self.assertFalse(table.verify("hashed", SHA256_ROUNDS))
        self.assertFalse(table.verify("empty", "x"))

    def test_unknown_user(self) -> None:
        """No password is right for a user that there is not."""
        for table in [PasswordTable({}), PasswordTable({"user": SHA256_ROUNDS}, {"plain": "x"})]:
            for password in ["secret", "", "x"]:
                self.assertFalse(table.verify("nobody", password))

    def test_same_work_for_everybody(self) -> None:
        """Every user costs a hashing of the same kind, so that time does not tell who exists."""
        verified: list[str] = []
        real = passwords._schemes.verify

        def verify(password: str, stored: str) -> bool:
            verified.append(stored)
            return bool(real(password, stored))

        self.patch(passwords._schemes, "verify", verify)
        table = PasswordTable({"user": SHA256_ROUNDS}, {"plain": "x"})
        for user in ["user", "plain", "nobody"]:
            table.verify(user, "secret")
        self.assertEqual(verified, [SHA256_ROUNDS] * 3)
        PasswordTable({}).verify("nobody", "secret")
        self.assertTrue(verified[-1].startswith("$6$"))

    def test_nul(self) -> None:
        """A password that can't be hashed is wrong, and no failure."""
        table = PasswordTable({"user": SHA256_ROUNDS}, {"plain": "x"})
        for user in ["user", "plain", "nobody"]:
            self.assertFalse(table.verify(user, "secret\0"))


class KnownHashTests(SynchronousTestCase):
    """What can't be verified is found when it is read, not when somebody logs in."""

    def test_known(self) -> None:
        """The two schemes are known."""
        for stored in [*ALL, SHA512_UTF8]:
            self.assertTrue(is_known_hash(stored), stored)

    def test_unknown(self) -> None:
        """Other schemes, locked accounts and parts of hashes are not."""
        others = ["", "*", "!", "x", "secret", "$1$salt$qJH7.N4xYta3aEG/dfqo/0", "rlZdJAlGXZMrI"]
        cut = ["$5$", "$5$saltsalt", "$5$saltsalt$", SHA256[:-1], SHA512[:-5], SHA512 + "x"]
        broken = [SHA256.replace("I", "!"), "$6$rounds=x$salt$", f"!{SHA512}", f" {SHA512}"]
        for stored in [*others, *cut, *broken]:
            self.assertFalse(is_known_hash(stored), stored)
