"""Tests of ``harp.deadline``."""

from __future__ import annotations

from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, rule, run_state_machine_as_test
from hypothesis.strategies import integers
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from harp.deadline import Deadline


class DeadlineTests(SynchronousTestCase):
    """Only the deadline that was set last comes, at its time."""

    def setUp(self) -> None:
        """Start."""
        self.clock = Clock()
        self.deadline = Deadline(self.clock)
        self.came: list[str] = []

    def test_one_timer(self) -> None:
        """One that is put off again and again has one timer, which is gone at the end."""
        for seconds in (5, 6, 5, 60):
            self.deadline.set(seconds, self.came.append, "last")
            self.clock.advance(1)
            self.deadline.clear()
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)
        self.deadline.end()
        self.deadline.end()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_set_by_what_came(self) -> None:
        """What comes may set the next one."""
        self.deadline.set(1, self.deadline.set, 2, self.came.append, "next")
        self.clock.advance(1)
        self.clock.advance(2)
        self.assertEqual((self.came, self.clock.getDelayedCalls()), (["next"], []))


class _Model(RuleBasedStateMachine):
    """A deadline is what was set last, unless it was cleared."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.deadline = Deadline(self.clock)
        self.came: list[int] = []
        self.due: tuple[float, int] | None = None
        self.count = 0

    @rule(seconds=integers(0, 20))
    def set(self, seconds: int) -> None:
        self.count += 1
        self.deadline.set(seconds, self.came.append, self.count)
        self.due = (self.clock.seconds() + seconds, self.count)

    @rule()
    def clear(self) -> None:
        self.deadline.clear()
        self.due = None

    @rule()
    def end(self) -> None:
        self.deadline.end()
        self.due = None
        assert not self.clock.getDelayedCalls()

    @rule(seconds=integers(1, 10))
    def pass_time(self, seconds: int) -> None:
        self.clock.advance(seconds)
        came = []
        if self.due is not None and self.due[0] <= self.clock.seconds():
            came, self.due = [self.due[1]], None
        assert self.came == came, (self.came, came)
        self.came.clear()


class ModelTests(SynchronousTestCase):
    """The deadline against the model."""

    def test_agrees_with_model(self) -> None:
        """Whatever is done with it, in whatever order."""
        run_state_machine_as_test(_Model, settings=settings(deadline=None, max_examples=100))
