"""The ``harp`` command itself. A command's module is loaded when the command is called."""

from __future__ import annotations

from importlib import import_module

import click

_COMMANDS = ("demo", "token", "trust")
"""Each is a function of this name, in the module of this name."""


class _Commands(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all commands."""
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Load a command; None if there is none of that name."""
        if cmd_name not in _COMMANDS:
            return None
        found = getattr(import_module(f"harp.cli.{cmd_name}"), cmd_name)
        assert isinstance(found, click.Command)
        return found


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
def harp() -> None:
    """Work with HarpCaller: its dispatcher and its daemons."""
