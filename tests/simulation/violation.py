"""How the simulation says that a promise was broken."""

from __future__ import annotations


class Violation(Exception):
    """A promise was broken."""
