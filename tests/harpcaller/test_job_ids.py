"""Tests of ``harpcaller.job_ids``."""

from __future__ import annotations

import uuid

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from harpcaller.job_ids import JobIds


class JobIdsTests(SynchronousTestCase):
    """Ids are UUIDs that sort by time and can't be guessed."""

    @given(st.floats(0, 2**36), st.binary(min_size=10, max_size=10))
    def test_layout(self, now: float, chance: bytes) -> None:
        """Version, variant and time stand where RFC 9562 has them, whatever is random."""
        text = JobIds(lambda _: chance).new(now)
        found = uuid.UUID(text)
        self.assertEqual((str(found), found.version, found.variant), (text, 7, uuid.RFC_4122))
        self.assertEqual(found.int >> 80, int(now * 1000))

    def test_order(self) -> None:
        """The one of a later millisecond comes later."""
        ids = JobIds()
        made = [ids.new(1_700_000_000 + number / 1000) for number in range(1000)]
        self.assertEqual(made, sorted(made))

    def test_random(self) -> None:
        """Those of one moment differ, and each of their 74 bits does."""
        ids = JobIds()
        made = [uuid.UUID(ids.new(1.0)).int for _ in range(2000)]
        self.assertEqual(len(set(made)), 2000)
        differing = 0
        for other in made:
            differing |= other ^ made[0]
        self.assertEqual(differing, 0xFFF << 64 | (1 << 62) - 1)
