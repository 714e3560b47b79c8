"""Makes the reference of a click command from its own help."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator

import click


def markdown(command: click.Command, name: str) -> str:
    """Return usage, help and options of a command, and of each command below it."""
    with click.Context(command, info_name=name) as context:
        return "\n\n".join(_command(command, context))


def _command(command: click.Command, context: click.Context) -> Iterator[str]:
    if context.parent is not None:
        yield f"### {context.command_path}"
    yield _code(f"{context.command_path} {' '.join(command.collect_usage_pieces(context))}")
    yield from _help(command.help or "")
    yield from _options(command, context)
    yield from _help(command.epilog or "")
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            if below is not None and not below.hidden:
                with click.Context(below, info_name=name, parent=context) as own:
                    yield from _command(below, own)


def _options(command: click.Command, context: click.Context) -> Iterator[str]:
    rows = [
        row
        for parameter in command.get_params(context)
        if parameter.name not in _COMMON or (context.parent is None and parameter.name != _HELP)
        if (row := parameter.get_help_record(context)) is not None and row[1]
    ]
    yield "\n".join(f"`{options}`\n: {_text(text)}\n" for options, text in rows)


_HELP = "_click_default_help"
_COMMON = {_HELP, "dispatcher", "profile", "as_json"}
"""What every command has, and is told once."""


def _help(text: str) -> Iterator[str]:
    for paragraph in re.split(r"\n\s*\n", inspect.cleandoc(text)):
        if paragraph.startswith("\b"):
            yield _code(paragraph[1:].strip("\n"))
        else:
            yield _text(" ".join(paragraph.split()))


def _text(text: str) -> str:
    return re.sub(r"([*_<>\[\]`\\#])", r"\\\1", text)


def _code(text: str) -> str:
    return f"```text\n{text}\n```"
