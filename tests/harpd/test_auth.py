"""Tests of harpd.auth: the memory of logins, with a thread pool that a test empties."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from harpd import auth
from harpd.auth import KNOWN_FOR, MAX_HASHING, MAX_WAITING, REMEMBERED_FOR, Login
from harpd.auth.passwords import MAX_PASSWORD
from harpd.auth.turns import LONGEST_DELAY, TooManyLoginsError


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
            try:
                result = task()
            except Exception:
                finished(False, Failure())
            else:
                finished(True, result)


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

    def check(self, user: str, password: str, address: str = "192.0.2.1") -> bool:
        """Return what the login says."""
        checked: Deferred[bool] = self.login.check(user, password, address)
        self.reactor.pool.run()
        return self.successResultOf(checked)

    def test_in_a_thread(self) -> None:
        """The authenticator is asked in the pool."""
        checked = self.login.check("user", "right", "192.0.2.1")
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
        self.assertTrue(self.check("user", "other", "192.0.2.2"))

    def test_pairs_kept_apart(self) -> None:
        """A remembered login is good for that user with that password only."""
        self.right = lambda user, password: (user, password) == ("ab", "c")
        self.assertTrue(self.check("ab", "c"))
        pairs = [("a", "bc"), ("abc", ""), ("", "abc"), ("AB", "c"), ("ab", "C"), ("2:ab", "c")]
        for user, password in [*pairs, ("1", ":abc"), ("", "2:abc"), ("c", "ab"), ("ab", "c\0")]:
            self.assertFalse(self.check(user, password, f"{user}/{password}"), (user, password))

    def test_long_password(self) -> None:
        """A password over the limit is refused without hashing it, one of the limit is not."""
        self.right = lambda user, password: True
        self.assertFalse(self.check("user", "ż" * (MAX_PASSWORD // 2) + "x"))
        self.assertEqual(self.asked, [])
        self.assertTrue(self.check("user", "ż" * (MAX_PASSWORD // 2)))

    def test_another_authenticator(self) -> None:
        """Nothing that the one before agreed to counts any more, or that it agrees to yet."""
        self.assertTrue(self.check("user", "right"))
        late = self.login.check("other", "right", "192.0.2.1")

        class Nobody:
            def verify(self, user: str, password: str) -> bool:
                return False

        self.login.use(Nobody())
        self.reactor.pool.run()
        self.assertTrue(self.successResultOf(late))
        self.assertFalse(self.check("user", "right"))
        self.assertFalse(self.check("other", "right"))

    def test_bounded(self) -> None:
        """Not more than so many are remembered: those that were right last."""
        self.patch(auth, "_MAX_REMEMBERED", 3)
        for number in range(4):
            self.check(f"user{number}", "right")
        self.assertEqual(len(self.login._remembered), 3)
        for number in (3, 2, 1, 0):
            self.check(f"user{number}", "right")
        self.assertEqual([user for user, _ in self.asked[4:]], ["user0"])

    def test_many_at_once(self) -> None:
        """Of hundreds with the same password that come together, one is hashed."""
        checked = [self.login.check("user", "right", "192.0.2.1") for _ in range(500)]
        self.reactor.pool.run()
        self.assertTrue(all(self.successResultOf(each) for each in checked))
        self.assertEqual(len(self.asked), 1)

    def test_hashed_at_once(self) -> None:
        """Only so many are hashed at once, and wait for it; more are refused, without hashing."""
        checked = [
            self.login.check("user", "wrong", f"192.0.2.{number}")
            for number in range(MAX_HASHING + MAX_WAITING + 1)
        ]
        self.assertEqual(len(self.reactor.pool.waiting), MAX_HASHING)
        self.failureResultOf(checked.pop(), TooManyLoginsError)
        while self.reactor.pool.waiting:
            self.reactor.pool.run()
        self.assertFalse(any(self.successResultOf(each) for each in checked))
        self.assertEqual(len(self.asked), MAX_HASHING + MAX_WAITING)

    def fail_often(self, address: str = "192.0.2.1") -> None:
        """Let an address have failed so often that it has to wait for the longest."""
        for _ in range(10):
            checked = self.login.check("user", "wrong", address)
            self.reactor.advance(LONGEST_DELAY)
            self.reactor.pool.run()
            self.assertFalse(self.successResultOf(checked))
        self.asked.clear()

    def test_slowed_down(self) -> None:
        """An address that has failed waits, whatever it says; others, and known ones, do not."""
        self.assertTrue(self.check("known", "right"))
        self.reactor.advance(REMEMBERED_FOR)
        self.fail_often()
        waiting = self.login.check("user", "right", "192.0.2.1")
        self.reactor.pool.run()
        self.assertNoResult(waiting)
        self.assertTrue(self.check("user", "right", "192.0.2.2"))
        self.asked.clear()
        self.assertTrue(self.check("known", "right"))
        self.assertEqual(self.asked, [("known", "right")])
        self.reactor.advance(LONGEST_DELAY)
        self.reactor.pool.run()
        self.assertTrue(self.successResultOf(waiting))

    def test_known_for(self) -> None:
        """That a password was right long ago is of no use to an address that has failed."""
        self.assertTrue(self.check("known", "right"))
        self.reactor.advance(KNOWN_FOR)
        self.fail_often()
        self.assertNoResult(self.login.check("known", "right", "192.0.2.1"))

    def test_known_and_wrong(self) -> None:
        """A password that was right and is not any more counts as a failure like others."""
        self.assertTrue(self.check("known", "right"))
        self.reactor.advance(REMEMBERED_FOR)
        self.right = lambda user, password: False
        for _ in range(2):
            self.assertFalse(self.check("known", "right"))
        self.assertNoResult(self.login.check("other", "x", "192.0.2.1"))

    def test_cannot_be_hashed(self) -> None:
        """A password that is too long counts as a failure too."""
        for _ in range(2):
            self.assertFalse(self.check("user", "x" * (MAX_PASSWORD + 1)))
        self.assertNoResult(self.login.check("user", "right", "192.0.2.1"))

    def test_cancelled(self) -> None:
        """Who leaves while he waits is not hashed; a hashing that runs keeps its thread."""
        self.fail_often()
        self.login.check("user", "wrong", "192.0.2.1").addErrback(lambda failure: None).cancel()
        self.assertEqual(self.reactor.getDelayedCalls(), [])
        self.reactor.advance(LONGEST_DELAY)
        self.assertEqual((self.reactor.pool.waiting, self.asked), ([], []))
        for number in range(MAX_HASHING):
            checked = self.login.check("user", "right", f"2001:db8:{number}::1")
            checked.addErrback(lambda failure: None).cancel()
        late = self.login.check("user", "right", "2001:db8:a::1")
        self.assertEqual(len(self.reactor.pool.waiting), MAX_HASHING)
        self.reactor.pool.run()
        self.reactor.pool.run()
        self.assertTrue(self.successResultOf(late))

    def test_failing_authenticator(self) -> None:
        """A failure of the authenticator reaches who asked, and holds nobody up for ever."""
        self.right = lambda user, password: bool(1 / 0)
        failed = self.login.check("user", "right", "192.0.2.1")
        self.reactor.pool.run()
        self.failureResultOf(failed, ZeroDivisionError)
        self.right = lambda user, password: True
        self.assertTrue(self.check("user", "right"))

    def test_passwords_not_kept(self) -> None:
        """Neither users nor passwords stand in the memory, which differs from daemon to daemon."""
        self.check("user", "right")
        other = Login(self.reactor, self)
        checked = other.check("user", "right", "192.0.2.1")
        self.reactor.pool.run()
        self.successResultOf(checked)
        self.assertNotEqual(set(self.login._remembered), set(other._remembered))
        self.assertNotIn(b"right", b"".join(self.login._remembered))
