"""Tests of harpd.options, as the catalogue says the mistakes of a procedures file."""

from __future__ import annotations

import math
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from harpd.options import LEAST, Defaults, common_mistakes, option_mistakes
from harpd.proc import Procedure


def mistakes(**options: Any) -> list[str]:
    """Return what is wrong with options."""
    return list(option_mistakes(Procedure(None, **options)))


class MistakeTests(SynchronousTestCase):
    """What can't be meant is refused when the procedures are loaded."""

    def test_limits(self) -> None:
        """A limit is a whole number with which a call can begin, or infinite."""
        for name, least in LEAST.items():
            self.assertEqual(mistakes(**{name: least}), [])
            self.assertEqual(mistakes(**{name: math.inf}), [])
            for wrong in (least - 1, float(least), True, "many", 2**64):
                expected = f"{name} must be a whole number from {least}, not {wrong!r}"
                self.assertEqual(mistakes(**{name: wrong}), [expected])

    def test_place(self) -> None:
        """A umask has nine bits, a directory is an absolute path."""
        self.assertEqual(mistakes(umask=0, directory="/srv"), [])
        self.assertEqual(mistakes(umask=0o777), [])
        for wrong in (-1, 0o1000, "022", True):
            self.assertIn("umask must be a number from 0 to 0o777", mistakes(umask=wrong)[0])
        for bad in ("srv", "", "/a\0b", 3):
            self.assertIn("directory must be an absolute path", mistakes(directory=bad)[0])

    def test_environment(self) -> None:
        """Names and values are texts that an environment can have; values are never shown."""
        self.assertEqual(mistakes(environment={"A": "", "B": "x=y"}), [])
        for wrong, why in [
            ({"A": 1}, "environment: A must be a text"),
            ({"A": "secret\0"}, "environment: A must be a text"),
            ({"A=B": "secret"}, "environment can't have a variable with the name 'A=B'"),
            ({"": "secret"}, "environment can't have a variable with the name ''"),
            (["A"], "environment must be a mapping of names to texts"),
        ]:
            self.assertEqual(mistakes(environment=wrong), [why])

    def test_defaults(self) -> None:
        """The same holds for what is configured."""
        defaults = Defaults(cpu=0, directory="here")
        self.assertEqual(len(list(common_mistakes(defaults))), 2)
        self.assertEqual(list(common_mistakes(Defaults(cpu=5, umask=0o27))), [])
