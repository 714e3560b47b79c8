"""Tests of harpd.locks: against a list for each lock."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from harpd.locks import Locks

steps = st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 5)), max_size=60)


class LocksTests(SynchronousTestCase):
    """One has a lock, the others come after in the order in which they came."""

    @given(steps)
    def test_against_a_list(self, steps: list[tuple[str, int]]) -> None:
        """Whoever is not in a line joins it, whoever is leaves it, from any place."""
        locks: Locks[int] = Locks()
        model: dict[str, list[int]] = {"a": [], "b": []}
        for name, who in steps:
            line = model[name]
            if who not in line:
                line.append(who)
                self.assertEqual(locks.join(name, who), line == [who])
            else:
                had_it = line[0] == who
                line.remove(who)
                expected = line[0] if had_it and line else None
                self.assertEqual(locks.leave(name, who), expected)
            self.assertEqual([locks.is_taken(n) for n in "ab"], [bool(model[n]) for n in "ab"])

    def test_nothing_is_kept(self) -> None:
        """Names come from the procedures file, and a line that has ended is forgotten."""
        locks: Locks[int] = Locks()
        for number in range(3):
            locks.join(str(number), number)
            locks.leave(str(number), number)
        self.assertEqual(locks._lines, {})
