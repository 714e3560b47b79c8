"""Tests of harpd.auth.passwords."""

from __future__ import annotations

from collections.abc import Mapping

from twisted.trial.unittest import SynchronousTestCase

from harpd.auth import schemes
from harpd.auth.passwords import MAX_PASSWORD, PasswordTable

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
# With crypt(3) of libxcrypt 4.4, the costs the lowest that there are.
YESCRYPT = "$y$j75$saltsalt$0gBD67sgmJgRX3RZ6wHHO7sHimQEWGCWN85o4Twogh2"
BCRYPT = "$2b$04$abcdefghijklmnopqrstuu2r9OfJnfCsdneAXAGHnS4UpFFP8WIrW"
# With argon2-cffi 25.1.
ARGON2ID = (
    "$argon2id$v=19$m=64,t=1,p=1$OYgkrsItKLADXiGu0hcGwg$Ar1b2VED6PElsFuuck6/tN2E+VgEG2vypZ+bKhAZDDQ"
)
SHA = [SHA256, SHA256_ROUNDS, SHA512, SHA512_ROUNDS]
OTHERS = [BCRYPT, BCRYPT.replace("2b", "2y"), BCRYPT.replace("2b", "2a"), ARGON2ID]


def table_of(hashes: Mapping[str, str], plain: Mapping[str, str] | None = None) -> PasswordTable:
    """Return a table of hashes that are given as texts."""
    return PasswordTable({user: schemes.read(text) for user, text in hashes.items()}, plain)


class PasswordTableTests(SynchronousTestCase):
    """Who has which password."""

    def test_hashed(self) -> None:
        """The password of a hash is right for its user alone."""
        table = table_of({"a": SHA256_ROUNDS, "b": SHA512_UTF8})
        self.assertTrue(table.verify("a", "secret"))
        self.assertTrue(table.verify("b", "zażółć"))
        for user, password in [("a", "zażółć"), ("b", "secret"), ("b", "zazolc"), ("a", "")]:
            self.assertFalse(table.verify(user, password), user)
        self.assertFalse(table.verify("a", SHA256_ROUNDS))

    def test_plain(self) -> None:
        """A plain password verifies too, beside hashed ones."""
        table = table_of({"hashed": SHA256_ROUNDS}, {"plain": "zażółć"})
        self.assertTrue(table.verify("plain", "zażółć"))
        self.assertFalse(table.verify("plain", "secret"))
        self.assertTrue(table.verify("hashed", "secret"))
        self.assertFalse(table.verify("hashed", SHA256_ROUNDS))

    def test_unknown_user(self) -> None:
        """No password is right for a user that there is not."""
        for table in [table_of({}), table_of({"user": SHA256_ROUNDS}, {"plain": "x"})]:
            for password in ["secret", "", "x"]:
                self.assertFalse(table.verify("nobody", password))

    def test_same_work_for_everybody(self) -> None:
        """What is wrong costs the same for each user and for none, whatever hashes there are."""
        mixed = {
            "a": SHA256,
            "b": SHA256_ROUNDS,
            "c": SHA512_ROUNDS,
            "d": SHA512_UTF8,
            "e": BCRYPT,
        }
        verified: list[str] = []
        real = schemes.StoredHash.verify

        def verify(stored: schemes.StoredHash, password: bytes) -> bool:
            verified.append(str(stored.cost))
            return real(stored, password)

        self.patch(schemes.StoredHash, "verify", verify)
        table = table_of(mixed, {"plain": "x"})
        costs = {str(schemes.read(text).cost) for text in mixed.values()}
        self.assertEqual(len(costs), 4)
        for user in [*mixed, "plain", "nobody"]:
            verified.clear()
            self.assertFalse(table.verify(user, "wrong"))
            self.assertCountEqual(verified, costs, user)

    def test_cannot_be_hashed(self) -> None:
        """A password with a NUL or over the limit is wrong for everybody, and not hashed."""
        table = table_of({"user": SHA256_ROUNDS}, {"plain": "x"})
        self.patch(schemes.StoredHash, "verify", lambda stored, password: self.fail("hashed"))
        for user in ["user", "plain", "nobody"]:
            for password in ["secret\0", "\0", "ż" * (MAX_PASSWORD // 2) + "x"]:
                self.assertFalse(table.verify(user, password))
