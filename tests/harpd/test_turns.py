"""Tests of harpd.auth.turns."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from harpd.auth import turns
from harpd.auth.turns import (
    FORGOTTEN_AFTER,
    LONGEST_DELAY,
    LONGEST_WAIT,
    MAX_WAITING,
    TooManyLoginsError,
    Turns,
)


class TurnsTests(SynchronousTestCase):
    """Logins of one address are checked one after the other, and slower after failures."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.turns = Turns(self.clock)

    def fails(self, times: int, address: str = "a") -> None:
        """Let logins of an address fail."""
        for _ in range(times):
            turn = self.turns.take(address)
            self.clock.advance(LONGEST_DELAY)
            self.successResultOf(turn)
            self.turns.done(address, has_failed=True)

    def waits(self, address: str = "a") -> float:
        """Return how long the next login of an address waits, which succeeds."""
        turn = self.turns.take(address)
        seconds = 0.0
        while not turn.called:
            self.clock.advance(0.5)
            seconds += 0.5
        self.turns.done(address, has_failed=False)
        return seconds

    def test_one_at_a_time(self) -> None:
        """The next has its turn when the one before has ended, in the order of coming."""
        first, second, third = (self.turns.take("a") for _ in range(3))
        other = self.turns.take("b")
        self.successResultOf(first)
        self.successResultOf(other)
        self.assertNoResult(second)
        self.turns.done("a", has_failed=False)
        self.successResultOf(second)
        self.assertNoResult(third)

    def test_doubled(self) -> None:
        """One failure costs nothing, the second 1 s, each more twice as much, up to the longest."""
        waited = []
        for _ in range(8):
            turn = self.turns.take("a")
            seconds = 0.0
            while not turn.called:
                self.clock.advance(0.5)
                seconds += 0.5
            waited.append(seconds)
            self.turns.done("a", has_failed=True)
        self.assertEqual(waited, [0, 0, 1, 2, 4, 8, 8, 8])

    def test_counts_from_the_failure(self) -> None:
        """Who comes late enough does not wait, nor does another address."""
        self.fails(10)
        self.assertEqual(self.waits("b"), 0)
        self.clock.advance(LONGEST_DELAY - 1)
        self.assertEqual(self.waits(), 1)
        self.assertEqual(self.waits(), 0)

    def test_success_forgives_nothing(self) -> None:
        """Who has a password of his own can't guess those of others faster with it."""
        self.fails(5)
        self.waits()
        self.fails(1)
        self.assertEqual(self.waits(), LONGEST_DELAY)

    def test_forgotten(self) -> None:
        """After a while an address is as good as new, and nothing is kept of it."""
        self.fails(10)
        self.clock.advance(FORGOTTEN_AFTER)
        self.assertEqual(self.waits(), 0)
        self.assertEqual(self.turns._addresses, {})

    def test_long_wait(self) -> None:
        """Who would wait too long behind failures is refused, also of those that wait already."""
        early = [self.turns.take("a") for _ in range(100)]
        self.successResultOf(early[0])
        for number in range(4):
            self.clock.advance(LONGEST_DELAY)
            self.successResultOf(early[number])
            self.turns.done("a", has_failed=True)
        refused = [each for each in early if each.called][4:]
        for each in refused:
            self.failureResultOf(each, TooManyLoginsError)
        self.turns.take("b")
        waiting = [each for each in early if not each.called]
        self.assertEqual(len(waiting), LONGEST_WAIT // 4)
        failure = self.failureResultOf(self.turns.take("a"), TooManyLoginsError)
        self.assertIn("from this address have failed", str(failure.value))

    def test_bound(self) -> None:
        """Not more than so many wait, of all addresses together."""
        waiting = [self.turns.take(str(number % 10)) for number in range(MAX_WAITING + 10)]
        self.successResultOf(waiting[9])
        failure = self.failureResultOf(self.turns.take("a"), TooManyLoginsError)
        self.assertIn("wait to be checked", str(failure.value))
        self.assertNotIn("a", self.turns._addresses)
        waiting[10].addErrback(lambda failure: None).cancel()
        self.successResultOf(self.turns.take("a"))

    def test_many_in_a_row(self) -> None:
        """Hundreds that are decided at once are not nested in each other."""
        turns: list[Deferred[None]] = [self.turns.take("a") for _ in range(MAX_WAITING)]
        for turn in turns[1:]:
            turn.addCallback(lambda _: self.turns.done("a", has_failed=False))
        self.turns.done("a", has_failed=False)
        for turn in turns:
            self.successResultOf(turn)
        self.assertEqual(self.turns._addresses, {})

    def test_cancelled(self) -> None:
        """Who does not want his turn any more leaves no timer and no place behind."""
        self.fails(10)
        turn = self.turns.take("a").addErrback(lambda failure: None)
        turn.cancel()
        self.assertEqual((self.clock.getDelayedCalls(), self.turns._waiting), ([], 0))
        self.assertEqual(self.waits(), LONGEST_DELAY)

    def test_addresses_bounded(self) -> None:
        """Not more than so many are remembered; those are forgotten that failed first."""
        self.patch(turns, "_MAX_ADDRESSES", 3)
        for address in "abcad":
            self.fails(1, address)
        self.assertEqual(list(self.turns._addresses), ["c", "a", "d"])
