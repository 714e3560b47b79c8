"""Reads one section of a configuration for the tests of what is configured in it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from harp.settings import ConfigError, Section, read
from harpd.auth.passwords import PasswordTable


class AuthenticationTestCase(SynchronousTestCase):
    """Loads an authentication module with the text of its section."""

    load: Callable[[Section], PasswordTable]

    def table(self, text: str) -> PasswordTable:
        """Return the users of a section without mistakes."""
        file = Path(self.mktemp())
        file.write_text(text, "utf-8")
        with read(file) as section:
            return type(self).load(section)

    def mistakes(self, text: str) -> list[str]:
        """Return what is said about a section, without the configuration file's name."""
        found = self.assertRaises(ConfigError, self.table, text).mistakes
        return [mistake.partition(": ")[2] for mistake in found]
