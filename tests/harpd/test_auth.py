"""Tests of harpd.auth: the memory of logins, with a thread pool that a test empties."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from harpd import auth
from harpd.auth import MAX_PASSWORD, REMEMBERED_FOR, Login


class WaitingPool:
    """A thread pool that runs nothing until a test says so."""

    def __init__(self) -> None:
        self.waiting: list[tuple[Callable[..., None], Callable[[], Any]]] = []

    def callInThreadWithCallback(
        self,
        finished: Callable[..., None],
        function: Callable[..., Any],
        *args: Any,
        **kwargs: Any,
    ) -> None:
        """Keep a task."""
        self.waiting.append((finished, lambda: function(*args, **kwargs)))

    def run(self) -> None:
        """Run what is waiting."""
        waiting, self.waiting = self.waiting, []
        for finished, task in waiting:
            finished(True, task())


class PoolClock(Clock):
    """A clock with a thread pool."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = WaitingPool()

    def getThreadPool(self) -> WaitingPool:
        """Return the pool."""
        return self.pool

    def callFromThread(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        """Call it at once, there is one thread."""
        function(*args, **kwargs)


class LoginTests(SynchronousTestCase):
    """A login is hashed once in a while, and never in the reactor's thread."""

    def setUp(self) -> None:
        self.asked: list[tuple[str, str]] = []
        self.right: Callable[[str, str], bool] = lambda user, password: password == "right"
        self.reactor = PoolClock()
        self.login = Login(self.reactor, self)

    def verify(self, user: str, password: str) -> bool:
        """Be the authenticator."""
        self.asked.append((user, password))
        return self.right(user, password)

    def check(self, user: str, password: str) -> bool:
        """Return what the login says."""
        checked: Deferred[bool] = self.login.check(user, password)
        self.reactor.pool.run()
        return self.successResultOf(checked)

    def test_in_a_thread(self) -> None:
        """The authenticator is asked in the pool."""
        checked = self.login.check("user", "right")
        self.assertNoResult(checked)
        self.assertEqual(self.asked, [])
        self.reactor.pool.run()
        self.assertIs(self.successResultOf(checked), True)

    def test_success_remembered(self) -> None:
        """What was right is right for a while without asking, and not longer."""
        self.assertTrue(self.check("user", "right"))
        self.reactor.advance(REMEMBERED_FOR - 0.1)
        self.right = lambda user, password: False
        self.assertTrue(self.check("user", "right"))
        self.assertEqual(len(self.asked), 1)
        self.reactor.advance(0.1)
        self.assertFalse(self.check("user", "right"))
        self.assertEqual(len(self.asked), 2)

    def test_use_does_not_prolong(self) -> None:
        """The time counts from the hashing, however often the login is used."""
        self.check("user", "right")
        for _ in range(3):
            self.reactor.advance(REMEMBERED_FOR / 3)
            self.check("user", "right")
        self.assertEqual(len(self.asked), 2)

    def test_failure_not_remembered(self) -> None:
        """What was wrong is asked again: the password may have been set meanwhile."""
        self.assertFalse(self.check("user", "other"))
        self.assertFalse(self.check("user", "other"))
        self.assertEqual(len(self.asked), 2)
        self.right = lambda user, password: True
        self.assertTrue(self.check("user", "other"))

    def test_pairs_kept_apart(self) -> None:
        """A remembered login is good for that user with that password only."""
        self.right = lambda user, password: (user, password) == ("ab", "c")
        self.assertTrue(self.check("ab", "c"))
        pairs = [("a", "bc"), ("abc", ""), ("", "abc"), ("AB", "c"), ("ab", "C"), ("2:ab", "c")]
        for user, password in [*pairs, ("1", ":abc"), ("", "2:abc"), ("c", "ab"), ("ab", "c\0")]:
            self.assertFalse(self.check(user, password), (user, password))

    def test_long_password(self) -> None:
        """A password over the limit is refused without hashing it, one of the limit is not."""
        self.right = lambda user, password: True
        self.assertFalse(self.check("user", "ż" * (MAX_PASSWORD // 2) + "x"))
        self.assertEqual(self.asked, [])
        self.assertTrue(self.check("user", "ż" * (MAX_PASSWORD // 2)))

    def test_another_authenticator(self) -> None:
        """Nothing that the one before agreed to counts any more, or that it agrees to yet."""
        self.assertTrue(self.check("user", "right"))
        late = self.login.check("other", "right")

        class Nobody:
            def verify(self, user: str, password: str) -> bool:
                return False

        self.login.use(Nobody())
        self.reactor.pool.run()
        self.assertTrue(self.successResultOf(late))
        self.assertFalse(self.check("user", "right"))
        self.assertFalse(self.check("other", "right"))

    def test_bounded(self) -> None:
        """Not more than so many are remembered; there is room again when they are forgotten."""
        self.patch(auth, "_MAX_REMEMBERED", 3)
        for number in range(4):
            self.check(f"user{number}", "right")
        self.assertEqual(len(self.login._remembered), 3)
        self.check("user3", "right")
        self.assertEqual(len(self.asked), 5)
        self.reactor.advance(REMEMBERED_FOR)
        for _ in range(2):
            self.check("user3", "right")
        self.assertEqual(len(self.asked), 6)
        self.assertEqual(len(self.login._remembered), 1)

    def test_passwords_not_kept(self) -> None:
        """Neither users nor passwords stand in the memory, which differs from daemon to daemon."""
        self.check("user", "right")
        other = Login(self.reactor, self)
        checked = other.check("user", "right")
        self.reactor.pool.run()
        self.successResultOf(checked)
        self.assertNotEqual(set(self.login._remembered), set(other._remembered))
        self.assertNotIn(b"right", b"".join(self.login._remembered))
