"""Tests with the inputs that a fuzzer found worth keeping, see ``tests.fuzz``."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tests.fuzz.targets import TARGETS, samples


class CorpusTests(SynchronousTestCase):
    """What was once found stays mended."""

    def test_all(self) -> None:
        """Each input of each target keeps to the target's properties."""
        for name, target in TARGETS.items():
            inputs = samples(name)
            self.assertTrue(inputs, name)
            for data in inputs:
                try:
                    target(data)
                except Exception as error:
                    raise AssertionError(f"{name}: {data!r}") from error
