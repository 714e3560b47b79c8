"""With what status the ``harp`` command ends, and how it says that something failed.

Where it was called wrongly, click says so itself and ends it with 2.
"""

from __future__ import annotations

import click


class Failure(click.ClickException):
    """Ends the command with a text on standard error: it could not do what was asked."""

    exit_code = 1


class Unreachable(Failure):
    """Ends the command: a daemon can't be reached."""

    exit_code = 6


def escaped(text: str) -> str:
    """Return foreign text as a terminal can be given it: without what it would obey."""
    return "".join(
        each if each.isprintable() else each.encode("unicode_escape").decode() for each in text
    )
